//! `librpc hz`: how often, how evenly, and how much is published to topics.

use std::io::Write;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use librpc::{Inbox, Limits, Node, Policy};
use serde::Serialize;

use crate::deadline::Deadline;
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::latency::{grouped, readable};
use crate::options::{PatternArgs, RoomArgs};
use crate::outcome::{CommandResult, Outcome};
use crate::output;
use crate::snapshot::Losses;
use crate::stdout::was_closed;

/// Shows how often messages are published to topics
///
/// It subscribes like `sub`, but with an inbox that may be overwritten, so publishers never wait for it. Messages that
/// it missed count with the mean size and interval of those that it received. Messages that were too large for it count
/// only in the rate. For rates without subscribing, use `librpc stat TOPIC --watch`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc hz sensor/kitchen/temperature
  librpc hz 'camera/**' --every 5s --json")]
pub(crate) struct Args {
    #[command(flatten)]
    patterns: PatternArgs,
    /// Write a line this often
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// End after N lines
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    #[command(flatten)]
    room: RoomArgs,
    /// Write one object per line: seconds, messages, rate, bytes_per_s, missed, too_large,
    /// interval_{min,mean,max,stddev}_ns
    #[arg(long)]
    json: bool,
}

/// The shortest time between two lines.
const SHORTEST: Duration = Duration::from_millis(1);
/// Large messages of many publishers take address space, but no memory of this process.
const MAPPED_BYTES: u64 = 1 << 40;
/// The longest single wait for a message.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// What was published between two lines.
#[derive(Default)]
struct Stretch {
    received: u64,
    received_bytes: u64,
    /// Overwritten before they were received.
    missed: u64,
    too_large: u64,
    intervals: Intervals,
}

/// The times between messages, in ns, summed up without keeping each of them (Welford's method).
#[derive(Default)]
struct Intervals {
    count: u64,
    shortest: f64,
    longest: f64,
    mean: f64,
    /// The sum of the squared differences from the mean.
    squares: f64,
}

#[derive(Serialize)]
struct Line {
    seconds: f64,
    messages: u64,
    rate: f64,
    bytes_per_s: f64,
    missed: u64,
    too_large: u64,
    interval_min_ns: Option<u64>,
    interval_mean_ns: Option<u64>,
    interval_max_ns: Option<u64>,
    interval_stddev_ns: Option<u64>,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let mut limits = Limits::default();
    limits.mapped_bytes_per_user = MAPPED_BYTES;
    let node = Node::builder(&unique_id("hz")?).domain(domain.domain()?).limits(limits).open()?;
    let inbox = args.room.apply(node.subscriber_builder(&args.patterns.pattern).history(0));
    let mut inbox = output::open(inbox.policy(Policy::DropOldest))?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());
    let (mut last, mut lines, mut turned_away) = (None, 0, Losses::default());
    while interrupt.signal().is_none() && args.count.is_none_or(|count| lines < count.get()) {
        let begun = Instant::now();
        let mut stretch = listen(&mut inbox, Deadline::after(args.every.max(SHORTEST)), &mut last, &interrupt)?;
        if interrupt.signal().is_some() {
            break;
        }
        let now = Losses::at(&node);
        let Losses { too_large, no_memory, .. } = now.since(turned_away);
        stretch.too_large = too_large.saturating_add(no_memory);
        turned_away = now;
        let line = stretch.line(begun.elapsed().as_secs_f64());
        let text = if args.json { serde_json::to_string(&line)? } else { readable_line(&line) };
        std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
        lines += 1;
        if was_closed() {
            break;
        }
    }
    Ok(Outcome::Done)
}

