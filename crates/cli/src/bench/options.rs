//! The options that measurements share, and how a measurement is split into rounds.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::content::NUMBER_BYTES;
use super::end::Via;
use super::progress::Progress;
use super::times::Times;
use crate::options::seconds;
use crate::outcome::Usage;

/// The sizes of a message that is copied into the ring. For larger ones, there is `bench large`.
pub(super) const SIZES: RangeInclusive<usize> = 0..=librpc::DEFAULT_CAPACITY as usize / 4 - 64;
/// The sizes of a message that carries a time.
pub(super) const TIMED_SIZES: RangeInclusive<usize> = NUMBER_BYTES..=*SIZES.end();

/// The size of a message unless the user says so.
const SIZE: usize = 64;
/// How long a measurement takes unless the user says so.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: u32 = 5;

/// The options of all measurements of messages.
#[derive(clap::Args, Clone, Debug, Default)]
pub(super) struct Common {
    /// Bytes per message [default: 64; large: five sizes from 65536 to 52428800]
    #[arg(long, value_name = "B")]
    size: Option<usize>,
    /// Several sizes, one after the other
    #[arg(long, value_name = "B,..", value_delimiter = ',', conflicts_with = "size")]
    sizes: Vec<usize>,
    /// How long to measure each size [default: 3; connect: until it has connected 100 times]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(super) seconds: Option<Duration>,
    /// How often to measure each size, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    #[command(flatten)]
    cpus: Cpus,
    /// Write one object per line
    #[arg(long)]
    pub(super) json: bool,
}

/// How a measurement is split.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Rounds {
    /// Split the measurement into N rounds, each in turn with the limit [default: 5; wake: 31]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: Option<u32>,
}

/// Where the two processes run.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct Cpus {
    /// The CPUs of the two processes [default: the first two]; `none` leaves the choice to the kernel
    #[arg(long, value_name = "A,B", value_parser = parse_pin)]
    pin: Option<Pin>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Pair(usize, usize),
    Nowhere,
}

impl Cpus {
    /// The CPUs of the two processes. Where both poll, the kernel may put them on one CPU for a while, and then its time
    /// slice is measured. So they are pinned by default, if there are two CPUs.
    pub(super) fn pin(&self) -> Option<(usize, usize)> {
        match self.pin {
            Some(Pin::Pair(first, second)) => Some((first, second)),
            Some(Pin::Nowhere) => None,
            None => {
                let allowed = allowed_cpus();
                Some((*allowed.first()?, *allowed.get(1)?))
            }
        }
    }

    pub(super) fn each(&self) -> (Option<usize>, Option<usize>) {
        (self.pin().map(|cpus| cpus.0), self.pin().map(|cpus| cpus.1))
    }
}

fn allowed_cpus() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None).unwrap_or_default();
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect()
}

fn parse_pin(text: &str) -> Result<Pin, String> {
    if text == "none" {
        return Ok(Pin::Nowhere);
    }
    let cpu = |text: &str| text.trim().parse::<usize>().ok();
    let pair = text.split_once(',').and_then(|(a, b)| Some((cpu(a)?, cpu(b)?)));
    let (first, second) = pair.ok_or("expected two CPU numbers, as in 0,1, or none")?;
    let allowed = allowed_cpus();
    match [first, second].into_iter().find(|cpu| !allowed.contains(cpu)) {
        Some(cpu) => Err(format!("this process may not run on CPU {cpu}")),
        None => Ok(Pin::Pair(first, second)),
    }
}

/// The part of a measurement that one round has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) enum Share {
    Time(Duration),
    Count(u64),
}

impl Share {
    #[inline]
    pub(super) fn is_used_up(self, time: Duration, count: u64) -> bool {
        match self {
            Self::Time(limit) => time >= limit,
            Self::Count(limit) => count >= limit,
        }
    }
}

