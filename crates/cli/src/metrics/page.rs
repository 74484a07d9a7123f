//! The content of the page, with names and units as Prometheus wants them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use librpc::{CallStats, Histogram, Totals};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::counters::{Counters, Labels, Told, label};
use super::topics::{TopicLabels, TopicSum};
use crate::snapshot::{Payloads, Snapshot, State};

/// The upper bounds of the latency buckets in ns: every fourth doubling of the library's histogram.
const ENDS_NS: [u64; 14] = {
    let mut ends = [256; 14];
    let mut at = 1;
    while at < ends.len() {
        ends[at] = ends[at - 1] * 4;
        at += 1;
    }
    ends
};

/// Writes the page.
pub(super) fn encode(
    snapshot: &Snapshot,
    counters: &Arc<Counters>,
    topics: Vec<(TopicLabels, TopicSum)>,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page::of(snapshot, counters.clone(), topics)));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(page)
}

/// All channels between the same two nodes with the same address.
#[derive(Debug, Default)]
struct Sum {
    channels: u64,
    queued: u64,
    depth: u64,
    depth_max: u64,
    capacity: u64,
    lent: u64,
    lent_bytes: u64,
    held: u64,
}

/// Which end has reported a counter.
type Whose = fn(&Counters) -> &BTreeMap<Labels, Told>;
type CounterOf = (&'static str, &'static str, Option<Unit>, Whose, fn(&Totals) -> u64);

const COUNTERS: [CounterOf; 8] = [
    ("librpc_messages_sent", "Messages put into the receiver's ring", None, |c| &c.sent, |t| t.sent),
    ("librpc_messages_received", "Messages handed out by the inbox", None, |c| &c.received, |t| t.received),
    ("librpc_messages_processed", "Messages acknowledged by the receiver", None, |c| &c.received, |t| t.processed),
    ("librpc_messages_dropped", "New messages dropped because the inbox was full", None, |c| &c.sent, |t| t.dropped),
    ("librpc_messages_missed", "Messages overwritten before they were received", None, |c| &c.received, |t| t.missed),
    ("librpc_messages_returned", "Messages returned to their sender as an error", None, |c| &c.sent, |t| t.returned),
    ("librpc_sent", "Payload put into the receiver's ring", Some(Unit::Bytes), |c| &c.sent, |t| t.bytes_sent),
    ("librpc_received", "Payload handed out by the inbox", Some(Unit::Bytes), |c| &c.received, |t| t.bytes_received),
];

