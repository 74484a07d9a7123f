//! Calls: the server's side.

use std::ffi::{CString, c_char, c_void};

use librpc::{ReplyStream, Request, Server, StopHandle};

use crate::border::{
    LIBRPC_FOREVER, Options, c_text, exclusive, free, guard, guard_or, handle_out, limit, ns, options, payload, shared,
    taken, text,
};
use crate::call::schemas;
use crate::error::librpc_status;
use crate::inbox::librpc_wait;
use crate::message::{fill, librpc_info};
use crate::node::librpc_node;
use crate::schema::librpc_schema;

/// Options of a server. Set `size` to sizeof(librpc_server_options); zeros are the defaults.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct librpc_server_options {
    /// sizeof(librpc_server_options).
    pub size: usize,
    /// The type of the requests; null: none. Set both or neither.
    pub request: *const librpc_schema,
    /// The type of the replies.
    pub reply: *const librpc_schema,
    /// How many requests may be taken and not answered, by default 4,096. Those beyond it fail at once with LIBRPC_STATUS_BUSY.
    pub max_in_flight: u64,
    /// The same for each client, by default 256.
    pub max_per_client: u64,
    /// The longest request in bytes, by default 1 GiB.
    pub max_request: u64,
    /// Bytes of the ring in which each client's requests come; by default 256 KiB.
    pub capacity: u64,
    /// How it waits: librpc_wait.
    pub wait: u32,
}

// SAFETY: integers and raw pointers, with the size first.
unsafe impl Options for librpc_server_options {}

/// Serves a service. Any number of threads may take requests at once.
pub struct librpc_server {
    pub(crate) server: Server,
    stop: StopHandle,
}

/// Opens a server of a service. Several nodes may serve the same one, and share its calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_serve(
    node: *const librpc_node,
    service: *const c_char,
    options: *const librpc_server_options,
    server: *mut *mut librpc_server,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles, text and structure.
        let (node, service, place, from) = unsafe {
            (
                shared(node, "node")?,
                text(service, "service")?,
                handle_out(server, "server")?,
                self::options(options, "options")?,
            )
        };
        let size = |value: u64| usize::try_from(value).unwrap_or(usize::MAX);
        let mut builder = node.0.server_builder(service).wait(librpc_wait::chosen(from.wait)?);
        // SAFETY: C's structures, or null.
        if let Some((request, reply)) = unsafe { schemas(from.request, from.reply) }? {
            builder = builder.schemas(request, reply);
        }
        if from.max_in_flight != 0 {
            builder = builder.max_in_flight(size(from.max_in_flight));
        }
        if from.max_per_client != 0 {
            builder = builder.max_per_client(size(from.max_per_client));
        }
        if from.max_request != 0 {
            builder = builder.max_request(size(from.max_request));
        }
        if from.capacity != 0 {
            builder = builder.capacity(from.capacity);
        }
        let server = builder.open()?;
        let stop = server.stop_handle();
        place.give(librpc_server { server, stop });
        Ok(librpc_status::Ok)
    })
}

/// A request. It is owned: any thread may answer it, in any order. Freed unanswered, its client's call fails.
pub struct librpc_request {
    request: Request,
    client: CString,
}

/// Waits up to `timeout_ns` for the next request: 0 does not wait. LIBRPC_STATUS_NONE: the time is up, or the server was stopped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_server_recv(
    server: *const librpc_server,
    timeout_ns: u64,
    request: *mut *mut librpc_request,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (shared(server, "server")?, handle_out(request, "request")?) };
        let request = match timeout_ns {
            0 => handle.server.try_recv(),
            _ => match limit(timeout_ns) {
                None => handle.server.recv(),
                Some(limit) => handle.server.recv_timeout(limit),
            },
        };
        Ok(request?.map_or(librpc_status::None, |request| {
            let client = c_text(request.client());
            place.give(librpc_request { request, client });
            librpc_status::Ok
        }))
    })
}

/// Stops a server, for good: each receive returns LIBRPC_STATUS_NONE. Any thread may call it, and a signal handler, while the server is not
/// freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_server_stop(server: *const librpc_server) {
    // SAFETY: C's handle, or null.
    if let Some(handle) = unsafe { server.as_ref() } {
        handle.stop.stop();
    }
}

/// Closes a server. Requests that were taken can still be answered. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_server_free(server: *mut librpc_server) {
    // SAFETY: C's handle, or null.
    unsafe { free(server) }
}

/// A request's payload: see librpc_sample_data().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_data(request: *const librpc_request) -> *const c_void {
    // SAFETY: C's handle, or null.
    unsafe { request.as_ref() }.map_or(std::ptr::null(), |one| one.request.sample().as_ptr().cast())
}

/// The length of its payload in bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_size(request: *const librpc_request) -> usize {
    // SAFETY: C's handle, or null.
    unsafe { request.as_ref() }.map_or(0, |one| one.request.sample().len())
}

/// The node that sent it. As long as the request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_client(request: *const librpc_request) -> *const c_char {
    // SAFETY: C's handle, or null.
    unsafe { request.as_ref() }.map_or(std::ptr::null(), |one| one.client.as_ptr())
}

