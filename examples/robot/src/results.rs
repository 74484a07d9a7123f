//! What has come of it all, from what the roles have put on record.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use comfy_table::presets::ASCII_MARKDOWN;
use comfy_table::{ContentArrangement, Table};
use hdrhistogram::Histogram;

use crate::camera::Published;
use crate::commander::{Called, OUTCOMES};
use crate::detector::Seen;
use crate::logger::{Logged, TOPICS};
use crate::messages::Head;
use crate::once::Sent;
use crate::record::read;

pub(crate) struct Results {
    commands: Account,
    samples: Account,
    frames: Vec<Published>,
    detected: Vec<Seen>,
    viewed: Vec<Seen>,
    calls: Vec<Called>,
    logged: Vec<Logged>,
}

/// What has become of numbered messages.
struct Account {
    sent: u64,
    processed: u64,
    lost: u64,
    doubled: u64,
    out_of_order: u64,
    /// How many were sent by more than one run of their sender.
    sent_again: u64,
}

impl Account {
    fn new(sent: &[Sent], processed: &[Head]) -> Self {
        let numbers: BTreeSet<u64> = sent.iter().map(|sent| sent.number).collect();
        let last = numbers.last().copied().unwrap_or_default();
        let once: BTreeSet<u64> = processed.iter().map(|head| head.number).collect();
        Self {
            sent: last,
            processed: once.len() as u64,
            lost: (1..=last).filter(|number| !once.contains(number)).count() as u64,
            doubled: (processed.len() - once.len()) as u64,
            out_of_order: processed.windows(2).filter(|pair| pair[1].number < pair[0].number).count() as u64,
            sent_again: (sent.len() - numbers.len()) as u64,
        }
    }

    fn is_good(&self) -> bool {
        self.sent > 0 && (self.lost, self.doubled, self.out_of_order) == (0, 0, 0)
    }

    fn row(&self) -> String {
        let Self { sent, processed, lost, doubled, out_of_order, sent_again } = self;
        format!(
            "sent {sent}, processed {processed}, lost {lost}, doubled {doubled}, out of order {out_of_order}, sent again {sent_again}"
        )
    }
}

