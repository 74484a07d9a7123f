//! The part of a snapshot that is connected to a node, a topic or a pattern.
//!
//! If the name is the id of a node, the part consists of the node, its inboxes, its channels in both directions, and
//! the other ends of these. Otherwise the name is a topic or a pattern, and the part consists of the inboxes that would
//! receive such a topic, the channels that carry one, and their nodes. An inbox for everything (`**`) is not connected
//! to a node.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::services::ServiceRow;
use crate::snapshot::{ChannelRow, InboxRow, Snapshot};
use crate::warnings::Warning;

/// A receiver shows at most this many topics of a channel, so a list of this length may be incomplete.
const SHOWN_TOPICS: usize = 32;

const ONE: &str = "*";
const ANY: &str = "**";

/// The part of a snapshot that is connected to this.
pub(crate) fn part(snapshot: &Snapshot, what: &str) -> Snapshot {
    let is_node = snapshot.nodes.iter().any(|node| node.id == what);
    let is_pattern = what.parse::<librpc::Pattern>().is_ok();
    let is_wanted = |text: &str| if is_node { text == what } else { is_pattern && overlaps(text, what) };
    let receives =
        |inbox: &InboxRow| inbox.addresses.iter().any(|address| *address != inbox.node && is_wanted(address));
    let carries = |row: &ChannelRow| {
        let topics = &row.stats.topics;
        let is_complete = row.by_receiver && topics.len() < SHOWN_TOPICS;
        topics.iter().any(|topic| is_wanted(topic))
            || !is_complete && row.addresses.iter().any(|address| *address != row.to && is_wanted(address))
    };
    let is_end = |row: &ChannelRow| is_node && (row.from == what || row.to == what);
    let channels: Vec<_> = snapshot.channels.iter().filter(|row| is_end(row) || carries(row)).cloned().collect();
    let is_its = |inbox: &InboxRow| is_node && inbox.node == what || receives(inbox);
    let inboxes =
        snapshot.inboxes.iter().filter(|inbox| is_its(inbox) || channels.iter().any(|row| row.leads_to(inbox)));
    let inboxes: Vec<_> = inboxes.cloned().collect();
    let mut ids: HashSet<&str> = channels.iter().flat_map(|row| [&*row.from, &*row.to]).collect();
    ids.extend(inboxes.iter().map(|inbox| &*inbox.node));
    ids.insert(what);
    let is_of = |row: &&ServiceRow| if is_node { row.node == what } else { *row.stats.service == *what };
    let services: Vec<_> = snapshot.services.iter().filter(is_of).cloned().collect();
    ids.extend(services.iter().map(|row| &*row.node));
    let nodes = snapshot.nodes.iter().filter(|node| ids.contains(&*node.id)).cloned().collect();
    Snapshot { at: snapshot.at, nodes, inboxes, channels, services }
}

/// The part of a snapshot, and of its warnings, that is connected to this; `None`: everything.
pub(crate) fn select<'s>(
    snapshot: &'s Snapshot,
    warnings: Vec<Warning>,
    what: Option<&str>,
) -> (Cow<'s, Snapshot>, Vec<Warning>) {
    let Some(what) = what else { return (Cow::Borrowed(snapshot), warnings) };
    let part = part(snapshot, what);
    let has_node = |id: &str| part.nodes.iter().any(|node| node.id == id);
    let has_channel = |from: &str, to: &str| part.channels.iter().any(|row| row.from == from && row.to == to);
    let is_in = |warning: &Warning| match &warning.from {
        Some(from) => has_channel(from, &warning.node),
        None => has_node(&warning.node),
    };
    let warnings = warnings.into_iter().filter(is_in).collect();
    (Cow::Owned(part), warnings)
}

/// Whether there can be a topic that matches both patterns. (A topic is a pattern that only itself matches.)
fn overlaps(one: &str, other: &str) -> bool {
    let (one, other): (Vec<&str>, Vec<&str>) = (one.split('/').collect(), other.split('/').collect());
    // `can[b]`: whether what was seen of `one` and the first b levels of `other` can be the same levels.
    let mut can = vec![false; other.len() + 1];
    can[0] = true;
    for b in 0..other.len() {
        can[b + 1] = can[b] && other[b] == ANY;
    }
    for level in one {
        let mut next = vec![false; other.len() + 1];
        next[0] = can[0] && level == ANY;
        for (b, with) in other.iter().enumerate() {
            next[b + 1] = match (level, *with) {
                (ANY, _) | (_, ANY) => can[b + 1] || next[b],
                (ONE, _) | (_, ONE) => can[b],
                (level, with) => can[b] && level == with,
            };
        }
        can = next;
    }
    can[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_if_a_topic_can_match_both() {
        for (one, other) in [
            ("a/b", "a/b"),
            ("a/*", "a/b"),
            ("a/*", "*/b"),
            ("**", "a/b/c"),
            ("a/**", "a"),
            ("a/**", "**/z"),
            ("a/**/c", "a/b/*"),
            ("**/b", "a/**"),
            ("**", "**"),
            ("a/**/**", "a"),
        ] {
            assert!(overlaps(one, other) && overlaps(other, one), "{one} and {other}");
        }
        for (one, other) in
            [("a/b", "a/c"), ("a/*", "a"), ("a/*", "a/b/c"), ("a/**", "b/**"), ("*/b", "a/*/b"), ("**/b", "*/c")]
        {
            assert!(!overlaps(one, other) && !overlaps(other, one), "{one} and {other}");
        }
    }

    #[test]
    fn patterns_of_many_levels_take_no_time() {
        let many = ["**"; 128].join("/");
        assert!(overlaps(&many, &many));
        assert!(!overlaps(&format!("{many}/a"), &format!("{many}/b")));
    }
}
