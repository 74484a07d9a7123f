//! `librpc hz`: how often, how evenly, and how much is published to topics.

use std::io::Write;
use std::time::{Duration, Instant};

use librpc::{Inbox, Policy};
use serde::Serialize;

use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::{grouped, readable};
use crate::outcome::{CommandResult, Outcome};

/// Shows how often something is published to topics
///
/// It subscribes, as `sub` does, with an inbox that is overwritten: publishers never wait for it. What it has missed counts
/// as published. For rates without subscribing: `librpc stat TOPIC --watch`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc hz sensor/kitchen/temperature
  librpc hz 'camera/**' --every 5s --json")]
pub(crate) struct Args {
    /// The topics: patterns of levels joined by slashes
    #[arg(required = true)]
    pattern: Vec<String>,
    /// A line for each such time
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// So many lines, then it ends
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// One object a line: seconds, messages, rate, bytes_per_s, missed, interval_{min,mean,max,stddev}_ns
    #[arg(long)]
    json: bool,
}

/// No stretch of time is shorter.
const SHORTEST: Duration = Duration::from_millis(1);

/// What has come in one stretch of time.
#[derive(Default)]
struct Stretch {
    messages: u64,
    missed: u64,
    bytes: u64,
    /// How many intervals between two messages, in ns: the shortest, the longest, their mean, and the sum of the squares of
    /// their distances to it.
    intervals: u64,
    shortest: f64,
    longest: f64,
    mean: f64,
    squares: f64,
}

#[derive(Serialize)]
struct Line {
    seconds: f64,
    messages: u64,
    rate: f64,
    bytes_per_s: f64,
    missed: u64,
    interval_min_ns: Option<u64>,
    interval_mean_ns: Option<u64>,
    interval_max_ns: Option<u64>,
    interval_stddev_ns: Option<u64>,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = domain.open(&unique_id("hz")?)?;
    let mut inbox = node.subscriber_builder(&args.pattern).policy(Policy::Latest).capacity(1 << 20).open()?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());
    let (mut last, mut lines) = (None, 0);
    while interrupt.signal().is_none() && args.count.is_none_or(|count| lines < count) {
        let begun = Instant::now();
        let stretch = listen(&mut inbox, begun.checked_add(args.every.max(SHORTEST)), &mut last)?;
        if interrupt.signal().is_some() {
            break;
        }
        let line = stretch.line(begun.elapsed().as_secs_f64());
        let text = if args.json { serde_json::to_string(&line)? } else { readable_line(&line) };
        std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
        lines += 1;
    }
    Ok(Outcome::Done)
}

/// Counts until then; `None`: until a signal comes.
fn listen(inbox: &mut Inbox, until: Option<Instant>, last: &mut Option<Instant>) -> anyhow::Result<Stretch> {
    let mut stretch = Stretch::default();
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            break;
        }
        let message = match left {
            Some(left) => inbox.recv_timeout(left)?,
            None => inbox.recv()?,
        };
        let Some(message) = message else { break };
        let now = Instant::now();
        stretch.messages += 1 + message.missed();
        stretch.missed += message.missed();
        stretch.bytes += message.payload().len() as u64;
        if let Some(last) = last.replace(now) {
            stretch.interval((now - last).as_nanos() as f64);
        }
    }
    Ok(stretch)
}

impl Stretch {
    /// Counts an interval, in ns (Welford's way: nothing is kept, however long it takes).
    fn interval(&mut self, ns: f64) {
        self.shortest = if self.intervals == 0 { ns } else { self.shortest.min(ns) };
        self.longest = self.longest.max(ns);
        self.intervals += 1;
        let distance = ns - self.mean;
        self.mean += distance / self.intervals as f64;
        self.squares += distance * (ns - self.mean);
    }

    fn line(&self, seconds: f64) -> Line {
        let round = |number: f64| (number * 10.0).round() / 10.0;
        let some = |ns: f64| (self.intervals > 0).then_some(ns as u64);
        Line {
            seconds: round(seconds),
            messages: self.messages,
            rate: round(self.messages as f64 / seconds),
            bytes_per_s: round(self.bytes as f64 / seconds),
            missed: self.missed,
            interval_min_ns: some(self.shortest),
            interval_mean_ns: some(self.mean),
            interval_max_ns: some(self.longest),
            interval_stddev_ns: some((self.squares / self.intervals.max(1) as f64).sqrt()),
        }
    }
}

fn readable_line(line: &Line) -> String {
    let time = |ns: Option<u64>| ns.map_or("-".to_owned(), readable);
    let missed = if line.missed > 0 { format!("  missed {}", grouped(line.missed)) } else { String::new() };
    format!(
        "{:.1} Hz  {} bytes/s  interval {} to {}, mean {}, deviation {}{missed}",
        line.rate,
        grouped(line.bytes_per_s as u64),
        time(line.interval_min_ns),
        time(line.interval_max_ns),
        time(line.interval_mean_ns),
        time(line.interval_stddev_ns)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_summed_up() {
        let mut stretch = Stretch::default();
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|ns| stretch.interval(ns));
        let line = stretch.line(1.0);
        assert_eq!((line.interval_min_ns, line.interval_mean_ns, line.interval_max_ns), (Some(2), Some(5), Some(9)));
        assert_eq!(line.interval_stddev_ns, Some(2));
        assert_eq!(Stretch::default().line(1.0).interval_min_ns, None);
    }
}
