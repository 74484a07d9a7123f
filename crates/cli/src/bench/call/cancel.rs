//! How long it takes until a handler sees that its call was cancelled.

use anyhow::{Context, ensure};
use librpc::{Client, Domain, Node, Wait};
use rustix::time::{ClockId, clock_gettime};

use super::{LIMIT, repeat};
use crate::bench::options::{Common, Share};
use crate::bench::times::Times;
use crate::bench::{Bench, Part, child::on_cpu};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;

/// The clock that both processes share.
fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Each call is cancelled once its handler is at work. The next one learns when that was seen.
pub(super) fn round(bench: &Bench, common: &Common, domain: &Domain, share: Share) -> anyhow::Result<Times> {
    let node = Node::builder("caller").domain(domain.clone()).open()?;
    let client = node.client_builder("work").wait(Wait::Spin).open()?;
    let (ours, theirs) = common.cpus();
    let _server = bench.start(domain, &[Part::ServeCancelled { cpu: theirs }])?;
    on_cpu(ours, || {
        let (mut times, mut cancelled) = (Times::new(), None);
        repeat(share, || {
            bench.check()?;
            let seen = begin_and_cancel(&client, &mut cancelled)?;
            seen.into_iter().for_each(|ns| times.record(ns));
            Ok(())
        })?;
        Ok(times)
    })
}

/// How long it took until the call before was seen to be cancelled, if there was one.
fn begin_and_cancel(client: &Client, cancelled: &mut Option<u64>) -> anyhow::Result<Option<u64>> {
    let mut replies = client.call_stream(b"", LIMIT)?;
    let part = replies.next().context("a handler has ended its reply")??;
    let seen = u64::from_le_bytes(part[..].try_into()?);
    let took = cancelled.map(|at| seen.saturating_sub(at));
    *cancelled = Some(now_ns());
    drop(replies);
    Ok(took)
}

/// The process at the other end: its handler says when it has seen the cancelling before, and waits for the next one.
pub(in crate::bench) fn serve(domain: &DomainArgs, cpu: Option<usize>, interrupt: &Interrupt) -> anyhow::Result<()> {
    let mut seen = 0;
    super::serve_each(domain, ("work", Wait::Spin, cpu), interrupt, |request| {
        let mut parts = request.stream();
        ensure!(parts.try_send(&u64::to_le_bytes(seen))?, "the first part has no room");
        while !parts.is_cancelled() {
            std::hint::spin_loop();
        }
        seen = now_ns();
        Ok(())
    })
}
