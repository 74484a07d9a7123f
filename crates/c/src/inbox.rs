//! Receiving: inboxes, subscriptions, callbacks.

use std::cell::UnsafeCell;
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::AsRawFd;

use librpc::{Acknowledge, CallbackHandle, Inbox, InboxBuilder, Message, Policy, StopHandle, Wait};

use crate::border::{
    Flag, Options, array, choice, free, guard, guard_or, handle_out, long_limit, options, out, refused, shared, taken,
    text,
};
use crate::error::{Failure, librpc_status};
use crate::event::{Kept, librpc_event};
use crate::message::{librpc_message, librpc_message_more, librpc_sample};
use crate::node::librpc_node;
use crate::schema::{librpc_schema, schema};

/// What becomes of a message whose inbox is full.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_policy {
    /// The default: its sender waits, within its time limit.
    Default = 0,
    /// Its sender waits, within its time limit.
    Block = 1,
    /// The new message is dropped, and counted.
    DropNewest = 2,
    /// The oldest messages are overwritten, and counted.
    DropOldest = 3,
}

impl librpc_policy {
    const ALL: [Self; 4] = [Self::Default, Self::Block, Self::DropNewest, Self::DropOldest];
}

/// How an inbox waits.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_wait {
    /// It spins for a moment, then sleeps. The default.
    Adaptive = 0,
    /// It spins, for the lowest latency at the price of a processor.
    Spin = 1,
    /// It sleeps at once.
    Block = 2,
}

impl librpc_wait {
    const ALL: [Self; 3] = [Self::Adaptive, Self::Spin, Self::Block];

    /// What C asks for.
    pub(crate) fn chosen(number: u32) -> Result<Wait, Failure> {
        match choice(&Self::ALL, number, "options.wait", "librpc_wait")? {
            Self::Adaptive => Ok(Wait::Adaptive),
            Self::Spin => Ok(Wait::Spin),
            Self::Block => Ok(Wait::Block),
        }
    }
}

/// Options of an inbox. Set `size` to sizeof(librpc_inbox_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_inbox_options {
    /// sizeof(librpc_inbox_options).
    pub size: usize,
    /// The ring of each sender, in bytes; by default 256 KiB.
    pub capacity: u64,
    /// The longest message that it takes, in bytes; by default 1 GiB.
    pub max_message: u64,
    /// What becomes of a message when it is full: librpc_policy. By default its sender waits; with `keep_last`, old ones are overwritten.
    pub policy: u32,
    /// How it waits: librpc_wait.
    pub wait: u32,
    /// Receives at most this many messages of a topic and sender at once, the newest; 0: all.
    pub keep_last: u64,
    /// The name of a durable subscription: what comes while its node is down is kept for it. Null: none.
    pub durable: *const c_char,
    /// The type of what it receives; null: none.
    pub schema: *const librpc_schema,
    /// At most this many past messages of each topic, from each publisher that keeps some; 0: all that they keep.
    pub history: u64,
    /// Whether it gets no past messages.
    pub no_history: Flag,
    /// Whether a message counts as processed only by librpc_inbox_ack(); otherwise by the next receive.
    pub explicit_ack: Flag,
    /// Whether a subscription gets what its own node publishes, too.
    pub receive_own: Flag,
    /// Whether `data` of a large message is where its sender has put it, instead of a copy. Then no sender may be hostile: it could change
    /// the payload while it is read. Samples are never copied.
    pub trust_publishers: Flag,
}

// SAFETY: integers, flags and raw pointers, with the size first.
unsafe impl Options for librpc_inbox_options {}

