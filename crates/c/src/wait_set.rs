//! Waiting for several things at once.

use std::ffi::c_int;
use std::os::fd::BorrowedFd;

use librpc::{WaitSet, Waitable};

use crate::border::{exclusive, free, guard, handle_out, limit, out, shared};
use crate::call::{librpc_pending, librpc_replies};
use crate::error::{Failure, librpc_status};
use crate::inbox::librpc_inbox;
use crate::publish::librpc_publisher;
use crate::serve::librpc_server;

/// Waits for several things at once: inboxes, servers, calls, publishers' events, and other descriptors, each under a token of yours. A
/// wait returns the tokens of what may have something. Look at each with a call that does not wait, and take as much as you like: what is
/// left is reported by the next wait. What is freed is reported no more. One thread at a time uses the set.
pub struct librpc_wait_set(WaitSet);

/// An empty set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_open(set: *mut *mut librpc_wait_set) -> librpc_status {
    guard(|| {
        // SAFETY: C's place.
        let place = unsafe { handle_out(set, "set") }?;
        place.give(librpc_wait_set(WaitSet::new()?));
        Ok(librpc_status::Ok)
    })
}

/// Adds something under a token that the set does not have.
///
/// # Safety
///
/// C's handle.
unsafe fn add(set: *mut librpc_wait_set, token: u64, what: Result<&impl Waitable, Failure>) -> librpc_status {
    guard(|| {
        // SAFETY: by this function's contract.
        unsafe { exclusive(set, "set") }?.0.add(token, what?)?;
        Ok(librpc_status::Ok)
    })
}

/// Adds an inbox under a token that the set does not have.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_inbox(
    set: *mut librpc_wait_set,
    token: u64,
    inbox: *const librpc_inbox,
) -> librpc_status {
    // SAFETY: C's handles, and the thread that uses the inbox is here.
    unsafe { add(set, token, shared(inbox, "inbox").map(|handle| handle.inbox())) }
}

/// Adds a server: reported when a request has come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_server(
    set: *mut librpc_wait_set,
    token: u64,
    server: *const librpc_server,
) -> librpc_status {
    // SAFETY: C's handles.
    unsafe { add(set, token, shared(server, "server").map(|handle| &handle.server)) }
}

/// Adds a call: reported when its reply, or its end, has come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_pending(
    set: *mut librpc_wait_set,
    token: u64,
    pending: *const librpc_pending,
) -> librpc_status {
    // SAFETY: C's handles, and the thread that uses the call is here.
    unsafe { add(set, token, shared(pending, "pending").map(|handle| &*handle.pending.get())) }
}

/// Adds replies: reported when a part, or the end, has come.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_replies(
    set: *mut librpc_wait_set,
    token: u64,
    replies: *const librpc_replies,
) -> librpc_status {
    // SAFETY: C's handles, and the thread that uses the replies is here.
    unsafe { add(set, token, shared(replies, "replies").map(|handle| &*handle.replies.get())) }
}

/// Adds a publisher: reported when it has an event.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_publisher(
    set: *mut librpc_wait_set,
    token: u64,
    publisher: *const librpc_publisher,
) -> librpc_status {
    // SAFETY: C's handles.
    unsafe { add(set, token, shared(publisher, "publisher").map(|handle| &handle.publisher)) }
}

/// Adds any other descriptor: reported while it is readable. The set has a copy of it: closing it does not remove it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_add_fd(set: *mut librpc_wait_set, token: u64, fd: c_int) -> librpc_status {
    guard(|| {
        if fd < 0 {
            return Err(Failure::argument(format!("`fd` is {fd}: no descriptor")));
        }
        // SAFETY: C's handle; the descriptor is open during the call, or the system call says that it is not.
        unsafe { exclusive(set, "set")?.0.add_descriptor(token, BorrowedFd::borrow_raw(fd)) }?;
        Ok(librpc_status::Ok)
    })
}

/// Removes what has this token. LIBRPC_STATUS_NONE: nothing has.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_remove(set: *mut librpc_wait_set, token: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        let removed = unsafe { exclusive(set, "set") }?.0.remove(token);
        Ok(if removed { librpc_status::Ok } else { librpc_status::None })
    })
}

/// Waits up to `timeout_ns` until something may have something, and returns the tokens of all that may. They are valid until the next call
/// with this set. LIBRPC_STATUS_NONE: the time is up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_wait(
    set: *mut librpc_wait_set,
    timeout_ns: u64,
    tokens: *mut *const u64,
    count: *mut usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and places.
        let (set, tokens, count) = unsafe { (exclusive(set, "set")?, out(tokens, "tokens")?, out(count, "count")?) };
        count.set(0);
        let found = match timeout_ns {
            0 => set.0.try_wait(),
            _ => match limit(timeout_ns) {
                None => set.0.wait(),
                Some(limit) => set.0.wait_timeout(limit),
            },
        }?;
        tokens.set(found.as_ptr());
        count.set(found.len());
        Ok(if found.is_empty() { librpc_status::None } else { librpc_status::Ok })
    })
}

/// Frees a set. What it waited for stays. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_wait_set_free(set: *mut librpc_wait_set) {
    // SAFETY: C's handle, or null.
    unsafe { free(set) }
}
