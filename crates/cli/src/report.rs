//! Nodes, inboxes, channels and services as lines of JSON, every counter by its name: what `stat` and `top --once` write.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::served::ServiceRow;
use crate::snapshot::{ChannelRow, InboxRow, NodeRow, Recent, Snapshot, State, policy_name};
use crate::warnings::Warning;

#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Line<'a> {
    Node(Node<'a>),
    Inbox(Inbox<'a>),
    Channel(Box<Channel<'a>>),
    Service(Box<Service<'a>>),
    Warning(&'a Warning),
}

/// What the clients of a node, or its servers, have counted for a service.
#[derive(Serialize)]
struct Service<'a> {
    service: &'a str,
    side: &'static str,
    node: &'a str,
    open: u64,
    calls: u64,
    answered: u64,
    in_flight: u64,
    failed: u64,
    /// By kind, those that have happened.
    failures: BTreeMap<&'static str, u64>,
    #[serde(flatten)]
    latency: Latency,
    #[serde(flatten)]
    rates: Option<CallRates>,
}

/// What a histogram says. Null: nothing was measured.
#[derive(Serialize)]
pub(crate) struct Latency {
    pub(crate) latency_samples: u64,
    pub(crate) latency_mean_ns: Option<u64>,
    pub(crate) latency_p50_ns: Option<u64>,
    pub(crate) latency_p90_ns: Option<u64>,
    pub(crate) latency_p99_ns: Option<u64>,
    pub(crate) latency_p999_ns: Option<u64>,
    pub(crate) latency_max_ns: Option<u64>,
}

impl From<&librpc::Histogram> for Latency {
    fn from(latency: &librpc::Histogram) -> Self {
        let (quantile, samples) = (|part| latency.quantile(part), latency.count());
        Self {
            latency_samples: samples,
            latency_mean_ns: latency.sum_ns().checked_div(samples),
            latency_p50_ns: quantile(0.5),
            latency_p90_ns: quantile(0.9),
            latency_p99_ns: quantile(0.99),
            latency_p999_ns: quantile(0.999),
            latency_max_ns: (samples > 0).then(|| latency.max_ns()),
        }
    }
}

#[derive(Serialize)]
struct CallRates {
    calls_per_s: f64,
    failed_per_s: f64,
}

impl<'a> From<&'a ServiceRow> for Service<'a> {
    fn from(row: &'a ServiceRow) -> Self {
        let stats = &row.stats;
        Self {
            service: &stats.service,
            side: row.side(),
            node: &row.node,
            open: stats.open,
            calls: stats.calls,
            answered: stats.answered,
            in_flight: stats.in_flight(),
            failed: stats.failures.total(),
            failures: stats.failures.iter().filter(|(_, n)| *n > 0).map(|(kind, n)| (kind.name(), n)).collect(),
            latency: (&stats.latency).into(),
            rates: row
                .recent
                .map(|recent| CallRates { calls_per_s: round(recent.calls), failed_per_s: round(recent.failed) }),
        }
    }
}

/// A rate with three digits after the point.
pub(crate) fn round(rate: f64) -> f64 {
    (rate * 1000.0).round() / 1000.0
}

#[derive(Serialize)]
struct Node<'a> {
    node: &'a str,
    pid: u32,
    uid: u32,
    incarnation: &'a str,
    state: State,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    inboxes: &'a [String],
    /// Left out if it does not answer.
    #[serde(flatten)]
    payloads: Option<Payloads>,
}

#[derive(Serialize)]
struct Payloads {
    payload_bytes: u64,
    payload_limit_bytes: u64,
}

#[derive(Serialize)]
struct Inbox<'a> {
    node: &'a str,
    inbox: u32,
    addresses: &'a [String],
    policy: &'a str,
    capacity_bytes: u64,
    channels: usize,
    /// Left out if the node does not report it.
    #[serde(flatten)]
    ended: Option<Ended>,
}

#[derive(Serialize)]
struct Ended {
    ended_channels: u64,
    ended_sent: u64,
    ended_received: u64,
    ended_processed: u64,
    ended_received_bytes: u64,
    ended_dropped: u64,
    ended_missed: u64,
    ended_returned: u64,
    ended_too_large: u64,
    ended_no_room: u64,
    ended_no_memory: u64,
}

#[derive(Serialize)]
struct Channel<'a> {
    from: &'a str,
    to: &'a str,
    inbox: u32,
    addresses: &'a [String],
    topics: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ring: Option<u32>,
    state: &'static str,
    /// Which end reports it.
    seen_by: &'static str,
    policy: &'static str,
    pid: u32,
    sent: u64,
    sent_bytes: u64,
    received: u64,
    received_bytes: u64,
    processed: u64,
    queued: u64,
    dropped: u64,
    missed: u64,
    returned: u64,
    too_large: u64,
    no_room: u64,
    no_memory: u64,
    blocked_ns: u64,
    depth_bytes: u64,
    depth_max_bytes: u64,
    capacity_bytes: u64,
    /// Null if the sender does not answer.
    lent: Option<u64>,
    lent_bytes: Option<u64>,
    held: u64,
    last_sent_ago_ns: Option<u64>,
    last_processed_ago_ns: Option<u64>,
    #[serde(flatten)]
    latency: Latency,
    #[serde(flatten)]
    rates: Option<Rates>,
}

