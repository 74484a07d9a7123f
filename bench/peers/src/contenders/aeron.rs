//! Aeron over its IPC channel: an exclusive publication and a subscription for each direction. A message is claimed,
//! written in place and committed, and read in place.
//!
//! The media driver runs in a process of its own, as is customary, with all its work on one thread that is not pinned.
//! On two cores it competes with the two polling processes, but it must run now and then, because it limits how far a
//! publisher may get ahead. So terms are long: 64 MiB, the default, allocated and touched beforehand, which reduces p99
//! from 2 µs to 0.2 µs. The driver idles in the way that was best for each measure: it backs off (the default) for
//! latency, and sleeps for a millisecond for throughput. Aeron's subscribers poll, so it takes no part where the
//! receiver sleeps.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use anyhow::anyhow;
use rusteron_client::{
    AERON_IPC_STREAM, Aeron as Client, AeronContext, AeronExclusivePublication, AeronImage, AeronSubscription, Handlers,
};
use rusteron_media_driver::{AeronDriver, AeronDriverContext, bindings};

use crate::contender::{Contender, Job, Measure, eventually};
use crate::payload;

const TERM_BYTES: usize = 64 << 20;
/// One poll hands out at most this many messages.
const FRAGMENTS: usize = 64;
const ANSWER: Duration = Duration::from_secs(10);

pub(crate) struct Aeron {
    publication: AeronExclusivePublication,
    image: AeronImage,
    bytes: usize,
    _subscription: AeronSubscription,
    _client: Client,
}

fn folder(place: &Path) -> anyhow::Result<CString> {
    Ok(CString::new(place.join("aeron").as_os_str().as_bytes())?)
}

/// Runs the media driver until `over`. Calls `ready` when clients may connect.
pub(crate) fn drive(
    place: &Path,
    measure: Measure,
    ready: impl FnOnce() -> anyhow::Result<()>,
    over: impl FnOnce(),
) -> anyhow::Result<()> {
    let context = AeronDriverContext::new()?;
    context.set_dir(&folder(place)?)?;
    context.set_dir_delete_on_shutdown(true)?;
    context.set_threading_mode(bindings::aeron_threading_mode_enum::AERON_THREADING_MODE_SHARED)?;
    let (idle, sleep) = match measure {
        Measure::Throughput => (c"sleep-ns", c"1ms"),
        _ => (c"backoff", c""),
    };
    context.set_shared_idle_strategy(idle)?;
    if !sleep.is_empty() {
        context.set_shared_idle_strategy_init_args(sleep)?;
    }
    context.set_ipc_term_buffer_length(TERM_BYTES)?;
    context.set_term_buffer_sparse_file(false)?;
    let driver = AeronDriver::new(&context)?;
    driver.start(false)?;
    ready()?;
    over();
    Ok(())
}

impl Contender for Aeron {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let context = AeronContext::new()?;
        context.set_dir(&folder(&job.place)?)?;
        context.set_pre_touch_mapped_memory(true)?;
        let client = Client::new(&context)?;
        client.start()?;
        let (theirs, ours) = job.directions(1002, 1001);
        let publication = client.async_add_exclusive_publication(AERON_IPC_STREAM, theirs)?.poll_blocking(ANSWER)?;
        let subscription = client
            .async_add_subscription(AERON_IPC_STREAM, ours, Handlers::NONE, Handlers::NONE)?
            .poll_blocking(ANSWER)?;
        let image = eventually("the other side does not come", || match publication.is_connected() {
            true => subscription.image_at_index(0).ok_or_else(|| anyhow!("no image")),
            false => Err(anyhow!("no subscriber")),
        })?;
        Ok(Self { publication, image, bytes: job.bytes, _subscription: subscription, _client: client })
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        let mut claim = loop {
            match self.publication.try_claim_owned(self.bytes) {
                Ok(claim) => break claim,
                Err(error) if error.is_retryable() => std::hint::spin_loop(),
                Err(error) => return Err(error.into()),
            }
        };
        payload::write(number, claim.data());
        claim.commit()?;
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        self.image.poll_fn(|message, _| take(message), FRAGMENTS)?;
        Ok(())
    }
}
