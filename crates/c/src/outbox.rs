//! Sending to any number of nodes and topics, over one channel for each inbox.

use std::ffi::{c_char, c_void};

use librpc::{Destination, Outbox, Topic};

use crate::border::{exclusive, free, guard, guard_or, handle_out, long_limit, out, payload, shared, text};
use crate::error::{Failure, librpc_error, librpc_status};
use crate::node::librpc_node;
use crate::publish::{Undelivered, librpc_receipt};
use crate::schema::{librpc_schema, schema};
use crate::send::{give_back, hand_over, librpc_account, librpc_loan, librpc_on_returned};

/// Sends to any number of nodes and topics. Messages to one inbox stay in order, whatever their topics. One thread at a time uses it.
pub struct librpc_outbox {
    outbox: Outbox,
    destinations: Vec<Destination>,
    topics: Vec<Topic>,
    undelivered: Undelivered,
}

impl librpc_outbox {
    fn destination(&self, number: u32) -> Result<Destination, Failure> {
        let found = self.destinations.get(number as usize).copied();
        found.ok_or_else(|| {
            Failure::argument(format!("`destination` is {number}: librpc_outbox_connect() has not returned it"))
        })
    }

    fn topic(&self, number: u32) -> Result<Topic, Failure> {
        let found = self.topics.get(number as usize).copied();
        found
            .ok_or_else(|| Failure::argument(format!("`topic` is {number}: librpc_outbox_topic() has not returned it")))
    }
}

/// The place of a value in a list; it is added if it is new.
fn number<T: PartialEq>(list: &mut Vec<T>, value: T) -> u32 {
    let at = list.iter().position(|one| *one == value).unwrap_or_else(|| {
        list.push(value);
        list.len() - 1
    });
    at as u32
}

/// An outbox of a node. Does not block.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_open(
    node: *const librpc_node,
    outbox: *mut *mut librpc_outbox,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (node, place) = unsafe { (shared(node, "node")?, handle_out(outbox, "outbox")?) };
        place.give(librpc_outbox {
            outbox: node.0.outbox(),
            destinations: Vec::new(),
            topics: Vec::new(),
            undelivered: Undelivered::default(),
        });
        Ok(librpc_status::Ok)
    })
}

/// Connects to a node, as librpc_connect() does. `destination` stands for it in this outbox, also when the node has gone and come back.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_connect(
    outbox: *mut librpc_outbox,
    to: *const c_char,
    timeout_ns: u64,
    destination: *mut u32,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle, text and place.
        let (handle, to, place) =
            unsafe { (exclusive(outbox, "outbox")?, text(to, "to")?, out(destination, "destination")?) };
        let reached = match timeout_ns {
            0 => handle.outbox.try_connect(to)?,
            _ => handle.outbox.connect_timeout(to, long_limit(timeout_ns))?,
        };
        place.set(number(&mut handle.destinations, reached));
        Ok(librpc_status::Ok)
    })
}

/// Sends a message, as librpc_sender_send() does, with the default time limit of 1 s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_send(
    outbox: *mut librpc_outbox,
    destination: u32,
    data: *const c_void,
    size: usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (handle, bytes) = unsafe { (exclusive(outbox, "outbox")?, payload(data, size)?) };
        handle.outbox.send(handle.destination(destination)?, bytes)?;
        Ok(librpc_status::Ok)
    })
}

/// As librpc_outbox_send(), with a time limit of its own: 0 does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_send_timeout(
    outbox: *mut librpc_outbox,
    destination: u32,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (handle, bytes) = unsafe { (exclusive(outbox, "outbox")?, payload(data, size)?) };
        let to = handle.destination(destination)?;
        match timeout_ns {
            0 => handle.outbox.try_send(to, bytes)?,
            _ => handle.outbox.send_timeout(to, bytes, long_limit(timeout_ns))?,
        }
        Ok(librpc_status::Ok)
    })
}

/// A topic to publish. `topic` stands for it in this outbox. `of_type` is null for bytes without a type.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_topic(
    outbox: *mut librpc_outbox,
    name: *const c_char,
    of_type: *const librpc_schema,
    topic: *mut u32,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle, text, structure and place.
        let (handle, name, schema, place) =
            unsafe { (exclusive(outbox, "outbox")?, text(name, "name")?, schema(of_type)?, out(topic, "topic")?) };
        let found = match schema {
            Some(schema) => handle.outbox.typed_topic(name, schema)?,
            None => handle.outbox.topic(name)?,
        };
        place.set(number(&mut handle.topics, found));
        Ok(librpc_status::Ok)
    })
}

/// Publishes a message, as librpc_publisher_publish() does, with the default time limit of 1 s.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_publish(
    outbox: *mut librpc_outbox,
    topic: u32,
    data: *const c_void,
    size: usize,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (handle, bytes) = unsafe { (exclusive(outbox, "outbox")?, payload(data, size)?) };
        let topic = handle.topic(topic)?;
        let got = handle.outbox.publish(topic, bytes)?;
        // SAFETY: C's place, or null.
        unsafe { handle.undelivered.note(got, receipt) };
        Ok(librpc_status::Ok)
    })
}

