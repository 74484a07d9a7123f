//! iceoryx2: publish and subscribe, one service for each direction. A message is loaned, written in place and sent.
//!
//! Nothing is lost: overflow is off, and a publisher waits while the subscriber's buffer is full. The buffer holds 2
//! messages for latency (a few blocks stay in the cache) and 256 for throughput, but at most 64 MiB of large ones, which is
//! what librpc lets wait. There is one publisher and one
//! subscriber, and at most two nodes. A sleeping receiver waits for an event, with which the sender notifies it after
//! each message. All files are in the measurement's own directory; those that must be elsewhere carry its name.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, anyhow};
use iceoryx2::port::listener::Listener;
use iceoryx2::port::notifier::Notifier;
use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::sample::Sample;
use iceoryx2::sample_mut::SampleMut;

use crate::contender::{Contender, Job, Measure, Side, eventually};
use crate::payload;

pub(crate) struct Iceoryx2 {
    publisher: Publisher<ipc::Service, [u8], ()>,
    subscriber: Subscriber<ipc::Service, [u8], ()>,
    /// Wakes the other side, and this side.
    bells: Option<(Notifier<ipc::Service>, Listener<ipc::Service>)>,
    bytes: usize,
    prepared: Option<SampleMut<ipc::Service, [u8], ()>>,
    taken: Option<Sample<ipc::Service, [u8], ()>>,
    _node: Node<ipc::Service>,
}

/// At most this many bytes wait for their receiver.
const WAITING_BYTES: usize = 64 << 20;

/// Not all of its errors can be converted into errors of `anyhow`.
pub(crate) fn words(error: impl Debug) -> anyhow::Error {
    anyhow!("iceoryx2: {error:?}")
}

impl Iceoryx2 {
    /// A subscriber is attached by its first receive. Until then, messages that do not fit into its buffer are dropped
    /// even without overflow. So both sides must receive something before measuring begins: A greets, and B answers.
    fn greet(&mut self, side: Side) -> anyhow::Result<()> {
        if side == Side::A {
            self.send(0)?;
        }
        eventually("no greeting", || self.subscriber.receive().map_err(words)?.ok_or_else(|| anyhow!("nothing came")))?;
        if side == Side::B {
            self.send(0)?;
        }
        Ok(())
    }
}

impl Iceoryx2 {
    /// A message, written in place.
    #[inline]
    fn write(&mut self, number: u64) -> anyhow::Result<SampleMut<ipc::Service, [u8], ()>> {
        let mut sample = self.publisher.loan_slice_uninit(self.bytes).map_err(words)?;
        let message = sample.payload_mut();
        // SAFETY: bytes that are written only, all of them, before the sample is said to be complete.
        let message = unsafe { std::slice::from_raw_parts_mut(message.as_mut_ptr().cast::<u8>(), message.len()) };
        payload::write(number, message);
        // SAFETY: `write` has written every byte.
        Ok(unsafe { sample.assume_init() })
    }
}

/// A node, all of whose files are in the measurement's directory, or carry its name.
pub(crate) fn node(job: &Job) -> anyhow::Result<Node<ipc::Service>> {
    set_log_level(LogLevel::Fatal);
    let place = job.place.to_str().ok_or_else(|| anyhow!("a place without a name"))?;
    let mut config = Config::default();
    config.global.set_root_path(&Path::new(place.as_bytes()).map_err(words)?);
    let prefix = crate::place::prefix_of(&job.place);
    config.global.prefix = FileName::new(prefix.as_bytes()).map_err(words)?;
    let node = NodeBuilder::new().config(&config).signal_handling_mode(SignalHandlingMode::Disabled);
    node.create::<ipc::Service>().map_err(words)
}

/// What wakes the other side, and this side.
pub(crate) fn bells(
    job: &Job,
    node: &Node<ipc::Service>,
) -> anyhow::Result<(Notifier<ipc::Service>, Listener<ipc::Service>)> {
    let event = |name: &str| {
        let name = ServiceName::new(name).map_err(words)?;
        node.service_builder(&name).event().open_or_create().map_err(words)
    };
    let (theirs, ours) = job.directions("bell-b", "bell-a");
    let (theirs, ours) = (eventually("no event", || event(theirs))?, eventually("no event", || event(ours))?);
    let listener = ours.listener_builder().create().map_err(words)?;
    eventually("no listener", || match theirs.dynamic_config().number_of_listeners() {
        0 => Err(anyhow!("it is not there")),
        _ => Ok(()),
    })?;
    Ok((theirs.notifier_builder().create().map_err(words)?, listener))
}

impl Contender for Iceoryx2 {
    fn open(job: &Job) -> anyhow::Result<Self> {
        let node = node(job)?;

        let buffer = if job.measure == Measure::Throughput { (WAITING_BYTES / job.bytes).clamp(2, 256) } else { 2 };
        let service = |name: &str| {
            let name = ServiceName::new(name).map_err(words)?;
            node.service_builder(&name)
                .publish_subscribe::<[u8]>()
                .payload_alignment(Alignment::new(8).expect("a power of two"))
                .enable_safe_overflow(false)
                .subscriber_max_buffer_size(buffer)
                .subscriber_max_borrowed_samples(2)
                .history_size(0)
                .max_publishers(1)
                .max_subscribers(1)
                .max_nodes(2)
                .open_or_create()
                .map_err(words)
        };
        let (theirs, ours) = job.directions("to-b", "to-a");
        let (theirs, ours) =
            (eventually("no service", || service(theirs))?, eventually("no service", || service(ours))?);
        let subscriber = ours.subscriber_builder().create().map_err(words)?;
        let publisher = theirs
            .publisher_builder()
            .initial_max_slice_len(job.bytes)
            .max_loaned_samples(1)
            .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
            .create()
            .map_err(words)?;

        let bells = if job.sleeps() { Some(bells(job, &node)?) } else { None };
        let met =
            || match (theirs.dynamic_config().number_of_subscribers(), ours.dynamic_config().number_of_publishers()) {
                (1, 1) => Ok(()),
                _ => Err(anyhow!("it is not there")),
            };
        eventually("the other side does not come", met)?;
        let (bytes, prepared, taken) = (job.bytes, None, None);
        let mut iceoryx2 = Self { publisher, subscriber, bells, bytes, prepared, taken, _node: node };
        iceoryx2.greet(job.side)?;
        Ok(iceoryx2)
    }

    #[inline]
    fn send(&mut self, number: u64) -> anyhow::Result<()> {
        self.write(number)?.send().map_err(words)?;
        if let Some((notifier, _)) = &self.bells {
            notifier.notify().map_err(words)?;
        }
        Ok(())
    }

    #[inline]
    fn receive(&mut self, take: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        if let Some((_, listener)) = &self.bells {
            listener.timed_wait(|_| {}, Duration::from_secs(1)).map_err(words)?;
        }
        while let Some(sample) = self.subscriber.receive().map_err(words)? {
            take(sample.payload());
            if self.bells.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn prepare(&mut self, number: u64) -> anyhow::Result<()> {
        self.prepared = Some(self.write(number)?);
        Ok(())
    }

    fn hand_over(&mut self) -> anyhow::Result<()> {
        let sample = self.prepared.take().context("no message is prepared")?;
        sample.send().map_err(words).map(drop)
    }

    fn take(&mut self) -> anyhow::Result<bool> {
        self.taken = self.subscriber.receive().map_err(words)?;
        Ok(self.taken.is_some())
    }

    fn read(&mut self, read: &mut impl FnMut(&[u8])) -> anyhow::Result<()> {
        read(self.taken.take().context("no message was taken")?.payload());
        Ok(())
    }
}
