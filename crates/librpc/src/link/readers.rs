//! Who may read what a node publishes.

use std::sync::Arc;

use crate::link::admission::Admission;
use crate::name::Peer;
use crate::topic::Pattern;

/// Whom a node lets read its topics. A topic is read by the processes that each entry admits whose pattern matches it; one
/// that no pattern matches is open to everybody.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readers(Arc<[(Pattern, Admission)]>);

/// Whether a topic may be written into a channel.
#[derive(Debug)]
pub(crate) enum Access {
    Granted,
    /// The process that listens at the other end may not read it: who that is, and why not.
    Denied(String),
    /// Which process that is, is not known yet: the channel has not been connected.
    Unknown,
}

impl Readers {
    pub(crate) fn new(entries: Vec<(Pattern, Admission)>) -> Self {
        Self(entries.into())
    }

    /// Whether every topic is open to everybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether not everybody may read a topic.
    pub(crate) fn restrict(&self, topic: &str) -> bool {
        self.0.iter().any(|(pattern, _)| pattern.matches(topic))
    }

    /// Whether a process of this user may read a topic. `None`: which process it is, is not known yet.
    pub(crate) fn access(&self, topic: &str, uid: u32, reader: Option<&Peer>) -> Access {
        let mut access = Access::Granted;
        for (_, admission) in self.0.iter().filter(|(pattern, _)| pattern.matches(topic)) {
            match reader.map(|reader| (reader.pid, admission.rules_on(reader))) {
                Some((_, Ok(()))) => {}
                Some((pid, Err(why))) => return Access::Denied(format!("uid {uid}, pid {pid}{why}")),
                None if admission.could_admit(uid) => access = Access::Unknown,
                None => return Access::Denied(format!("uid {uid}")),
            }
        }
        access
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Incarnation;

    #[test]
    fn each_entry_that_matches_must_admit_and_a_topic_without_one_is_open() {
        let entry = |pattern: &str, admission| (pattern.parse().expect("a pattern"), admission);
        let readers = Readers::new(vec![
            entry("secret/**", Admission::nobody().uid(1).uid(2)),
            entry("secret/*/key", Admission::nobody().gid(9)),
        ]);
        let peer = |uid, gid| {
            let (node, groups) = ("n".into(), [].into());
            Peer { node, incarnation: Incarnation::from_bytes([0; 16]), pid: 5, uid, gid, groups }
        };
        let granted =
            |topic: &str, reader: Peer| matches!(readers.access(topic, reader.uid, Some(&reader)), Access::Granted);
        assert!(granted("open", peer(3, 3)) && granted("secrets", peer(3, 3)));
        assert!(granted("secret/a", peer(1, 3)) && granted("secret/a", peer(2, 3)) && !granted("secret/a", peer(3, 9)));
        assert!(granted("secret/a/key", peer(1, 9)), "both admit");
        assert!(!granted("secret/a/key", peer(1, 3)) && !granted("secret/a/key", peer(3, 9)), "one of them does not");
        assert!(matches!(readers.access("secret/a", 1, None), Access::Unknown));
        assert!(matches!(readers.access("secret/a", 3, None), Access::Denied(_)), "no process of this user may");
        assert!(matches!(readers.access("open", 3, None), Access::Granted), "nobody has to be known");
        assert!(readers.restrict("secret/a") && !readers.restrict("open"));
    }
}
