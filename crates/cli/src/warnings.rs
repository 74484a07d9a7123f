//! What is wrong in a domain, by name: what `top` shows in red, and `check` fails for.

use serde::Serialize;

use crate::snapshot::{ChannelRow, Recent, Snapshot, State};

/// A part of a ring that is as good as full: the next message of the greatest size may not fit.
pub(crate) const FULL: f64 = 0.75;
/// A sender that waits for this part of its time has a slow consumer.
const SLOW: f64 = 0.1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Warning {
    /// slow-consumer, queue-full, stalled-node, dead-node, drops, refused, broken
    pub(crate) name: &'static str,
    pub(crate) node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<String>,
    pub(crate) text: String,
}

impl Warning {
    /// Whether a node's id is in it.
    pub(crate) fn concerns(&self, what: &str) -> bool {
        self.node == what || self.from.as_deref() == Some(what)
    }
}

/// What is wrong now; with an earlier look, also what has gone wrong since. Without one, losses since the channel's
/// beginning count.
pub(crate) fn find(snapshot: &Snapshot, recent: Option<&[Option<Recent>]>) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for node in &snapshot.nodes {
        let (name, what) = match node.state {
            State::Alive => continue,
            State::Stalled => ("stalled-node", "does not answer"),
            State::Dead => ("dead-node", "is dead"),
            State::Refused => ("refused", "refuses to be observed"),
            State::Broken => ("broken", "cannot be observed"),
        };
        let why = node.why.as_deref().unwrap_or_default();
        let text = format!("node {} (pid {}) {what}: {why}", node.id, node.pid);
        warnings.push(Warning { name, node: node.id.clone(), from: None, text });
    }
    for (at, row) in snapshot.channels.iter().enumerate() {
        let recent = recent.map(|recent| recent.get(at).and_then(Option::as_ref));
        channel(row, recent, &mut warnings);
    }
    warnings
}

fn channel(row: &ChannelRow, recent: Option<Option<&Recent>>, warnings: &mut Vec<Warning>) {
    let mut warn = |name, text| {
        warnings.push(Warning { name, node: row.to.clone(), from: Some(row.from.clone()), text });
    };
    let (from, to, percent) = (&row.from, row.address(), row.fill() * 100.0);
    let recent_or_new = recent.flatten();
    // One that overwrites is full as soon as its receiver pauses: what that costs is told as drops.
    let is_full = row.fill() >= FULL && row.stats.policy != librpc::Policy::Latest;
    if is_full {
        warn("queue-full", format!("{from} → {to}: {percent:.0} % full, {} messages wait", row.stats.queued));
    }
    if let Some(recent) = recent_or_new
        && (recent.rates.blocked >= SLOW || recent.was_full && is_full)
    {
        let blocked = recent.rates.blocked * 100.0;
        warn("slow-consumer", format!("{from} → {to}: its sender waits {blocked:.0} % of the time"));
    }
    let lost = match recent {
        Some(Some(recent)) if recent.rates.lost > 0.0 => Some(format!("{:.0} messages/s", recent.rates.lost)),
        Some(Some(_)) => None,
        _ if row.lost() > 0 => Some(format!("{} messages so far", row.lost())),
        _ => None,
    };
    if let Some(lost) = lost {
        warn("drops", format!("{from} → {to}: {lost} dropped or overwritten"));
    }
}
