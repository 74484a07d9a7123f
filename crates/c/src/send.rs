//! Sending to one node.

use std::ffi::{c_char, c_void};
use std::num::NonZeroU32;
use std::time::Duration;

use librpc::{Account, Loan, Rate, Returned, ReturnedError, Sender};

use crate::border::{
    Flag, Options, c_text, exclusive, free, guard, guard_or, handle_out, long_limit, ns, options, out, payload,
    refused, shared, text,
};
use crate::error::{Failure, librpc_status};
use crate::node::librpc_node;
use crate::schema::{librpc_schema, schema};

/// Options of a sender. Set `size` to sizeof(librpc_sender_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_sender_options {
    /// sizeof(librpc_sender_options).
    pub size: usize,
    /// The type of what is sent; null: none.
    pub schema: *const librpc_schema,
    /// How long a send waits while the inbox is full, in ns; by default 1 s.
    pub timeout_ns: u64,
    /// Whether each message says when it was sent.
    pub stamp_all: Flag,
}

// SAFETY: integers, flags and raw pointers, with the size first.
unsafe impl Options for librpc_sender_options {}

/// Sends to one node. One thread at a time uses it.
pub struct librpc_sender(pub(crate) Sender);

/// Connects to a node, and waits up to `timeout_ns` for it to open its inbox, then up to 1 s for its answer. 0: it must be there, and its
/// answer is not waited for. A node that is there but does not answer gets its messages when it goes on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_connect(
    node: *const librpc_node,
    to: *const c_char,
    timeout_ns: u64,
    options: *const librpc_sender_options,
    sender: *mut *mut librpc_sender,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles and text.
        let (node, to, place) = unsafe { (shared(node, "node")?, text(to, "to")?, handle_out(sender, "sender")?) };
        // SAFETY: C's structure, or null.
        let from = unsafe { self::options(options, "options") }?;
        let mut builder = node.0.sender_builder(to).wait(long_limit(timeout_ns));
        // SAFETY: C's structure, or null.
        let schema = unsafe { schema(from.schema) }?;
        let mut sender = match (timeout_ns, &schema, from.stamp_all.is_set()) {
            (0, None, false) => node.0.try_connect(to)?,
            (_, _, stamps_all) => {
                if let Some(schema) = schema {
                    builder = builder.schema(schema);
                }
                if stamps_all {
                    builder = builder.stamp_all();
                }
                builder.open()?
            }
        };
        if from.timeout_ns != 0 {
            sender.set_timeout(long_limit(from.timeout_ns));
        }
        place.give(librpc_sender(sender));
        Ok(librpc_status::Ok)
    })
}

/// Sends a message. It waits while the inbox is full, up to the sender's time limit. LIBRPC_STATUS_OK: it is accepted, and survives this
/// process from now on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_send(
    sender: *mut librpc_sender,
    data: *const c_void,
    size: usize,
) -> librpc_status {
    // SAFETY: C's handle and bytes. What is null, or has a size that no memory has, is told off the hot path.
    unsafe {
        let (Some(sender), false, ..=MAX) = (sender.as_mut(), data.is_null(), size) else {
            return send(sender, data, size);
        };
        match sender.0.send(std::slice::from_raw_parts(data.cast(), size)) {
            Ok(()) => librpc_status::Ok,
            Err(error) => refused(error),
        }
    }
}

/// The longest slice.
pub(crate) const MAX: usize = isize::MAX as usize;

/// A send whose arguments are to be checked one by one.
#[cold]
#[inline(never)]
unsafe fn send(sender: *mut librpc_sender, data: *const c_void, size: usize) -> librpc_status {
    guard(|| {
        // SAFETY: as librpc_sender_send().
        let (sender, bytes) = unsafe { (exclusive(sender, "sender")?, payload(data, size)?) };
        sender.0.send(bytes)?;
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_send(), with a time limit of its own: 0 does not wait (LIBRPC_STATUS_FULL if there is no room).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_send_timeout(
    sender: *mut librpc_sender,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (sender, bytes) = unsafe { (exclusive(sender, "sender")?, payload(data, size)?) };
        match timeout_ns {
            0 => sender.0.try_send(bytes)?,
            _ => sender.0.send_timeout(bytes, long_limit(timeout_ns))?,
        }
        Ok(librpc_status::Ok)
    })
}

/// Waits up to `timeout_ns` until everything that was sent is processed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_flush(sender: *mut librpc_sender, timeout_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { exclusive(sender, "sender") }?.0.flush(long_limit(timeout_ns))?;
        Ok(librpc_status::Ok)
    })
}

/// Whether the receiver is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_is_connected(sender: *const librpc_sender) -> bool {
    // SAFETY: C's handle.
    guard_or(false, || Ok(unsafe { shared(sender, "sender") }?.0.is_connected()))
}

/// Disconnects. What was accepted stays in the inbox. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_free(sender: *mut librpc_sender) {
    // SAFETY: C's handle, or null.
    unsafe { free(sender) }
}

