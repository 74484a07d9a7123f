//! Nodes, inboxes, channels and services as lines of a table: what is shown of them, and what they are sorted by.

use std::borrow::Cow;

use librpc::Histogram;

use crate::about;
use crate::latency::{grouped, readable, size};
use crate::snapshot::{ChannelRow, InboxRow, Key, Losses, Snapshot, State};
use crate::warnings::FULL;

/// A column: its width, and how soon it is left out when there is no room (0: never).
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

pub(super) const CHANNELS: [Column; 14] = [
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
    number("LENT", 9, 9),
    number("HELD", 6, 10),
];

pub(super) const NODES: [Column; 10] = [
    text("NODE", 20, 0),
    text("STATE", 8, 0),
    number("PID", 9, 3),
    number("UID", 7, 5),
    number("IN/S", 11, 0),
    number("OUT/S", 11, 0),
    number("CHANNELS", 9, 2),
    number("FULLEST", 15, 1),
    number("LOST", 9, 1),
    number("PAYLOADS", 9, 4),
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

pub(super) const SERVICES: [Column; 12] = [
    text("SERVICE", 22, 0),
    text("SIDE", 7, 0),
    text("NODE", 18, 0),
    number("CALLS/S", 11, 0),
    number("IN FLIGHT", 10, 0),
    number("FAILED/S", 9, 2),
    number("FAILED", 9, 1),
    number("P50", 9, 3),
    number("P99", 9, 1),
    number("P99.9", 9, 5),
    number("MAX", 9, 6),
    text("FAILURES", 20, 4),
];

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum About {
    Node(String),
    Inbox(Inbox),
    Channel(Key),
    /// Of a node: which one, and which side.
    Service(String, String, &'static str),
}

/// Which inbox, and its address for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Inbox {
    incarnation: String,
    number: u32,
    address: String,
}

#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) about: About,
    pub(super) cells: Vec<String>,
    /// The value of each number, for sorting.
    pub(super) keys: Vec<f64>,
    pub(super) is_bad: bool,
}

/// A bar of eight characters, and the percentage.
pub(super) fn bar(part: f64) -> String {
    let eighths = (part.clamp(0.0, 1.0) * 64.0).round() as usize;
    let partial = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    let drawn = "█".repeat(eighths / 8) + partial;
    format!("{drawn:·<8} {:>3.0} %", part * 100.0)
}

fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 9.95 { format!("{per_second:.1}") } else { grouped(per_second.round() as u64) }
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

fn bytes(bytes: u64) -> (String, f64) {
    (size(bytes), bytes as f64)
}

/// What is shown.
#[derive(Clone, Debug, Default)]
pub(super) enum Filter {
    #[default]
    All,
    /// Lines with this text in a name.
    Text(String),
    /// Lines that are connected to this node, topic or pattern.
    About(String),
    /// The channels that lead to this inbox.
    Inbox(Inbox),
}

impl Filter {
    /// The text that is shown and edited. Empty: everything is shown.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::All => "",
            Self::Text(text) | Self::About(text) => text,
            Self::Inbox(inbox) => &inbox.address,
        }
    }

    /// The filter that the user types. An empty one shows everything.
    pub(super) fn typed(text: String) -> Self {
        if text.is_empty() { Self::All } else { Self::Text(text) }
    }

    /// What is shown of a snapshot.
    pub(super) fn part<'s>(&self, snapshot: &'s Snapshot) -> Cow<'s, Snapshot> {
        let text = match self {
            Self::All => return Cow::Borrowed(snapshot),
            Self::About(what) => return Cow::Owned(about::part(snapshot, what)),
            Self::Inbox(wanted) => {
                let mut part = snapshot.clone();
                part.inboxes.retain(|inbox| wanted.is(inbox));
                part.channels.retain(|row| part.inboxes.iter().any(|inbox| row.leads_to(inbox)));
                part.services.retain(|row| *row.stats.service == *wanted.address);
                part.nodes.retain(|node| part.inboxes.iter().any(|inbox| inbox.node == node.id));
                return Cow::Owned(part);
            }
            Self::Text(text) => text,
        };
        let mut part = snapshot.clone();
        let has = |names: &[String]| names.iter().any(|name| name.contains(text));
        part.nodes.retain(|node| node.id.contains(text) || has(&node.addresses));
        part.inboxes.retain(|inbox| inbox.node.contains(text) || has(&inbox.addresses));
        part.services.retain(|row| row.node.contains(text) || row.stats.service.contains(text));
        part.channels.retain(|row| {
            let topics = row.stats.topics.iter().any(|topic| topic.contains(text));
            row.from.contains(text) || row.to.contains(text) || has(&row.addresses) || topics
        });
        Cow::Owned(part)
    }
}