fn builder<'n>(mut builder: InboxBuilder<'n>, from: *const librpc_inbox_options) -> Result<InboxBuilder<'n>, Failure> {
    // SAFETY: C's structure, or null.
    let from = unsafe { options(from, "options") }?;
    if from.capacity != 0 {
        builder = builder.capacity(from.capacity);
    }
    if from.max_message != 0 {
        builder = builder.max_message(usize::try_from(from.max_message).unwrap_or(usize::MAX));
    }
    if from.keep_last != 0 {
        builder = builder.keep_last(usize::try_from(from.keep_last).unwrap_or(usize::MAX));
    }
    builder = match choice(&librpc_policy::ALL, from.policy, "options.policy", "librpc_policy")? {
        librpc_policy::Default => builder,
        librpc_policy::Block => builder.policy(Policy::Block),
        librpc_policy::DropNewest => builder.policy(Policy::DropNewest),
        librpc_policy::DropOldest => builder.policy(Policy::DropOldest),
    };
    builder = builder.wait(librpc_wait::chosen(from.wait)?);
    if from.no_history.is_set() {
        builder = builder.history(0);
    } else if from.history != 0 {
        builder = builder.history(usize::try_from(from.history).unwrap_or(usize::MAX));
    }
    // SAFETY: C's text, or null.
    if let Some(name) = unsafe { crate::border::optional_text(from.durable, "options.durable") }? {
        builder = builder.durable(name);
    }
    // SAFETY: C's structure, or null.
    if let Some(schema) = unsafe { schema(from.schema) }? {
        builder = builder.schema(schema);
    }
    if from.explicit_ack.is_set() {
        builder = builder.acknowledge(Acknowledge::Explicit);
    }
    if from.trust_publishers.is_set() {
        // SAFETY: the caller promises it: the comment of the option says what.
        builder = unsafe { builder.trust_publishers() };
    }
    Ok(builder.receive_own(from.receive_own.is_set()))
}

/// Receives messages. One thread at a time uses it; librpc_inbox_stop() may be called by any.
pub struct librpc_inbox {
    inbox: UnsafeCell<Inbox>,
    stop: StopHandle,
    more: librpc_message_more,
    event: UnsafeCell<Kept>,
}

impl librpc_inbox {
    fn new(inbox: Inbox) -> Self {
        let stop = inbox.stop_handle();
        Self { inbox: UnsafeCell::new(inbox), stop, more: librpc_message_more::default(), event: UnsafeCell::default() }
    }

    /// The inbox, to be looked at.
    ///
    /// # Safety
    ///
    /// The thread that uses the inbox is here.
    pub(crate) unsafe fn inbox(&self) -> &Inbox {
        // SAFETY: by this function's contract.
        unsafe { &*self.inbox.get() }
    }

    /// The inbox, for a call that ends the message before.
    ///
    /// # Safety
    ///
    /// The thread that uses the inbox is here, and nothing else of it is in use.
    #[inline(always)]
    #[allow(clippy::mut_from_ref)]
    unsafe fn begin(&self) -> &mut Inbox {
        // SAFETY: by this function's contract. The message is forgotten before what it borrows is used.
        unsafe {
            self.more.forget();
            &mut *self.inbox.get()
        }
    }
}

/// Opens the inbox for what is sent to the node itself. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_open(
    node: *const librpc_node,
    options: *const librpc_inbox_options,
    inbox: *mut *mut librpc_inbox,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(inbox, "inbox")?) };
        place.give(librpc_inbox::new(builder(node.0.inbox_builder(), options)?.open()?));
        Ok(librpc_status::Ok)
    })
}

/// Subscribes to topics. A pattern has `*` for one level and `**` for any number. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_subscribe(
    node: *const librpc_node,
    pattern: *const c_char,
    options: *const librpc_inbox_options,
    inbox: *mut *mut librpc_inbox,
) -> librpc_status {
    // SAFETY: C's pointers.
    unsafe { librpc_subscribe_all(node, &raw const pattern, 1, options, inbox) }
}

/// As librpc_subscribe(), with several patterns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_subscribe_all(
    node: *const librpc_node,
    patterns: *const *const c_char,
    count: usize,
    options: *const librpc_inbox_options,
    inbox: *mut *mut librpc_inbox,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(inbox, "inbox")?) };
        // SAFETY: C's texts.
        let patterns = unsafe { texts(patterns, count, "patterns") }?;
        place.give(librpc_inbox::new(builder(node.0.subscriber_builder(patterns), options)?.open()?));
        Ok(librpc_status::Ok)
    })
}

/// Texts of C's.
///
/// # Safety
///
/// Null, or that many texts that stay as they are during the call.
unsafe fn texts<'a>(from: *const *const c_char, count: usize, what: &str) -> Result<Vec<&'a str>, Failure> {
    // SAFETY: by this function's contract.
    let texts = unsafe { array(from, count, what) }?;
    // SAFETY: as above.
    texts.iter().map(|one| unsafe { text(*one, what) }).collect()
}

