//! A client, as its server knows it: its requests, and the answers that wait for it.

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use librpc_ring::Kind;

use crate::call::error::ReplyError;
use crate::call::state::WINDOW;
use crate::link::ledger::{Charge, Ledger};
use crate::name::Peer;
use crate::receive::Sample;
use crate::send::topics::TopicRoute;
use crate::sys::slots::Slot;
use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::wire::{self, Cause};

/// How many bytes of answers wait for a client that does not read them.
const MAX_BACKLOG: usize = 64 << 20;
/// As many more only say that there is no other answer.
const MAX_FAILURES: usize = 4 << 20;

/// What the threads that work on a request share with the server.
#[derive(Debug)]
pub(super) struct Work {
    /// The client no longer waits.
    pub(super) is_cancelled: AtomicBool,
    /// It was handed out.
    pub(super) is_handed_out: AtomicBool,
    /// It was cancelled after that, and still counts.
    pub(super) is_given_up: AtomicBool,
    /// How many parts it takes.
    pub(super) credit: AtomicU32,
    /// When it was received, in ns, if its time is measured; otherwise 0.
    pub(super) measured: AtomicU64,
}

impl Work {
    pub(super) fn new() -> Self {
        let no = || AtomicBool::new(false);
        let (credit, measured) = (AtomicU32::new(WINDOW), AtomicU64::new(0));
        Self { is_cancelled: no(), is_handed_out: no(), is_given_up: no(), credit, measured }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed) // a hint, and nothing depends on it
    }

    pub(super) fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

/// A request that has come.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) caller: u64,
    pub(super) number: u64,
    pub(super) work: Arc<Work>,
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
    pub(super) calls: BTreeMap<u64, Arc<Work>>,
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