/// What became of the messages of a sender or a publisher.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct librpc_account {
    /// Messages that it was asked to send.
    pub sent: u64,
    /// Those of them that were put into an inbox.
    pub accepted: u64,
    /// Those that the receiver has processed.
    pub processed: u64,
    /// Those that are in an inbox.
    pub queued: u64,
    /// Those that the inbox's policy has dropped: new ones, or overwritten ones of which the receiver knows.
    pub dropped: u64,
    /// Those that were returned with an error, or are counted in one: there was no room, or the receiver is gone.
    pub returned: u64,
    /// Bytes of payload that were put into inboxes.
    pub bytes: u64,
    /// How long sends have waited for room, in ns.
    pub blocked_ns: u64,
    /// Bytes of the ring that are in use now. For several inboxes, this field and the next two are those of the fullest one.
    pub depth: u64,
    /// The highest depth so far, in bytes.
    pub depth_max: u64,
    /// Capacity of the ring, in bytes; 0 before there is a channel.
    pub capacity: u64,
}

impl From<Account> for librpc_account {
    fn from(of: Account) -> Self {
        let Account {
            sent,
            accepted,
            processed,
            queued,
            dropped,
            returned,
            bytes,
            depth,
            depth_max,
            capacity,
            blocked,
            ..
        } = of;
        let blocked_ns = ns(blocked);
        Self { sent, accepted, processed, queued, dropped, returned, bytes, blocked_ns, depth, depth_max, capacity }
    }
}

/// What became of its messages so far.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_account(
    sender: *mut librpc_sender,
    account: *mut librpc_account,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (sender, place) = unsafe { (exclusive(sender, "sender")?, out(account, "account")?) };
        place.set(sender.0.account().into());
        Ok(librpc_status::Ok)
    })
}

/// The longest message that the inbox takes, in bytes; 0: it has not said yet.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_max_message(sender: *mut librpc_sender, bytes: *mut u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (sender, place) = unsafe { (exclusive(sender, "sender")?, out(bytes, "bytes")?) };
        place.set(sender.0.max_message()?.unwrap_or(0) as u64);
        Ok(librpc_status::Ok)
    })
}

/// A limit of messages and bytes per second, with how much may come at once. Zeros: no such limit.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_rate {
    /// Messages per second.
    pub messages: u32,
    /// How many messages may come at once; 0: as many as per second.
    pub messages_burst: u32,
    /// Bytes per second.
    pub bytes: u32,
    /// How many bytes may come at once; 0: as many as per second.
    pub bytes_burst: u32,
    /// Whether a send over the limit fails with LIBRPC_STATUS_RATE_LIMITED. Otherwise it waits.
    pub or_fail: Flag,
}

/// A rate limit that C describes.
///
/// # Safety
///
/// Null, or valid for reading.
pub(crate) unsafe fn rate(from: *const librpc_rate) -> Option<Rate> {
    // SAFETY: by this function's contract.
    let from = unsafe { from.as_ref() }?;
    let pair = |per_second: u32, burst: u32| {
        let per_second = NonZeroU32::new(per_second)?;
        Some((per_second, NonZeroU32::new(burst).unwrap_or(per_second)))
    };
    let rate = match (pair(from.messages, from.messages_burst), pair(from.bytes, from.bytes_burst)) {
        (Some(messages), None) => Rate::messages(messages.0, messages.1),
        (None, Some(bytes)) => Rate::bytes(bytes.0, bytes.1),
        (Some(messages), Some(bytes)) => Rate::messages(messages.0, messages.1).and_bytes(bytes.0, bytes.1),
        (None, None) => return None,
    };
    Some(if from.or_fail.is_set() { rate.or_fail() } else { rate })
}

/// Limits how fast it sends. Null or zeros: no limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_limit_rate(
    sender: *mut librpc_sender,
    rate: *const librpc_rate,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and structure.
        let (sender, rate) = unsafe { (exclusive(sender, "sender")?, self::rate(rate)) };
        sender.0.limit_rate(rate);
        Ok(librpc_status::Ok)
    })
}

/// Lets this sender survive its receivers: when a receiver is gone, what it has not processed, and what is sent meanwhile, is kept for up to
/// `limit_ns` (LIBRPC_FOREVER: as long as this sender lives), up to the capacity of its ring, and delivered when the same node opens its
/// inbox again. It happens in this sender's own calls. When the time is up, the next call reports LIBRPC_STATUS_RECEIVER_GONE with the number
/// of messages, and librpc_sender_take_returned() returns them. 0, the default: what is not processed is reported at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_set_redelivery(sender: *mut librpc_sender, limit_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { exclusive(sender, "sender") }?.0.set_redelivery(redelivery(limit_ns));
        Ok(librpc_status::Ok)
    })
}

/// How long to keep what was not processed.
pub(crate) fn redelivery(limit_ns: u64) -> Option<Duration> {
    (limit_ns != 0).then(|| long_limit(limit_ns))
}