#[derive(Debug)]
struct Page {
    channels: BTreeMap<Labels, Sum>,
    counters: Arc<Counters>,
    topics: Vec<(TopicLabels, TopicSum)>,
    nodes: Vec<([(&'static str, String); 2], bool)>,
    /// The nodes that answer. The value is always 1.
    versions: Vec<([(&'static str, String); 2], i64)>,
    /// The memory for large payloads of the nodes that answer.
    payloads: Vec<([(&'static str, String); 1], Payloads)>,
    states: BTreeMap<&'static str, u64>,
}

impl Page {
    fn of(snapshot: &Snapshot, counters: Arc<Counters>, topics: Vec<(TopicLabels, TopicSum)>) -> Self {
        let mut channels: BTreeMap<Labels, Sum> = BTreeMap::new();
        for row in &snapshot.channels {
            let stats = &row.stats;
            let labels = [("from", label(&row.from)), ("to", label(&row.to)), ("address", label(&row.address()))];
            let sum = channels.entry(labels).or_default();
            sum.channels += 1;
            sum.queued = sum.queued.saturating_add(stats.queued);
            sum.depth = sum.depth.saturating_add(stats.depth);
            sum.depth_max = sum.depth_max.saturating_add(stats.depth_max);
            sum.capacity = sum.capacity.saturating_add(stats.capacity);
            let lent = row.lent.map_or((0, 0), |lent| (lent.payloads, lent.bytes));
            sum.lent = sum.lent.saturating_add(lent.0);
            sum.lent_bytes = sum.lent_bytes.saturating_add(lent.1);
            sum.held = sum.held.saturating_add(stats.held);
        }
        let mut states: BTreeMap<_, u64> = State::ALL.map(|state| (state.name(), 0)).into();
        let (mut nodes, mut versions, mut payloads) = (Vec::new(), Vec::new(), Vec::new());
        for node in &snapshot.nodes {
            *states.entry(node.state.name()).or_default() += 1;
            nodes.push(([("node", label(&node.id)), ("uid", node.uid.to_string())], node.state == State::Alive));
            payloads.extend(node.payloads.map(|payloads| ([("node", label(&node.id))], payloads)));
            // Not one of the other labels: a node that does not answer has no version, so its series would change.
            if let Some(version) = &node.version {
                versions.push(([("node", label(&node.id)), ("version", label(version))], 1));
            }
        }
        Self { channels, counters, topics, nodes, versions, payloads, states }
    }
}

/// Writes one metric for all of these.
fn family<'a, T: 'a, L: AsRef<[(&'static str, String)]> + 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
    all: impl Iterator<Item = (&'a L, &'a T)>,
    write: impl Fn(&T, MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit, kind)?;
    for (labels, value) in all {
        write(value, metric.encode_family(&labels.as_ref().to_vec())?)?;
    }
    Ok(())
}

impl Page {
    /// What clients and servers have counted. Their names begin with `librpc_calls`, or `librpc_call`.
    fn encode_calls(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let calls = &self.counters.calls;
        type Of = fn(&CallStats) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("librpc_calls", "Calls begun by the node's clients, or requests that came to its servers", |calls| {
                calls.calls
            }),
            ("librpc_calls_answered", "Those that were answered", |calls| calls.answered),
        ];
        for (name, help, of) in counters {
            let what = (name, help, None, MetricType::Counter);
            family(to, what, calls.iter(), |told, metric| ConstCounter::new(of(&told.stats)).encode(metric))?;
        }
        let failed: Vec<_> = (calls.iter())
            .flat_map(|([node, service, side], told)| {
                told.stats.failures.iter().map(|(kind, count)| {
                    ([node.clone(), service.clone(), side.clone(), ("failure", kind.name().to_owned())], count)
                })
            })
            .collect();
        let what = ("librpc_calls_failed", "Those that have failed, by kind of failure", None, MetricType::Counter);
        let each = failed.iter().map(|(labels, count)| (labels, count));
        family(to, what, each, |count, metric| ConstCounter::new(*count).encode(metric))?;
        let gauges: [(&str, &str, Of); 2] = [
            ("librpc_calls_in_flight", "Calls that are under way", CallStats::in_flight),
            ("librpc_call_ends", "Clients, or servers, of the service that are open", |calls| calls.open),
        ];
        for (name, help, of) in gauges {
            let what = (name, help, None, MetricType::Gauge);
            family(to, what, calls.iter(), |told, metric| {
                ConstGauge::new(i64::try_from(of(&told.stats)).unwrap_or(i64::MAX)).encode(metric)
            })?;
        }
        let help = "From the request to the end of the reply, of the calls whose time was measured";
        let latency = ("librpc_call_latency", help, Some(&Unit::Seconds), MetricType::Histogram);
        family(to, latency, calls.iter(), |told, mut metric| histogram(&told.stats.latency, &mut metric))
    }
}

impl Page {
    /// What is published, by topic.
    fn encode_topics(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Of = fn(&TopicSum) -> u64;
        let each = || self.topics.iter().map(|(labels, sum)| (labels, sum));
        let gauges: [(&str, &str, Of); 2] = [
            ("librpc_topic_publishers", "Nodes that publish on the topic", |sum| sum.publishers),
            ("librpc_topic_subscriptions", "Subscriptions that match the topic", |sum| sum.subscriptions),
        ];
        for (name, help, of) in gauges {
            family(to, (name, help, None, MetricType::Gauge), each(), |sum, metric| {
                ConstGauge::new(i64::try_from(of(sum)).unwrap_or(i64::MAX)).encode(metric)
            })?;
        }
        let help = "Messages published on the topic, each counted once, whether anybody subscribes or not";
        family(to, ("librpc_topic_messages", help, None, MetricType::Counter), each(), |sum, metric| {
            ConstCounter::new(sum.messages).encode(metric)
        })?;
        let what = ("librpc_topic", "Payload published on the topic", Some(&Unit::Bytes), MetricType::Counter);
        family(to, what, each(), |sum, metric| ConstCounter::new(sum.bytes).encode(metric))
    }
}

impl Collector for Page {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        for (name, help, unit, whose, of) in &COUNTERS {
            let what = (*name, *help, unit.as_ref(), MetricType::Counter);
            family(to, what, whose(&self.counters).iter(), |told, metric| {
                ConstCounter::new(of(&told.totals)).encode(metric)
            })?;
        }
        let blocked =
            ("librpc_blocked", "Time senders have waited for room", Some(&Unit::Seconds), MetricType::Counter);
        family(to, blocked, self.counters.sent.iter(), |told, metric| {
            ConstCounter::new(told.totals.blocked.as_secs_f64()).encode(metric)
        })?;
        type Gauge<'u> = (&'static str, &'static str, Option<&'u Unit>, fn(&Sum) -> u64);
        let gauges: [Gauge<'_>; 8] = [
            ("librpc_channels", "Channels", None, |sum| sum.channels),
            ("librpc_queue_depth", "Messages in rings or being processed", None, |sum| sum.queued),
            ("librpc_queue_used", "Bytes in use in rings", Some(&Unit::Bytes), |sum| sum.depth),
            ("librpc_queue_used_max", "Most room ever in use, ring by ring", Some(&Unit::Bytes), |sum| sum.depth_max),
            ("librpc_queue_capacity", "Size of the rings in bytes", Some(&Unit::Bytes), |sum| sum.capacity),
            ("librpc_lent_payloads", "Large payloads that wait or are held", None, |sum| sum.lent),
            ("librpc_lent", "Size of the large payloads that wait or are held", Some(&Unit::Bytes), |sum| {
                sum.lent_bytes
            }),
            ("librpc_held_payloads", "Large payloads that the receiver holds as samples", None, |sum| sum.held),
        ];
        for (name, help, unit, of) in gauges {
            let what = (name, help, unit, MetricType::Gauge);
            family(to, what, self.channels.iter(), |sum, metric| {
                ConstGauge::new(i64::try_from(of(sum)).unwrap_or(i64::MAX)).encode(metric)
            })?;
        }
        let help = "From commit to processed, of the messages that carry a time stamp";
        let latency = ("librpc_delivery_latency", help, Some(&Unit::Seconds), MetricType::Histogram);
        family(to, latency, self.counters.received.iter(), |told, mut metric| histogram(&told.latency, &mut metric))?;
        type Of = fn(&Totals) -> u64;
        let inboxes: [(&str, Of); 4] = [
            ("received", |totals| totals.received),
            ("processed", |totals| totals.processed),
            ("dropped", |totals| totals.dropped),
            ("missed", |totals| totals.missed),
        ];
        for (what, of) in inboxes {
            let name = format!("librpc_inbox_messages_{what}");
            let help = format!("Messages {what} since the inbox was opened, channels that have ended included");
            let what = (&*name, &*help, None, MetricType::Counter);
            family(to, what, self.counters.inboxes.iter(), |told, metric| {
                ConstCounter::new(of(&told.totals)).encode(metric)
            })?;
        }
        self.encode_calls(to)?;
        self.encode_topics(to)?;
        let up = ("librpc_node_up", "Whether the node answers", None, MetricType::Gauge);
        let nodes = self.nodes.iter().map(|(labels, up)| (labels, up));
        family(to, up, nodes, |up, metric| ConstGauge::new(i64::from(*up)).encode(metric))?;
        let version = ("librpc_node_version", "The version of each node that answers", None, MetricType::Gauge);
        let versions = self.versions.iter().map(|(labels, one)| (labels, one));
        family(to, version, versions, |one, metric| ConstGauge::new(*one).encode(metric))?;
        type OfNode = fn(&Payloads) -> u64;
        let memories: [(&str, &str, OfNode); 2] = [
            ("librpc_payload_memory", "Memory of the node for large payloads", |payloads| payloads.bytes),
            ("librpc_payload_memory_limit", "How much of it the node may have", |payloads| payloads.limit),
        ];
        for (name, help, of) in memories {
            let what = (name, help, Some(&Unit::Bytes), MetricType::Gauge);
            let all = self.payloads.iter().map(|(labels, payloads)| (labels, payloads));
            family(to, what, all, |payloads, metric| {
                ConstGauge::new(i64::try_from(of(payloads)).unwrap_or(i64::MAX)).encode(metric)
            })?;
        }
        let nodes = ("librpc_nodes", "Nodes in each state", None, MetricType::Gauge);
        let states: Vec<_> =
            self.states.iter().map(|(name, count)| ([("state", (*name).to_owned())], *count)).collect();
        let states = states.iter().map(|(labels, count)| (labels, count));
        family(to, nodes, states, |count, metric| ConstGauge::new(*count as i64).encode(metric))
    }
}

fn histogram(latency: &Histogram, metric: &mut MetricEncoder<'_>) -> fmt::Result {
    let mut before = 0;
    let mut buckets: Vec<(f64, u64)> = Vec::new();
    for end in ENDS_NS {
        let below = latency.count_below(end);
        buckets.push((end as f64 / 1e9, below - before));
        before = below;
    }
    buckets.push((f64::MAX, latency.count() - before));
    metric.encode_histogram::<prometheus_client::encoding::NoLabelSet>(
        latency.sum_ns() as f64 / 1e9,
        latency.count(),
        &buckets,
        None,
    )
}
