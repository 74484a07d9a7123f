//! What happens when the receiver does not keep up.

use crate::layout::{MODE_LATEST, MODE_LOSSLESS};

/// What happens when the receiver does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The sender never passes the consumed position: it finds the ring full.
    Lossless,
    /// The sender never waits: it overwrites the oldest records, and the receiver continues at newer ones.
    Latest,
}

impl Mode {
    /// The header word of this mode.
    pub const fn word(self) -> u64 {
        match self {
            Self::Lossless => MODE_LOSSLESS,
            Self::Latest => MODE_LATEST,
        }
    }

    /// The mode of a header word; `None` if this version knows no such mode.
    pub const fn from_word(word: u64) -> Option<Self> {
        match word {
            MODE_LOSSLESS => Some(Self::Lossless),
            MODE_LATEST => Some(Self::Latest),
            _ => None,
        }
    }
}
