//! What the peers of each user cost a node, and how much they may.
//!
//! Invariant: a cost is on its user's account for as long as what it pays for exists: each [`Charge`] is owned by that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::fork;
use crate::sys::sync::Mutex;

/// What only says that there is no other answer has a part of the others' limit for itself: one in this many bytes.
const FAILURES: u64 = 16;

/// How much the peers of one user may cost a node. Peers that send to it and peers that it sends to have separate accounts,
/// with the same limits. A peer over a limit is refused, and the refusal says so.
///
/// ```
/// let limits = librpc::Limits::default().channels_per_user(100).mapped_bytes_per_user(64 << 20);
/// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_limits_{}", std::process::id()));
/// let node = librpc::Node::builder("display").domain(domain).limits(limits).open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Connections that have not finished their handshake; a sender over this limit tries again by itself. Default 256.
    pub handshakes_per_user: u32,
    /// Channels, and the memories for large payloads that come over them: each takes descriptors. Default 16,384.
    pub channels_per_user: u32,
    /// Bytes of rings, and of memories for large payloads, that the node maps. Default 64 GiB of address space; what is used of
    /// it is the senders' memory.
    pub mapped_bytes_per_user: u64,
    /// Bytes of the names of topics that are declared on the channels. Default 64 MiB.
    pub topic_bytes_per_user: u64,
    /// Calls of the admission function ([`crate::Admission::function`]) that have not returned, each on a thread of its own. A
    /// sender over this limit tries again by itself. Default 16.
    pub decisions_per_user: u32,
    /// The same, for all users together. Default 64.
    pub decisions: u32,
    /// How long a peer may be silent in its handshake. Default 2 s.
    pub handshake_timeout: Duration,
    /// Bytes of requests and answers that wait in the node's servers for clients that have not opened their channels of replies, or do
    /// not read them. 64 MiB of answers may wait for each client, however high this is. Default 256 MiB.
    pub waiting_bytes_per_user: u64,
    /// Bytes of the memory that this node makes for large payloads, all its outboxes together. It is allocated as it is needed,
    /// and given back when it is unused. Default 4 GiB.
    pub payload_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes_per_user: 256,
            channels_per_user: 16_384,
            mapped_bytes_per_user: 64 << 30,
            topic_bytes_per_user: 64 << 20,
            decisions_per_user: 16,
            decisions: 64,
            handshake_timeout: Duration::from_secs(2),
            waiting_bytes_per_user: 256 << 20,
            payload_bytes: 4 << 30,
        }
    }
}

impl Limits {
    /// Sets [`Limits::handshakes_per_user`](#structfield.handshakes_per_user).
    pub fn handshakes_per_user(self, handshakes: u32) -> Self {
        Self { handshakes_per_user: handshakes, ..self }
    }

    /// Sets [`Limits::channels_per_user`](#structfield.channels_per_user).
    pub fn channels_per_user(self, channels: u32) -> Self {
        Self { channels_per_user: channels, ..self }
    }

    /// Sets [`Limits::mapped_bytes_per_user`](#structfield.mapped_bytes_per_user).
    pub fn mapped_bytes_per_user(self, bytes: u64) -> Self {
        Self { mapped_bytes_per_user: bytes, ..self }
    }

    /// Sets [`Limits::topic_bytes_per_user`](#structfield.topic_bytes_per_user).
    pub fn topic_bytes_per_user(self, bytes: u64) -> Self {
        Self { topic_bytes_per_user: bytes, ..self }
    }

    /// Sets [`Limits::decisions_per_user`](#structfield.decisions_per_user).
    pub fn decisions_per_user(self, decisions: u32) -> Self {
        Self { decisions_per_user: decisions, ..self }
    }

    /// Sets [`Limits::decisions`](#structfield.decisions).
    pub fn decisions(self, decisions: u32) -> Self {
        Self { decisions, ..self }
    }

    /// Sets [`Limits::waiting_bytes_per_user`](#structfield.waiting_bytes_per_user).
    pub fn waiting_bytes_per_user(self, bytes: u64) -> Self {
        Self { waiting_bytes_per_user: bytes, ..self }
    }

    /// Sets [`Limits::payload_bytes`](#structfield.payload_bytes).
    pub fn payload_bytes(self, bytes: u64) -> Self {
        Self { payload_bytes: bytes, ..self }
    }

    /// Sets [`Limits::handshake_timeout`](#structfield.handshake_timeout). A time too far away to be a point in time counts as no limit.
    pub fn handshake_timeout(self, time: Duration) -> Self {
        Self { handshake_timeout: time, ..self }
    }
}

/// What the peers of each user cost a node just now.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    of_users: BTreeMap<u32, Account>,
    /// Decisions of all users.
    decisions: u32,
}

/// What the peers of one user cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    handshakes: u32,
    channels: u32,
    bytes: u64,
    names: u64,
    decisions: u32,
    waiting: u64,
    failures: u64,
}

