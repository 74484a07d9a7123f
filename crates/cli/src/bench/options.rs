//! What the measurements of messages have in common on the command line, and how a measurement is cut into rounds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::end::Via;

/// What measurements of messages have in common.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Common {
    /// Bytes of a message
    #[arg(long, value_name = "B", default_value_t = 64)]
    size: usize,
    /// Several sizes, one after the other: a curve
    #[arg(long, value_name = "B,..", value_delimiter = ',', conflicts_with = "size")]
    sizes: Vec<usize>,
    /// How long to measure each size
    #[arg(long, value_name = "S", default_value_t = 3.0)]
    pub(super) seconds: f64,
    /// How many measurements of each size, instead of --seconds
    #[arg(long, value_name = "N", conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) count: Option<u64>,
    /// In so many rounds, each with the limit in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    #[command(flatten)]
    cpus: Cpus,
    /// One object a line
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the two processes run.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(super) struct Cpus {
    /// The CPUs of the two processes: by default the first two; `none` leaves it to the kernel
    #[arg(long, value_name = "A,B", value_parser = parse_pin)]
    pin: Option<Pin>,
}

/// What a user says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pin {
    Pair(usize, usize),
    Nowhere,
}

impl Cpus {
    /// The CPUs of the two processes. Where both poll, the kernel may put them on one for a while, and what is measured then
    /// is its time slice: so they are pinned by default, where there are two.
    pub(super) fn pin(&self) -> Option<(usize, usize)> {
        match self.pin {
            Some(Pin::Pair(first, second)) => Some((first, second)),
            Some(Pin::Nowhere) => None,
            None => {
                let allowed = rustix::thread::sched_getaffinity(None).ok()?;
                let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu));
                Some((cpus.next()?, cpus.next()?))
            }
        }
    }

    pub(super) fn each(&self) -> (Option<usize>, Option<usize>) {
        (self.pin().map(|cpus| cpus.0), self.pin().map(|cpus| cpus.1))
    }
}

fn parse_pin(text: &str) -> Result<Pin, String> {
    if text == "none" {
        return Ok(Pin::Nowhere);
    }
    let pair = text.split_once(',').and_then(|(a, b)| Some(Pin::Pair(a.trim().parse().ok()?, b.trim().parse().ok()?)));
    pair.ok_or_else(|| "two CPU numbers are expected, as in 0,1, or none".to_owned())
}

/// How much of a measurement one round has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    pub(super) fn sizes(&self) -> Vec<usize> {
        if self.sizes.is_empty() { vec![self.size] } else { self.sizes.clone() }
    }

    pub(super) fn pin(&self) -> Option<(usize, usize)> {
        self.cpus.pin()
    }

    pub(super) fn cpus(&self) -> (Option<usize>, Option<usize>) {
        self.cpus.each()
    }

    /// What each round has of the whole.
    pub(super) fn rounds(&self) -> anyhow::Result<Vec<Share>> {
        let time = crate::duplex::seconds(self.seconds)?;
        let rounds = u64::from(self.rounds);
        Ok(match self.count {
            None => vec![Share::Time(time / self.rounds); self.rounds as usize],
            Some(count) => {
                let rounds = rounds.min(count);
                (0..rounds).map(|round| Share::Count(count / rounds + u64::from(round < count % rounds))).collect()
            }
        })
    }
}

/// Which way the messages go.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(super) struct Way {
    /// Published on a topic and received by a subscription, or sent to a node
    #[arg(long, value_enum, default_value_t = Via::Topic)]
    pub(super) via: Via,
}

/// Where the percentiles go.
#[derive(clap::Args, Clone, Debug)]
pub(super) struct Percentiles {
    /// Writes the percentiles in HdrHistogram's text form, in ns; where there are several, each to FILE.WHAT
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
}

impl Percentiles {
    /// Writes them, if they are wanted. `what`: which of several they are.
    pub(super) fn write(
        &self,
        times: &super::times::Times,
        what: Option<&dyn std::fmt::Display>,
    ) -> anyhow::Result<()> {
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
        let common = |count| Common {
            size: 64,
            sizes: vec![],
            seconds: 3.0,
            count,
            rounds: 5,
            cpus: Cpus::default(),
            json: true,
        };
        let counts = |count| common(Some(count)).rounds().expect("good seconds");
        assert_eq!(counts(12), [3, 3, 2, 2, 2].map(Share::Count));
        assert_eq!(counts(2), [1, 1].map(Share::Count));
        assert_eq!(common(None).rounds().expect("good seconds"), [Share::Time(Duration::from_millis(600)); 5]);
    }
}