#[derive(Serialize)]
struct Rates {
    sent_per_s: f64,
    received_per_s: f64,
    sent_bytes_per_s: f64,
    lost_per_s: f64,
    blocked_part: f64,
}

impl<'a> From<&'a ChannelRow> for Channel<'a> {
    fn from(row: &'a ChannelRow) -> Self {
        let stats = &row.stats;
        Self {
            from: &row.from,
            to: &row.to,
            inbox: stats.inbox,
            addresses: &row.addresses,
            topics: stats.topics.iter().map(|topic| &**topic).collect(),
            ring: stats.ring,
            state: state_name(stats.state),
            seen_by: if row.by_receiver { "receiver" } else { "sender" },
            policy: policy_name(stats.policy),
            pid: stats.peer_pid,
            sent: stats.sent,
            sent_bytes: stats.bytes_sent,
            received: stats.received,
            received_bytes: stats.bytes_received,
            processed: stats.processed,
            queued: stats.queued,
            dropped: stats.dropped,
            missed: stats.missed,
            returned: stats.returned,
            too_large: stats.too_large,
            no_room: stats.no_room,
            no_memory: stats.no_memory,
            blocked_ns: stats.blocked.as_nanos() as u64,
            depth_bytes: stats.depth,
            depth_max_bytes: stats.depth_max,
            capacity_bytes: stats.capacity,
            lent: row.lent.map(|lent| lent.payloads),
            lent_bytes: row.lent.map(|lent| lent.bytes),
            held: stats.held,
            last_sent_ago_ns: stats.last_sent.map(|ago| ago.as_nanos() as u64),
            last_processed_ago_ns: stats.last_processed.map(|ago| ago.as_nanos() as u64),
            latency: (&stats.latency).into(),
            rates: row.recent.as_ref().map(|Recent { rates, .. }| Rates {
                sent_per_s: round(rates.sent),
                received_per_s: round(rates.received),
                sent_bytes_per_s: round(rates.bytes),
                lost_per_s: round(rates.lost),
                blocked_part: round(rates.blocked),
            }),
        }
    }
}

pub(crate) fn state_name(state: librpc::ChannelState) -> &'static str {
    match state {
        librpc::ChannelState::Pending => "pending",
        librpc::ChannelState::Open => "open",
        _ => "failed",
    }
}

impl<'a> From<&'a NodeRow> for Node<'a> {
    fn from(row: &'a NodeRow) -> Self {
        let NodeRow { id, pid, uid, incarnation, state, why, version, addresses, .. } = row;
        let (why, version) = (why.as_deref(), version.as_deref());
        let payloads = row
            .payloads
            .map(|payloads| Payloads { payload_bytes: payloads.bytes, payload_limit_bytes: payloads.limit });
        Self { node: id, pid: *pid, uid: *uid, incarnation, state: *state, why, version, inboxes: addresses, payloads }
    }
}

impl<'a> From<&'a InboxRow> for Inbox<'a> {
    fn from(row: &'a InboxRow) -> Self {
        let ended = row.ended.map(|ended| Ended {
            ended_channels: ended.channels,
            ended_sent: ended.sent,
            ended_received: ended.received,
            ended_processed: ended.processed,
            ended_received_bytes: ended.bytes_received,
            ended_dropped: ended.dropped,
            ended_missed: ended.missed,
            ended_returned: ended.returned,
            ended_too_large: ended.too_large,
            ended_no_room: ended.no_room,
            ended_no_memory: ended.no_memory,
        });
        Self {
            node: &row.node,
            inbox: row.number,
            addresses: &row.addresses,
            policy: row.policy,
            capacity_bytes: row.capacity,
            channels: row.channels,
            ended,
        }
    }
}

/// A snapshot and its warnings, one object per line.
pub(crate) fn json(snapshot: &Snapshot, warnings: &[Warning]) -> serde_json::Result<String> {
    let lines = (snapshot.nodes.iter().map(|node| Line::Node(node.into())))
        .chain(snapshot.inboxes.iter().map(|inbox| Line::Inbox(inbox.into())))
        .chain(snapshot.channels.iter().map(|row| Line::Channel(Box::new(row.into()))))
        .chain(snapshot.services.iter().map(|row| Line::Service(Box::new(row.into()))))
        .chain(warnings.iter().map(Line::Warning));
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(&line)?);
        text.push('\n');
    }
    Ok(text)
}