impl Account {
    /// The account with one cost more; `None`: that cannot be counted.
    fn plus(self, cost: Cost) -> Option<Self> {
        Some(match cost {
            Cost::Handshake => Self { handshakes: self.handshakes.checked_add(1)?, ..self },
            Cost::Channel { bytes } | Cost::Segment { bytes } => {
                Self { channels: self.channels.checked_add(1)?, bytes: self.bytes.checked_add(bytes)?, ..self }
            }
            Cost::Names { bytes } => Self { names: self.names.checked_add(bytes)?, ..self },
            Cost::Decision => Self { decisions: self.decisions.checked_add(1)?, ..self },
            Cost::Waiting { bytes } => Self { waiting: self.waiting.checked_add(bytes)?, ..self },
            Cost::Failure { bytes } => Self { failures: self.failures.checked_add(bytes)?, ..self },
        })
    }

    /// The account without a cost that was added to it.
    fn minus(self, cost: Cost) -> Self {
        match cost {
            Cost::Handshake => Self { handshakes: self.handshakes - 1, ..self },
            Cost::Channel { bytes } | Cost::Segment { bytes } => {
                Self { channels: self.channels - 1, bytes: self.bytes - bytes, ..self }
            }
            Cost::Names { bytes } => Self { names: self.names - bytes, ..self },
            Cost::Decision => Self { decisions: self.decisions - 1, ..self },
            Cost::Waiting { bytes } => Self { waiting: self.waiting - bytes, ..self },
            Cost::Failure { bytes } => Self { failures: self.failures - bytes, ..self },
        }
    }

    fn is_within(&self, limits: &Limits) -> bool {
        self.handshakes <= limits.handshakes_per_user
            && self.channels <= limits.channels_per_user
            && self.bytes <= limits.mapped_bytes_per_user
            && self.names <= limits.topic_bytes_per_user
            && self.decisions <= limits.decisions_per_user
            && self.waiting <= limits.waiting_bytes_per_user
            && self.failures <= limits.waiting_bytes_per_user / FAILURES
    }
}

/// What a charge is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Handshake,
    /// With a ring of this many bytes.
    Channel {
        bytes: u64,
    },
    /// A memory for payloads, which takes a descriptor and a mapping as a channel does.
    Segment {
        bytes: u64,
    },
    /// Names of topics.
    Names {
        bytes: u64,
    },
    /// A call of the admission function.
    Decision,
    /// A request or an answer that waits for its client.
    Waiting {
        bytes: u64,
    },
    /// One that only says that there is no other answer, when no more of the others may wait.
    Failure {
        bytes: u64,
    },
}

/// What a user's account would be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OverLimit {
    pub(crate) uid: u32,
    pub(crate) limit: u64,
}

/// A cost that is taken off the account when this is dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    ledger: Arc<Ledger>,
    uid: u32,
    cost: Cost,
    born: fork::Born,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, accounts: Mutex::default() })
    }

    /// Whether nothing is on any account.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        let accounts = self.accounts.lock();
        accounts.of_users.is_empty() && accounts.decisions == 0
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether one more handshake would be within a user's limit.
    pub(crate) fn may_begin_handshake(&self, uid: u32) -> bool {
        let accounts = self.accounts.lock();
        accounts.of_users.get(&uid).is_none_or(|account| account.handshakes < self.limits.handshakes_per_user)
    }

    /// Takes one handshake on a user's account; `None` if that is over the limit.
    pub(crate) fn handshake(self: &Arc<Self>, uid: u32) -> Option<Charge> {
        self.charge(uid, Cost::Handshake)
    }

    /// Takes a channel with a ring of this many bytes on a user's account; `None` if that is over a limit.
    pub(crate) fn channel(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.charge(uid, Cost::Channel { bytes })
    }

    /// Takes a memory for payloads on a user's account; `None` if that is over the limit.
    pub(crate) fn segment(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.charge(uid, Cost::Segment { bytes })
    }

    /// A charge for the names of topics, of none so far.
    pub(crate) fn names(self: &Arc<Self>, uid: u32) -> Charge {
        Charge { ledger: self.clone(), uid, cost: Cost::Names { bytes: 0 }, born: fork::Born::now() }
    }

    /// Takes a call of the admission function on a user's account, to be held until it has returned, whatever has become of
    /// its peer meanwhile; `None` if that is over a limit.
    pub(crate) fn decision(self: &Arc<Self>, uid: u32) -> Option<Charge> {
        self.charge(uid, Cost::Decision)
    }

    /// Takes a request or an answer that waits for its client on a user's account; `None` if that is over the limit.
    pub(crate) fn waiting(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.charge(uid, Cost::Waiting { bytes })
    }

    /// The same for what only says that there is no other answer. When no more of the others may wait, some of these still may.
    pub(crate) fn waiting_failure(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.waiting(uid, bytes).or_else(|| self.charge(uid, Cost::Failure { bytes }))
    }

    fn charge(self: &Arc<Self>, uid: u32, cost: Cost) -> Option<Charge> {
        let is_taken = self.take(uid, cost);
        is_taken.then(|| Charge { ledger: self.clone(), uid, cost, born: fork::Born::now() })
    }

    /// Adds a cost to a user's account, if that stays within the limits.
    fn take(&self, uid: u32, cost: Cost) -> bool {
        let mut accounts = self.accounts.lock();
        let before = accounts.of_users.get(&uid).copied().unwrap_or_default();
        let decisions = accounts.decisions.saturating_add(u32::from(cost == Cost::Decision));
        match before.plus(cost) {
            Some(after) if after.is_within(&self.limits) && decisions <= self.limits.decisions => {
                accounts.of_users.insert(uid, after);
                accounts.decisions = decisions;
                true
            }
            _ => false,
        }
    }

    /// Takes a cost off a user's account.
    fn give_back(&self, uid: u32, cost: Cost) {
        let mut accounts = self.accounts.lock();
        accounts.decisions -= u32::from(cost == Cost::Decision);
        let account = accounts.of_users.get_mut(&uid).expect("a charge has an account");
        *account = account.minus(cost);
        if *account == Account::default() {
            accounts.of_users.remove(&uid);
        }
    }
}

