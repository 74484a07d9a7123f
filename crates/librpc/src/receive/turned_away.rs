//! Messages that did not get into an inbox, as their senders count them.
//!
//! A sender counts in its own memory what an inbox does not get, and rings as for a message. The receiver compares that count with what
//! it knows when it goes to sleep, and now and then while it is busy. So what is turned away is told once, and costs a message nothing.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Peer;
use crate::sys::clock::Instant;
use crate::text::counted;

/// While a channel has messages, it is told at most this often what was turned away.
const WHILE_BUSY: Duration = Duration::from_millis(100);

/// Messages of one sender that did not get into an inbox: [`crate::Event::TurnedAway`]. Each is counted in one event.
///
/// The sender learns of each of them from the error or the receipt. A message to the node itself that found no room is not among them: its
/// sender has it, and may try again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TurnedAway {
    /// Who has sent or published them.
    pub peer: Arc<Peer>,
    /// They are longer than the inbox takes ([`crate::InboxBuilder::max_message`]).
    pub too_large: u64,
    /// The inbox was full, and drops new messages ([`crate::Policy::DropNewest`]).
    pub dropped: u64,
    /// They were published, and the inbox stayed full for as long as the publisher waits ([`crate::Policy::Block`]).
    pub no_room: u64,
    /// The sender had no memory for them ([`crate::Limits::payload_bytes`]).
    pub no_memory: u64,
}

impl TurnedAway {
    /// All of them.
    pub fn messages(&self) -> u64 {
        let Self { too_large, dropped, no_room, no_memory, .. } = self;
        [dropped, no_room, no_memory].into_iter().fold(*too_large, |sum, more| sum.saturating_add(*more))
    }
}

/// For people, on one line: how many of whom, and why.
impl fmt::Display for TurnedAway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { peer, too_large, dropped, no_room, no_memory } = self;
        let reasons = [
            (too_large, "too large for the inbox"),
            (dropped, "dropped: the inbox was full"),
            (no_room, "not delivered: the inbox stayed full"),
            (no_memory, "without memory at the sender"),
        ];
        write!(f, "of node {:?}, ", peer.node)?;
        let there = reasons.iter().filter(|(count, _)| **count > 0);
        for (at, (count, why)) in there.enumerate() {
            write!(f, "{}{} {why}", if at > 0 { ", " } else { "" }, counted(**count, "message", "messages"))?;
        }
        Ok(())
    }
}

/// Messages that are too large, dropped, without room, and without memory, so far.
pub(super) type Counts = [u64; 4];

/// What was told of a channel.
#[derive(Debug, Default)]
pub(super) struct Told {
    sum: u64,
    counts: Counts,
    at: Option<Instant>,
    /// From this sum on, it is logged again: a receiver that nobody asks for events logs 1, 2, 4, 8, ...
    log_from: u64,
    /// The channel was read to its end.
    has_ended: bool,
}

impl Told {
    /// Whether there is something to tell: by this sum, and at a busy channel by this time.
    pub(super) fn is_due(&self, sum: u64, is_busy: bool, now: Instant) -> bool {
        sum != self.sum && !(is_busy && self.at.is_some_and(|at| now < at + WHILE_BUSY))
    }

    /// Whether there is something to tell.
    pub(super) fn is_behind(&self, sum: u64) -> bool {
        sum != self.sum
    }

    /// The channel was read to its end; `true` the first time.
    pub(super) fn ends(&mut self) -> bool {
        !std::mem::replace(&mut self.has_ended, true)
    }

    /// What has come since the last time. `None`: nothing, whatever the sum says.
    pub(super) fn tell(&mut self, peer: &Arc<Peer>, sum: u64, now: Counts) -> Option<TurnedAway> {
        let before = std::mem::replace(&mut self.counts, now);
        (self.sum, self.at) = (sum, Some(Instant::now()));
        let [too_large, dropped, no_room, no_memory] = std::array::from_fn(|at| now[at].saturating_sub(before[at]));
        let told = TurnedAway { peer: peer.clone(), too_large, dropped, no_room, no_memory };
        if told.messages() == 0 {
            return None;
        }
        if sum >= self.log_from {
            self.log_from = sum.saturating_mul(2);
            tracing::warn!(in_all = sum, "messages were turned away: {told}");
        }
        Some(told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Incarnation;

    fn peer() -> Arc<Peer> {
        let (incarnation, groups) = (Incarnation::from_bytes([0; 16]), [].into());
        Arc::new(Peer { node: "camera".into(), incarnation, pid: 1, uid: 2, gid: 3, groups })
    }

    fn numbers(told: &TurnedAway) -> [u64; 5] {
        [told.too_large, told.dropped, told.no_room, told.no_memory, told.messages()]
    }

    #[test]
    fn each_message_is_told_once_and_by_its_reason() {
        let mut told = Told::default();
        let now = Instant::now();
        assert!(told.is_due(7, true, now) && !told.is_behind(0));
        let first = told.tell(&peer(), 7, [2, 1, 3, 1]).unwrap();
        assert_eq!(numbers(&first), [2, 1, 3, 1, 7]);
        assert_eq!(
            first.to_string(),
            "of node \"camera\", 2 messages too large for the inbox, 1 message dropped: the inbox was full, 3 messages not delivered: the \
             inbox stayed full, 1 message without memory at the sender"
        );
        assert!(!told.is_due(7, false, now) && told.is_due(8, false, now) && !told.is_due(8, true, now));
        assert_eq!(numbers(&told.tell(&peer(), 8, [3, 1, 3, 1]).unwrap()), [1, 0, 0, 0, 1]);
    }

    /// A sender may write anything into its counters.
    #[test]
    fn what_a_sender_claims_harms_nobody() {
        let mut told = Told::default();
        assert_eq!(told.tell(&peer(), u64::MAX, [u64::MAX, u64::MAX, 5, 0]).unwrap().messages(), u64::MAX);
        assert_eq!(told.tell(&peer(), 3, [0; 4]), None, "they fall");
        assert_eq!(told.tell(&peer(), 4, [0; 4]), None, "the sum alone changes");
    }
}
