//! Calls: the client's side.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char, c_void};

use librpc::{CallError, CallOptions, CancelHandle, Client, Pending, Replies, Reply};

use crate::border::{
    Flag, Options, c_text, free, guard, guard_or, handle_out, long_limit, optional_text, options, payload, shared, text,
};
use crate::error::{Failure, Kept, librpc_error, librpc_status};
use crate::inbox::librpc_wait;
use crate::message::{fill, librpc_info, librpc_sample};
use crate::node::librpc_node;
use crate::schema::{librpc_schema, schema};

/// Options of a client. Set `size` to sizeof(librpc_client_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_client_options {
    /// sizeof(librpc_client_options).
    pub size: usize,
    /// The type of the requests; null: none. Set both or neither.
    pub request: *const librpc_schema,
    /// The type of the replies.
    pub reply: *const librpc_schema,
    /// How many calls may be in flight, by default 256. Beyond it a call fails at once with LIBRPC_STATUS_BUSY.
    pub max_in_flight: u64,
    /// The longest reply, or part of one, in bytes; by default 1 GiB.
    pub max_reply: u64,
    /// Bytes of the ring in which each server's replies come; by default 256 KiB.
    pub capacity: u64,
    /// How it waits: librpc_wait.
    pub wait: u32,
}

// SAFETY: integers and raw pointers, with the size first.
unsafe impl Options for librpc_client_options {}

/// Two types that are set together.
///
/// # Safety
///
/// C's structures, or null.
pub(crate) unsafe fn schemas(
    request: *const librpc_schema,
    reply: *const librpc_schema,
) -> Result<Option<(librpc::Schema, librpc::Schema)>, Failure> {
    // SAFETY: by this function's contract.
    match unsafe { (schema(request)?, schema(reply)?) } {
        (Some(request), Some(reply)) => Ok(Some((request, reply))),
        (None, None) => Ok(None),
        _ => Err(Failure::argument("`options.request` and `options.reply`: set both types or neither")),
    }
}

/// Calls a service. Any number of threads may use it at once.
pub struct librpc_client(Client, CString);

/// Opens a client of a service. No server needs to be there yet. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_open(
    node: *const librpc_node,
    service: *const c_char,
    options: *const librpc_client_options,
    client: *mut *mut librpc_client,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, text and structure.
        let (node, service, place, from) = unsafe {
            (
                shared(node, "node")?,
                text(service, "service")?,
                handle_out(client, "client")?,
                self::options(options, "options")?,
            )
        };
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let mut builder = node.0.client_builder(service).wait(librpc_wait::chosen(from.wait)?);
        // SAFETY: C's structures, or null.
        if let Some((request, reply)) = unsafe { schemas(from.request, from.reply) }? {
            builder = builder.schemas(request, reply);
        }
        if from.max_in_flight != 0 {
            builder = builder.max_in_flight(size(from.max_in_flight));
        }
        if from.max_reply != 0 {
            builder = builder.max_reply(size(from.max_reply));
        }
        if from.capacity != 0 {
            builder = builder.capacity(from.capacity);
        }
        let client = builder.open()?;
        let service = c_text(client.service());
        place.give(librpc_client(client, service));
        Ok(librpc_status::Ok)
    })
}

/// Frees a client. Calls that are in flight go on. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_free(client: *mut librpc_client) {
    // SAFETY: C's handle, or null.
    unsafe { free(client) }
}

/// Waits up to `timeout_ns` until a server is there. LIBRPC_STATUS_NONE: none has come in time.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_wait_for_server(client: *const librpc_client, timeout_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        let there = unsafe { shared(client, "client") }?.0.wait_for_server(long_limit(timeout_ns))?;
        Ok(if there { librpc_status::Ok } else { librpc_status::None })
    })
}

/// Options of a call. Set `size` to sizeof(librpc_call_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_call_options {
    /// sizeof(librpc_call_options).
    pub size: usize,
    /// The server; null: any.
    pub node: *const c_char,
    /// Whether it may be tried again on another server when one dies with it.
    pub idempotent: Flag,
}

// SAFETY: integers, flags and raw pointers, with the size first.
unsafe impl Options for librpc_call_options {}

/// # Safety
///
/// C's structure, or null.
unsafe fn call_options(timeout_ns: u64, from: *const librpc_call_options) -> Result<CallOptions, Failure> {
    // SAFETY: by this function's contract.
    let from = unsafe { options(from, "options") }?;
    let call = CallOptions::new(long_limit(timeout_ns)).idempotent(from.idempotent.is_set());
    // SAFETY: as above.
    Ok(match unsafe { optional_text(from.node, "options.node") }? {
        Some(node) => call.to(node),
        None => call,
    })
}

