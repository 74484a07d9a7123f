//! `librpc bench connect`: from before a node is opened to the arrival of its first message, between two processes.
//!
//! The limit is what the kernel takes at least for connecting and passing memory, taking turns in the same process: a
//! socket is connected and accepted, each side makes a sealed memfd and passes it on, and maps two regions (anonymous ones
//! stand in for the memfds: mapping these needs unsafe code, which this crate has none of).

use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::Node;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::Serialize;

use super::part::{ready, spinning};
use super::{Bench, Part, median, print, quantile, ratio};
use crate::children::Report;
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::readable;
use crate::payload::now_ns;

const RING_BYTES: u64 = 256 * 1024;
/// Always mapped, and never touched: no allocator keeps as much for itself.
const MAPPED_BYTES: usize = 64 << 20;

/// Joining, connecting and the first message, between two processes
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  librpc bench connect --count 100 --json")]
pub(crate) struct Args {
    /// How many times
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// One object: bench, count, p50_ns, p99_ns, max_ns, limit_ns, ratio
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Connected {
    bench: &'static str,
    count: usize,
    p50_ns: u64,
    p99_ns: u64,
    max_ns: u64,
    /// The median of the bare system calls.
    limit_ns: u64,
    ratio: f64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("connect");
    let node = Node::builder("receiver").domain(domain.clone()).open()?;
    let mut inbox = spinning(&node, &bench.interrupt)?;
    let count = args.count as usize;
    let mut connecting = bench.start(&domain, &[Part::Connect { to: "receiver".into(), count }])?;
    let mut times = Vec::with_capacity(count);
    while times.len() < count {
        let Some(message) = inbox.recv_timeout(Duration::from_secs(10))? else { bail!("no message came") };
        let arrived = now_ns();
        let sent = message.payload().try_into().map(u64::from_le_bytes).context("a message without a time")?;
        times.push(arrived.saturating_sub(sent));
    }
    drop(inbox); // acknowledges the last one
    let mut limits: Vec<u64> = match connecting.next(Duration::from_secs(10)) {
        Some((_, Report::Line(line))) => serde_json::from_str(&line).context("times are expected")?,
        other => bail!("the connecting process has not reported: {other:?}"),
    };
    drop(connecting);
    drop(node);
    times.sort_unstable();
    let (p50_ns, limit_ns) = (quantile(&times, 0.5), median(&mut limits));
    let connected = Connected {
        bench: "connect",
        count,
        p50_ns,
        p99_ns: quantile(&times, 0.99),
        max_ns: quantile(&times, 1.0),
        limit_ns,
        ratio: ratio(p50_ns, limit_ns),
    };
    print(args.json, &connected, || {
        let Connected { p50_ns, p99_ns, max_ns, limit_ns, ratio, .. } = connected;
        format!(
            "join, connect and first message: p50 {}, p99 {}, max {}; the bare system calls {} ({ratio} ×)",
            readable(p50_ns),
            readable(p99_ns),
            readable(max_ns),
            readable(limit_ns)
        )
    })
}

/// The process that connects: reports the times of the bare system calls at its end.
pub(super) fn rounds(domain: &DomainArgs, to: &str, count: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
    let place = domain.domain()?;
    ready()?;
    let mut limits = Vec::with_capacity(count);
    for _ in 0..count {
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        let begun = now_ns();
        let node = Node::builder("connecting").domain(place.clone()).open()?;
        let mut sender = node.sender(to)?;
        sender.send(&begun.to_le_bytes())?;
        // The last one is acknowledged when the receiver's inbox is closed.
        let _ = sender.flush(Duration::from_millis(5));
        drop(sender);
        drop(node);
        limits.push(bare()?);
    }
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&limits)?)?;
    Ok(())
}

/// The bare system calls, between two threads.
fn bare() -> anyhow::Result<u64> {
    let address = SocketAddrUnix::new_abstract_name(unique_id("librpc-bench")?.as_bytes())?;
    let socket = || rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    let listener = socket()?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 1)?;
    std::thread::scope(|scope| {
        let accepting = scope.spawn(|| -> anyhow::Result<()> {
            let accepted = rustix::net::accept_with(&listener, SocketFlags::CLOEXEC)?;
            let _theirs = receive(&accepted)?;
            pass(&accepted, &sealed(4096)?)?;
            let _mapped = vec![0u8; MAPPED_BYTES];
            Ok(())
        });
        let begun = Instant::now();
        let connected = socket()?;
        rustix::net::connect(&connected, &address)?;
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

fn pass(socket: &OwnedFd, memfd: &OwnedFd) -> anyhow::Result<()> {
    let descriptors: [BorrowedFd<'_>; 1] = [memfd.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    anyhow::ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "no room for a descriptor");
    rustix::net::sendmsg(socket, &[IoSlice::new(b"m")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(socket: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
        _ => None,
    });
    descriptors.flatten().next().context("no descriptor came")
}
