//! What a sender has declared the numbers of its topics to mean, on one channel: a stranger's words, checked once each.

use std::sync::Arc;

use librpc_ring::{Head, Kind};

use crate::name::Address;
use crate::topic::{MAX_TOPICS, check_topic};

/// The topics of one channel, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<Option<Arc<str>>>);

impl Names {
    fn get(&self, number: u64) -> Option<&Arc<str>> {
        self.0.get(usize::try_from(number).ok()?)?.as_ref()
    }

    /// The topic of this number.
    pub(crate) fn of(&self, number: Option<u64>) -> Option<&Arc<str>> {
        self.get(number?)
    }

    /// Whether a record is a message that an inbox with this address receives.
    pub(crate) fn is_expected(&self, address: &Address, head: &Head) -> bool {
        head.kind == Kind::Message && self.has(address, head.topic)
    }

    /// Whether an inbox with this address receives messages of this topic, or of none.
    #[inline(always)]
    pub(crate) fn has(&self, address: &Address, topic: Option<u64>) -> bool {
        match (address, topic) {
            (Address::Node, topic) => topic.is_none(),
            (Address::Topics(_), topic) => topic.is_some_and(|number| self.get(number).is_some()),
        }
    }

    /// Takes a declaration; `Err`: what no honest sender would send to this inbox.
    #[cold]
    pub(crate) fn learn(&mut self, address: &Address, head: &Head, name: &[u8]) -> Result<(), String> {
        let (Kind::Topic, Some(number), Address::Topics(patterns)) = (head.kind, head.topic, address) else {
            return Err(format!("it sends {head:?}, which nobody has asked for"));
        };
        let slot = usize::try_from(number).ok().filter(|&slot| slot < MAX_TOPICS);
        let slot = slot.ok_or_else(|| format!("it numbers a topic {number}, of at most {MAX_TOPICS}"))?;
        let name = str::from_utf8(name).map_err(|_| "it declares a topic that is no text".to_owned())?;
        check_topic(name).map_err(|bad| bad.to_string())?;
        if !patterns.iter().any(|pattern| pattern.matches(name)) {
            return Err(format!("it declares topic {name:?}, which nobody has subscribed to"));
        }
        if self.0.len() <= slot {
            self.0.resize(slot + 1, None);
        }
        match &self.0[slot] {
            Some(known) if **known != *name => Err(format!("topic number {number} is {known:?}, and then {name:?}")),
            Some(_) => Ok(()),
            None => {
                self.0[slot] = Some(name.into());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: Kind, topic: Option<u64>) -> Head {
        Head { topic, ..Head::of(kind) }
    }

    #[test]
    fn a_number_means_what_was_declared() {
        let address = Address::Topics(["a/*".parse().unwrap()].into());
        let mut names = Names::default();
        let (declared, message) = (head(Kind::Topic, Some(7)), head(Kind::Message, Some(7)));
        assert!(!names.is_expected(&address, &message), "not declared yet");
        assert_eq!(names.learn(&address, &declared, b"a/b"), Ok(()));
        assert_eq!(names.learn(&address, &declared, b"a/b"), Ok(()), "again");
        assert!(names.is_expected(&address, &message));
        assert_eq!(names.of(message.topic).map(|name| &**name), Some("a/b"));
        assert!(!names.is_expected(&address, &head(Kind::Message, None)), "without a topic");
        assert!(names.is_expected(&Address::Node, &head(Kind::Message, None)));
        assert!(!names.is_expected(&Address::Node, &message));
    }

    #[test]
    fn what_no_honest_sender_declares_is_refused() {
        let address = Address::Topics(["a/*".parse().unwrap()].into());
        let mut names = Names::default();
        assert_eq!(names.learn(&address, &head(Kind::Topic, Some(1)), b"a/b"), Ok(()));
        for (head, name) in [
            (head(Kind::Topic, Some(1)), &b"a/c"[..]),
            (head(Kind::Topic, Some(2)), b"b"),
            (head(Kind::Topic, Some(2)), b"a/*"),
            (head(Kind::Topic, Some(2)), b"a/\xff"),
            (head(Kind::Topic, Some(MAX_TOPICS as u64)), b"a/b"),
            (head(Kind::Topic, Some(u64::MAX)), b"a/b"),
            (head(Kind::Topic, None), b"a/b"),
            (head(Kind::Reply, Some(2)), b"a/b"),
            (head(Kind::Message, Some(3)), b"hello"),
        ] {
            assert!(names.learn(&address, &head, name).is_err(), "{head:?} {name:?}");
        }
        assert!(names.learn(&Address::Node, &head(Kind::Topic, Some(1)), b"a/b").is_err());
    }
}
