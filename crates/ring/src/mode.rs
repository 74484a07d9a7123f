//! What happens when the receiver does not keep up.

/// The header word of [`Mode::Lossless`].
pub const MODE_LOSSLESS: u64 = 0;
/// The header word of [`Mode::Latest`].
pub const MODE_LATEST: u64 = 1;

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