impl Common {
    /// The sizes to measure, each of which must be one of these.
    pub(super) fn sizes(&self, allowed: RangeInclusive<usize>) -> anyhow::Result<Vec<usize>> {
        self.sizes_or(allowed, &[SIZE])
    }

    /// The same, with these sizes as the default.
    pub(super) fn sizes_or(&self, allowed: RangeInclusive<usize>, default: &[usize]) -> anyhow::Result<Vec<usize>> {
        let given: Vec<usize> = self.size.iter().chain(&self.sizes).copied().collect();
        let sizes = if given.is_empty() { default.to_vec() } else { given };
        match sizes.iter().find(|size| !allowed.contains(size)) {
            None => Ok(sizes),
            Some(size) => {
                let (smallest, largest) = (allowed.start(), allowed.end());
                Err(Usage(format!("a size of {size} bytes: it must be from {smallest} to {largest}")).into())
            }
        }
    }

    pub(super) fn pin(&self) -> Option<(usize, usize)> {
        self.cpus.pin()
    }

    pub(super) fn cpus(&self) -> (Option<usize>, Option<usize>) {
        self.cpus.each()
    }

    /// The whole measurement.
    pub(super) fn whole(&self) -> Share {
        self.count.map_or_else(|| Share::Time(self.seconds.unwrap_or(TIME)), Share::Count)
    }
}

impl Rounds {
    /// The share of each round.
    pub(super) fn shares(self, whole: Share, default: u32) -> Vec<Share> {
        let rounds = self.rounds.unwrap_or(default);
        match whole {
            Share::Time(time) => vec![Share::Time(time / rounds); rounds as usize],
            Share::Count(count) => {
                let rounds = u64::from(rounds).min(count);
                (0..rounds).map(|round| Share::Count(count / rounds + u64::from(round < count % rounds))).collect()
            }
        }
    }

    /// Measures in rounds, and shows the progress.
    pub(super) fn each<R>(
        self,
        common: &Common,
        what: String,
        mut round: impl FnMut(Share) -> anyhow::Result<R>,
    ) -> anyhow::Result<Vec<R>> {
        let shares = self.shares(common.whole(), ROUNDS);
        let progress = Progress::new(what, shares.len() as u64);
        let measure = |share| round(share).inspect(|_| progress.step());
        shares.into_iter().map(measure).collect()
    }
}

/// Which way the messages go.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Way {
    /// Publish on a topic to a subscription, or send to a node
    #[arg(long, value_enum, default_value_t = Via::Topic)]
    pub(super) via: Via,
}

/// Where the percentiles are written.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Percentiles {
    /// Write the percentiles as HdrHistogram text, in ns. If there are several, each goes to FILE.WHAT
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

impl Percentiles {
    /// Writes them, if they are wanted. `what`: which of several they are.
    pub(super) fn write(&self, times: &Times, what: Option<&dyn std::fmt::Display>) -> anyhow::Result<()> {
        let Some(path) = &self.hgrm else { return Ok(()) };
        match what {
            None => times.write(path),
            Some(what) => {
                let mut path = path.clone().into_os_string();
                path.push(format!(".{what}"));
                times.write(Path::new(&path))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_are_the_whole() {
        let shares = |whole| Rounds { rounds: None }.shares(whole, 5);
        assert_eq!(shares(Share::Count(12)), [3, 3, 2, 2, 2].map(Share::Count));
        assert_eq!(shares(Share::Count(2)), [1, 1].map(Share::Count));
        assert_eq!(shares(Common::default().whole()), [Share::Time(Duration::from_millis(600)); 5]);
    }

    #[test]
    fn a_size_that_no_message_can_have_is_wrong_usage() {
        for (size, is_good) in [(0, false), (8, true), (65_472, true), (65_473, false), (usize::MAX, false)] {
            let common = Common { sizes: vec![64, size], ..Common::default() };
            assert_eq!(common.sizes(TIMED_SIZES).is_ok(), is_good, "{size}");
        }
    }
}
