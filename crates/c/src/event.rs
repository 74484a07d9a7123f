//! What happens at an inbox.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use librpc::{Departure, Event, Peer};

use crate::border::c_text;
use crate::error::librpc_reason;
use crate::message::{librpc_message, librpc_message_more};

/// What has happened.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_event_kind {
    /// A message: `message`.
    Message = 0,
    /// The sender `node` has connected.
    SenderJoined = 1,
    /// The sender `node` has left: `departure`, and `text` where there is more to say.
    SenderLeft = 2,
    /// The publisher `node` does not let this node read `topic`: `text` says why.
    Denied = 3,
    /// Messages of `node` did not fit in: `too_large`, `dropped`, `no_room`, `no_memory`.
    TurnedAway = 4,
    /// A process of `uid` was refused `count` times: `reason`, `text`.
    Refused = 5,
    /// The messages of `node` (on `topic`) are of another type: `text`.
    Mismatch = 6,
    /// One that a later version of the header knows.
    Other = 7,
}

/// How a sender has left.
#[repr(C)]
#[derive(Clone, Copy)]
pub enum librpc_departure {
    /// It is no departure.
    None = 0,
    /// It closed its channel.
    Closed = 1,
    /// It died.
    Died = 2,
    /// The connection is gone.
    Disconnected = 3,
    /// It wrote what no honest sender writes.
    Corrupt = 4,
    /// It used more than its user may.
    TooMuch = 5,
    /// It has another type.
    Mismatch = 6,
}

/// An event at an inbox. What does not apply is zero or null. It is valid until the next receive.
#[repr(C)]
pub struct librpc_event {
    /// What has happened.
    pub kind: librpc_event_kind,
    /// How the sender has left.
    pub departure: librpc_departure,
    /// The message.
    pub message: librpc_message,
    /// The node on the other side.
    pub node: *const c_char,
    /// The topic.
    pub topic: *const c_char,
    /// What there is to say.
    pub text: *const c_char,
    /// Messages that were longer than the inbox takes.
    pub too_large: u64,
    /// Messages that were dropped because the inbox was full.
    pub dropped: u64,
    /// Messages for which there was no room within their sender's time limit.
    pub no_room: u64,
    /// Messages for which their sender had no memory.
    pub no_memory: u64,
    /// How many times a process was refused.
    pub count: u64,
    /// The process on the other side.
    pub pid: u32,
    /// Its user.
    pub uid: u32,
    /// Why it was refused.
    pub reason: librpc_reason,
}

/// The texts of an event.
#[derive(Default)]
pub(crate) struct Kept {
    node: CString,
    topic: CString,
    text: CString,
}

impl Kept {
    /// An event, as C sees it.
    ///
    /// # Safety
    ///
    /// As of [`librpc_message_more::keep`].
    pub(crate) unsafe fn keep(&mut self, event: &Event<'_>, more: &librpc_message_more) -> librpc_event {
        let mut seen = librpc_event {
            kind: librpc_event_kind::Other,
            departure: librpc_departure::None,
            message: librpc_message { data: ptr::null::<c_void>(), size: 0, more: ptr::null() },
            node: ptr::null(),
            topic: ptr::null(),
            text: ptr::null(),
            too_large: 0,
            dropped: 0,
            no_room: 0,
            no_memory: 0,
            count: 0,
            pid: 0,
            uid: 0,
            reason: librpc_reason::None,
        };
        match event {
            Event::Message(message) => {
                seen.kind = librpc_event_kind::Message;
                // SAFETY: by this function's contract.
                seen.message = unsafe { more.keep(*message) };
            }
            Event::SenderJoined(peer) => {
                seen.kind = librpc_event_kind::SenderJoined;
                self.peer(&mut seen, peer);
            }
            Event::SenderLeft(peer, departure) => {
                seen.kind = librpc_event_kind::SenderLeft;
                self.peer(&mut seen, peer);
                seen.departure = self.departure(&mut seen, departure);
            }
            Event::Denied(denial) => {
                seen.kind = librpc_event_kind::Denied;
                seen.uid = denial.uid;
                seen.node = put(&mut self.node, &denial.by);
                seen.topic = put(&mut self.topic, &denial.topic);
                seen.text = put(&mut self.text, &denial.text);
            }
            Event::TurnedAway(turned_away) => {
                seen.kind = librpc_event_kind::TurnedAway;
                self.peer(&mut seen, &turned_away.peer);
                seen.too_large = turned_away.too_large;
                seen.dropped = turned_away.dropped;
                seen.no_room = turned_away.no_room;
                seen.no_memory = turned_away.no_memory;
            }
            Event::Refused(refused) => {
                seen.kind = librpc_event_kind::Refused;
                seen.pid = refused.pid;
                seen.uid = refused.uid;
                seen.count = refused.count;
                seen.reason = refused.reason.into();
                seen.text = put(&mut self.text, &refused.text);
            }
            Event::Mismatch(mismatch) => {
                seen.kind = librpc_event_kind::Mismatch;
                seen.uid = mismatch.uid;
                seen.node = put(&mut self.node, &mismatch.node);
                seen.topic = put(&mut self.topic, &mismatch.topic);
                seen.text = put(&mut self.text, &mismatch.to_string());
            }
            _ => {}
        }
        seen
    }

    fn peer(&mut self, seen: &mut librpc_event, peer: &Peer) {
        seen.node = put(&mut self.node, &peer.node);
        seen.pid = peer.pid;
        seen.uid = peer.uid;
    }

    fn departure(&mut self, seen: &mut librpc_event, departure: &Departure) -> librpc_departure {
        let mut say = |text: &str| seen.text = put(&mut self.text, text);
        match departure {
            Departure::Closed => librpc_departure::Closed,
            Departure::Died => librpc_departure::Died,
            Departure::Corrupt(why) => {
                say(why);
                librpc_departure::Corrupt
            }
            Departure::TooMuch(why) => {
                say(why);
                librpc_departure::TooMuch
            }
            Departure::Mismatch(mismatch) => {
                say(&mismatch.to_string());
                librpc_departure::Mismatch
            }
            _ => librpc_departure::Disconnected,
        }
    }
}

fn put(place: &mut CString, text: &str) -> *const c_char {
    *place = c_text(text);
    place.as_ptr()
}
