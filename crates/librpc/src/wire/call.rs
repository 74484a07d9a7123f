//! What client and server say about a call, in the payloads of its records.

use minicbor::{Decode, Encode};

use crate::schema::ListedSchema;

/// Where a client takes replies: the payload of its first record.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Caller {
    /// The number of the inbox.
    #[n(0)]
    pub(crate) inbox: u32,
    #[n(1)]
    pub(crate) capacity: u64,
    /// The longest message that it takes, in bytes.
    #[n(2)]
    pub(crate) max_message: u64,
    /// What its requests and the replies that it takes are, if it says so.
    #[n(3)]
    pub(crate) schemas: Option<Vec<ListedSchema>>,
    /// It passes bytes on, whatever they are.
    #[n(4)]
    pub(crate) any: Option<bool>,
}

/// How many more parts a client takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Credit {
    #[n(0)]
    pub(crate) parts: u32,
}

/// Why there is no reply, or no more of it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Failure {
    /// A [`Cause`] as a number: a later version may know more.
    #[n(0)]
    pub(crate) cause: u32,
    /// What the server's program says.
    #[n(1)]
    pub(crate) code: i32,
    #[n(2)]
    pub(crate) text: String,
}

impl Failure {
    /// The longest text of a failure, in characters.
    pub(crate) const TEXT_CHARS: usize = 4096;

    /// A longer text is cut off.
    pub(crate) fn new(cause: Cause, code: i32, text: &str) -> Self {
        Self { cause: cause as u32, code, text: text.chars().take(Self::TEXT_CHARS).collect() }
    }
}

/// The longest of these messages, in bytes: a failure whose characters take four bytes each.
pub(crate) const LONGEST_OF_CALL: usize = 4 * Failure::TEXT_CHARS + 64;

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Cause {
    /// The server's program says so.
    Program = 0,
    /// The server has as many requests in work as it may have. This one was not taken.
    Busy = 1,
    /// The server does not know such requests.
    Unimplemented = 2,
    /// The server leaves, and nobody has seen the request.
    NotTaken = 3,
    /// The server's program dropped the request without an answer.
    Dropped = 4,
}

impl Cause {
    /// One that is not known counts as the program's.
    pub(crate) fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Busy,
            2 => Self::Unimplemented,
            3 => Self::NotTaken,
            4 => Self::Dropped,
            _ => Self::Program,
        }
    }
}