/// Waits for the next message, up to `timeout_ns`: 0 does not wait, LIBRPC_FOREVER waits without limit. LIBRPC_STATUS_NONE: the time is
/// up, or the inbox was stopped. The message before counts as processed now (unless `explicit_ack` is set), and is not valid any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_recv(
    inbox: *mut librpc_inbox,
    timeout_ns: u64,
    message: *mut librpc_message,
) -> librpc_status {
    // SAFETY: C's handle and place, or null; the thread that uses the inbox is here. Each call that ends the message begins with `begin`,
    // or writes over it.
    unsafe {
        if let Some(handle) = inbox.as_ref()
            && !message.is_null()
            && let Some(payload) = (*handle.inbox.get()).recv_at_hand()
        {
            message.write(handle.more.keep_last(handle.inbox.get(), payload));
            return librpc_status::Ok;
        }
        recv(inbox, timeout_ns, message)
    }
}

/// A receive that is not on the hot path.
#[inline(never)]
unsafe fn recv(inbox: *mut librpc_inbox, timeout_ns: u64, message: *mut librpc_message) -> librpc_status {
    // SAFETY: as librpc_inbox_recv().
    unsafe { receive(inbox, message, |inbox| inbox.recv_timeout(long_limit(timeout_ns))) }
}

/// As librpc_inbox_recv(), but the newest message of those that wait; older ones are passed over, and `missed` counts them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_recv_latest(
    inbox: *mut librpc_inbox,
    timeout_ns: u64,
    message: *mut librpc_message,
) -> librpc_status {
    // SAFETY: as this function.
    unsafe { receive(inbox, message, |inbox| inbox.recv_latest_timeout(long_limit(timeout_ns))) }
}

#[inline(always)]
unsafe fn receive(
    handle: *mut librpc_inbox,
    message: *mut librpc_message,
    receive: impl FnOnce(&mut Inbox) -> Result<Option<Message<'_>>, librpc::RecvError>,
) -> librpc_status {
    guard(
        #[inline(always)]
        || {
            // SAFETY: C's handles.
            let (handle, place) = unsafe { (shared(handle, "inbox")?, out(message, "message")?) };
            // SAFETY: the thread that uses the inbox is here.
            match receive(unsafe { handle.begin() }) {
                Ok(Some(message)) => {
                    // SAFETY: every call that ends the message begins with `begin`.
                    place.set(unsafe { handle.more.keep(message) });
                    Ok(librpc_status::Ok)
                }
                Ok(None) => Ok(librpc_status::None),
                Err(error) => Ok(refused(error)),
            }
        },
    )
}

/// As librpc_inbox_recv(), as a sample: owned, and a large payload stays where its sender has put it. The message counts as processed by
/// the next receive, as any other, but its payload stays until librpc_sample_free().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_recv_sample(
    inbox: *mut librpc_inbox,
    timeout_ns: u64,
    sample: *mut *mut librpc_sample,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (shared(inbox, "inbox")?, handle_out(sample, "sample")?) };
        // SAFETY: the thread that uses the inbox is here.
        let inbox = unsafe { handle.begin() };
        let sample = inbox.recv_sample_timeout(long_limit(timeout_ns));
        Ok(sample?.map_or(librpc_status::None, |sample| {
            place.give(librpc_sample::new(sample));
            librpc_status::Ok
        }))
    })
}

/// As librpc_inbox_recv(), but what comes next: a message, a sender that joins or leaves, or something that cannot arrive. The event is
/// valid until the next receive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_recv_event(
    inbox: *mut librpc_inbox,
    timeout_ns: u64,
    event: *mut librpc_event,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (shared(inbox, "inbox")?, out(event, "event")?) };
        // SAFETY: the thread that uses the inbox is here.
        let (inbox, kept) = unsafe { (handle.begin(), &mut *handle.event.get()) };
        let event = inbox.recv_event_timeout(long_limit(timeout_ns));
        match event? {
            Some(event) => {
                // SAFETY: every call that ends the event begins with `begin`.
                place.set(unsafe { kept.keep(&event, &handle.more) });
                Ok(librpc_status::Ok)
            }
            None => Ok(librpc_status::None),
        }
    })
}

/// With `explicit_ack`: every message that was received so far is processed. The last one is not valid any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_ack(inbox: *mut librpc_inbox) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle, and the thread that uses the inbox is here.
        unsafe { shared(inbox, "inbox")?.begin() }.ack();
        Ok(librpc_status::Ok)
    })
}

