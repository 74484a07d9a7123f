//! `librpc bench wake`: one message to a receiver that sleeps, compared with an eventfd in epoll.
//!
//! The contenders take turns between the same two processes: an inbox that sleeps at once (`block`), one that polls for a
//! moment first (`adaptive`), and eventfds. Measured is one way, by the clock that both processes share: from before the
//! send until the receiver has the message. The asking side also sleeps while it waits for the answer. An adaptive inbox
//! needs a pause before each message to fall asleep. Its limit gets the same pause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::{Inbox, Node, Publisher, Wait};
use serde::Serialize;

use super::child::{on_cpu, pin, ready};
use super::eventfd::Line;
use super::options::{Common, Percentiles, Rounds, Share, TIMED_SIZES};
use super::progress::Progress;
use super::times::Times;
use super::{Bench, Part, content, end, median, median_ratio};
use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{Latency, readable};
use crate::payload::now_ns;

/// Rounds of each contender unless the user says so. The median is taken over them.
const ROUNDS: u32 = 31;
/// Longer than an adaptive inbox polls.
const PAUSE: Duration = Duration::from_micros(250);

/// Waking a sleeping receiver with one message, compared with an epoll and eventfd ping-pong
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc bench wake --pin 0,1
  librpc bench wake --count 620 --json")]
pub(crate) struct Args {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    rounds: Rounds,
    #[command(flatten)]
    percentiles: Percentiles,
}

/// What is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sleeper {
    Block,
    Adaptive,
    Eventfd { pause: bool },
}

impl Sleeper {
    const ALL: [Self; 4] = [Self::Block, Self::Eventfd { pause: false }, Self::Adaptive, Self::Eventfd { pause: true }];

    fn pause(self) -> bool {
        matches!(self, Self::Adaptive | Self::Eventfd { pause: true })
    }
}

#[derive(Serialize)]
struct Measured {
    size: usize,
    /// How the receiver waits.
    wait: &'static str,
    rounds: usize,
    #[serde(flatten)]
    latency: Latency,
    /// Medians over the rounds of each round's median.
    round_ns: u64,
    limit_ns: u64,
    /// The median over the rounds of the ratio in each round.
    ratio: f64,
}

/// What a sleeper has of a round: the same count as the others, or its part of the time.
fn per_sleeper(share: Share) -> Share {
    match share {
        Share::Time(time) => Share::Time(time / Sleeper::ALL.len() as u32),
        Share::Count(count) => Share::Count(count),
    }
}

/// One contender's measurements.
struct Woken {
    all: Times,
    medians: Vec<u64>,
}

pub(super) fn run(bench: &Bench, args: &Args) -> anyhow::Result<()> {
    let domain = bench.domain("wake");
    for size in args.common.sizes(TIMED_SIZES)? {
        let node = Node::builder("asking").domain(domain.clone()).open()?;
        let inbox = end::inbox(&node, end::Via::Topic, Wait::Block, librpc::DEFAULT_CAPACITY, &bench.interrupt)?;
        let (ours, theirs) = args.common.cpus();
        let (eventfds, sleepers) = bench.start_with_line(&domain, |socket| Part::Sleepers { socket, cpu: theirs })?;
        let publish = |to: &str| end::publisher(&node, to, &bench.interrupt);
        let (block, adaptive) = (publish("block")?, publish("adaptive")?);
        let mut asking = Asking { inbox, block, adaptive, eventfds, message: vec![0; size] };
        let woken = on_cpu(ours, || asking.all(bench, args))?;
        drop((asking, sleepers));
        drop(node);
        let [block, limit, adaptive, paused_limit] = woken;
        for (wait, woken, limit) in [("block", block, limit), ("adaptive", adaptive, paused_limit)] {
            print(bench, args, size, wait, woken, limit)?;
        }
    }
    Ok(())
}

fn print(
    bench: &Bench,
    args: &Args,
    size: usize,
    wait: &'static str,
    mut woken: Woken,
    mut limit: Woken,
) -> anyhow::Result<()> {
    args.percentiles.write(&woken.all, Some(&wait))?;
    let pairs: Vec<_> = woken.medians.iter().copied().zip(limit.medians.iter().copied()).collect();
    let measured = Measured {
        size,
        wait,
        rounds: pairs.len(),
        latency: woken.all.latency(),
        ratio: median_ratio(&pairs),
        round_ns: median(&mut woken.medians),
        limit_ns: median(&mut limit.medians),
    };
    bench.print(args.common.json, "wake", args.common.pin(), &measured, || {
        let Latency { p50_ns, p99_ns, max_ns, .. } = measured.latency;
        let [p50, p99, max, limit] = [p50_ns, p99_ns, max_ns, measured.limit_ns].map(readable);
        let (rounds, ratio) = (measured.rounds, measured.ratio);
        format!(
            "a sleeping receiver ({wait}), {size} bytes: p50 {p50}, p99 {p99}, max {max}; an eventfd {limit} \
             ({ratio} ×, median of {rounds} rounds)"
        )
    })
}