/// A reply, or a part of one.
pub struct librpc_reply {
    sample: librpc_sample,
    server: CString,
}

impl librpc_reply {
    fn new(reply: Reply) -> Self {
        let server = c_text(reply.server());
        Self { sample: librpc_sample::new(reply.into_sample()), server }
    }
}

/// A reply's payload: see librpc_sample_data().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_data(reply: *const librpc_reply) -> *const c_void {
    // SAFETY: C's handle, or null.
    unsafe { reply.as_ref() }.map_or(std::ptr::null(), |reply| reply.sample.sample.as_ptr().cast())
}

/// The length of its payload in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_size(reply: *const librpc_reply) -> usize {
    // SAFETY: C's handle, or null.
    unsafe { reply.as_ref() }.map_or(0, |reply| reply.sample.sample.len())
}

/// The node that answered. As long as the reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_server(reply: *const librpc_reply) -> *const c_char {
    // SAFETY: C's handle, or null.
    unsafe { reply.as_ref() }.map_or(std::ptr::null(), |reply| reply.server.as_ptr())
}

/// What else is known about a reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_info(reply: *const librpc_reply, info: *mut librpc_info) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and structure.
        unsafe { fill(info, shared(reply, "reply")?.sample.info()) }?;
        Ok(librpc_status::Ok)
    })
}

/// Frees a reply. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_free(reply: *mut librpc_reply) {
    // SAFETY: C's handle, or null.
    unsafe { free(reply) }
}

/// Calls a service and waits for its reply, up to `timeout_ns`: then it fails with LIBRPC_STATUS_DEADLINE, and the server learns of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_call(
    client: *const librpc_client,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    options: *const librpc_call_options,
    reply: *mut *mut librpc_reply,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, bytes and structure.
        let (client, request, place, options) = unsafe {
            (
                shared(client, "client")?,
                payload(data, size)?,
                handle_out(reply, "reply")?,
                call_options(timeout_ns, options)?,
            )
        };
        place.give(librpc_reply::new(client.0.call(request, options)?));
        Ok(librpc_status::Ok)
    })
}

/// A call that is in flight. One thread at a time uses it; librpc_pending_cancel() may be called by any.
pub struct librpc_pending {
    pub(crate) pending: UnsafeCell<Pending>,
    cancel: CancelHandle,
}

/// Begins a call, and does not wait for its reply.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_start(
    client: *const librpc_client,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    options: *const librpc_call_options,
    pending: *mut *mut librpc_pending,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, bytes and structure.
        let (client, request, place, options) = unsafe {
            (
                shared(client, "client")?,
                payload(data, size)?,
                handle_out(pending, "pending")?,
                call_options(timeout_ns, options)?,
            )
        };
        let pending = client.0.start(request, options)?;
        let cancel = pending.cancel_handle();
        place.give(librpc_pending { pending: UnsafeCell::new(pending), cancel });
        Ok(librpc_status::Ok)
    })
}

/// Waits up to `timeout_ns` for the reply: 0 does not wait. LIBRPC_STATUS_NONE: it is not there yet. Once it, or an error of the call, has
/// been returned, only librpc_pending_free() is left to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_pending_wait(
    pending: *mut librpc_pending,
    timeout_ns: u64,
    reply: *mut *mut librpc_reply,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (shared(pending, "pending")?, handle_out(reply, "reply")?) };
        // SAFETY: the thread that uses the call is here. Another one that cancels it does not use this field.
        let call = unsafe { &mut *handle.pending.get() };
        let answer = match timeout_ns {
            0 => call.try_wait(),
            _ => call.wait_timeout(long_limit(timeout_ns)),
        };
        part(answer, &place)
    })
}

fn part(
    answer: Option<Result<Reply, CallError>>,
    place: &crate::border::Out<'_, *mut librpc_reply>,
) -> Result<librpc_status, Failure> {
    match answer {
        None => Ok(librpc_status::None),
        Some(answer) => {
            place.give(librpc_reply::new(answer?));
            Ok(librpc_status::Ok)
        }
    }
}

/// Cancels a call: it ends with LIBRPC_STATUS_CANCELLED, and its server learns of it. Any thread may call it, while the handle is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_pending_cancel(pending: *const librpc_pending) {
    // SAFETY: C's handle, or null. What another thread may use now is in a cell.
    if let Some(handle) = unsafe { pending.as_ref() } {
        guard(|| {
            handle.cancel.cancel();
            Ok(librpc_status::Ok)
        });
    }
}

