//! Nodes, inboxes and channels as lines of a table: what is shown of them, and by what they are sorted.

use librpc::Histogram;

use crate::latency::{grouped, readable};
use crate::snapshot::{ChannelRow, Key, Recent, Snapshot, State};
use crate::warnings::FULL;

/// A column: how wide, and how soon it goes where there is no room (0: never).
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) goes: u8,
    pub(super) is_text: bool,
}

const fn text(title: &'static str, width: u16, goes: u8) -> Column {
    Column { title, width, goes, is_text: true }
}

const fn number(title: &'static str, width: u16, goes: u8) -> Column {
    Column { title, width, goes, is_text: false }
}

pub(super) const CHANNELS: [Column; 12] = [
    text("FROM", 16, 0),
    text("TO", 16, 0),
    text("ADDRESS", 20, 5),
    number("MSG/S", 11, 0),
    number("BYTES/S", 13, 4),
    number("QUEUED", 9, 2),
    number("DEPTH", 15, 0),
    number("LOST", 9, 1),
    number("P50", 9, 6),
    number("P99", 9, 1),
    number("P99.9", 9, 7),
    number("MAX", 9, 8),
];

pub(super) const NODES: [Column; 9] = [
    text("NODE", 20, 0),
    text("STATE", 8, 0),
    number("PID", 9, 3),
    number("UID", 7, 5),
    number("IN/S", 11, 0),
    number("OUT/S", 11, 0),
    number("CHANNELS", 9, 2),
    number("FULLEST", 15, 1),
    number("LOST", 9, 1),
];

pub(super) const INBOXES: [Column; 8] = [
    text("ADDRESS", 28, 0),
    text("NODE", 18, 0),
    text("POLICY", 12, 3),
    number("CHANNELS", 9, 2),
    number("MSG/S", 11, 0),
    number("FULLEST", 15, 0),
    number("LOST", 9, 1),
    number("P99", 9, 2),
];

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Node(String),
    Inbox(String),
    Channel(Key),
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) about: About,
    pub(super) cells: Vec<String>,
    /// What each number is, for sorting.
    pub(super) keys: Vec<f64>,
    pub(super) is_bad: bool,
}

/// How full, as a bar of eight characters.
pub(super) fn bar(part: f64) -> String {
    let eighths = (part.clamp(0.0, 1.0) * 64.0).round() as usize;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let drawn = "█".repeat(eighths / 8) + partial;
    format!("{drawn:·<8} {:>3.0} %", part * 100.0)
}

fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
}

/// The latest latencies, or those of all time where there are none.
pub(super) fn latency<'a>(row: &'a ChannelRow, recent: Option<&'a Recent>) -> &'a Histogram {
    recent.map(|recent| &recent.latency).filter(|latency| !latency.is_empty()).unwrap_or(&row.stats.latency)
}

fn time(histogram: &Histogram, part: f64) -> (String, f64) {
    histogram.quantile(part).map_or_else(|| ("-".to_owned(), -1.0), |ns| (readable(ns), ns as f64))
}

fn line(about: About, is_bad: bool, cells: impl IntoIterator<Item = (String, f64)>) -> Line {
    let (cells, keys) = cells.into_iter().unzip();
    Line { about, cells, keys, is_bad }
}

fn word(word: &str) -> (String, f64) {
    (word.to_owned(), 0.0)
}

fn count(count: u64) -> (String, f64) {
    (grouped(count), count as f64)
}

