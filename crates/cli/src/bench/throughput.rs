//! `librpc bench throughput`: messages in one direction, as fast as they go, until all are processed.
//!
//! The limit is what one thread copies, in pieces of the same size.

use std::hint::black_box;
use std::time::{Duration, Instant};

use librpc::Node;
use serde::Serialize;

use super::latency::Common;
use super::part::pin;
use super::{Bench, Part, print};
use crate::latency::grouped;
use crate::outcome::Usage;

const BETWEEN_LOOKS: u64 = 256;
const RING_BYTES: usize = 256 * 1024;

/// Messages and bytes a second in one direction, between two processes
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  librpc bench throughput --size 256 --seconds 5 --pin 0,1 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    /// How many messages, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    count: Option<u64>,
}

#[derive(Serialize)]
struct Measured {
    bench: &'static str,
    size: usize,
    count: u64,
    msgs_per_s: f64,
    bytes_per_s: f64,
    limit_bytes_per_s: f64,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let Common { size, seconds, pin: cpus, json } = args.common;
    let time = crate::duplex::seconds(seconds)?;
    let domain = bench.domain("throughput");
    let sink = bench.start(&domain, &[Part::Sink { node: "sink".into(), cpu: cpus.map(|cpus| cpus.1) }])?;
    let node = Node::builder("source").domain(domain).open()?;
    let mut sender = node.sender("sink")?;
    pin(cpus.map(|cpus| cpus.0))?; // after the library's own thread was started
    let message = vec![7; size];
    let (begun, mut sent) = (Instant::now(), 0);
    while args.count.map_or_else(|| begun.elapsed() < time, |count| sent < count) {
        let now = args.count.map_or(BETWEEN_LOOKS, |count| (count - sent).min(BETWEEN_LOOKS));
        for _ in 0..now {
            match sender.send(&message) {
                Ok(()) => {}
                Err(error @ librpc::SendError::TooLarge { .. }) => return Err(Usage(error.to_string()).into()),
                Err(error) => return Err(error.into()),
            }
        }
        sent += now;
        bench.check()?;
    }
    sender.flush(Duration::from_secs(10))?;
    let took = begun.elapsed().as_secs_f64();
    drop((sender, sink));
    drop(node);
    let msgs_per_s = (sent as f64 / took).round();
    let measured = Measured {
        bench: "throughput",
        size,
        count: sent,
        msgs_per_s,
        bytes_per_s: (sent as f64 * size as f64 / took).round(),
        limit_bytes_per_s: copied_per_second(size),
    };
    print(json, &measured, || {
        let [messages, bytes, limit] =
            [measured.msgs_per_s, measured.bytes_per_s, measured.limit_bytes_per_s].map(|rate| grouped(rate as u64));
        format!("{size} bytes: {messages} messages/s, {bytes} bytes/s; one thread copies {limit} bytes/s")
    })
}

/// Bytes that one thread copies in a second, from one buffer of a ring's size to another.
fn copied_per_second(size: usize) -> f64 {
    let size = size.clamp(1, RING_BYTES);
    let (from, mut to) = (vec![7u8; RING_BYTES], vec![0u8; RING_BYTES]);
    let (begun, mut copied) = (Instant::now(), 0usize);
    while begun.elapsed() < Duration::from_millis(200) {
        for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
            to.copy_from_slice(black_box(from));
        }
        black_box(&mut to);
        copied += RING_BYTES / size * size;
    }
    (copied as f64 / begun.elapsed().as_secs_f64()).round()
}