/// Counts messages until the deadline or a signal.
fn listen(
    inbox: &mut Inbox,
    deadline: Deadline,
    last: &mut Option<Instant>,
    interrupt: &Interrupt,
) -> anyhow::Result<Stretch> {
    let mut stretch = Stretch::default();
    while !deadline.has_passed() && interrupt.signal().is_none() {
        // As a sample, so that nothing large is copied only to be counted.
        let Some(message) = inbox.recv_sample_timeout(deadline.next_wait(LONGEST_WAIT))? else { continue };
        let now = Instant::now();
        stretch.received += 1;
        stretch.received_bytes += message.len() as u64;
        stretch.missed = stretch.missed.saturating_add(message.missed());
        if let Some(last) = last.replace(now) {
            stretch.intervals.add((now - last).as_nanos() as f64, message.missed());
        }
    }
    Ok(stretch)
}

impl Intervals {
    /// Adds the time since the previous message. Messages missed in between share it evenly.
    fn add(&mut self, ns: f64, missed: u64) {
        let (each, weight) = (ns / (missed as f64 + 1.0), missed as f64 + 1.0);
        self.shortest = if self.count == 0 { each } else { self.shortest.min(each) };
        self.longest = self.longest.max(each);
        self.count = self.count.saturating_add(missed).saturating_add(1);
        let distance = each - self.mean;
        self.mean += distance * weight / self.count as f64;
        self.squares += weight * distance * (each - self.mean);
    }
}

impl Stretch {
    fn line(&self, seconds: f64) -> Line {
        let round = |number: f64| (number * 10.0).round() / 10.0;
        let intervals = &self.intervals;
        let some = |ns: f64| (intervals.count > 0).then_some(ns as u64);
        let came = self.received.saturating_add(self.missed);
        let messages = came.saturating_add(self.too_large);
        let bytes_each = self.received_bytes as f64 / self.received.max(1) as f64;
        Line {
            seconds: round(seconds),
            messages,
            rate: round(messages as f64 / seconds),
            bytes_per_s: round(bytes_each * came as f64 / seconds),
            missed: self.missed,
            too_large: self.too_large,
            interval_min_ns: some(intervals.shortest),
            interval_mean_ns: some(intervals.mean),
            interval_max_ns: some(intervals.longest),
            interval_stddev_ns: some((intervals.squares / intervals.count.max(1) as f64).sqrt()),
        }
    }
}

fn readable_line(line: &Line) -> String {
    let time = |ns: Option<u64>| ns.map_or("-".to_owned(), readable);
    let missed = if line.missed > 0 { format!("  missed {}", grouped(line.missed)) } else { String::new() };
    let too_large = match line.too_large {
        0 => String::new(),
        count => format!("  {} too large for hz (see --max-message)", grouped(count)),
    };
    format!(
        "{:.1} Hz  {} bytes/s  interval {} to {}, mean {}, deviation {}{missed}{too_large}",
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
        [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0].into_iter().for_each(|ns| stretch.intervals.add(ns, 0));
        let line = stretch.line(1.0);
        assert_eq!((line.interval_min_ns, line.interval_mean_ns, line.interval_max_ns), (Some(2), Some(5), Some(9)));
        assert_eq!(line.interval_stddev_ns, Some(2));
        assert_eq!(Stretch::default().line(1.0).interval_min_ns, None);
    }

    #[test]
    fn what_hz_missed_counts_in_bytes_and_intervals() {
        let mut stretch = Stretch { received: 2, received_bytes: 200, missed: 8, ..Stretch::default() };
        stretch.intervals.add(100.0, 0);
        stretch.intervals.add(900.0, 8);
        let line = stretch.line(2.0);
        assert_eq!((line.messages, line.rate, line.bytes_per_s), (10, 5.0, 500.0));
        assert_eq!((line.interval_mean_ns, line.interval_stddev_ns), (Some(100), Some(0)));
    }

    #[test]
    fn messages_that_are_too_large_are_in_the_rate_and_named() {
        let line = Stretch { too_large: 20, ..Stretch::default() }.line(2.0);
        assert_eq!((line.messages, line.rate, line.bytes_per_s), (20, 10.0, 0.0));
        assert!(readable_line(&line).contains("20 too large"), "{}", readable_line(&line));
    }
}
