//! What inboxes do not get, because it may not be read, or is of another type.

use librpc::{NodeInfo, NodeStats};

use super::NodeRow;

/// A topic or service that an inbox does not get, because it may not be read, or is of another type.
#[derive(Clone, Debug)]
pub(crate) struct DenialRow {
    /// The node at the other end, and whether it is there.
    pub(crate) by: String,
    pub(crate) is_there: bool,
    pub(crate) topic: String,
    pub(crate) is_mismatch: bool,
    pub(crate) text: String,
}

/// What a node's inboxes do not get. `is_there`: whether a node is.
pub(crate) fn denials(node: &NodeInfo, stats: &NodeStats, is_there: impl Fn(&str) -> bool) -> Vec<DenialRow> {
    let line = |denial: &librpc::Denial| {
        let listed = node.listed.iter().find(|inbox| inbox.number == denial.inbox);
        let subscription = listed.map_or_else(|| format!("inbox {}", denial.inbox), |inbox| inbox.addresses.join(" "));
        match denial.is_mismatch {
            true => denial.text.to_string(),
            false => format!("subscription {subscription} is denied by node {}: {}", denial.by, denial.text),
        }
    };
    let row = |denial: &librpc::Denial| DenialRow {
        by: denial.by.to_string(),
        is_there: is_there(&denial.by),
        topic: denial.topic.to_string(),
        is_mismatch: denial.is_mismatch,
        text: line(denial),
    };
    stats.denials.iter().map(row).collect()
}

impl NodeRow {
    /// The topics that its subscriptions may not read, one line each.
    pub(crate) fn denied(&self) -> impl Iterator<Item = &str> {
        self.denials.iter().filter(|denial| !denial.is_mismatch).map(|denial| &*denial.text)
    }

    /// Its inboxes that others mean as another type, one line each. `now`: only where the other node is there.
    pub(crate) fn mismatched(&self, now: bool) -> impl Iterator<Item = &str> {
        let mismatches = self.denials.iter().filter(move |denial| denial.is_mismatch && (denial.is_there || !now));
        mismatches.map(|denial| &*denial.text)
    }
}