impl Inbox {
    fn is(&self, inbox: &InboxRow) -> bool {
        (&self.incarnation, self.number) == (&inbox.incarnation, inbox.number)
    }
}

impl From<&InboxRow> for Inbox {
    fn from(inbox: &InboxRow) -> Self {
        let address = inbox.addresses.first().unwrap_or(&inbox.node).clone();
        Self { incarnation: inbox.incarnation.clone(), number: inbox.number, address }
    }
}

pub(super) fn channels(_: &Snapshot, part: &Snapshot) -> Vec<Line> {
    let lines = part.channels.iter().map(|row| {
        let (rates, latency) = (row.rates(), row.latency());
        let is_full = row.fill() >= FULL && row.stats.policy != librpc::Policy::DropOldest;
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
            row.lent.map_or_else(|| ("-".to_owned(), -1.0), |lent| bytes(lent.bytes)),
            count(row.stats.held),
        ];
        line(About::Channel(row.key.clone()), is_full || rates.lost > 0.0, cells)
    });
    lines.collect()
}

/// The sum of several channels.
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
    /// Sums up the incoming and the outgoing channels.
    fn of(snapshot: &Snapshot, mut direction: impl FnMut(&ChannelRow) -> (bool, bool)) -> Self {
        let mut sum = Self::default();
        for row in &snapshot.channels {
            let rates = row.rates();
            let (comes, goes) = direction(row);
            if comes || goes {
                sum.channels += 1;
            }
            if comes {
                sum.incoming += rates.received;
                sum.fullest = sum.fullest.max(row.fill());
                sum.lost = sum.lost.saturating_add(row.lost());
                sum.latency += row.latency();
            }
            if goes {
                sum.outgoing += rates.sent;
            }
        }
        sum
    }
}

/// The nodes of a part. Their numbers are sums over all of their channels.
pub(super) fn nodes(snapshot: &Snapshot, part: &Snapshot) -> Vec<Line> {
    let lines = part.nodes.iter().map(|node| {
        let sum = Together::of(snapshot, |row| (row.to == node.id, row.from == node.id));
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
            node.payloads.map_or_else(|| ("-".to_owned(), -1.0), |payloads| bytes(payloads.bytes)),
        ];
        line(About::Node(node.id.clone()), node.state != State::Alive || sum.fullest >= FULL, cells)
    });
    lines.collect()
}

/// The inboxes of a part. Their numbers are sums over all of their channels.
pub(super) fn inboxes(snapshot: &Snapshot, part: &Snapshot) -> Vec<Line> {
    let lines = part.inboxes.iter().map(|inbox| {
        let sum = Together::of(snapshot, |row| (row.leads_to(inbox), false));
        let ended = inbox.ended.unwrap_or_default();
        let cells = [
            word(&inbox.addresses.join(" ")),
            word(&inbox.node),
            word(inbox.policy),
            count(sum.channels),
            (rate(sum.incoming), sum.incoming),
            (bar(sum.fullest), sum.fullest),
            count(sum.lost.saturating_add(Losses::from(&ended).all())),
            time(&sum.latency, 0.99),
        ];
        line(About::Inbox(inbox.into()), sum.fullest >= FULL && inbox.policy != "drop-oldest", cells)
    });
    lines.collect()
}

pub(super) fn services(_: &Snapshot, part: &Snapshot) -> Vec<Line> {
    let lines = part.services.iter().map(|row| {
        let (stats, latency) = (&row.stats, &row.stats.latency);
        let (calls, failed) = row.recent.map_or((0.0, 0.0), |recent| (recent.calls, recent.failed));
        let cells = [
            word(&stats.service),
            word(row.side()),
            word(&row.node),
            (rate(calls), calls),
            count(stats.in_flight()),
            (rate(failed), failed),
            count(stats.failures.total()),
            time(latency, 0.5),
            time(latency, 0.99),
            time(latency, 0.999),
            time(latency, 1.0),
            word(&row.failures()),
        ];
        let is_bad = failed > 0.0 || row.recent.is_some_and(|recent| recent.is_stuck) && row.is_server();
        line(About::Service(row.node.clone(), stats.service.to_string(), row.side()), is_bad, cells)
    });
    lines.collect()
}
