//! Messages and samples: what was received.

use std::cell::{Cell, UnsafeCell};
use std::ffi::{CString, c_char, c_void};
use std::ptr;
use std::sync::OnceLock;

use librpc::{Inbox, Message, Peer, Sample};

use crate::border::{c_text, free, guard, ns, out, shared};
use crate::error::{Failure, librpc_status};

/// A node id with its zero byte.
const ID: usize = librpc::MAX_NODE_ID_BYTES + 1;
/// A topic with its zero byte.
const TOPIC: usize = librpc::MAX_TOPIC_BYTES + 1;

/// A message. It is valid until the next receive at its inbox, and no longer than the inbox.
#[repr(C)]
pub struct librpc_message {
    /// Its payload: a private copy, or, if the inbox trusts its publishers, where its sender has put it. It is aligned to 16 bytes; where that
    /// is not enough, receive a sample, which is aligned to 64. Never null.
    pub data: *const c_void,
    /// The length of the payload in bytes.
    pub size: usize,
    /// For the functions below.
    pub more: *const librpc_message_more,
}

/// What else is known about a message.
pub struct librpc_message_more {
    /// The inbox whose last message it is; null: it is the one below, if there is one.
    inbox: Cell<*const Inbox>,
    message: UnsafeCell<Option<Message<'static>>>,
    texts: UnsafeCell<Texts>,
}

/// Where the texts of a message are put when they are asked for.
struct Texts {
    sender: [u8; ID],
    topic: [u8; TOPIC],
}

impl Default for librpc_message_more {
    fn default() -> Self {
        let texts = Texts { sender: [0; ID], topic: [0; TOPIC] };
        Self { inbox: Cell::new(ptr::null()), message: UnsafeCell::new(None), texts: UnsafeCell::new(texts) }
    }
}

impl librpc_message_more {
    /// Keeps a message, and returns it as C sees it.
    ///
    /// # Safety
    ///
    /// `forget` is called before the message ends. Nobody else uses this now.
    #[inline(always)]
    pub(crate) unsafe fn keep(&self, message: Message<'_>) -> librpc_message {
        let seen = self.seen(message.payload());
        // SAFETY: only the lifetime differs; by this function's contract the message is forgotten before it ends.
        let message = unsafe { std::mem::transmute::<Message<'_>, Message<'static>>(message) };
        // SAFETY: nobody else uses it, by this function's contract.
        unsafe { *self.message.get() = Some(message) };
        seen
    }

    /// Keeps the last message of an inbox, which has this payload, and returns it as C sees it.
    ///
    /// # Safety
    ///
    /// As of `keep`.
    #[inline(always)]
    pub(crate) unsafe fn keep_last(&self, inbox: *const Inbox, payload: &[u8]) -> librpc_message {
        self.inbox.set(inbox);
        self.seen(payload)
    }

    #[inline(always)]
    fn seen(&self, payload: &[u8]) -> librpc_message {
        // One without bytes is nowhere; what is said about the alignment holds for it, too.
        let data = if payload.is_empty() { ptr::without_provenance(16) } else { payload.as_ptr().cast() };
        librpc_message { data, size: payload.len(), more: self }
    }

    /// Forgets the message.
    ///
    /// # Safety
    ///
    /// Nobody else uses this now.
    #[inline(always)]
    pub(crate) unsafe fn forget(&self) {
        // SAFETY: by this function's contract.
        unsafe { *self.message.get() = None };
        self.inbox.set(ptr::null());
    }

    fn message(&self) -> Result<Message<'static>, Failure> {
        // SAFETY: it is null, or an inbox that is there as long as its messages, and has returned one.
        if let Some(inbox) = unsafe { self.inbox.get().as_ref() } {
            return Ok(inbox.received());
        }
        // SAFETY: it is written only by a receive, in the thread that uses the inbox.
        unsafe { *self.message.get() }
            .ok_or_else(|| Failure::argument("the message is not valid any more: the next receive has begun"))
    }
}

/// Puts a text where C can read it.
fn put<const N: usize>(text: &str, into: &mut [u8; N]) -> *const c_char {
    let bytes = &text.as_bytes()[..text.len().min(N - 1)];
    into[..bytes.len()].copy_from_slice(bytes);
    into[bytes.len()] = 0;
    into.as_ptr().cast()
}

/// What is known about a message, a sample, a request or a reply. Set `size` before it is filled.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_info {
    /// sizeof(librpc_info).
    pub size: usize,
    /// The node that sent it. As long as the message.
    pub sender: *const c_char,
    /// The topic that it was published on; null: it was sent to the node itself. As long as the message.
    pub topic: *const c_char,
    /// Its number, counted from 0 by the outbox that sent it, for this inbox.
    pub sequence: u64,
    /// How many messages before it were overwritten or passed over.
    pub missed: u64,
    /// When it was sent, in ns of CLOCK_MONOTONIC; 0: it does not say.
    pub sent_at_ns: u64,
    /// The sender's process, from the kernel; 0: it is not visible from here.
    pub pid: u32,
    /// The sender's user, from the kernel.
    pub uid: u32,
    /// The sender's group, from the kernel.
    pub gid: u32,
    /// An earlier incarnation of this node may have processed it already.
    pub redelivered: bool,
    /// It was published before the subscription was opened.
    pub past: bool,
    /// Its payload is in its sender's memory.
    pub lent: bool,
}

