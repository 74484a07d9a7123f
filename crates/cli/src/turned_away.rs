//! Messages that never got into an inbox of this process: dropped because the inbox was full, or too large for it.
//!
//! The senders count them in memory that the inbox can read. The receiver learns of them only from these counters.

use librpc::{Node, Totals};

/// How many messages the inboxes of a node have turned away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TurnedAway {
    /// New messages that a full inbox dropped.
    pub(crate) dropped: u64,
    /// Messages that came back to their senders: too large or, where the inbox makes them wait, no room in time.
    pub(crate) returned: u64,
    /// Those of them that are too large, or for which their senders had no memory.
    pub(crate) too_large: u64,
}

impl TurnedAway {
    /// The numbers so far.
    pub(crate) fn by(node: &Node) -> Self {
        let mut totals = Totals::default();
        for inbox in node.stats().inboxes {
            totals += inbox.ended;
            inbox.channels.iter().for_each(|channel| totals.add(channel));
        }
        let too_large = totals.too_large.saturating_add(totals.no_memory);
        Self { dropped: totals.dropped, returned: totals.returned, too_large }
    }

    /// The difference from an earlier look.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            dropped: self.dropped.saturating_sub(earlier.dropped),
            returned: self.returned.saturating_sub(earlier.returned),
            too_large: self.too_large.saturating_sub(earlier.too_large),
        }
    }
}
