//! What the peers of each user cost a node, and how much they may.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::sys::fork;
use crate::sys::sync::Mutex;

/// How much the peers of one user may cost a node: those who send to it, and by the same limits, in an account of their own,
/// those that it sends to. What is over a limit is refused, and the refusal says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections that have not finished their handshake; a sender over this limit tries again by itself. Default 256.
    pub handshakes_per_user: u32,
    /// Channels. Default 16,384.
    pub channels_per_user: u32,
    /// Bytes of rings that the node maps. Default 16 GiB: of address space; of memory only as much as is written.
    pub mapped_bytes_per_user: u64,
    /// Bytes that the names of topics take which are declared on the channels. Default 64 MiB.
    pub topic_bytes_per_user: u64,
    /// How long a peer may be silent in its handshake. Default 2 s.
    pub handshake_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes_per_user: 256,
            channels_per_user: 16_384,
            mapped_bytes_per_user: 16 << 30,
            topic_bytes_per_user: 64 << 20,
            handshake_time: Duration::from_secs(2),
        }
    }
}

/// What the peers of each user cost a node just now.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    accounts: Mutex<HashMap<u32, Account>>,
}

/// What the peers of one user cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Account {
    cost: Cost,
    names: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    handshakes: u32,
    channels: u32,
    bytes: u64,
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

/// Bytes of topics' names, taken off the account when this is dropped.
#[derive(Debug)]
pub(crate) struct NameCharge {
    ledger: Arc<Ledger>,
    uid: u32,
    bytes: u64,
    born: fork::Born,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, accounts: Mutex::default() })
    }

    /// Whether nothing is on any account.
    #[cfg(test)]
    pub(crate) fn is_settled(&self) -> bool {
        self.accounts.lock().is_empty()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether one more handshake would be within a user's limit.
    pub(crate) fn may_begin_handshake(&self, uid: u32) -> bool {
        let accounts = self.accounts.lock();
        accounts.get(&uid).is_none_or(|account| account.cost.handshakes < self.limits.handshakes_per_user)
    }

    /// Takes one handshake on a user's account; `None` if that is over the limit.
    pub(crate) fn handshake(self: &Arc<Self>, uid: u32) -> Option<Charge> {
        self.charge(uid, Cost { handshakes: 1, ..Cost::default() })
    }

    /// Takes a channel with a ring of this many bytes on a user's account; `None` if that is over a limit.
    pub(crate) fn channel(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.charge(uid, Cost { channels: 1, bytes, ..Cost::default() })
    }

    /// A charge for the names of topics, of none so far.
    pub(crate) fn names(self: &Arc<Self>, uid: u32) -> NameCharge {
        NameCharge { ledger: self.clone(), uid, bytes: 0, born: fork::Born::now() }
    }

    fn charge(self: &Arc<Self>, uid: u32, cost: Cost) -> Option<Charge> {
        let is_taken = self.take(uid, cost, 0);
        is_taken.then(|| Charge { ledger: self.clone(), uid, cost, born: fork::Born::now() })
    }

    /// Adds to a user's account, if that stays within the limits.
    fn take(&self, uid: u32, cost: Cost, names: u64) -> bool {
        let mut accounts = self.accounts.lock();
        let account = accounts.get(&uid).copied().unwrap_or_default();
        let after = Account {
            cost: Cost {
                handshakes: account.cost.handshakes.saturating_add(cost.handshakes),
                channels: account.cost.channels.saturating_add(cost.channels),
                bytes: account.cost.bytes.saturating_add(cost.bytes),
            },
            names: account.names.saturating_add(names),
        };
        let is_within = after.cost.handshakes <= self.limits.handshakes_per_user
            && after.cost.channels <= self.limits.channels_per_user
            && after.cost.bytes <= self.limits.mapped_bytes_per_user
            && after.names <= self.limits.topic_bytes_per_user;
        if is_within {
            accounts.insert(uid, after);
        }
        is_within
    }

    /// Takes off a user's account what was added.
    fn give_back(&self, uid: u32, cost: Cost, names: u64) {
        let mut accounts = self.accounts.lock();
        let Some(account) = accounts.get_mut(&uid) else { return };
        account.cost.handshakes -= cost.handshakes;
        account.cost.channels -= cost.channels;
        account.cost.bytes -= cost.bytes;
        account.names -= names;
        if *account == Account::default() {
            accounts.remove(&uid);
        }
    }
}

impl Charge {
    /// A charge to the same account for the names of topics, of none so far.
    pub(crate) fn names(&self) -> NameCharge {
        self.ledger.names(self.uid)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // A forked child's is the parent's.
        if self.born.is_here() {
            self.ledger.give_back(self.uid, self.cost, 0);
        }
    }
}

impl NameCharge {
    /// Adds this many bytes.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), OverLimit> {
        if !self.ledger.take(self.uid, Cost::default(), bytes) {
            return Err(OverLimit { uid: self.uid, limit: self.ledger.limits.topic_bytes_per_user });
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for NameCharge {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.ledger.give_back(self.uid, Cost::default(), self.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes_are_counted_per_user() {
        let ledger = Ledger::new(Limits { handshakes_per_user: 2, ..Limits::default() });
        let both = [ledger.handshake(1), ledger.handshake(1)];
        assert!(both.iter().all(Option::is_some) && ledger.handshake(1).is_none());
        assert!(ledger.handshake(2).is_some() && ledger.channel(1, 0).is_some(), "other accounts");
        drop(both);
        assert!(ledger.handshake(1).is_some());
    }

    #[test]
    fn an_account_comes_back_to_nothing() {
        let ledger = Ledger::new(Limits { channels_per_user: 2, mapped_bytes_per_user: 100, ..Limits::default() });
        let first = ledger.channel(1, 60).expect("within the limits");
        assert!(ledger.channel(1, 50).is_none(), "bytes");
        let second = ledger.channel(1, 40).expect("within the limits");
        assert!(ledger.channel(1, 0).is_none(), "channels");
        assert!(ledger.channel(2, 0).is_some(), "another user's account");
        drop((first, second));
        assert!(ledger.is_settled());
    }
}