/// The channels that have to do with something; empty: all.
pub(super) fn channels(snapshot: &Snapshot, recent: &[Option<Recent>], filter: &str) -> Vec<Line> {
    let rows = snapshot.channels.iter().enumerate();
    let rows = rows.filter(|(_, row)| {
        let contains = |text: &String| text.contains(filter);
        filter.is_empty()
            || row.concerns(filter)
            || contains(&row.from)
            || contains(&row.to)
            || contains(&row.address())
    });
    rows.map(|(at, row)| {
        let recent = recent.get(at).and_then(Option::as_ref);
        let rates = recent.map(|recent| recent.rates).unwrap_or_default();
        let latency = latency(row, recent);
        let is_full = row.fill() >= FULL && row.stats.policy != librpc::Policy::Latest;
        let cells = [
            word(&row.from),
            word(&row.to),
            word(&row.address()),
            (rate(rates.sent), rates.sent),
            (rate(rates.bytes), rates.bytes),
            count(row.stats.queued),
            (bar(row.fill()), row.fill()),
            count(row.lost()),
            time(latency, 0.5),
            time(latency, 0.99),
            time(latency, 0.999),
            time(latency, 1.0),
        ];
        line(About::Channel(row.key.clone()), is_full || rates.lost > 0.0, cells)
    })
    .collect()
}

/// What several channels are together.
#[derive(Default)]
struct Together {
    channels: u64,
    incoming: f64,
    outgoing: f64,
    fullest: f64,
    lost: u64,
    latency: Histogram,
}

impl Together {
    fn of(snapshot: &Snapshot, recent: &[Option<Recent>], mut wants: impl FnMut(&ChannelRow) -> (bool, bool)) -> Self {
        let mut sum = Self::default();
        for (at, row) in snapshot.channels.iter().enumerate() {
            let recent = recent.get(at).and_then(Option::as_ref);
            let rates = recent.map(|recent| recent.rates).unwrap_or_default();
            let (comes, goes) = wants(row);
            if comes || goes {
                sum.channels += 1;
            }
            if comes {
                sum.incoming += rates.received;
                sum.fullest = sum.fullest.max(row.fill());
                sum.lost = sum.lost.saturating_add(row.lost());
                sum.latency += latency(row, recent);
            }
            if goes {
                sum.outgoing += rates.sent;
            }
        }
        sum
    }
}

pub(super) fn nodes(snapshot: &Snapshot, recent: &[Option<Recent>], filter: &str) -> Vec<Line> {
    let wanted = snapshot.nodes.iter().filter(|node| {
        filter.is_empty() || node.id.contains(filter) || node.addresses.iter().any(|address| address.contains(filter))
    });
    wanted
        .map(|node| {
            let sum = Together::of(snapshot, recent, |row| (row.to == node.id, row.from == node.id));
            let cells = [
                word(&node.id),
                word(node.state.name()),
                (node.pid.to_string(), f64::from(node.pid)),
                (node.uid.to_string(), f64::from(node.uid)),
                (rate(sum.incoming), sum.incoming),
                (rate(sum.outgoing), sum.outgoing),
                count(sum.channels),
                (bar(sum.fullest), sum.fullest),
                count(sum.lost),
            ];
            line(About::Node(node.id.clone()), node.state != State::Alive || sum.fullest >= FULL, cells)
        })
        .collect()
}

pub(super) fn inboxes(snapshot: &Snapshot, recent: &[Option<Recent>], filter: &str) -> Vec<Line> {
    let wanted = snapshot.inboxes.iter().filter(|inbox| {
        filter.is_empty()
            || inbox.node.contains(filter)
            || inbox.addresses.iter().any(|address| address.contains(filter))
    });
    wanted
        .map(|inbox| {
            let is_its = |row: &ChannelRow| row.to == inbox.node && row.stats.inbox == inbox.number;
            let sum = Together::of(snapshot, recent, |row| (is_its(row), false));
            let address = inbox.addresses.join(" ");
            let lost = sum.lost.saturating_add(inbox.ended.dropped).saturating_add(inbox.ended.missed);
            let cells = [
                word(&address),
                word(&inbox.node),
                word(inbox.policy),
                count(sum.channels),
                (rate(sum.incoming), sum.incoming),
                (bar(sum.fullest), sum.fullest),
                count(lost),
                time(&sum.latency, 0.99),
            ];
            let first = inbox.addresses.first().cloned().unwrap_or_default();
            line(About::Inbox(first), sum.fullest >= FULL && inbox.policy != "latest", cells)
        })
        .collect()
}
