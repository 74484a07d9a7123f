//! Messages that never got into an inbox of this process, by reason.

use librpc::{Node, Totals};

/// How many messages the inboxes of a node have turned away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TurnedAway {
    pub(crate) too_large: u64,
    /// New messages that a full inbox dropped.
    pub(crate) dropped: u64,
    /// Messages that were published to a full inbox, which makes its publishers wait.
    pub(crate) no_room: u64,
    /// Messages for which their sender had no memory.
    pub(crate) no_memory: u64,
}

impl TurnedAway {
    /// The numbers so far, as the senders count them in memory that the inboxes can read.
    pub(crate) fn by(node: &Node) -> Self {
        let mut totals = Totals::default();
        for inbox in node.stats().inboxes {
            totals += inbox.ended;
            inbox.channels.iter().for_each(|channel| totals.add(channel));
        }
        let Totals { too_large, dropped, no_room, no_memory, .. } = totals;
        Self { too_large, dropped, no_room, no_memory }
    }

    /// The difference from an earlier look.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            too_large: self.too_large.saturating_sub(earlier.too_large),
            dropped: self.dropped.saturating_sub(earlier.dropped),
            no_room: self.no_room.saturating_sub(earlier.no_room),
            no_memory: self.no_memory.saturating_sub(earlier.no_memory),
        }
    }

    /// One line for each reason that there is.
    pub(crate) fn reasons(self) -> impl Iterator<Item = (u64, &'static str)> {
        let Self { too_large, dropped, no_room, no_memory } = self;
        let all = [
            (too_large, "returned to the publisher: too large for this inbox (see --max-message)"),
            (dropped, "dropped: the inbox was full"),
            (no_room, "returned to the publisher: the inbox was full for too long"),
            (no_memory, "returned to the publisher: it had no memory for them"),
        ];
        all.into_iter().filter(|(count, _)| *count > 0)
    }
}
