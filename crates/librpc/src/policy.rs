//! What happens to a message whose inbox is full. The inbox chooses, and its senders learn its choice.

use librpc_ring::Mode;

/// What happens to a message when its inbox has no room. Chosen by the inbox, for all of its senders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Policy {
    /// The sender waits, up to its own limit; then the message comes back as an error. Nothing is lost.
    #[default]
    Block,
    /// The new message is dropped, and counted.
    DropNewest,
    /// The oldest messages are overwritten. The sender never waits, and the receiver learns exactly how many it has
    /// missed, and where. Suited to state of which only the latest value counts. The longest message is an eighth of
    /// the ring.
    DropOldest,
}

impl Policy {
    /// The mode of a ring to an inbox with this policy.
    pub(crate) const fn mode(self) -> Mode {
        match self {
            Self::Block | Self::DropNewest => Mode::Lossless,
            Self::DropOldest => Mode::Latest,
        }
    }

    pub(crate) const fn number(self) -> u32 {
        self as u32
    }

    /// The policy that travels as this number; `None`: one of a later version.
    pub(crate) fn from_number(number: u32) -> Option<Self> {
        [Self::Block, Self::DropNewest, Self::DropOldest].into_iter().find(|policy| policy.number() == number)
    }
}
