//! A client, as its server knows it: its requests, and the answers that wait for it.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::sync::Arc;

use librpc_ring::Kind;

use crate::call::error::ReplyError;
use crate::call::state::WINDOW;
use crate::link::ledger::{Charge, Ledger};
use crate::name::Peer;
use crate::receive::Sample;
use crate::send::topics::TopicRoute;
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::wire::{self, Cause};

/// How many bytes of answers wait for a client that does not read them.
const MAX_BACKLOG: usize = 64 << 20;
/// As many more only say that there is no other answer.
const MAX_FAILURES: usize = 4 << 20;

/// A request in [`Works`]. None is like any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkId {
    at: usize,
    serial: u64,
}

/// What the server knows of a request, until it is answered, or nobody works on it any more.
#[derive(Debug)]
pub(super) struct Work {
    serial: u64,
    /// The client no longer waits.
    pub(super) is_cancelled: bool,
    /// It was handed out.
    pub(super) is_handed_out: bool,
    /// It was cancelled after that, and still counts.
    pub(super) is_given_up: bool,
    /// How many parts it takes.
    pub(super) credit: u32,
    /// When it was received, if its time is measured.
    pub(super) measured: Option<Instant>,
}

/// The requests that have come, are not answered, or are in work. In the steady state nothing is allocated.
#[derive(Debug, Default)]
pub(super) struct Works {
    list: Vec<Work>,
    vacant: Vec<usize>,
    last: u64,
}

impl Works {
    pub(super) fn add(&mut self) -> WorkId {
        self.last += 1;
        let serial = self.last;
        let (is_cancelled, is_handed_out, is_given_up) = (false, false, false);
        let work = Work { serial, is_cancelled, is_handed_out, is_given_up, credit: WINDOW, measured: None };
        let at = match self.vacant.pop() {
            Some(at) => {
                self.list[at] = work;
                at
            }
            None => {
                self.list.push(work);
                self.list.len() - 1
            }
        };
        WorkId { at, serial }
    }

    /// `None`: it is over.
    #[inline(always)]
    pub(super) fn get(&mut self, id: WorkId) -> Option<&mut Work> {
        self.list.get_mut(id.at).filter(|work| work.serial == id.serial)
    }

    pub(super) fn remove(&mut self, id: WorkId) {
        if let Some(work) = self.get(id) {
            work.serial = 0; // no request's
            self.vacant.push(id.at);
        }
    }
}

/// The requests of a client, in the order of the numbers that it has given them. An honest one counts upwards, and is answered about in
/// that order: then neither end has to be searched.
#[derive(Debug, Default)]
pub(super) struct Requests(VecDeque<(u64, WorkId)>);

