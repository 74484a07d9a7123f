//! Why a record was not written.

/// Why a record was not written. The ring is as it was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// There is no room until the receiver has consumed more. Wait for this position, never for "any change": the
    /// receiver may consume everything between the check that found the ring full and the next one.
    #[error("the ring is full until position {room_at} is consumed")]
    Full {
        /// There is room once the receiver has consumed up to this position.
        room_at: u64,
    },
    /// The record can never fit.
    #[error("a message of {bytes} bytes is longer than the limit of {max} bytes")]
    TooLarge {
        /// The length of the payload in bytes.
        bytes: usize,
        /// The longest payload in bytes.
        max: usize,
    },
    /// The receiver claims to have consumed what it cannot have consumed.
    #[error("the receiver claims to have consumed up to position {claimed}, outside of {consumed} to {committed}")]
    BadConsumed {
        /// What the ack memory says.
        claimed: u64,
        /// What it said before.
        consumed: u64,
        /// The position after the last record.
        committed: u64,
    },
}
