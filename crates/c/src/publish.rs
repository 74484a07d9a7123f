//! Publishing a topic.

use std::ffi::{CString, c_char, c_void};

use librpc::{Publisher, PublisherEvent, Receipt, SendError, SubscriptionEnd};

use crate::border::{
    Flag, Options, c_text, exclusive, free, guard, guard_or, handle_out, long_limit, options, out, payload, refused,
    shared, text,
};
use crate::error::{Failure, Kept, librpc_error, librpc_reason, librpc_status};
use crate::node::librpc_node;
use crate::schema::{librpc_schema, schema};
use crate::send::{MAX, give_back, hand_over, librpc_account, librpc_loan, librpc_on_returned, librpc_rate};

/// Options of a publisher. Set `size` to sizeof(librpc_publisher_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_publisher_options {
    /// sizeof(librpc_publisher_options).
    pub size: usize,
    /// The type of the topic; null: none.
    pub schema: *const librpc_schema,
    /// How many messages it keeps for subscriptions that are opened later.
    pub history: u64,
    /// At most this many bytes of them; by default 64 MiB.
    pub history_bytes: u64,
    /// How long a publish waits while an inbox is full, in ns; by default 1 s.
    pub timeout_ns: u64,
    /// Whether it never waits for an inbox that is full: that one misses the message.
    pub never_waits: Flag,
    /// Whether each message says when it was sent.
    pub stamp_all: Flag,
}

// SAFETY: integers, flags and raw pointers, with the size first.
unsafe impl Options for librpc_publisher_options {}

/// Publishes a topic. One thread at a time uses it.
pub struct librpc_publisher {
    pub(crate) publisher: Publisher,
    undelivered: Undelivered,
    event: Vec<CString>,
}

/// Opens a publisher of a topic. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_open(
    node: *const librpc_node,
    topic: *const c_char,
    options: *const librpc_publisher_options,
    publisher: *mut *mut librpc_publisher,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, text and structure.
        let (node, topic, place, from) = unsafe {
            (
                shared(node, "node")?,
                text(topic, "topic")?,
                handle_out(publisher, "publisher")?,
                self::options(options, "options")?,
            )
        };
        let mut builder = node.0.publisher_builder(topic);
        // SAFETY: C's structure, or null.
        if let Some(schema) = unsafe { schema(from.schema) }? {
            builder = builder.schema(schema);
        }
        if from.history != 0 {
            builder = builder.history(usize::try_from(from.history).unwrap_or(usize::MAX));
        }
        if from.history_bytes != 0 {
            builder = builder.history_bytes(from.history_bytes);
        }
        if from.never_waits.is_set() {
            builder = builder.never_waits();
        }
        if from.stamp_all.is_set() {
            builder = builder.stamp_all();
        }
        let mut publisher = builder.open()?;
        if from.timeout_ns != 0 {
            publisher.set_timeout(long_limit(from.timeout_ns));
        }
        place.give(librpc_publisher { publisher, undelivered: Undelivered::default(), event: Vec::new() });
        Ok(librpc_status::Ok)
    })
}

/// Who got a message.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct librpc_receipt {
    /// Inboxes that have accepted it: it survives this process there.
    pub inboxes: usize,
    /// Inboxes that are connecting: it is kept for them as long as this process lives.
    pub pending: usize,
    /// Inboxes that did not get it: librpc_publisher_undelivered() says why.
    pub undelivered: usize,
}

/// Why inboxes did not get the last message, until the next publish.
#[derive(Default)]
pub(crate) struct Undelivered(Vec<Kept>);

impl Undelivered {
    /// Takes note of a receipt, and writes it where C wants it.
    ///
    /// # Safety
    ///
    /// Null, or valid for writing.
    #[inline(always)]
    pub(crate) unsafe fn note(&mut self, receipt: Receipt<'_>, place: *mut librpc_receipt) {
        if !self.0.is_empty() || !receipt.undelivered().is_empty() {
            self.set(receipt.undelivered());
        }
        if !place.is_null() {
            let seen = librpc_receipt {
                inboxes: receipt.inboxes(),
                pending: receipt.pending(),
                undelivered: receipt.undelivered().len(),
            };
            // SAFETY: by this function's contract.
            unsafe { place.write(seen) };
        }
    }

    #[cold]
    fn set(&mut self, undelivered: &[SendError]) {
        self.0 = undelivered.iter().map(|error| Failure::from(error).kept()).collect();
    }

    pub(crate) fn get(&self, index: usize) -> *const librpc_error {
        self.0.get(index).map_or(std::ptr::null(), |kept| &raw const kept.error)
    }
}