/// The side that wakes.
struct Asking {
    inbox: Inbox,
    block: Publisher,
    adaptive: Publisher,
    eventfds: Line,
    message: Vec<u8>,
}

impl Asking {
    fn all(&mut self, bench: &Bench, args: &Args) -> anyhow::Result<[Woken; 4]> {
        let mut woken = Sleeper::ALL.map(|_| Woken { all: Times::new(), medians: Vec::new() });
        let shares = args.rounds.shares(args.common.whole(), ROUNDS).into_iter().map(per_sleeper);
        let shares: Vec<Share> = shares.collect();
        let progress = Progress::new(format!("wake, {} bytes", self.message.len()), shares.len() as u64);
        self.round(bench, shares[0], |_, _| {})?; // warms up
        for share in shares {
            self.round(bench, share, |sleeper, times| {
                woken[sleeper].medians.push(times.median());
                woken[sleeper].all.add(times);
            })?;
            progress.step();
        }
        Ok(woken)
    }

    /// Gives each sleeper its turn.
    fn round(&mut self, bench: &Bench, share: Share, mut take: impl FnMut(usize, &Times)) -> anyhow::Result<()> {
        for (index, sleeper) in Sleeper::ALL.into_iter().enumerate() {
            std::thread::sleep(PAUSE); // the one before sleeps by now
            take(index, &self.turn(sleeper, share)?);
            bench.check()?;
        }
        Ok(())
    }

    fn turn(&mut self, sleeper: Sleeper, share: Share) -> anyhow::Result<Times> {
        let (mut times, begun) = (Times::new(), Instant::now());
        while times.count() == 0 || !share.is_used_up(begun.elapsed(), times.count()) {
            if sleeper.pause() {
                std::thread::sleep(PAUSE);
            }
            times.record(self.wake(sleeper)?);
        }
        Ok(times)
    }

    /// The time that one message took, according to its receiver.
    fn wake(&mut self, sleeper: Sleeper) -> anyhow::Result<u64> {
        let publisher = match sleeper {
            Sleeper::Eventfd { .. } => {
                self.eventfds.send(now_ns())?;
                return self.eventfds.wait()?.context("interrupted");
            }
            Sleeper::Block => &mut self.block,
            Sleeper::Adaptive => &mut self.adaptive,
        };
        content::write(&mut self.message, now_ns());
        anyhow::ensure!(publisher.publish(&self.message)?.inboxes() == 1, "the sleeper is gone");
        match end::next(&mut self.inbox, content::number)? {
            Some(Some(0)) => bail!("a message came that is not what was sent"),
            Some(Some(took)) => Ok(took),
            Some(None) => bail!("an answer came that is not what was sent"),
            None => bail!("the other process has left"),
        }
    }
}

/// The process of the sleepers, with a thread for each. All of them sleep except the one whose turn it is.
pub(super) fn sleepers(
    domain: &DomainArgs,
    socket: &str,
    cpu: Option<usize>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let line = Line::connect(socket, interrupt)?;
    let nodes = [("block", Wait::Block), ("adaptive", Wait::Adaptive)];
    let nodes = nodes.into_iter().map(|(name, wait)| Ok((Arc::new(domain.open(name)?), wait)));
    let nodes = nodes.collect::<anyhow::Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (node, wait) in &nodes {
            let mut inbox = end::inbox(node, end::Via::Topic, *wait, librpc::DEFAULT_CAPACITY, interrupt)?;
            let mut answers = end::publisher(node, "asking", interrupt)?;
            threads.push(scope.spawn(move || -> anyhow::Result<()> {
                pin(cpu)?;
                // The time that the message took; 0: it is not the message that was sent.
                let take = |payload: &[u8]| {
                    let now = now_ns();
                    content::number(payload).map_or(0, |sent| now.saturating_sub(sent).max(1))
                };
                let mut answer = [0; content::NUMBER_BYTES];
                while let Some(took) = end::next(&mut inbox, take)? {
                    content::write(&mut answer, took);
                    let _ = answers.publish(&answer)?; // the asking side notices
                }
                Ok(())
            }));
        }
        threads.push(scope.spawn(|| {
            pin(cpu)?;
            while let Some(sent) = line.wait()? {
                line.send(now_ns().saturating_sub(sent).max(1))?;
            }
            Ok(())
        }));
        ready()?;
        threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
    })
}
