//! What is wrong in a domain, by name: what `top` shows in red.

use serde::Serialize;

use crate::latency::counted;
use crate::served::ServiceRow;
use crate::snapshot::{ChannelRow, NodeRow, Snapshot, State};

/// A ring that is filled to this part counts as full: the largest message may not fit.
pub(crate) const FULL: f64 = 0.75;
/// A sender that waits for this part of its time has a slow consumer.
const SLOW: f64 = 0.1;

/// The names of what is wrong with a service.
pub(crate) const NO_SERVER: &str = "no-server";
pub(crate) const SILENT_SERVER: &str = "silent-server";

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Warning {
    /// slow-consumer, queue-full, drops, too-large, no-memory, denied, mismatch, refused-sender, no-server, silent-server, stalled-node,
    /// dead-node, refused, broken
    pub(crate) name: &'static str,
    pub(crate) node: String,
    /// Of a channel: its other end, the inbox's number, and its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbox: Option<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<String>,
    pub(crate) text: String,
}

impl Warning {
    fn of_node(name: &'static str, node: &str, text: String) -> Self {
        Self { name, node: node.to_owned(), from: None, inbox: None, addresses: Vec::new(), text }
    }
}

/// What is wrong now, and what has gone wrong since an earlier look. If there was none, everything lost so far counts.
pub(crate) fn find(snapshot: &Snapshot) -> Vec<Warning> {
    find_in(snapshot, snapshot)
}

/// The same in a part of a snapshot.
pub(crate) fn find_in(part: &Snapshot, all: &Snapshot) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for node in &part.nodes {
        let denied = |name, text: &str| Warning::of_node(name, &node.id, format!("node {}: {text}", node.id));
        warnings.extend(node.denied().map(|text| denied("denied", text)));
        warnings.extend(node.mismatched(false).map(|text| denied("mismatch", text)));
        warnings.extend(node.refused.iter().map(|refused| denied("refused-sender", &refused.to_string())));
        let (name, what) = match node.state {
            State::Alive => continue,
            State::Stalled => ("stalled-node", "does not answer"),
            State::Dead => ("dead-node", "is dead"),
            State::Refused => ("refused", "refuses to be observed"),
            State::Broken => ("broken", "cannot be observed"),
        };
        let why = node.why.as_deref().unwrap_or_default();
        let text = format!("node {} (pid {}) {what}: {why}", node.id, node.pid);
        warnings.push(Warning::of_node(name, &node.id, text));
    }
    for row in &part.channels {
        channel(row, &mut warnings);
    }
    for row in &part.services {
        warnings.extend(service(row, all));
    }
    warnings
}

/// A client whose service has no server, or a server that does not answer.
fn service(row: &ServiceRow, snapshot: &Snapshot) -> Option<Warning> {
    let (service, node, flying) = (&row.stats.service, &row.node, row.stats.in_flight());
    let (name, text) = match row.is_server() {
        true if row.recent.is_some_and(|recent| recent.is_stuck) => {
            let requests = counted(flying, "request");
            (SILENT_SERVER, format!("node {node} serves {service}, has {requests} in flight, and answers none"))
        }
        false if row.stats.open > 0 && !has_server(service, snapshot) => {
            (NO_SERVER, format!("node {node} calls {service}, which nobody serves"))
        }
        _ => return None,
    };
    Some(Warning::of_node(name, node, text))
}

/// Whether a node serves it, or lists such an address and does not answer.
fn has_server(service: &str, snapshot: &Snapshot) -> bool {
    let serves = |row: &ServiceRow| row.is_server() && row.stats.open > 0 && *row.stats.service == *service;
    let may_serve = |node: &NodeRow| {
        !matches!(node.state, State::Alive | State::Dead) && node.addresses.iter().any(|address| address == service)
    };
    snapshot.services.iter().any(serves) || snapshot.nodes.iter().any(may_serve)
}

fn channel(row: &ChannelRow, warnings: &mut Vec<Warning>) {
    let mut warn = |name, text| {
        let (node, from, inbox) = (row.to.clone(), Some(row.from.clone()), Some(row.stats.inbox));
        warnings.push(Warning { name, node, from, inbox, addresses: row.addresses.clone(), text });
    };
    let (ends, percent) = (row.ends(), row.fill() * 100.0);
    // A ring that is overwritten is full as soon as its receiver pauses. The losses are reported as drops.
    let is_full = row.fill() >= FULL && row.stats.policy != librpc::Policy::DropOldest;
    if is_full {
        let (queued, wait) = (row.stats.queued, if row.stats.queued == 1 { "waits" } else { "wait" });
        warn("queue-full", format!("{ends}: {percent:.0} % full, {} {wait}", counted(queued, "message")));
    }
    if let Some(recent) = &row.recent
        && (recent.rates.blocked >= SLOW || recent.was_full && is_full)
    {
        let blocked = recent.rates.blocked * 100.0;
        warn("slow-consumer", format!("{ends}: its sender waits {blocked:.0} % of the time"));
    }
    let lost = match &row.recent {
        Some(recent) => (recent.rates.lost > 0.0).then(|| format!("{:.0} messages/s", recent.rates.lost)),
        None => match row.losses().crowded_out() {
            0 => None,
            lost => Some(format!("{} so far", counted(lost, "message"))),
        },
    };
    if let Some(lost) = lost {
        warn("drops", format!("{ends}: {lost} dropped, overwritten, or without room in time"));
    }
    let (losses, were) = (row.losses(), |count| if count == 1 { "was" } else { "were" });
    if losses.too_large > 0 {
        let (count, were) = (counted(losses.too_large, "message"), were(losses.too_large));
        warn("too-large", format!("{ends}: {count} so far {were} too large for this inbox (its max_message)"));
    }
    if losses.no_memory > 0 {
        let count = counted(losses.no_memory, "message");
        warn("no-memory", format!("{ends}: its sender had no memory for {count} so far (Limits::payload_bytes)"));
    }
}
