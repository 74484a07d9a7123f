//! What is wrong with what the sender wrote.

/// What the sender wrote is not valid. The channel is of no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The sender's memory has another layout version.
    #[error("the sender's memory has layout version {found}, this receiver reads version {expected}")]
    Version {
        /// The version in the header.
        found: u64,
        /// The version that this receiver reads: [`crate::layout::VERSION`].
        expected: u64,
    },
    /// A header word does not have the value that the receiver demanded.
    #[error("invalid header word {word}: {found:#x} instead of {expected:#x}")]
    Header {
        /// The index of the word.
        word: usize,
        /// What it is.
        found: u64,
        /// What it must be.
        expected: u64,
    },
    /// The header's number of the first message is too high.
    #[error("invalid number {found} of the first message: the highest is {max}")]
    First {
        /// The number in the header.
        found: u64,
        /// The highest number that a ring may begin with.
        max: u64,
    },
    /// An honest sender does not write such a commit word there.
    #[error("invalid commit word {word:#018x} at position {position}")]
    Commit {
        /// The position of the record.
        position: u64,
        /// The commit word.
        word: u64,
    },
    /// The record is longer than the longest one.
    #[error("the record at position {position} claims {bytes} bytes, the limit is {max} bytes")]
    Length {
        /// The position of the record.
        position: u64,
        /// The length that it claims, in bytes.
        bytes: u64,
        /// The longest record, in bytes.
        max: u64,
    },
    /// A record's payload is said to be lent, and the record is no message, or does not say where the payload is.
    #[error("the record at position {position} does not say where its payload is: it has {bytes} bytes for that")]
    Lent {
        /// The position of the record.
        position: u64,
        /// How many bytes it has in place of the payload.
        bytes: usize,
    },
    /// The record is not the next one.
    #[error("the record at position {position} carries number {found} instead of {expected}")]
    Sequence {
        /// The position of the record.
        position: u64,
        /// The number that it carries.
        found: u64,
        /// The next number; in mode Latest, after records were skipped, the lowest possible one.
        expected: u64,
    },
    /// Mode Latest: the sender claims to have overtaken the receiver, but its mark is not a place to continue at.
    #[error("the sender has overtaken position {position} (intent {intent}), but its mark {mark} is not valid")]
    Mark {
        /// The receiver's position.
        position: u64,
        /// Up to where the sender has announced to write.
        intent: u64,
        /// Where it says that the receiver can continue.
        mark: u64,
    },
}