impl Charge {
    /// A charge to the same account for the names of topics, of none so far.
    pub(crate) fn names(&self) -> Self {
        self.ledger.names(self.uid)
    }

    /// Adds this many bytes to a charge for names.
    pub(crate) fn add_names(&mut self, more: u64) -> Result<(), OverLimit> {
        let Cost::Names { bytes } = &mut self.cost else { unreachable!("only names are added to") };
        if !self.ledger.take(self.uid, Cost::Names { bytes: more }) {
            return Err(OverLimit { uid: self.uid, limit: self.ledger.limits.topic_bytes_per_user });
        }
        *bytes += more;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // A forked child's belongs to the parent. One for no names has no account.
        if self.born.is_here() && self.cost != (Cost::Names { bytes: 0 }) {
            self.ledger.give_back(self.uid, self.cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_per_user() {
        let ledger = Ledger::new(Limits::default().handshakes_per_user(2));
        let both = [ledger.handshake(1), ledger.handshake(1)];
        assert!(both.iter().all(Option::is_some) && ledger.handshake(1).is_none());
        assert!(ledger.handshake(2).is_some() && ledger.channel(1, 0).is_some(), "other accounts");
        drop(both);
        assert!(ledger.handshake(1).is_some());
    }

    #[test]
    fn decisions_are_counted_per_user_and_in_all() {
        let ledger = Ledger::new(Limits::default().decisions_per_user(2).decisions(3));
        let both = [ledger.decision(1), ledger.decision(1)];
        assert!(both.iter().all(Option::is_some) && ledger.decision(1).is_none(), "this user's");
        let third = ledger.decision(2);
        assert!(third.is_some() && ledger.decision(3).is_none(), "all users'");
        drop(both);
        assert!(ledger.decision(3).is_some());
    }

    #[test]
    fn an_account_comes_back_to_nothing() {
        let ledger = Ledger::new(Limits::default().channels_per_user(2).mapped_bytes_per_user(100));
        let first = ledger.channel(1, 60).expect("within the limits");
        assert!(ledger.channel(1, 50).is_none(), "bytes");
        let second = ledger.channel(1, 40).expect("within the limits");
        assert!(ledger.channel(1, 0).is_none(), "channels");
        assert!(ledger.channel(2, 0).is_some(), "another user's account");
        drop((first, second, ledger.decision(1)));
        assert!(ledger.is_settled());
    }

    #[test]
    fn memories_for_payloads_are_counted_as_channels_are() {
        let ledger = Ledger::new(Limits::default().channels_per_user(2));
        let both = (ledger.channel(1, 1).expect("within the limit"), ledger.segment(1, 1).expect("within the limit"));
        assert!(ledger.segment(1, 1).is_none() && ledger.channel(1, 1).is_none());
        drop(both);
        assert!(ledger.is_settled());
    }

    #[test]
    fn what_waits_for_clients_is_counted_per_user_and_leaves_room_for_failures() {
        let ledger = Ledger::new(Limits::default().waiting_bytes_per_user(1600));
        let all = ledger.waiting(1, 1600);
        assert!(all.is_some() && ledger.waiting(1, 1).is_none());
        let failures = ledger.waiting_failure(1, 100);
        assert!(failures.is_some() && ledger.waiting_failure(1, 1).is_none());
        assert!(ledger.waiting(2, 1600).is_some() && ledger.handshake(1).is_some(), "other accounts");
        drop(all);
        assert!(ledger.waiting_failure(1, 1600).is_some(), "they may wait as others do");
        drop(failures);
        assert!(ledger.is_settled());
    }

    #[test]
    fn without_limits_sums_do_not_overflow() {
        let ledger = Ledger::new(Limits::default().mapped_bytes_per_user(u64::MAX));
        let first = ledger.channel(1, u64::MAX);
        assert!(first.is_some() && ledger.channel(1, 1).is_none());
    }
}