/// A message that came back. It is valid while the function runs.
#[repr(C)]
pub struct librpc_returned {
    /// Its payload.
    pub data: *const c_void,
    /// The length of the payload in bytes.
    pub size: usize,
    /// Whom it was for.
    pub node: *const c_char,
    /// Its topic; empty: none.
    pub topic: *const c_char,
    /// Its number.
    pub sequence: u64,
    /// The receiver may have processed it.
    pub was_in_work: bool,
}

/// Called for each message that came back. It must not throw.
pub type librpc_on_returned = Option<unsafe extern "C" fn(context: *mut c_void, returned: *const librpc_returned)>;

/// Hands the messages over that came back.
///
/// # Safety
///
/// C's function, which may be called with this context.
pub(crate) unsafe fn hand_over(
    returned: Result<Vec<Returned>, ReturnedError>,
    on_returned: librpc_on_returned,
    context: *mut c_void,
) -> Result<librpc_status, Failure> {
    let on_returned = on_returned.ok_or_else(|| Failure::argument("`on_returned` is a null pointer"))?;
    for one in returned? {
        let (node, topic) = (c_text(&one.node), c_text(&one.topic));
        let seen = librpc_returned {
            data: one.payload.as_ptr().cast(),
            size: one.payload.len(),
            node: node.as_ptr(),
            topic: topic.as_ptr(),
            sequence: one.sequence,
            was_in_work: one.was_in_work,
        };
        // SAFETY: by this function's contract.
        unsafe { on_returned(context, &raw const seen) };
    }
    Ok(librpc_status::Ok)
}

/// Hands over the messages that came back since the last call, each once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_take_returned(
    sender: *mut librpc_sender,
    on_returned: librpc_on_returned,
    context: *mut c_void,
) -> librpc_status {
    guard(|| {
        if on_returned.is_none() {
            return Err(Failure::argument("`on_returned` is a null pointer"));
        }
        // SAFETY: C's handle and function.
        unsafe { hand_over(exclusive(sender, "sender")?.0.take_returned(), on_returned, context) }
    })
}

/// Memory for one message, which is filled in place, then sent or published. One thread at a time uses it.
pub struct librpc_loan(pub(crate) Option<Loan>);

impl librpc_loan {
    pub(crate) fn take(&mut self) -> Result<Loan, Failure> {
        self.0.take().ok_or_else(|| Failure::argument("the loan was sent already: free it"))
    }
}

/// Lends memory for a message of this many bytes to this sender's node. The memory is not cleared: its content is that of an earlier
/// message of this process, or zeros. LIBRPC_STATUS_NO_MEMORY: all of the node's memory for payloads is in use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_loan(
    sender: *mut librpc_sender,
    bytes: usize,
    loan: *mut *mut librpc_loan,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (sender, place) = unsafe { (exclusive(sender, "sender")?, handle_out(loan, "loan")?) };
        place.give(librpc_loan(Some(sender.0.loan_uninit(bytes)?)));
        Ok(librpc_status::Ok)
    })
}

/// Where a loan's payload is to be written; null: it was sent. Aligned to 64 bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_loan_data(loan: *mut librpc_loan) -> *mut c_void {
    // SAFETY: C's handle, or null.
    let loan = unsafe { loan.as_mut() }.and_then(|loan| loan.0.as_mut());
    loan.map_or(std::ptr::null_mut(), |loan| loan.as_mut_ptr().cast())
}

/// The length of a loan in bytes; 0: it was sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_loan_size(loan: *const librpc_loan) -> usize {
    // SAFETY: C's handle, or null.
    unsafe { loan.as_ref() }.and_then(|loan| loan.0.as_ref()).map_or(0, |loan| loan.len())
}

/// Frees a loan; what was not sent is given back. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_loan_free(loan: *mut librpc_loan) {
    // SAFETY: C's handle, or null.
    unsafe { free(loan) }
}

/// Sends a loan, without a copy, and frees it. If it fails, the loan is as before and may be sent again, or freed; where `*loan` has become
/// null, the message is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sender_send_loan(
    sender: *mut librpc_sender,
    loan: *mut *mut librpc_loan,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (sender, loan) = unsafe { (exclusive(sender, "sender")?, exclusive(loan, "loan")?) };
        // SAFETY: as above.
        let lent = unsafe { exclusive(*loan, "*loan") }?.take()?;
        match sender.0.send_loan(lent) {
            Ok(()) => {
                // SAFETY: as above; it is used no more.
                unsafe { give_back(loan, None) };
                Ok(librpc_status::Ok)
            }
            Err(unsent) => {
                // SAFETY: as above.
                unsafe { give_back(loan, unsent.loan) };
                Err(unsent.error.into())
            }
        }
    })
}

/// Puts a loan back that was not sent; without one, the handle is freed.
///
/// # Safety
///
/// C's handle.
pub(crate) unsafe fn give_back(handle: &mut *mut librpc_loan, loan: Option<Loan>) {
    match loan {
        // SAFETY: by this function's contract.
        Some(loan) => unsafe { (**handle).0 = Some(loan) },
        None => {
            // SAFETY: as above.
            unsafe { free(*handle) };
            *handle = std::ptr::null_mut();
        }
    }
}