/// The inbox's descriptor, for poll() and epoll: readable while there may be something to receive, until a receive that does not wait
/// (`timeout_ns` 0) has returned LIBRPC_STATUS_NONE. It belongs to the inbox: do not close it. -1 for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_fd(inbox: *const librpc_inbox) -> c_int {
    guard_or(-1, || {
        // SAFETY: C's handle, and the thread that uses the inbox is here.
        Ok(unsafe { shared(inbox, "inbox")?.inbox() }.as_raw_fd())
    })
}

/// Stops the inbox, for good: a receive that waits, and each later one, returns LIBRPC_STATUS_NONE. Any thread may call it, and a signal
/// handler, while the inbox is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_stop(inbox: *const librpc_inbox) {
    // SAFETY: C's handle, or null. The stop handle is not written by anybody.
    if let Some(handle) = unsafe { inbox.as_ref() } {
        handle.stop.stop();
    }
}

/// Closes the inbox; its senders learn that it is gone. Null is fine. Samples stay valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_free(inbox: *mut librpc_inbox) {
    if !inbox.is_null() {
        // SAFETY: C's handle, which is not used any more.
        unsafe { (*inbox).more.forget() };
    }
    // SAFETY: as above.
    unsafe { free(inbox) }
}

/// Called for each message, one at a time, in a thread of the library's. The message is valid until it returns. 0: it is processed. Anything
/// else: it has failed. Then its message stays unprocessed, the inbox closes, and librpc_callback_stop() reports it. It must not throw.
pub type librpc_on_message =
    Option<unsafe extern "C" fn(context: *mut c_void, message: *const librpc_message) -> c_int>;

/// A callback that is running.
pub struct librpc_callback(CallbackHandle);

/// A pointer that C wants back in another thread.
struct Context(*mut c_void);

// SAFETY: the caller promises that its callback may use it in another thread.
unsafe impl Send for Context {}

fn callback(
    builder: InboxBuilder<'_>,
    on_message: librpc_on_message,
    context: *mut c_void,
) -> Result<librpc_callback, Failure> {
    let on_message = on_message.ok_or_else(|| Failure::argument("`on_message` is a null pointer"))?;
    let context = Context(context);
    let more = Box::<librpc_message_more>::default();
    let more = MoreForThread(more);
    let handle = builder.callback(move |message| {
        let (context, more) = (&context, &more);
        // SAFETY: it is forgotten below, before the message ends. C promises that its function may be called with this context.
        let failed = unsafe {
            let message = more.0.keep(message);
            let failed = on_message(context.0, &raw const message);
            more.0.forget();
            failed
        };
        if failed != 0 {
            // The thread of the callback ends this way. Nothing of it reaches C.
            std::panic::resume_unwind(Box::new(format!("the callback returned {failed}")));
        }
    })?;
    Ok(librpc_callback(handle))
}

/// What is known about a message, in the thread of a callback.
struct MoreForThread(Box<librpc_message_more>);

// SAFETY: between two messages it is empty.
unsafe impl Send for MoreForThread {}

/// Opens the inbox for what is sent to the node itself, and calls a function for each message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_inbox_callback(
    node: *const librpc_node,
    options: *const librpc_inbox_options,
    on_message: librpc_on_message,
    context: *mut c_void,
    handle: *mut *mut librpc_callback,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(handle, "handle")?) };
        place.give(callback(builder(node.0.inbox_builder(), options)?, on_message, context)?);
        Ok(librpc_status::Ok)
    })
}

/// Subscribes to topics, and calls a function for each message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_subscribe_callback(
    node: *const librpc_node,
    patterns: *const *const c_char,
    count: usize,
    options: *const librpc_inbox_options,
    on_message: librpc_on_message,
    context: *mut c_void,
    handle: *mut *mut librpc_callback,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(handle, "handle")?) };
        // SAFETY: C's texts.
        let patterns = unsafe { texts(patterns, count, "patterns") }?;
        place.give(callback(builder(node.0.subscriber_builder(patterns), options)?, on_message, context)?);
        Ok(librpc_status::Ok)
    })
}

/// Stops a callback, waits until it has returned, and frees the handle, whatever it returns. Called by the callback itself, it does not
/// wait: the context must last until the function has returned, and the inbox closes, and lets go of its node, only after that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_callback_stop(handle: *mut librpc_callback) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { taken(handle, "handle") }?.0.stop()?;
        Ok(librpc_status::Ok)
    })
}