/// Publishes a message to every inbox whose subscription matches. It waits for inboxes that are full, as long as the publisher's time limit.
/// That an inbox did not get it is no error: the receipt says so (null: it is not wanted).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_publish(
    publisher: *mut librpc_publisher,
    data: *const c_void,
    size: usize,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    // SAFETY: C's handle, bytes and place. What is null, or has a size that no memory has, is told off the hot path.
    unsafe {
        let (Some(handle), false, ..=MAX) = (publisher.as_mut(), data.is_null(), size) else {
            return publish(publisher, data, size, receipt);
        };
        match handle.publisher.publish(std::slice::from_raw_parts(data.cast(), size)) {
            Ok(got) => {
                handle.undelivered.note(got, receipt);
                librpc_status::Ok
            }
            Err(error) => refused(error),
        }
    }
}

/// A publish whose arguments are to be checked one by one.
#[cold]
#[inline(never)]
unsafe fn publish(
    publisher: *mut librpc_publisher,
    data: *const c_void,
    size: usize,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: as librpc_publisher_publish().
        let (handle, bytes) = unsafe { (exclusive(publisher, "publisher")?, payload(data, size)?) };
        let got = handle.publisher.publish(bytes)?;
        // SAFETY: as above.
        unsafe { handle.undelivered.note(got, receipt) };
        Ok(librpc_status::Ok)
    })
}

/// As librpc_publisher_publish(), with a time limit of its own: 0 does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_publish_timeout(
    publisher: *mut librpc_publisher,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (handle, bytes) = unsafe { (exclusive(publisher, "publisher")?, payload(data, size)?) };
        let got = match timeout_ns {
            0 => handle.publisher.try_publish(bytes)?,
            _ => handle.publisher.publish_timeout(bytes, long_limit(timeout_ns))?,
        };
        // SAFETY: C's place, or null.
        unsafe { handle.undelivered.note(got, receipt) };
        Ok(librpc_status::Ok)
    })
}

/// Why an inbox did not get the last message; null: there are not that many. It is valid until the next publish.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_undelivered(
    publisher: *const librpc_publisher,
    index: usize,
) -> *const librpc_error {
    // SAFETY: C's handle.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(publisher, "publisher") }?.undelivered.get(index)))
}

/// As librpc_sender_loan().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_loan(
    publisher: *mut librpc_publisher,
    bytes: usize,
    loan: *mut *mut librpc_loan,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (exclusive(publisher, "publisher")?, handle_out(loan, "loan")?) };
        place.give(librpc_loan(Some(handle.publisher.loan_uninit(bytes)?)));
        Ok(librpc_status::Ok)
    })
}

/// Publishes a loan, without a copy, and frees it. If it fails, the loan is as before and may be published again, or freed; where `*loan`
/// has become null, the message is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_publish_loan(
    publisher: *mut librpc_publisher,
    loan: *mut *mut librpc_loan,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, loan) = unsafe { (exclusive(publisher, "publisher")?, exclusive(loan, "loan")?) };
        // SAFETY: as above.
        let lent = unsafe { exclusive(*loan, "*loan") }?.take()?;
        match handle.publisher.publish_loan(lent) {
            Ok(got) => {
                // SAFETY: as above, and C's place, or null.
                unsafe {
                    handle.undelivered.note(got, receipt);
                    give_back(loan, None);
                }
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

/// How many subscriptions match.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_subscribers(
    publisher: *mut librpc_publisher,
    count: *mut usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (handle, place) = unsafe { (exclusive(publisher, "publisher")?, out(count, "count")?) };
        place.set(handle.publisher.subscribers()?);
        Ok(librpc_status::Ok)
    })
}

/// Waits up to `timeout_ns` for a subscription. LIBRPC_STATUS_NONE: none has come in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_wait_for_subscriber(
    publisher: *mut librpc_publisher,
    timeout_ns: u64,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        let there =
            unsafe { exclusive(publisher, "publisher") }?.publisher.wait_for_subscriber(long_limit(timeout_ns))?;
        Ok(if there { librpc_status::Ok } else { librpc_status::None })
    })
}

