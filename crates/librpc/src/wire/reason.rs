//! Why a connection is refused.

/// Why a receiver does not take a connection. The numbers travel in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Reason {
    /// Too many handshakes are under way. The sender tries again by itself.
    Busy = 1,
    /// The node's admission does not let this peer in.
    NotAdmitted = 2,
    /// The two speak no common version of the handshake.
    Version = 3,
    /// The node does not have this inbox, or no longer has it.
    NoInbox = 4,
    /// The node has been opened again since the sender looked.
    Restarted = 5,
    /// The peers of this user have as many channels, or bytes of rings, as the node allows.
    TooMuch = 6,
    /// The sender is not the node that it claims to be.
    Identity = 7,
    /// The sender broke the order of the handshake, or sent no sealed memory.
    BadHandshake = 8,
    /// The connection to which a ring was to be added is not there. The sender tries again by itself.
    UnknownConnection = 9,
    /// The receiver's process lacks descriptors or memory.
    Resources = 10,
    /// A reason that this version does not know.
    Unknown = 0,
}

impl Reason {
    pub(crate) fn from_number(number: u32) -> Self {
        use Reason::*;
        let all = [
            Busy,
            NotAdmitted,
            Version,
            NoInbox,
            Restarted,
            TooMuch,
            Identity,
            BadHandshake,
            UnknownConnection,
            Resources,
        ];
        all.into_iter().find(|&reason| reason as u32 == number).unwrap_or(Unknown)
    }
}
