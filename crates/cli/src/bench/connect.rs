//! `librpc bench connect`: from before a node is opened to the arrival of its first message, between two processes.
//!
//! The limit is the least that the kernel takes for connecting and passing memory, measured in turn in the same process: a
//! socket is connected and accepted, each side makes a sealed memfd and passes it on, and maps two regions. (The regions are
//! anonymous: mapping the memfds needs unsafe code, and this crate has none.)

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use librpc::{Domain, Node, Wait};
use rustix::fs::{MemfdFlags, SealFlags};
use serde::Serialize;

use super::child::{self, on_cpu, pin, ready};
use super::descriptors::{accept, connect, listen, pass, receive};
use super::end::{self, To, Via};
use super::options::{Common, Percentiles, Share, TIMED_SIZES, Way};
use super::progress::Progress;
use super::times::Times;
use super::{Bench, Part, content, median, ratio};
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::{Latency, readable};
use crate::payload::now_ns;

const RING_BYTES: u64 = 256 * 1024;
/// Mapped, and never touched: more than any allocator keeps for itself.
const MAPPED_BYTES: usize = 64 << 20;
/// How often, unless the user says how often or how long.
const COUNT: u64 = 100;

/// Joining, connecting and the first message, between two processes
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench connect --count 100 --json
  librpc bench connect --count 1000 --hgrm connect.hgrm")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    way: Way,
    #[command(flatten)]
    percentiles: Percentiles,
}

#[derive(Serialize)]
struct Connected {
    size: usize,
    via: Via,
    #[serde(flatten)]
    latency: Latency,
    /// The median of the bare system calls.
    limit_ns: u64,
    ratio: f64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let (common, via) = (&args.common, args.way.via);
    let (ours, theirs) = common.cpus();
    let domain = bench.domain("connect");
    let sizes = common.sizes(TIMED_SIZES)?;
    let whole = match (common.count, common.seconds) {
        (None, None) => Share::Count(COUNT),
        _ => common.whole(),
    };
    let count = match whole {
        Share::Count(count) => Some(count),
        Share::Time(_) => None,
    };
    for &size in &sizes {
        let node = Node::builder("receiver").domain(domain.clone()).open()?;
        let mut inbox = end::inbox(&node, via, Wait::Spin, librpc::DEFAULT_CAPACITY, &bench.interrupt)?;
        let progress = Progress::new(format!("connect, {size} bytes"), count.unwrap_or(0));
        let connecting = Part::Connect { to: "receiver".into(), via, size, count, cpu: theirs };
        let mut connecting = bench.start(&domain, &[connecting])?;
        let times = on_cpu(ours, || {
            let (mut times, begun) = (Times::new(), Instant::now());
            while times.count() == 0 || !whole.is_used_up(begun.elapsed(), times.count()) {
                let message = inbox.recv_timeout(Duration::from_secs(10))?.context("no message came")?;
                let arrived = now_ns();
                let sent = content::number(message.payload()).context("a message came that is not what was sent")?;
                times.record(arrived.saturating_sub(sent));
                progress.step();
            }
            Ok(times)
        })?;
        drop((inbox, progress)); // acknowledges the last one
        let mut limits: Vec<u64> = bench.report(&mut connecting)?;
        drop(connecting);
        drop(node);
        args.percentiles.write(&times, (sizes.len() > 1).then_some(&size))?;
        let limit_ns = median(&mut limits);
        let latency = times.latency();
        let connected = Connected { size, via, latency, limit_ns, ratio: ratio(latency.p50_ns, limit_ns) };
        bench.print(common.json, "connect", common.pin(), &connected, || {
            let Latency { p50_ns, p99_ns, max_ns, .. } = latency;
            let [p50, p99, max, limit] = [p50_ns, p99_ns, max_ns, limit_ns].map(readable);
            let ratio = connected.ratio;
            format!(
                "join, connect and first message: p50 {p50}, p99 {p99}, max {max}; the bare system calls {limit} \
                 ({ratio} ×)"
            )
        })?;
    }
    Ok(())
}

/// The process that connects, this many times or until it is asked to leave. At its end it reports the times of the bare
/// system calls.
pub(super) fn rounds(
    domain: &DomainArgs,
    (to, via): (&str, Via),
    (size, count): (usize, Option<u64>),
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let place = domain.domain()?;
    pin(cpu)?; // and with it the library's own thread, which comes and goes with each node
    ready()?;
    let mut limits = Vec::new();
    let mut message = vec![0; size];
    while interrupt.signal().is_none() && count.is_none_or(|count| (limits.len() as u64) < count) {
        match once(&place, (to, via), &mut message, interrupt) {
            Ok(()) => limits.push(bare()?),
            Err(error) => {
                // When it is asked to leave, the receiver may have left before it.
                interrupt.wait_for(Duration::from_secs(1))?;
                return if interrupt.signal().is_some() { child::report(&limits) } else { Err(error) };
            }
        }
    }
    interrupt.wait()?;
    child::report(&limits)
}

/// Joins, connects, and sends a first message.
fn once(domain: &Domain, (to, via): (&str, Via), message: &mut [u8], interrupt: &Interrupt) -> anyhow::Result<()> {
    let begun = now_ns();
    let node = Node::builder("connecting").domain(domain.clone()).open()?;
    let mut to = To::open(&node, to, via, interrupt)?;
    content::write(message, begun);
    to.send(message)?;
    // Until the receiver has answered, the message needs its sender. The last message is acknowledged when the receiver's
    // inbox is closed.
    to.settle();
    Ok(())
}

/// The bare system calls, between two threads.
fn bare() -> anyhow::Result<u64> {
    let name = unique_id("librpc-bench")?;
    let listener = listen(&name)?;
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| -> anyhow::Result<()> {
            let accepted = accept(&listener)?;
            let _theirs = receive(&accepted)?;
            pass(&accepted, &sealed(4096)?)?;
            let _mapped = vec![0u8; MAPPED_BYTES];
            Ok(())
        });
        let begun = Instant::now();
        let connected = connect(&name)?;
        pass(&connected, &sealed(RING_BYTES)?)?;
        let _mapped = vec![0u8; MAPPED_BYTES];
        let _theirs = receive(&connected)?;
        let time = begun.elapsed().as_nanos() as u64;
        accepting.join().expect("no panic")?;
        Ok(time)
    })
}

fn sealed(bytes: u64) -> anyhow::Result<OwnedFd> {
    let memfd = rustix::fs::memfd_create("bench", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&memfd, bytes)?;
    rustix::io::pwrite(&memfd, &[1], 0)?;
    rustix::fs::fcntl_add_seals(
        &memfd,
        SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL,
    )?;
    Ok(memfd)
}
