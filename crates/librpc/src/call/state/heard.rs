//! What a client hears, and what it does then.

use std::sync::Arc;

use librpc_ring::Kind;

use super::{Calling, Ongoing, Outcome, WINDOW, is_of, key_of};
use crate::call::error::CallError;
use crate::call::exchange::Side;
use crate::call::outgoing::decoded;
use crate::call::pause::AGAIN;
use crate::name::Peer;
use crate::receive::Departure;
use crate::receive::inbox::{Heard, Inbox, Spoken};
use crate::send::route::RouteId;
use crate::sys::clock::{Instant, now_ns};
use crate::text::harmless_start;
use crate::wire::{self, Cause};

impl Calling {
    /// Takes a record of a server's.
    fn spoken(&mut self, inbox: &mut Inbox, spoken: Spoken) {
        let Spoken { channel, kind, number, sample, .. } = spoken;
        // One that was given up, or that no such server was asked.
        let Some(call) = self.calls.get_mut(number).filter(|call| is_of(sample.peer(), &call.server)) else {
            return;
        };
        if call.outcome.is_some() {
            return;
        }
        call.body = None; // what has answered in part cannot be begun again
        if kind == Kind::Reply && call.parts.is_empty() {
            (call.outcome, call.orphaned) = (Some(Outcome::Reply(sample)), None);
            self.counters.answered(call.measured);
            let route = call.route;
            return self.answered(route);
        }
        let node = call.server.0.clone();
        match kind {
            Kind::Part if !call.is_stream => {
                let route = call.route;
                let error = self.mismatch(&node, "answers in parts: call_stream takes them");
                self.end(number, Err(error));
                self.cancel(route, number);
            }
            Kind::Part if call.parts.len() as u32 + call.taken < WINDOW => call.parts.push_back(sample),
            Kind::Part => inbox.expel(channel, format!("it sends more than {WINDOW} parts that nobody has taken")),
            Kind::End if !call.is_stream => {
                let error = self.mismatch(&node, "has ended its reply without a part");
                self.end(number, Err(error));
            }
            Kind::End => self.end(number, Ok(())),
            Kind::Failure => match decoded(&sample) {
                Ok(failure) => self.failed(number, node, failure),
                Err(why) => inbox.expel(channel, why),
            },
            kind => inbox.expel(channel, format!("it answers with an unexpected record, {kind:?}")),
        }
    }

    /// Nothing more is heard of a server, because it has sent what no server sends. Its calls end.
    fn not_understood(&mut self, peer: &Peer, why: &str) {
        let is_its = |call: &Ongoing| call.outcome.is_none() && is_of(peer, &call.server);
        let calls = self.calls.in_order().into_iter().filter(|(_, call)| is_its(call));
        let calls: Vec<(u64, RouteId)> = calls.map(|(number, call)| (number, call.route)).collect();
        for (number, route) in calls {
            let error = self.mismatch(&peer.node, &format!("cannot be understood: {why}"));
            self.end(number, Err(error));
            self.cancel(route, number);
        }
    }

    fn failed(&mut self, number: u64, node: Arc<str>, failure: wire::Failure) {
        let cause = Cause::from_number(failure.cause);
        let is_over = |call: &Ongoing| call.deadline.is_some_and(|deadline| deadline <= now_ns());
        if cause == Cause::Dropped && self.calls.get(number).is_some_and(is_over) {
            return; // the server dropped it because its time is up: that is what its caller is told
        }
        let service = self.service.clone();
        let text = harmless_start(&failure.text, wire::Failure::TEXT_CHARS);
        let text: Arc<str> = text.into();
        let error = match cause {
            Cause::Busy => CallError::Busy { service, what: format!("node {node:?}: {text}").into() },
            Cause::Unimplemented => CallError::Unimplemented { service, node, text },
            Cause::NotTaken => CallError::ServerDied { service, node, taken: false },
            Cause::Program | Cause::Dropped => CallError::Failed { service, node, code: failure.code, message: text },
        };
        self.end(number, Err(error));
    }
}

impl Side for Calling {
    #[inline]
    fn has_work(&self) -> bool {
        self.has_work
    }

    fn heard(&mut self, inbox: &mut Inbox, heard: Heard) {
        match heard {
            Heard::Record(spoken) => self.spoken(inbox, spoken),
            Heard::Nudged => self.has_work = true,
            Heard::Joined(peer) => *self.connected.entry(key_of(&peer)).or_default() += 1,
            Heard::Left(peer, departure, _) => {
                if let Departure::Corrupt(why) | Departure::TooMuch(why) = departure {
                    self.not_understood(&peer, &why);
                }
                let key = key_of(&peer);
                if let Some(channels) = self.connected.get_mut(&key) {
                    *channels -= 1;
                    if *channels == 0 {
                        self.connected.remove(&key);
                    }
                }
                self.has_work = true;
            }
        }
    }

    #[inline]
    fn tend(&mut self, inbox: Option<&mut Inbox>) -> Option<Instant> {
        let gives_back_at = self.out.give_back();
        match std::mem::take(&mut self.has_work) {
            true => self.work(inbox, gives_back_at),
            false => gives_back_at,
        }
    }

    fn idle(&mut self) {
        self.out.idle();
    }
}

impl Calling {
    /// Does what has become due. Returns when something is due again.
    #[cold]
    fn work(&mut self, inbox: Option<&mut Inbox>, gives_back_at: Option<Instant>) -> Option<Instant> {
        for (id, channel) in self.out.routes.take_failed() {
            self.server_gone(id, channel);
        }
        let is_due = self.lookups.are_due();
        let settled = if is_due { self.settle() } else { Ok(()) };
        let mut again = self.end_orphans(inbox);
        if is_due {
            let looked = settled.and_then(|()| self.send_again());
            self.lookups.ended(looked);
        }
        for (route, number) in std::mem::take(&mut self.uncancelled) {
            if !self.try_cancel(route, number) {
                self.uncancelled.push_back((route, number));
            }
        }
        let owed = |call: &Ongoing| call.is_stream && call.taken >= WINDOW / 2 && call.outcome.is_none();
        let calls = self.calls.in_order().into_iter();
        let owing: Vec<u64> = calls.filter(|(_, call)| owed(call)).map(|(number, _)| number).collect();
        owing.into_iter().for_each(|number| self.give_credit(number));
        again |= self.has_work || !self.uncancelled.is_empty();
        self.has_work = again || !self.gone.is_empty() || !self.unsent.is_empty();
        let looks_at = self.lookups.due().filter(|_| !again);
        let works_at = self.has_work.then(|| looks_at.unwrap_or_else(|| Instant::now() + AGAIN));
        works_at.into_iter().chain(gives_back_at).min()
    }
}