/// What else is known about a request.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_info(request: *const librpc_request, info: *mut librpc_info) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        let one = unsafe { shared(request, "request") }?;
        let (sample, peer) = (one.request.sample(), one.request.peer());
        let known = librpc_info {
            size: 0,
            sender: one.client.as_ptr(),
            topic: std::ptr::null(),
            sequence: sample.sequence(),
            missed: sample.missed(),
            sent_at_ns: sample.sent_at().map_or(0, ns),
            pid: peer.pid,
            uid: peer.uid,
            gid: peer.gid,
            redelivered: sample.is_redelivered(),
            past: sample.is_past(),
            lent: sample.is_lent(),
        };
        // SAFETY: C's structure.
        unsafe { fill(info, known) }?;
        Ok(librpc_status::Ok)
    })
}

/// How long its client still waits, in ns; LIBRPC_FOREVER: without limit; 0: not any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_time_left(request: *const librpc_request) -> u64 {
    // SAFETY: C's handle.
    guard_or(0, || Ok(unsafe { shared(request, "request") }?.request.time_left().map_or(LIBRPC_FOREVER, ns)))
}

/// Whether its client has cancelled it, or is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_is_cancelled(request: *const librpc_request) -> bool {
    // SAFETY: C's handle.
    guard_or(true, || Ok(unsafe { shared(request, "request") }?.request.is_cancelled()))
}

/// Answers a request, and frees it, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_reply(
    request: *mut librpc_request,
    data: *const c_void,
    size: usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (one, reply) = unsafe { (taken(request, "request")?, payload(data, size)) };
        one.request.reply(reply?)?;
        Ok(librpc_status::Ok)
    })
}

/// Answers a request with an error of the server's (LIBRPC_STATUS_FAILED at the client), and frees it, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_fail(
    request: *mut librpc_request,
    code: i32,
    message: *const c_char,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and text.
        let (one, message) = unsafe { (taken(request, "request")?, text(message, "message")) };
        one.request.fail(code, message?)?;
        Ok(librpc_status::Ok)
    })
}

/// Answers that this server does not know such a request (LIBRPC_STATUS_UNIMPLEMENTED at the client), and frees it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_unimplemented(
    request: *mut librpc_request,
    message: *const c_char,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and text.
        let (one, message) = unsafe { (taken(request, "request")?, text(message, "message")) };
        one.request.unimplemented(message?)?;
        Ok(librpc_status::Ok)
    })
}

/// Frees a request without an answer: its client's call fails. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_free(request: *mut librpc_request) {
    // SAFETY: C's handle, or null.
    unsafe { free(request) }
}

/// A reply in parts. One thread at a time uses it.
pub struct librpc_reply_stream(ReplyStream);

/// Answers a request in parts, and frees it, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_request_stream(
    request: *mut librpc_request,
    stream: *mut *mut librpc_reply_stream,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (one, place) = unsafe { (taken(request, "request")?, handle_out(stream, "stream")?) };
        place.give(librpc_reply_stream(one.request.stream()));
        Ok(librpc_status::Ok)
    })
}

/// Sends a part. It waits while the client has as many as it wants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_send(
    stream: *mut librpc_reply_stream,
    data: *const c_void,
    size: usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (stream, part) = unsafe { (exclusive(stream, "stream")?, payload(data, size)?) };
        stream.0.send(part)?;
        Ok(librpc_status::Ok)
    })
}

/// As librpc_reply_stream_send(), without waiting. LIBRPC_STATUS_NONE: the client has as many parts as it wants.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_try_send(
    stream: *mut librpc_reply_stream,
    data: *const c_void,
    size: usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (stream, part) = unsafe { (exclusive(stream, "stream")?, payload(data, size)?) };
        Ok(if stream.0.try_send(part)? { librpc_status::Ok } else { librpc_status::None })
    })
}

/// Whether its client has cancelled the call, or is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_is_cancelled(stream: *const librpc_reply_stream) -> bool {
    // SAFETY: C's handle.
    guard_or(true, || Ok(unsafe { shared(stream, "stream") }?.0.is_cancelled()))
}

/// Ends a reply, and frees the stream, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_finish(stream: *mut librpc_reply_stream) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { taken(stream, "stream") }?.0.finish()?;
        Ok(librpc_status::Ok)
    })
}

/// Ends a reply with an error of the server's, and frees the stream, whatever it returns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_fail(
    stream: *mut librpc_reply_stream,
    code: i32,
    message: *const c_char,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and text.
        let (stream, message) = unsafe { (taken(stream, "stream")?, text(message, "message")) };
        stream.0.fail(code, message?)?;
        Ok(librpc_status::Ok)
    })
}

/// Frees a stream that was not finished: its client's call fails. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_reply_stream_free(stream: *mut librpc_reply_stream) {
    // SAFETY: C's handle, or null.
    unsafe { free(stream) }
}

/// How many requests of a server are taken and not answered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_server_in_flight(server: *const librpc_server) -> usize {
    // SAFETY: C's handle.
    guard_or(0, || Ok(unsafe { shared(server, "server") }?.server.in_flight()))
}
