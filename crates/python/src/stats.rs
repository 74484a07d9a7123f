//! What a node reports about itself, as records.

use std::time::Duration;

use librpc::{
    CallStats, ChannelStats, Denial, EndedChannels, Histogram, InboxStats, NodeStats, PublishedTopic, Refused, Totals,
};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::records::{address, names, record};

fn time(time: Option<Duration>) -> Option<f64> {
    time.map(|time| time.as_secs_f64())
}

fn histogram<'py>(py: Python<'py>, histogram: &Histogram) -> PyResult<Bound<'py, PyAny>> {
    let quantile = |part| histogram.quantile(part).map(|ns| ns as f64 / 1e9);
    let buckets: Vec<(f64, Option<f64>, u64)> = histogram
        .buckets()
        .map(|bucket| (bucket.from_ns as f64 / 1e9, bucket.to_ns.map(|ns| ns as f64 / 1e9), bucket.count))
        .collect();
    record!(py, "Histogram", {
        count: histogram.count(),
        sum: histogram.sum_ns() as f64 / 1e9,
        max: histogram.max_ns() as f64 / 1e9,
        p50: quantile(0.5),
        p90: quantile(0.9),
        p99: quantile(0.99),
        p999: quantile(0.999),
        buckets: buckets,
    })
}

fn channel<'py>(py: Python<'py>, channel: &ChannelStats) -> PyResult<Bound<'py, PyAny>> {
    let texts = |list: &[std::sync::Arc<str>]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    record!(py, "ChannelStats", {
        peer: &*channel.peer,
        peer_incarnation: channel.peer_incarnation.to_string(),
        peer_pid: channel.peer_pid,
        inbox: channel.inbox,
        state: names(&channel.state),
        policy: names(&channel.policy),
        topics: texts(&channel.topics),
        types: texts(&channel.types),
        depth: channel.depth,
        depth_max: channel.depth_max,
        capacity: channel.capacity,
        sent: channel.sent,
        bytes_sent: channel.bytes_sent,
        dropped: channel.dropped,
        returned: channel.returned,
        too_large: channel.too_large,
        no_room: channel.no_room,
        no_memory: channel.no_memory,
        blocked: channel.blocked.as_secs_f64(),
        received: channel.received,
        bytes_received: channel.bytes_received,
        processed: channel.processed,
        missed: channel.missed,
        queued: channel.queued,
        lent: channel.lent,
        lent_bytes: channel.lent_bytes,
        held: channel.held,
        last_sent: time(channel.last_sent),
        last_processed: time(channel.last_processed),
        latency: histogram(py, &channel.latency)?,
    })
}

fn totals<'py>(py: Python<'py>, totals: &Totals) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "Totals", {
        channels: totals.channels,
        sent: totals.sent,
        received: totals.received,
        processed: totals.processed,
        bytes_received: totals.bytes_received,
        dropped: totals.dropped,
        missed: totals.missed,
        bytes_sent: totals.bytes_sent,
        returned: totals.returned,
        too_large: totals.too_large,
        no_room: totals.no_room,
        no_memory: totals.no_memory,
        blocked: totals.blocked.as_secs_f64(),
    })
}

fn all<'py, T>(
    py: Python<'py>,
    list: &[T],
    show: impl Fn(Python<'py>, &T) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Vec<Bound<'py, PyAny>>> {
    list.iter().map(|one| show(py, one)).collect()
}

fn inbox<'py>(py: Python<'py>, inbox: &InboxStats) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "InboxStats", {
        number: inbox.number,
        address: address(py, &inbox.address)?,
        policy: names(&inbox.policy),
        capacity: inbox.capacity,
        channels: all(py, &inbox.channels, channel)?,
        ended: totals(py, &inbox.ended)?,
    })
}

fn ended<'py>(py: Python<'py>, ended: &EndedChannels) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "EndedChannels", {
        peer: &*ended.peer,
        address: address(py, &ended.address)?,
        totals: totals(py, &ended.totals)?,
        latency: histogram(py, &ended.latency)?,
    })
}

fn calls<'py>(py: Python<'py>, calls: &CallStats) -> PyResult<Bound<'py, PyAny>> {
    let failures = PyDict::new(py);
    for (kind, count) in calls.failures.iter() {
        failures.set_item(names(&kind), count)?;
    }
    record!(py, "CallStats", {
        service: &*calls.service,
        side: names(&calls.side),
        open: calls.open,
        calls: calls.calls,
        answered: calls.answered,
        in_flight: calls.in_flight(),
        failures: failures,
        latency: histogram(py, &calls.latency)?,
    })
}

pub(crate) fn denial<'py>(py: Python<'py>, denial: &Denial) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "Denial", {
        inbox: denial.inbox,
        by: &*denial.by,
        uid: denial.uid,
        topic: &*denial.topic,
        text: &*denial.text,
        is_mismatch: denial.is_mismatch,
    })
}

pub(crate) fn refused<'py>(py: Python<'py>, refused: &Refused) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "RefusedPeer", {
        uid: refused.uid,
        pid: refused.pid,
        reason: names(&refused.reason),
        text: &*refused.text,
        count: refused.count,
        last: refused.last.as_secs_f64(),
    })
}

fn published<'py>(py: Python<'py>, topic: &PublishedTopic) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "PublishedTopic", {
        topic: &*topic.topic,
        schema: &*topic.schema,
        publishers: topic.publishers,
        unheard: topic.unheard,
        unheard_bytes: topic.unheard_bytes,
        last_unheard: time(topic.last_unheard),
    })
}

pub(crate) fn node_stats<'py>(py: Python<'py>, stats: &NodeStats) -> PyResult<Bound<'py, PyAny>> {
    record!(py, "NodeStats", {
        node: &*stats.node,
        incarnation: stats.incarnation.to_string(),
        version: &stats.version,
        inboxes: all(py, &stats.inboxes, inbox)?,
        outgoing: all(py, &stats.outgoing, channel)?,
        ended_incoming: all(py, &stats.ended_incoming, ended)?,
        ended_outgoing: all(py, &stats.ended_outgoing, ended)?,
        calls: all(py, &stats.calls, calls)?,
        denials: all(py, &stats.denials, denial)?,
        refused: all(py, &stats.refused, refused)?,
        published: all(py, &stats.published, published)?,
        published_left_out: stats.published_left_out,
        payload_bytes: stats.payload_bytes,
        payload_limit: stats.payload_limit,
    })
}
