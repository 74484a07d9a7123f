//! How a function ends: a status, and what is known about an error.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::ptr;

use librpc::Reason;

use crate::border::c_text;

/// How a function has ended. Negative: an error, and librpc_last_error() tells more.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum librpc_status {
    /// Done.
    Ok = 0,
    /// Nothing is there: the time is up, or the inbox, the server or the call is stopped or over. No error.
    None = 1,
    /// An argument is wrong: a null pointer, a text that is not UTF-8, an unknown option.
    InvalidArgument = -1,
    /// A node id, topic, pattern, service or type name is not valid.
    InvalidName = -2,
    /// The id belongs to a node that is open.
    IdInUse = -3,
    /// The domain (the directory in which nodes meet) cannot be used.
    Domain = -4,
    /// The node was closed.
    Closed = -5,
    /// The handle was inherited through fork() and belongs to the parent process.
    Forked = -6,
    /// A system call failed; `code` is its errno, if it has one.
    Os = -7,
    /// There is no such node.
    NotFound = -8,
    /// The node is there, but has no inbox.
    NoInbox = -9,
    /// The other side refused; `reason` says why.
    Refused = -10,
    /// The two sides have different types.
    Mismatch = -11,
    /// The other side broke the protocol.
    Broken = -12,
    /// The inbox was full until the time limit.
    Full = -13,
    /// The receiver did not answer within the time limit.
    Unanswered = -14,
    /// The inbox was full and its policy is to drop new messages: it is gone.
    Dropped = -15,
    /// The receiver is stuck: it is left out until it goes on.
    Stuck = -16,
    /// A rate limit; `wait_ns` says how long to wait.
    RateLimited = -17,
    /// The message has `bytes` bytes, the inbox takes `max`.
    TooLarge = -18,
    /// There is no memory for the payload.
    NoMemory = -19,
    /// The receiver is gone; `count` messages were not delivered.
    ReceiverGone = -20,
    /// The time limit was over before everything was processed; `count` messages are not.
    TimedOut = -21,
    /// `count` messages were lost.
    Lost = -22,
    /// The node has such an inbox, or the wait set such a token, already.
    Taken = -23,
    /// A limit of this node is reached.
    TooMany = -24,
    /// Too many samples with large payloads of one sender are held.
    TooManyHeld = -25,
    /// No node serves this service.
    NoServer = -26,
    /// The call was not answered within its time limit.
    Deadline = -27,
    /// The call was cancelled.
    Cancelled = -28,
    /// The server died; `taken` says whether it had begun with the call.
    ServerDied = -29,
    /// Too many calls are open.
    Busy = -30,
    /// The server does not know this request.
    Unimplemented = -31,
    /// The server answered with an error: its `code` and its text.
    Failed = -32,
    /// The callback has failed.
    Callback = -33,
    /// A defect of librpc.
    Internal = -34,
}

/// Why the other side refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum librpc_reason {
    /// No reason is known.
    None = 0,
    /// It has too much to do.
    Busy = 1,
    /// It does not admit this process.
    NotAdmitted = 2,
    /// It speaks another version of the protocol.
    Version = 3,
    /// It has no such inbox.
    NoInbox = 4,
    /// It has restarted.
    Restarted = 5,
    /// This user has as much there as its limits allow.
    TooMuch = 6,
    /// This process is not what it says it is.
    Identity = 7,
    /// What was sent was no handshake.
    BadHandshake = 8,
    /// It does not know the connection.
    UnknownConnection = 9,
    /// It has no descriptors or memory left.
    Resources = 10,
}

impl From<Reason> for librpc_reason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Busy => Self::Busy,
            Reason::NotAdmitted => Self::NotAdmitted,
            Reason::Version => Self::Version,
            Reason::NoInbox => Self::NoInbox,
            Reason::Restarted => Self::Restarted,
            Reason::TooMuch => Self::TooMuch,
            Reason::Identity => Self::Identity,
            Reason::BadHandshake => Self::BadHandshake,
            Reason::UnknownConnection => Self::UnknownConnection,
            Reason::Resources => Self::Resources,
            _ => Self::None,
        }
    }
}

/// What is known about an error. What does not apply is zero or null. It may get more fields; read it only through the pointer.
#[repr(C)]
pub struct librpc_error {
    /// Which error.
    pub status: librpc_status,
    /// LIBRPC_STATUS_FAILED: the server's code. LIBRPC_STATUS_OS: the errno.
    pub code: i32,
    /// The whole sentence: what happened, to whom, and what to do. Never null.
    pub message: *const c_char,
    /// The node on the other side.
    pub node: *const c_char,
    /// The topic, service, path or other name that it is about.
    pub name: *const c_char,
    /// Bytes of what was too large, or had no memory.
    pub bytes: u64,
    /// The limit that was passed, in the unit of what it limits.
    pub max: u64,
    /// Messages that were lost, not delivered or not processed.
    pub count: u64,
    /// The time limit that was over, or how long to wait, in ns.
    pub wait_ns: u64,
    /// The process and the user on the other side.
    pub pid: u32,
    /// See `pid`.
    pub uid: u32,
    /// Why the other side refused.
    pub reason: librpc_reason,
    /// LIBRPC_STATUS_SERVER_DIED: the server had begun with the call.
    pub taken: bool,
}