impl Requests {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where it is, or where it belongs.
    #[inline(always)]
    fn find(&self, number: u64) -> Result<usize, usize> {
        match (self.0.front(), self.0.back()) {
            (_, Some(&(last, _))) if last < number => Err(self.0.len()),
            (Some(&(first, _)), _) if first == number => Ok(0),
            _ => self.0.binary_search_by_key(&number, |(number, _)| *number),
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<WorkId> {
        Some(self.0[self.find(number).ok()?].1)
    }

    /// It is a new one.
    pub(super) fn insert(&mut self, number: u64, work: WorkId) {
        match self.find(number) {
            Err(at) if at == self.0.len() => self.0.push_back((number, work)),
            Ok(at) | Err(at) => self.0.insert(at, (number, work)),
        }
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<WorkId> {
        Some(match self.find(number).ok()? {
            0 => self.0.pop_front()?.1,
            at => self.0.remove(at)?.1,
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = WorkId> {
        self.0.iter().map(|(_, work)| *work)
    }
}

/// A request that has come.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) caller: u64,
    pub(super) number: u64,
    pub(super) work: WorkId,
    pub(super) sample: Sample,
    pub(super) deadline: Option<u64>,
}

impl Arrived {
    /// What it takes, to be counted. A long request is in its client's memory.
    pub(super) fn bytes(&self) -> usize {
        let copied = if self.sample.is_lent() { 0 } else { self.sample.len() };
        copied + size_of::<Self>() + size_of::<Work>()
    }
}

/// An answer that waits for room.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) payload: Box<[u8]>,
    pub(super) slot: OnceCell<Slot>,
    /// It is on its user's account.
    pub(super) _charge: Charge,
}

impl Waiting {
    /// What one with a payload of this length takes, to be counted: an empty answer takes memory, too.
    pub(super) const fn bytes(payload: usize) -> usize {
        payload + size_of::<Self>()
    }
}

/// A client that has connected.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) peer: Arc<Peer>,
    /// The longest reply that it takes, in bytes.
    pub(super) max_message: u64,
    pub(super) way: TopicRoute,
    /// It has attached the channel of replies.
    pub(super) is_open: bool,
    /// It has lost its channel of requests, and nothing more is heard of it. What it has asked is answered.
    pub(super) is_silent: bool,
    /// It takes no replies any more: what it asks is not heard.
    pub(super) is_gone: bool,
    pub(super) calls: Requests,
    /// How many requests it has cancelled on which the program still works.
    pub(super) given_up: usize,
    /// What it has asked before it has attached the channel of replies.
    pub(super) parked: VecDeque<(Arrived, Charge)>,
    pub(super) backlog: VecDeque<Waiting>,
    pub(super) backlog_bytes: usize,
}

impl Client {
    pub(super) fn new(peer: Arc<Peer>, max_message: u64, way: TopicRoute) -> Self {
        let (is_open, is_silent, is_gone) = (false, false, false);
        let (calls, parked, backlog, given_up, backlog_bytes) = Default::default();
        Self { peer, max_message, way, is_open, is_silent, is_gone, calls, given_up, parked, backlog, backlog_bytes }
    }

    /// Room for one more answer that waits.
    pub(super) fn reserve(&self, ledger: &Arc<Ledger>, kind: Kind, payload: usize) -> Result<Charge, ReplyError> {
        let (node, uid, bytes) = (&self.peer.node, self.peer.uid, Waiting::bytes(payload));
        let (max, charge) = match kind {
            Kind::Failure => (MAX_BACKLOG + MAX_FAILURES, ledger.waiting_failure(uid, bytes as u64)),
            _ => (MAX_BACKLOG, ledger.waiting(uid, bytes as u64)),
        };
        if self.backlog_bytes + bytes > max {
            return Err(ReplyError::Dropped { node: node.clone() });
        }
        let limit = ledger.limits().waiting_bytes_per_user;
        charge.ok_or_else(|| ReplyError::OverLimit { node: node.clone(), uid, limit })
    }

    /// A failure, encoded. The text is left out if it is longer than what the client takes.
    pub(super) fn failure(&self, cause: Cause, code: i32, text: &str) -> Vec<u8> {
        let failure = wire::encode(&wire::Failure::new(cause, code, text));
        match failure.len() as u64 > self.max_message {
            true => wire::encode(&wire::Failure::new(cause, code, "")),
            false => failure,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::collections::btree_map::Entry;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever numbers a client gives, and whatever ends when.
        #[test]
        fn a_request_is_found_under_its_number(steps in proptest::collection::vec(any::<(bool, u8)>(), 0..300)) {
            let (mut works, mut requests, mut expected) = (Works::default(), Requests::default(), BTreeMap::new());
            for (comes, number) in steps {
                let number = u64::from(number);
                prop_assert_eq!(requests.get(number), expected.get(&number).copied());
                if !comes {
                    let over = requests.remove(number);
                    prop_assert_eq!(over, expected.remove(&number));
                    if let Some(over) = over {
                        prop_assert!(works.get(over).is_some());
                        works.remove(over);
                        prop_assert!(works.get(over).is_none());
                    }
                } else if let Entry::Vacant(vacant) = expected.entry(number) {
                    let work = works.add();
                    requests.insert(number, work);
                    vacant.insert(work);
                }
                prop_assert!(requests.iter().eq(expected.values().copied()));
                prop_assert!(expected.values().all(|work| works.get(*work).is_some()));
            }
        }
    }
}
