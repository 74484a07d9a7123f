//! The hot path of an inbox for calls: requests or replies that need no other checks, one at a time.
//!
//! Such a message is copied once, out of the ring into the memory of its sample. That memory is taken before the inbox waits for the
//! message, so that it takes no time once the message is there.

use librpc_ring::{Head, Kind, OfCall};

use super::{POLLS_PER_CLOCK, Receiver, Wait, WatchedBy};
use crate::aligned::AlignedBytes;
use crate::fault::fault;
use crate::name::Address;
use crate::receive::message::Taken;

/// Room for a payload is taken ahead for as many bytes as the last one had, but not for more or fewer than this.
const LEAST_ROOM: usize = 64;
const MOST_ROOM: usize = 4096;

/// What an inbox for calls takes on the hot path.
pub(super) struct OfCalls {
    takes_requests: bool,
    /// Where the next payload goes.
    ahead: Option<AlignedBytes>,
    room: usize,
    /// The payload of the message that was found last, until it is handed out.
    pub(super) payload: Option<AlignedBytes>,
}

impl OfCalls {
    /// `None`: it is no inbox for calls.
    pub(super) fn new(address: &Address) -> Option<Self> {
        let takes_requests = match address {
            Address::Service(_) => true,
            Address::Replies => false,
            _ => return None,
        };
        Some(Self { takes_requests, ahead: None, room: LEAST_ROOM, payload: None })
    }
}

impl Receiver {
    /// Finds the next message, if that is possible without a look at anything else. `may_wait`: it may be waited for, as long as nothing
    /// else is due. `false`: call [`Receiver::next`], which checks everything.
    #[inline(always)]
    pub(crate) fn finds_of_call(&mut self, may_wait: bool) -> bool {
        if self.lent.is_some()
            || !self.found.is_empty()
            || self.watched_by.get() > WatchedBy::Nobody
            || self.polls >= POLLS_PER_CLOCK
        {
            return false;
        }
        if self.takes_of_call() {
            return true;
        }
        if !may_wait || self.wait == Wait::Block || self.active.is_empty() {
            return false;
        }
        self.begin_gap(true);
        self.spin() && self.takes_of_call()
    }

    /// Takes the next record of the ring whose turn it is, if it needs no other checks.
    #[inline(always)]
    pub(super) fn takes_of_call(&mut self) -> bool {
        let (Some(of_calls), Some(&index)) = (&mut self.of_calls, self.active.get(self.cursor)) else { return false };
        let channel = self.channels[index].as_mut().expect("an active channel is there");
        if self.quantum == 0 || channel.drain.is_some() {
            return false;
        }
        let takes_requests = of_calls.takes_requests;
        let is_expected = |kind| (kind == Kind::Request) == takes_requests;
        let room = of_calls.room;
        let into = of_calls.ahead.get_or_insert_with(|| AlignedBytes::with_room(room));
        let taken = into.append(|into| channel.consumer.pop_of_call(into, is_expected));
        let Some(OfCall { kind, correlation, deadline, sequence, payload_bytes, .. }) = taken else { return false };
        fault!("consume.taken");
        self.head = Head { correlation: Some(correlation), deadline, ..Head::of(kind) };
        of_calls.room = payload_bytes.clamp(LEAST_ROOM, MOST_ROOM);
        of_calls.payload = of_calls.ahead.take();
        if self.shared.has_ended_meanwhile() {
            let payload = of_calls.payload.take();
            channel.consumer.untake(&self.head, payload.as_deref().unwrap_or_default());
            return false;
        }
        self.lent = None;
        channel.idle_looks = 0;
        if !channel.is_listed {
            channel.is_listed = true;
            self.unconsumed.push(index);
        }
        self.taken =
            Taken { channel: index, sequence, topic: None, redelivered: false, past: false, missed: 0, sent: 0 };
        self.counts_one();
        true
    }
}