/// An error on its way to C.
#[derive(Debug)]
pub(crate) struct Failure(Box<Details>);

#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) status: librpc_status,
    pub(crate) message: String,
    pub(crate) code: i32,
    pub(crate) node: Option<CString>,
    pub(crate) name: Option<CString>,
    pub(crate) bytes: u64,
    pub(crate) max: u64,
    pub(crate) count: u64,
    pub(crate) wait_ns: u64,
    pub(crate) pid: u32,
    pub(crate) uid: u32,
    pub(crate) reason: librpc_reason,
    pub(crate) taken: bool,
}

impl Failure {
    #[cold]
    pub(crate) fn new(status: librpc_status, message: impl ToString) -> Self {
        Self(Box::new(Details {
            status,
            message: message.to_string(),
            code: 0,
            node: None,
            name: None,
            bytes: 0,
            max: 0,
            count: 0,
            wait_ns: 0,
            pid: 0,
            uid: 0,
            reason: librpc_reason::None,
            taken: false,
        }))
    }

    pub(crate) fn argument(message: impl ToString) -> Self {
        Self::new(librpc_status::InvalidArgument, message)
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut Details)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn node(self, node: &str) -> Self {
        self.with(|details| details.node = Some(c_text(node)))
    }

    pub(crate) fn name(self, name: &str) -> Self {
        self.with(|details| details.name = Some(c_text(name)))
    }

    pub(crate) fn count(self, count: u64) -> Self {
        self.with(|details| details.count = count)
    }

    pub(crate) fn reason(self, reason: Reason) -> Self {
        self.with(|details| details.reason = reason.into())
    }

    /// As what C reads.
    pub(crate) fn kept(self) -> Kept {
        let message = c_text(&self.0.message);
        let of = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |text| text.as_ptr());
        let Details { status, code, bytes, max, count, wait_ns, pid, uid, reason, taken, .. } = *self.0;
        let error = librpc_error {
            status,
            code,
            message: message.as_ptr(),
            node: of(&self.0.node),
            name: of(&self.0.name),
            bytes,
            max,
            count,
            wait_ns,
            pid,
            uid,
            reason,
            taken,
        };
        Kept { error, _texts: (message, self.0) }
    }
}

/// An error that C may look at, with its texts. They are on the heap, so it may be moved.
pub(crate) struct Kept {
    pub(crate) error: librpc_error,
    _texts: (CString, Box<Details>),
}

// SAFETY: its pointers point into texts that it owns and never changes.
unsafe impl Send for Kept {}

thread_local! {
    static LAST: RefCell<Option<Box<Kept>>> = const { RefCell::new(None) };
}

/// Keeps an error of this thread.
#[cold]
pub(crate) fn remember(failure: Failure) -> librpc_status {
    let status = failure.0.status;
    // A thread that is ending has no place for it any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = Some(Box::new(failure.kept())));
    status
}

/// What is known about the last error of this thread; null: there was none. It is valid until the next function fails in this thread. A
/// function that succeeds leaves it as it is, so look at it only after a negative status or a null handle.
#[unsafe(no_mangle)]
pub extern "C" fn librpc_last_error() -> *const librpc_error {
    LAST.try_with(|last| last.borrow().as_ref().map_or(ptr::null(), |kept| &raw const kept.error))
        .unwrap_or(ptr::null())
}

/// The name of a status, such as "too_large"; never null.
#[unsafe(no_mangle)]
pub extern "C" fn librpc_status_name(status: i32) -> *const c_char {
    let name = match status {
        0 => c"ok",
        1 => c"none",
        -1 => c"invalid_argument",
        -2 => c"invalid_name",
        -3 => c"id_in_use",
        -4 => c"domain",
        -5 => c"closed",
        -6 => c"forked",
        -7 => c"os",
        -8 => c"not_found",
        -9 => c"no_inbox",
        -10 => c"refused",
        -11 => c"mismatch",
        -12 => c"broken",
        -13 => c"full",
        -14 => c"unanswered",
        -15 => c"dropped",
        -16 => c"stuck",
        -17 => c"rate_limited",
        -18 => c"too_large",
        -19 => c"no_memory",
        -20 => c"receiver_gone",
        -21 => c"timed_out",
        -22 => c"lost",
        -23 => c"taken",
        -24 => c"too_many",
        -25 => c"too_many_held",
        -26 => c"no_server",
        -27 => c"deadline",
        -28 => c"cancelled",
        -29 => c"server_died",
        -30 => c"busy",
        -31 => c"unimplemented",
        -32 => c"failed",
        -33 => c"callback",
        -34 => c"internal",
        _ => c"unknown",
    };
    name.as_ptr()
}
