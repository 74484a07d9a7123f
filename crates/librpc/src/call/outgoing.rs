//! A record on its way to the other side of a call.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use minicbor::Decode;

use crate::link::inbox_shared::InboxShared;
use crate::node_shared::NodeShared;
use crate::receive::Sample;
use crate::send::SendError;
use crate::send::channel::WaitsFor;
use crate::send::message::{Attempt, Call, Delivery, Message, Patience};
use crate::send::pool::UNUSED;
use crate::send::routes::Routes;
use crate::send::topics::{TopicNames, TopicRoute};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::text;
use crate::wire::{self, LONGEST_OF_CALL};

/// The routes to the other sides of calls.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) routes: Routes,
    /// Calls have no topics.
    pub(super) names: TopicNames,
    begun: Instant,
    /// Nothing has come since the last look for memories that are not used, and when the next look is due.
    is_idle: bool,
    looks_at: Instant,
}

/// What became of a record.
#[derive(Debug)]
pub(super) enum Said {
    Yes,
    /// There is no room just now, or no answer yet.
    Later,
    /// The other side is gone.
    Gone,
    Failed(SendError),
}

impl Outgoing {
    /// `inbox` is woken when another side answers, and when it is gone.
    pub(super) fn new(node: Arc<NodeShared>, inbox: Arc<InboxShared>) -> Self {
        let (routes, names, now) = (Routes::reporting_to(node, inbox), TopicNames::default(), Instant::now());
        Self { routes, names, begun: now, is_idle: false, looks_at: now }
    }

    /// Waits for this long for a side that is mapping new memory for a long payload, instead of saying [`Said::Later`] at once.
    pub(super) fn wait_for_memory(&mut self, grace: Duration) {
        self.routes.lending_grace = grace;
    }

    /// Nothing has come: there is time to look for memories that are not used.
    pub(super) fn idle(&mut self) {
        self.is_idle = true;
    }

    /// Gives back the memory for long payloads that is not used, if it is time for that. Returns when it is again.
    #[inline]
    pub(super) fn give_back(&mut self) -> Option<Instant> {
        if self.routes.pool.is_empty() {
            return None; // as after short payloads
        }
        if std::mem::take(&mut self.is_idle) {
            let now = Instant::now();
            if now >= self.looks_at {
                self.routes.give_back_unused();
                self.looks_at = now + UNUSED;
            }
        }
        (!self.routes.pool.is_empty()).then_some(self.looks_at)
    }

    /// Sends a record, if that is possible at once. A long payload is put into a slot, which is kept for the next attempt.
    pub(super) fn say(&mut self, way: &mut TopicRoute, call: Call<'_>, payload: &[u8], slot: &OnceCell<Slot>) -> Said {
        match slot.get().is_none() && self.say_at_once(way, &call, payload) {
            true => Said::Yes,
            false => self.say_slowly(way, call, payload, slot),
        }
    }

    /// The hot path: nearly always there is room, and nothing else needs a check. `false`: nothing was sent.
    #[inline(always)]
    pub(super) fn say_at_once(&mut self, way: &TopicRoute, call: &Call<'_>, payload: &[u8]) -> bool {
        self.routes.get(way.id).is_some_and(|route| route.push_of_call(&way.declared, call, payload))
    }

    #[cold]
    #[inline(never)]
    fn say_slowly(&mut self, way: &mut TopicRoute, call: Call<'_>, payload: &[u8], slot: &OnceCell<Slot>) -> Said {
        // The deadline is long past: it never waits.
        let patience = Patience { timeout: Duration::ZERO, deadline: Some(self.begun) };
        let attempt = loop {
            let message = Message { topic: None, call: Some(call), payload, slot: Some(slot), past: false };
            match self.routes.deliver_now(way, message, &self.names, patience) {
                Attempt::Wait(WaitsFor::Lending) if self.routes.waits_for_lending(way.id) => {}
                attempt => break attempt,
            }
        };
        match attempt {
            Attempt::Over(Delivery::Delivered | Delivery::Pending) => Said::Yes,
            Attempt::Over(Delivery::Ended | Delivery::Denied) => Said::Gone,
            Attempt::Over(
                Delivery::Lost(SendError::ReceiverGone { .. }) | Delivery::Failed(SendError::ReceiverGone { .. }),
            ) => Said::Gone,
            Attempt::Over(Delivery::Lost(error) | Delivery::Failed(error)) => Said::Failed(error),
            Attempt::Retry | Attempt::Wait(_) | Attempt::NeedsSlot => Said::Later,
        }
    }
}

/// What the other side says about a call. A longer message is no honest one's, and is not copied.
pub(super) fn decoded<T: for<'b> Decode<'b, ()>>(sample: &Sample) -> Result<T, String> {
    match sample.len() {
        bytes if bytes > LONGEST_OF_CALL => {
            Err(format!("it says something of {bytes} bytes about a call, the limit is {LONGEST_OF_CALL}"))
        }
        _ => wire::decode(&sample.to_vec()).map_err(|error| error.to_string()),
    }
}

/// What a request or a reply carries.
pub(super) struct Payload {
    sample: Sample,
    copy: OnceLock<Vec<u8>>,
}

impl Payload {
    pub(super) fn new(sample: Sample) -> Self {
        Self { sample, copy: OnceLock::new() }
    }

    pub(super) fn sample(&self) -> &Sample {
        &self.sample
    }

    pub(super) fn into_sample(self) -> Sample {
        self.sample
    }
}

/// A long payload, which its sender may change, is copied when it is first read.
impl Deref for Payload {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.sample.payload().unwrap_or_else(|| self.copy.get_or_init(|| self.sample.to_vec()))
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::bytes(self.sample.len()))
    }
}