/// Frees a call; one that was not answered is cancelled. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_pending_free(pending: *mut librpc_pending) {
    // SAFETY: C's handle, or null.
    unsafe { free(pending) }
}

/// The parts of a reply, as they come. One thread at a time uses it; librpc_replies_cancel() may be called by any.
pub struct librpc_replies {
    pub(crate) replies: UnsafeCell<Replies>,
    cancel: CancelHandle,
}

/// Begins a call whose reply comes in parts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_call_stream(
    client: *const librpc_client,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    options: *const librpc_call_options,
    replies: *mut *mut librpc_replies,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, bytes and structure.
        let (client, request, place, options) = unsafe {
            (
                shared(client, "client")?,
                payload(data, size)?,
                handle_out(replies, "replies")?,
                call_options(timeout_ns, options)?,
            )
        };
        let replies = client.0.call_stream(request, options)?;
        let cancel = replies.cancel_handle();
        place.give(librpc_replies { replies: UnsafeCell::new(replies), cancel });
        Ok(librpc_status::Ok)
    })
}

/// Waits up to `timeout_ns` for the next part. LIBRPC_STATUS_NONE: it is not there yet, or the reply is over (librpc_replies_is_over()).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_replies_next(
    replies: *mut librpc_replies,
    timeout_ns: u64,
    reply: *mut *mut librpc_reply,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (shared(replies, "replies")?, handle_out(reply, "reply")?) };
        // SAFETY: the thread that uses the replies is here. Another one that cancels them does not use this field.
        let parts = unsafe { &mut *handle.replies.get() };
        let answer = match timeout_ns {
            0 => parts.try_next(),
            _ => parts.next_timeout(long_limit(timeout_ns)),
        };
        part(answer, &place)
    })
}

/// Whether the reply is over.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_replies_is_over(replies: *const librpc_replies) -> bool {
    // SAFETY: C's handle, and the thread that uses the replies is here.
    guard_or(true, || Ok(unsafe { &*shared(replies, "replies")?.replies.get() }.is_over()))
}

/// As librpc_pending_cancel().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_replies_cancel(replies: *const librpc_replies) {
    // SAFETY: C's handle, or null. What another thread may use now is in a cell.
    if let Some(handle) = unsafe { replies.as_ref() } {
        guard(|| {
            handle.cancel.cancel();
            Ok(librpc_status::Ok)
        });
    }
}

/// Frees a reply in parts; one that is not over is cancelled. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_replies_free(replies: *mut librpc_replies) {
    // SAFETY: C's handle, or null.
    unsafe { free(replies) }
}

/// What one server answered. It is valid while the function runs; `reply` is the function's own: it frees it.
#[repr(C)]
pub struct librpc_answer {
    /// The server's node.
    pub node: *const c_char,
    /// Its reply; null: an error.
    pub reply: *mut librpc_reply,
    /// Why there is no reply; null: there is one.
    pub error: *const librpc_error,
}

/// Called for the answer of each server. It must not throw.
pub type librpc_on_answer = Option<unsafe extern "C" fn(context: *mut c_void, answer: *const librpc_answer)>;

/// Calls every server of a service, and waits for all of them, up to `timeout_ns`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_call_all(
    client: *const librpc_client,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    options: *const librpc_call_options,
    on_answer: librpc_on_answer,
    context: *mut c_void,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle, bytes and structure.
        let (client, request, options) =
            unsafe { (shared(client, "client")?, payload(data, size)?, call_options(timeout_ns, options)?) };
        let on_answer = on_answer.ok_or_else(|| Failure::argument("`on_answer` is a null pointer"))?;
        for answer in client.0.call_all(request, options)? {
            let node = c_text(&answer.node);
            let (reply, error): (_, Option<Kept>) = match answer.reply {
                Ok(reply) => (Box::into_raw(Box::new(librpc_reply::new(reply))), None),
                Err(error) => (std::ptr::null_mut(), Some(Failure::from(error).kept())),
            };
            let error = error.as_ref().map_or(std::ptr::null(), |kept| &raw const kept.error);
            let seen = librpc_answer { node: node.as_ptr(), reply, error };
            // SAFETY: C's function, which may be called with this context.
            unsafe { on_answer(context, &raw const seen) };
        }
        Ok(librpc_status::Ok)
    })
}

/// The service of a client. As long as the client.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_client_service(client: *const librpc_client) -> *const c_char {
    // SAFETY: C's handle.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(client, "client") }?.1.as_ptr()))
}
