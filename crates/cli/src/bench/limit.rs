//! What the machine can do at best: a cache line from core to core, and copying. (The limit of waking is in `eventfd.rs`.)

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::child::pin;
use super::times::Times;

/// How much is copied: as much as a ring holds.
const COPIED_BYTES: usize = 256 * 1024;
const COPYING: Duration = Duration::from_millis(50);
/// The measurement ends when the first of both is reached.
const LINE_ROUNDS: u64 = 100_000;
const LINE_TIME: Duration = Duration::from_millis(50);

#[repr(align(256))]
struct Line(AtomicU64);

/// The median time in ns that a cache line takes from one CPU to the other: half of a round trip between two threads.
pub(super) fn cache_line(cpus: (Option<usize>, Option<usize>)) -> anyhow::Result<u64> {
    let (there, back) = (Line(AtomicU64::new(0)), Line(AtomicU64::new(0)));
    let over = AtomicBool::new(false);
    let is_over = || over.load(Ordering::Relaxed); // carries nothing but itself
    let answer = || -> anyhow::Result<()> {
        pin(cpus.1).inspect_err(|_| over.store(true, Ordering::Relaxed))?;
        let mut seen = 0;
        while !is_over() {
            let now = there.0.load(Ordering::Acquire); // pairs with the Release in `ask`
            if now != seen {
                seen = now;
                back.0.store(now, Ordering::Release); // pairs with the Acquire in `ask`
            }
            std::hint::spin_loop();
        }
        Ok(())
    };
    let ask = || -> anyhow::Result<u64> {
        let pinned = pin(cpus.0).inspect_err(|_| over.store(true, Ordering::Relaxed));
        let mut times = Times::new();
        let begun = Instant::now();
        let mut now = begun;
        for round in 1..=LINE_ROUNDS {
            there.0.store(round, Ordering::Release); // pairs with the Acquire in `answer`
            // The Acquire pairs with the Release in `answer`.
            while back.0.load(Ordering::Acquire) != round && !is_over() {
                std::hint::spin_loop();
            }
            let before = std::mem::replace(&mut now, Instant::now());
            times.record((now - before).as_nanos() as u64 / 2);
            if is_over() || now - begun >= LINE_TIME {
                break;
            }
        }
        over.store(true, Ordering::Relaxed);
        pinned.map(|()| times.median())
    };
    std::thread::scope(|scope| {
        let (answering, asking) = (scope.spawn(answer), scope.spawn(ask));
        answering.join().expect("no panic")?;
        asking.join().expect("no panic")
    })
}

/// How many pieces of a size one thread copies per second, between two buffers of a ring's size.
pub(super) fn copies_per_second(size: usize) -> f64 {
    pieces_per_second(size.clamp(1, COPIED_BYTES), COPIED_BYTES)
}

/// The same between two buffers of the size itself.
pub(super) fn large_copies_per_second(size: usize) -> f64 {
    pieces_per_second(size, size)
}

fn pieces_per_second(size: usize, buffer: usize) -> f64 {
    let (from, mut to) = (vec![7u8; buffer], vec![1u8; buffer]); // not 0: such memory is touched by the first copy only
    let (begun, mut copied) = (Instant::now(), 0usize);
    while begun.elapsed() < COPYING {
        for (from, to) in from.chunks_exact(size).zip(to.chunks_exact_mut(size)) {
            to.copy_from_slice(black_box(from));
        }
        black_box(&mut to);
        copied += buffer / size;
    }
    copied as f64 / begun.elapsed().as_secs_f64()
}