/// As librpc_outbox_publish(), with a time limit of its own: 0 does not wait.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_publish_timeout(
    outbox: *mut librpc_outbox,
    topic: u32,
    data: *const c_void,
    size: usize,
    timeout_ns: u64,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and bytes.
        let (handle, bytes) = unsafe { (exclusive(outbox, "outbox")?, payload(data, size)?) };
        let topic = handle.topic(topic)?;
        let got = match timeout_ns {
            0 => handle.outbox.try_publish(topic, bytes)?,
            _ => handle.outbox.publish_timeout(topic, bytes, long_limit(timeout_ns))?,
        };
        // SAFETY: C's place, or null.
        unsafe { handle.undelivered.note(got, receipt) };
        Ok(librpc_status::Ok)
    })
}

/// As librpc_publisher_undelivered().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_undelivered(outbox: *const librpc_outbox, index: usize) -> *const librpc_error {
    // SAFETY: C's handle.
    guard_or(std::ptr::null(), || Ok(unsafe { shared(outbox, "outbox") }?.undelivered.get(index)))
}

/// As librpc_sender_loan(), for a message to a destination.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_loan(
    outbox: *mut librpc_outbox,
    destination: u32,
    bytes: usize,
    loan: *mut *mut librpc_loan,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (exclusive(outbox, "outbox")?, handle_out(loan, "loan")?) };
        let to = handle.destination(destination)?;
        place.give(librpc_loan(Some(handle.outbox.loan_uninit(to, bytes)?)));
        Ok(librpc_status::Ok)
    })
}

/// As librpc_outbox_loan(), for a message on a topic.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_topic_loan(
    outbox: *mut librpc_outbox,
    topic: u32,
    bytes: usize,
    loan: *mut *mut librpc_loan,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, place) = unsafe { (exclusive(outbox, "outbox")?, handle_out(loan, "loan")?) };
        let topic = handle.topic(topic)?;
        place.give(librpc_loan(Some(handle.outbox.loan_uninit(topic, bytes)?)));
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_send_loan(), with a time limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_send_loan(
    outbox: *mut librpc_outbox,
    destination: u32,
    loan: *mut *mut librpc_loan,
    timeout_ns: u64,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, loan) = unsafe { (exclusive(outbox, "outbox")?, exclusive(loan, "loan")?) };
        let to = handle.destination(destination)?;
        // SAFETY: as above.
        let lent = unsafe { exclusive(*loan, "*loan") }?.take()?;
        let (left, end) = match handle.outbox.send_loan(to, lent, long_limit(timeout_ns)) {
            Ok(()) => (None, Ok(librpc_status::Ok)),
            Err(unsent) => (unsent.loan, Err(unsent.error.into())),
        };
        // SAFETY: as above.
        unsafe { give_back(loan, left) };
        end
    })
}

/// As librpc_publisher_publish_loan(), with a time limit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_publish_loan(
    outbox: *mut librpc_outbox,
    topic: u32,
    loan: *mut *mut librpc_loan,
    timeout_ns: u64,
    receipt: *mut librpc_receipt,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handles.
        let (handle, loan) = unsafe { (exclusive(outbox, "outbox")?, exclusive(loan, "loan")?) };
        let topic = handle.topic(topic)?;
        // SAFETY: as above.
        let lent = unsafe { exclusive(*loan, "*loan") }?.take()?;
        let (left, end) = match handle.outbox.publish_loan(topic, lent, long_limit(timeout_ns)) {
            Ok(got) => {
                // SAFETY: C's place, or null.
                unsafe { handle.undelivered.note(got, receipt) };
                (None, Ok(librpc_status::Ok))
            }
            Err(unsent) => (unsent.loan, Err(unsent.error.into())),
        };
        // SAFETY: as above.
        unsafe { give_back(loan, left) };
        end
    })
}

/// How many subscriptions match a topic.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_subscribers(
    outbox: *mut librpc_outbox,
    topic: u32,
    count: *mut usize,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (handle, place) = unsafe { (exclusive(outbox, "outbox")?, out(count, "count")?) };
        let topic = handle.topic(topic)?;
        place.set(handle.outbox.subscribers(topic)?);
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_flush(), for everything that the outbox has sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_flush(outbox: *mut librpc_outbox, timeout_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { exclusive(outbox, "outbox") }?.outbox.flush(long_limit(timeout_ns))?;
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_account(), for everything that the outbox has sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_account(
    outbox: *mut librpc_outbox,
    account: *mut librpc_account,
) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle and place.
        let (handle, place) = unsafe { (exclusive(outbox, "outbox")?, out(account, "account")?) };
        place.set(handle.outbox.total().into());
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_set_redelivery(), for all of its destinations and for durable subscriptions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_set_redelivery(outbox: *mut librpc_outbox, limit_ns: u64) -> librpc_status {
    guard(|| {
        // SAFETY: C's handle.
        unsafe { exclusive(outbox, "outbox") }?.outbox.set_redelivery(crate::send::redelivery(limit_ns));
        Ok(librpc_status::Ok)
    })
}

/// As librpc_sender_take_returned().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_take_returned(
    outbox: *mut librpc_outbox,
    on_returned: librpc_on_returned,
    context: *mut c_void,
) -> librpc_status {
    guard(|| {
        if on_returned.is_none() {
            return Err(Failure::argument("`on_returned` is a null pointer"));
        }
        // SAFETY: C's handle and function.
        unsafe { hand_over(exclusive(outbox, "outbox")?.outbox.take_returned(), on_returned, context) }
    })
}

/// Frees an outbox. What was accepted stays in the inboxes. Null is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn librpc_outbox_free(outbox: *mut librpc_outbox) {
    // SAFETY: C's handle, or null.
    unsafe { free(outbox) }
}