/// Writes as much of the information as the caller has room for.
///
/// # Safety
///
/// Null, or valid for as many bytes as its first field says.
pub(crate) unsafe fn fill(into: *mut librpc_info, info: librpc_info) -> Result<(), Failure> {
    // SAFETY: by this function's contract.
    let place = unsafe { out(into, "info") }?;
    // SAFETY: as above.
    let size = unsafe { (*into).size };
    if size < size_of::<usize>() {
        return Err(Failure::argument("`info.size` is not set: it is sizeof(librpc_info)"));
    }
    if size >= size_of::<librpc_info>() {
        place.set(librpc_info { size, ..info });
        return Ok(());
    }
    let info = librpc_info { size, ..info };
    // SAFETY: the caller's structure has `size` bytes, which are fewer than ours.
    unsafe { ptr::copy_nonoverlapping((&raw const info).cast::<u8>(), into.cast::<u8>(), size) };
    Ok(())
}

/// The node that sent it; null after the next receive.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_message_sender(message: *const librpc_message) -> *const c_char {
    with_message(message, |message, texts| put(message.sender(), &mut texts.sender))
}

/// The topic that it was published on; null: it was sent to the node itself.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_message_topic(message: *const librpc_message) -> *const c_char {
    with_message(message, |message, texts| message.topic().map_or(ptr::null(), |topic| put(topic, &mut texts.topic)))
}

/// What else is known about a message.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_message_info(message: *const librpc_message, info: *mut librpc_info) -> librpc_status {
    guard(|| {
        // SAFETY: a message that C got from a receive.
        let more = unsafe { shared(shared(message, "message")?.more, "message.more") }?;
        let message = more.message()?;
        // SAFETY: the thread that uses the inbox is here.
        let texts = unsafe { &mut *more.texts.get() };
        let Peer { pid, uid, gid, .. } = **message.peer();
        let known = librpc_info {
            size: 0,
            sender: put(message.sender(), &mut texts.sender),
            topic: message.topic().map_or(ptr::null(), |topic| put(topic, &mut texts.topic)),
            sequence: message.sequence(),
            missed: message.missed(),
            sent_at_ns: message.sent_at().map_or(0, ns),
            pid,
            uid,
            gid,
            redelivered: message.is_redelivered(),
            past: message.is_past(),
            lent: false,
        };
        // SAFETY: C's structure.
        unsafe { fill(info, known) }?;
        Ok(librpc_status::Ok)
    })
}

fn with_message(
    message: *const librpc_message,
    look: impl FnOnce(Message<'static>, &mut Texts) -> *const c_char,
) -> *const c_char {
    crate::border::guard_or(ptr::null(), || {
        // SAFETY: a message that C got from a receive, or null.
        let more = unsafe { shared(shared(message, "message")?.more, "message.more") }?;
        // SAFETY: the thread that uses the inbox is here.
        Ok(look(more.message()?, unsafe { &mut *more.texts.get() }))
    })
}

/// A message that is owned. A large payload stays where its sender has put it until the sample is freed, in any thread. It outlives its
/// inbox and its node.
pub struct librpc_sample {
    pub(crate) sample: Sample,
    sender: OnceLock<CString>,
    topic: OnceLock<Option<CString>>,
}

impl librpc_sample {
    pub(crate) fn new(sample: Sample) -> Self {
        Self { sample, sender: OnceLock::new(), topic: OnceLock::new() }
    }

    pub(crate) fn sender(&self) -> *const c_char {
        self.sender.get_or_init(|| c_text(self.sample.sender())).as_ptr()
    }

    pub(crate) fn topic(&self) -> *const c_char {
        self.topic.get_or_init(|| self.sample.topic().map(c_text)).as_ref().map_or(ptr::null(), |topic| topic.as_ptr())
    }

    pub(crate) fn info(&self) -> librpc_info {
        let Peer { pid, uid, gid, .. } = **self.sample.peer();
        librpc_info {
            size: 0,
            sender: self.sender(),
            topic: self.topic(),
            sequence: self.sample.sequence(),
            missed: self.sample.missed(),
            sent_at_ns: self.sample.sent_at().map_or(0, ns),
            pid,
            uid,
            gid,
            redelivered: self.sample.is_redelivered(),
            past: self.sample.is_past(),
            lent: self.sample.is_lent(),
        }
    }
}

/// The payload of a sample. It is aligned to 64 bytes. If it is lent (`librpc_info.lent`), it is in its sender's memory, mapped read-only:
/// an honest sender does not write it while the sample is there, a hostile one may. Copy what you check before you use it, where you do not
/// trust the sender. Null for a null pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_data(sample: *const librpc_sample) -> *const c_void {
    // SAFETY: a sample of C's, or null.
    unsafe { sample.as_ref() }.map_or(ptr::null(), |sample| sample.sample.as_ptr().cast())
}

/// The length of its payload in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_size(sample: *const librpc_sample) -> usize {
    // SAFETY: a sample of C's, or null.
    unsafe { sample.as_ref() }.map_or(0, |sample| sample.sample.len())
}

/// The node that sent it. As long as the sample.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_sender(sample: *const librpc_sample) -> *const c_char {
    // SAFETY: a sample of C's, or null.
    unsafe { sample.as_ref() }.map_or(ptr::null(), librpc_sample::sender)
}

/// The topic that it was published on; null: it was sent to the node itself. As long as the sample.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_topic(sample: *const librpc_sample) -> *const c_char {
    // SAFETY: a sample of C's, or null.
    unsafe { sample.as_ref() }.map_or(ptr::null(), librpc_sample::topic)
}

/// What else is known about a sample.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_info(sample: *const librpc_sample, info: *mut librpc_info) -> librpc_status {
    guard(|| {
        // SAFETY: a sample of C's, or null.
        let sample = unsafe { shared(sample, "sample") }?;
        // SAFETY: C's structure.
        unsafe { fill(info, sample.info()) }?;
        Ok(librpc_status::Ok)
    })
}

/// Lets go of a sample, in any thread. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_sample_free(sample: *mut librpc_sample) {
    // SAFETY: a sample of C's, or null.
    unsafe { free(sample) }
}
