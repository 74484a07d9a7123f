//! The part of a snapshot that is connected to a node, a topic or a pattern.
//!
//! If the name is the id of a node, the part consists of the node, its inboxes, its channels in both directions, and
//! the other ends of these. Otherwise the name is a topic or a pattern, and the part consists of the inboxes that would
//! receive such a topic, the channels that carry one, those who publish on one, and their nodes; or it is a service, with its clients and
//! servers. An inbox for everything (`**`) is not connected to a node.

use std::borrow::Cow;
use std::collections::HashSet;

use librpc::{InvalidTopic, Pattern};

use crate::latency::counted;
use crate::outcome::say;
use crate::snapshot::{ChannelRow, InboxRow, Snapshot, State};

/// A receiver shows at most this many topics of a channel, so a list of this length may be incomplete.
const SHOWN_TOPICS: usize = 32;

const ONE: &str = "*";
const ANY: &str = "**";

/// The part of a snapshot that is connected to this.
pub(crate) fn part(snapshot: &Snapshot, what: &str) -> Snapshot {
    let is_node = snapshot.nodes.iter().any(|node| node.id == what);
    // A topic may have a level that a pattern may not have, such as `+`.
    let is_pattern =
        !matches!(what.parse::<Pattern>(), Err(error) if !matches!(error, InvalidTopic::OtherWildcard { .. }));
    let is_wanted = |text: &str| if is_node { text == what } else { is_pattern && overlaps(text, what) };
    let is_any = |addresses: &[String]| addresses.iter().any(|address| is_wanted(address));
    // What is sent to a node has its id as its address, which is no topic.
    let receives = |inbox: &InboxRow| (inbox.is_of_topics || inbox.is_of_calls) && is_any(&inbox.addresses);
    let carries = |row: &ChannelRow| {
        let topics = &row.stats.topics;
        let is_complete = row.shows_topics() && topics.len() < SHOWN_TOPICS && !row.is_of_calls;
        topics.iter().any(|topic| is_wanted(topic))
            || !is_complete && (row.is_of_topics || row.is_of_calls) && is_any(&row.addresses)
    };
    let is_end = |row: &ChannelRow| is_node && (row.from == what || row.to == what);
    let channels: Vec<_> = snapshot.channels.iter().filter(|row| is_end(row) || carries(row)).cloned().collect();
    let is_its = |inbox: &InboxRow| is_node && inbox.node == what || receives(inbox);
    let inboxes =
        snapshot.inboxes.iter().filter(|inbox| is_its(inbox) || channels.iter().any(|row| row.leads_to(inbox)));
    let inboxes: Vec<_> = inboxes.cloned().collect();
    let is_of = |node: &str, name: &str| is_node && node == what || is_wanted(name);
    let services = snapshot.services.iter().filter(|row| is_of(&row.node, &row.stats.service));
    let services: Vec<_> = services.cloned().collect();
    let published = snapshot.published.iter().filter(|row| is_of(&row.node, &row.stats.topic));
    let published: Vec<_> = published.cloned().collect();
    let mut ids: HashSet<&str> = channels.iter().flat_map(|row| [&*row.from, &*row.to]).collect();
    ids.extend(inboxes.iter().map(|inbox| &*inbox.node));
    ids.extend(services.iter().map(|row| &*row.node));
    ids.extend(published.iter().map(|row| &*row.node));
    ids.insert(what);
    let nodes = snapshot.nodes.iter().filter(|node| ids.contains(&*node.id)).cloned();
    let nodes = nodes.map(|mut node| {
        // Of the other ends, what has nothing to do with this is left out.
        let is_its = node.id == what;
        node.denials.retain(|denial| is_its || is_node && denial.by == what || is_wanted(&denial.topic));
        node
    });
    let (at, nodes) = (snapshot.at, nodes.collect());
    Snapshot { at, nodes, inboxes, channels, services, published }
}

/// The part of a snapshot that is connected to this; `None`: everything.
pub(crate) fn select<'s>(snapshot: &'s Snapshot, what: Option<&str>) -> Cow<'s, Snapshot> {
    what.map_or(Cow::Borrowed(snapshot), |what| Cow::Owned(part(snapshot, what)))
}

/// Says so if a domain has nodes, and none of them has to do with what was asked for.
pub(crate) fn say_if_nothing_matches(part: &Snapshot, all: &Snapshot, what: Option<&str>) {
    if let Some(what) = what.filter(|_| part.is_empty() && !all.is_empty()) {
        say(format_args!("{}", nothing_matches(what)));
    }
}

/// What is said then.
pub(crate) fn nothing_matches(what: &str) -> String {
    format!("nothing matches {what}: no node, topic or service, and no pattern of a subscription")
}

/// Whether a topic, pattern or service is among what was asked for. Nothing was asked for: everything is.
pub(crate) fn shows(wanted: &[Pattern], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|pattern| overlaps(pattern.as_str(), name))
}

/// Says which nodes had no part in a list, and whether nothing of what was asked for is there.
pub(crate) fn say_what_is_missing(snapshot: &Snapshot, wanted: &[Pattern], is_empty: bool) {
    for node in &snapshot.nodes {
        if !matches!(node.state, State::Alive | State::Dead) {
            let (state, why) = (node.state.name(), node.why.as_deref().unwrap_or_default());
            say(format_args!("{}: {state}: {why}", node.id));
        }
        if node.topics_left_out > 0 {
            say(format_args!("{}: not listed: {}", node.id, counted(node.topics_left_out, "more topic")));
        }
    }
    if is_empty && !wanted.is_empty() && !snapshot.nodes.is_empty() {
        let wanted: Vec<&str> = wanted.iter().map(Pattern::as_str).collect();
        say(format_args!("nothing matches {}", wanted.join(" or ")));
    }
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