impl Results {
    pub(crate) fn collect(files: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            commands: Account::new(&read(&files.join("commander"))?, &read(&files.join("planner.commands"))?),
            samples: Account::new(&read(&files.join("imu"))?, &read(&files.join("planner.samples"))?),
            frames: read(&files.join("camera"))?,
            detected: read(&files.join("detector"))?,
            viewed: read(&files.join("viewer"))?,
            calls: read(&files.join("commander.calls"))?,
            logged: read(&files.join("logger"))?,
        })
    }

    /// Nothing was lost or doubled, and no frame was torn.
    pub(crate) fn are_good(&self) -> bool {
        self.commands.is_good() && self.samples.is_good() && self.torn() == 0
    }

    fn torn(&self) -> usize {
        self.detected.iter().chain(&self.viewed).filter(|seen| seen.is_torn != 0).count()
    }

    pub(crate) fn table(&self, kills: &BTreeMap<&str, u32>) -> Table {
        let mut table = Table::new();
        table.load_preset(ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Dynamic).set_width(110);
        table.add_row(["commands", &self.commands.row()]);
        table.add_row(["samples of the IMU", &self.samples.row()]);
        table.add_row(["camera", &self.camera()]);
        table.add_row(["frames not delivered", &self.undelivered()]);
        table.add_row(["frames at the detector", &ages(&self.detected)]);
        table.add_row(["frames at the viewer", &ages(&self.viewed)]);
        table.add_row(["torn frames", &self.torn().to_string()]);
        table.add_row(["calls", &self.calls()]);
        let answered = self.calls.iter().filter(|call| call.outcome == 0);
        table.add_row(["time of a call", &percentiles(&histogram(answered.map(|call| call.took_ns)))]);
        for (topic, name) in TOPICS.into_iter().enumerate() {
            table.add_row([format!("log of {name}"), self.log(topic as u32)]);
        }
        let kills: Vec<String> = kills.iter().map(|(role, kills)| format!("{role} {kills}")).collect();
        table.add_row(["kills", &kills.join(", ")]);
        table
    }

    /// Its rate while it lived, and the longest time between two of its frames.
    fn camera(&self) -> String {
        let pairs = self.frames.windows(2).filter(|pair| pair[0].head.run == pair[1].head.run);
        let pauses: Vec<u64> = pairs.map(|pair| pair[1].at_ns - pair[0].at_ns).collect();
        let hertz = pauses.len() as f64 / Duration::from_nanos(pauses.iter().sum()).as_secs_f64();
        let longest = milliseconds(pauses.iter().max().copied().unwrap_or_default());
        format!("{} frames, {hertz:.2} Hz, longest pause {longest}", self.frames.len())
    }

    fn undelivered(&self) -> String {
        let count = |count: fn(&Published) -> u32| self.frames.iter().map(|frame| u64::from(count(frame))).sum::<u64>();
        format!("no room {}, other reasons {}", count(|frame| frame.full), count(|frame| frame.undelivered))
    }

    fn calls(&self) -> String {
        let count = |outcome: usize| self.calls.iter().filter(|call| call.outcome == outcome as u64).count();
        let ends: Vec<String> = OUTCOMES.iter().enumerate().map(|(at, end)| format!("{end} {}", count(at))).collect();
        ends.join(", ")
    }

    /// How many messages of a topic came and were missed. What is missing between two numbers and was not reported is unexplained.
    fn log(&self, topic: u32) -> String {
        let of_topic: Vec<&Logged> = self.logged.iter().filter(|logged| logged.topic == topic).collect();
        let missed: u64 = of_topic.iter().map(|logged| logged.missed).sum();
        let mut last = BTreeMap::new();
        let mut unexplained = 0;
        for Logged { head, missed, by, .. } in &of_topic {
            let before = last.insert((*by, head.run), head.number);
            unexplained += before.map_or(0, |before| head.number.abs_diff(before + 1 + missed));
        }
        format!("{} came, missed {missed}, unexplained {unexplained}", of_topic.len())
    }
}

fn ages(seen: &[Seen]) -> String {
    format!("{} came; their age: {}", seen.len(), percentiles(&histogram(seen.iter().map(|seen| seen.age_ns))))
}

fn histogram(times_ns: impl Iterator<Item = u64>) -> Histogram<u64> {
    let mut histogram = Histogram::new(3).expect("three digits are possible");
    times_ns.for_each(|time| histogram.record(time).expect("it grows"));
    histogram
}

fn percentiles(times: &Histogram<u64>) -> String {
    let [p50, p90] = [0.5, 0.9].map(|quantile| milliseconds(times.value_at_quantile(quantile)));
    format!("p50 {p50}, p90 {p90}, max {}", milliseconds(times.max()))
}

fn milliseconds(ns: u64) -> String {
    format!("{:.2} ms", ns as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(processed: &[u64]) -> Account {
        let sent = [1, 2, 3, 3, 4].map(|number| Sent { number, processed: 0 });
        let processed: Vec<Head> = processed.iter().map(|&number| Head { number, run: 1 }).collect();
        Account::new(&sent, &processed)
    }

    #[test]
    fn what_is_lost_or_doubled_or_out_of_order_is_no_good_result() {
        for (processed, lost, doubled, out_of_order) in
            [(&[1, 2, 3, 4][..], 0, 0, 0), (&[1, 2, 4], 1, 0, 0), (&[1, 2, 2, 3, 4], 0, 1, 0), (&[1, 3, 2, 4], 0, 0, 1)]
        {
            let account = account(processed);
            assert_eq!((account.lost, account.doubled, account.out_of_order), (lost, doubled, out_of_order));
            assert_eq!(account.is_good(), processed == [1, 2, 3, 4], "{processed:?}");
            assert_eq!((account.sent, account.sent_again), (4, 1));
        }
    }
}