/// As librpc_sender_flush(), for all inboxes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_flush(publisher: *mut librpc_publisher, timeout_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { exclusive(publisher, "publisher") }?.publisher.flush(long_limit(timeout_ns))?;
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_account(), for all inboxes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_account(
    publisher: *mut librpc_publisher,
    account: *mut librpc_account,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (handle, place) = unsafe { (exclusive(publisher, "publisher")?, out(account, "account")?) };
        place.set(handle.publisher.account().into());
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_limit_rate().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_limit_rate(
    publisher: *mut librpc_publisher,
    rate: *const librpc_rate,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and structure.
        let (handle, rate) = unsafe { (exclusive(publisher, "publisher")?, crate::send::rate(rate)) };
        handle.publisher.limit_rate(rate);
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_set_redelivery(), for durable subscriptions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_set_redelivery(
    publisher: *mut librpc_publisher,
    limit_ns: u64,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        let handle = unsafe { exclusive(publisher, "publisher") }?;
        handle.publisher.set_redelivery(crate::send::redelivery(limit_ns));
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_take_returned().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_take_returned(
    publisher: *mut librpc_publisher,
    on_returned: librpc_on_returned,
    context: *mut c_void,
) -> librpc_status {
    guard(|| {
        if on_returned.is_none() {
            return Err(Failure::argument("`on_returned` is a null pointer"));
        }
        // SAFETY: C's handle and function.
        unsafe { hand_over(exclusive(publisher, "publisher")?.publisher.take_returned(), on_returned, context) }
    })
}

/// What has happened to a subscription.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_publisher_event_kind {
    /// A subscription has come.
    Came = 0,
    /// It has gone.
    Gone = 1,
    /// It is stuck: its receiver does not go on, and publishes leave it out.
    Stuck = 2,
    /// It goes on.
    Moves = 3,
    /// Its node may not read the topic.
    Denied = 4,
    /// It wants another type: `text`.
    Mismatch = 5,
    /// One that a later version of the header knows.
    Other = 6,
}

/// How a subscription has gone.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_subscription_end {
    /// It has not.
    None = 0,
    /// It was closed.
    Closed = 1,
    /// Its process died.
    Died = 2,
    /// Its node has left.
    NodeGone = 3,
    /// It may not read the topic any more.
    Denied = 4,
    /// It refused: `reason`, `text`.
    Refused = 5,
    /// It wrote what no honest receiver writes: `text`.
    Corrupt = 6,
}

/// An event of a publisher. What does not apply is zero or null. It is valid until the next event.
#[repr(C)]
pub struct librpc_publisher_event {
    /// What has happened.
    pub kind: librpc_publisher_event_kind,
    /// How it has gone.
    pub end: librpc_subscription_end,
    /// The node of the subscription.
    pub node: *const c_char,
    /// The name of a durable subscription.
    pub durable: *const c_char,
    /// What there is to say.
    pub text: *const c_char,
    /// The user of its process.
    pub uid: u32,
    /// The number of the inbox in its node.
    pub inbox: u32,
    /// Why it refused.
    pub reason: librpc_reason,
}

/// Waits up to `timeout_ns` for what happens to the subscriptions of this topic. LIBRPC_STATUS_NONE: nothing has happened.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_recv_event(
    publisher: *mut librpc_publisher,
    timeout_ns: u64,
    event: *mut librpc_publisher_event,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (handle, place) = unsafe { (exclusive(publisher, "publisher")?, out(event, "event")?) };
        let event = match timeout_ns {
            0 => handle.publisher.try_event()?,
            _ => handle.publisher.wait_for_event(long_limit(timeout_ns))?,
        };
        let Some(event) = event else {
            return Ok(librpc_status::None);
        };
        handle.event.clear();
        let mut keep = |text: &str| {
            let text = c_text(text);
            let at = text.as_ptr(); // on the heap, where it stays
            handle.event.push(text);
            at
        };
        let inbox = event.inbox();
        let mut seen = librpc_publisher_event {
            kind: librpc_publisher_event_kind::Other,
            end: librpc_subscription_end::None,
            node: keep(&inbox.node),
            durable: inbox.durable.as_deref().map_or(std::ptr::null(), &mut keep),
            text: std::ptr::null(),
            uid: inbox.uid,
            inbox: inbox.number,
            reason: librpc_reason::None,
        };
        use librpc_publisher_event_kind as Kind;
        use librpc_subscription_end as End;
        seen.kind = match &event {
            PublisherEvent::Came(_) => Kind::Came,
            PublisherEvent::Gone(_, end) => {
                seen.end = match end {
                    SubscriptionEnd::Closed => End::Closed,
                    SubscriptionEnd::Died => End::Died,
                    SubscriptionEnd::Denied => End::Denied,
                    SubscriptionEnd::Refused { reason, text } => {
                        (seen.reason, seen.text) = ((*reason).into(), keep(text));
                        End::Refused
                    }
                    SubscriptionEnd::Corrupt(why) => {
                        seen.text = keep(why);
                        End::Corrupt
                    }
                    _ => End::NodeGone,
                };
                Kind::Gone
            }
            PublisherEvent::Stuck(_) => Kind::Stuck,
            PublisherEvent::Moves(_) => Kind::Moves,
            PublisherEvent::Denied(_) => Kind::Denied,
            PublisherEvent::Mismatch(_, mismatch) => {
                seen.text = keep(&mismatch.to_string());
                Kind::Mismatch
            }
            _ => Kind::Other,
        };
        place.set(seen);
        Ok(librpc_status::Ok)
    })
}

/// Frees a publisher. What was accepted stays in the inboxes. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_publisher_free(publisher: *mut librpc_publisher) {
    // SAFETY: C's handle, or null.
    unsafe { free(publisher) }
}
