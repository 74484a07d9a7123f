//! Who may connect, and how much of it: decided by what the kernel knows of the peer.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::name::Peer;
use crate::sys::fork;

type Decide = dyn Fn(&Peer) -> bool + Send + Sync;

/// Whom a node admits: whoever at least one rule matches. The default is the node's own user.
///
/// Uids, gids and pids come from the kernel and cannot be forged. Executables are advisory: a program can be replaced or
/// traced by the user who runs it.
///
/// ```
/// let admission = librpc::Admission::same_user().uid(1001).gid(100);
/// let by_name = librpc::Admission::nobody().function(|peer| &*peer.node == "camera");
/// ```
#[derive(Clone)]
pub struct Admission {
    same_user: bool,
    uids: Vec<u32>,
    gids: Vec<u32>,
    pids: Vec<u32>,
    executables: Vec<PathBuf>,
    function: Option<Arc<Decide>>,
}

impl Admission {
    /// Admits the processes of the node's own user.
    pub fn same_user() -> Self {
        Self { same_user: true, ..Self::nobody() }
    }

    /// Admits nobody, until rules are added.
    pub fn nobody() -> Self {
        let (uids, gids, pids, executables) = Default::default();
        Self { same_user: false, uids, gids, pids, executables, function: None }
    }

    /// Admits this user, too.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uids.push(uid);
        self
    }

    /// Admits whoever is in this group, too: primary or supplementary.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gids.push(gid);
        self
    }

    /// Admits this process, too.
    pub fn pid(mut self, pid: u32) -> Self {
        self.pids.push(pid);
        self
    }

    /// Admits processes that run this program, too (an absolute path). Advisory only.
    pub fn executable(mut self, path: impl Into<PathBuf>) -> Self {
        self.executables.push(path.into());
        self
    }

    /// Asks this function about whoever no other rule admits. It runs on a thread of its own, one per connecting peer,
    /// and may take its time: only that peer waits.
    pub fn function(mut self, decide: impl Fn(&Peer) -> bool + Send + Sync + 'static) -> Self {
        self.function = Some(Arc::new(decide));
        self
    }

    /// What the rules say without the function. `None`: ask the function.
    pub(crate) fn by_rules(&self, peer: &Peer) -> Option<bool> {
        let admitted = self.same_user && peer.uid == rustix::process::geteuid().as_raw()
            || self.uids.contains(&peer.uid)
            || self.gids.contains(&peer.gid)
            || peer.groups.iter().any(|group| self.gids.contains(group))
            || peer.pid != 0 && self.pids.contains(&peer.pid)
            || self.runs_admitted_program(peer);
        if admitted { Some(true) } else { self.function.is_none().then_some(false) }
    }

    /// What the function says.
    pub(crate) fn by_function(&self, peer: &Peer) -> bool {
        self.function.as_ref().is_some_and(|decide| decide(peer))
    }

    fn runs_admitted_program(&self, peer: &Peer) -> bool {
        !self.executables.is_empty()
            && std::fs::read_link(format!("/proc/{}/exe", peer.pid)).is_ok_and(|path| self.executables.contains(&path))
    }
}

impl Default for Admission {
    fn default() -> Self {
        Self::same_user()
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission")
            .field("same_user", &self.same_user)
            .field("uids", &self.uids)
            .field("gids", &self.gids)
            .field("pids", &self.pids)
            .field("executables", &self.executables)
            .field("function", &self.function.is_some())
            .finish()
    }
}

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
    /// How long a peer may be silent in its handshake. Default 2 s.
    pub handshake_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshakes_per_user: 256,
            channels_per_user: 16_384,
            mapped_bytes_per_user: 16 << 30,
            handshake_time: Duration::from_secs(2),
        }
    }
}

/// What the peers of each user cost a node just now.
#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    accounts: Mutex<HashMap<u32, Cost>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Cost {
    handshakes: u32,
    channels: u32,
    bytes: u64,
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes one handshake on a user's account; `None` if that is over the limit.
    pub(crate) fn handshake(self: &Arc<Self>, uid: u32) -> Option<Charge> {
        self.charge(uid, Cost { handshakes: 1, ..Cost::default() })
    }

    /// Takes a channel with a ring of this many bytes on a user's account; `None` if that is over a limit.
    pub(crate) fn channel(self: &Arc<Self>, uid: u32, bytes: u64) -> Option<Charge> {
        self.charge(uid, Cost { channels: 1, bytes, ..Cost::default() })
    }

    fn charge(self: &Arc<Self>, uid: u32, cost: Cost) -> Option<Charge> {
        let mut accounts = self.accounts.lock().expect("no panic under this lock");
        let account = accounts.entry(uid).or_default();
        let after = Cost {
            handshakes: account.handshakes + cost.handshakes,
            channels: account.channels + cost.channels,
            bytes: account.bytes + cost.bytes,
        };
        let within = after.handshakes <= self.limits.handshakes_per_user
            && after.channels <= self.limits.channels_per_user
            && after.bytes <= self.limits.mapped_bytes_per_user;
        within.then(|| {
            *account = after;
            Charge { ledger: self.clone(), uid, cost, born: fork::Born::now() }
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if !self.born.is_here() {
            return; // the parent's
        }
        let mut accounts = self.ledger.accounts.lock().expect("no panic under this lock");
        let account = accounts.get_mut(&self.uid).expect("a charge has an account");
        account.handshakes -= self.cost.handshakes;
        account.channels -= self.cost.channels;
        account.bytes -= self.cost.bytes;
        if *account == Cost::default() {
            accounts.remove(&self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Incarnation;

    fn peer(uid: u32) -> Peer {
        let (node, groups) = ("n".into(), [7, 8].into());
        Peer { node, incarnation: Incarnation::from_bytes([0; 16]), pid: 5, uid, gid: 6, groups }
    }

    #[test]
    fn rules_are_alternatives() {
        let me = rustix::process::geteuid().as_raw();
        let other = peer(me + 1);
        assert_eq!(Admission::same_user().by_rules(&peer(me)), Some(true));
        assert_eq!(Admission::same_user().by_rules(&other), Some(false));
        assert_eq!(Admission::nobody().by_rules(&peer(me)), Some(false));
        assert_eq!(Admission::nobody().uid(me + 1).by_rules(&other), Some(true));
        assert_eq!(Admission::nobody().gid(6).by_rules(&other), Some(true));
        assert_eq!(Admission::nobody().gid(8).by_rules(&other), Some(true));
        assert_eq!(Admission::nobody().gid(9).by_rules(&other), Some(false));
        assert_eq!(Admission::nobody().pid(5).by_rules(&other), Some(true));
        // Of processes in a pid namespace that is not visible from here the kernel says 0.
        let invisible = Peer { pid: 0, ..peer(me + 1) };
        assert_eq!(Admission::nobody().pid(0).by_rules(&invisible), Some(false));
        let asked = Admission::nobody().function(|peer| &*peer.node == "n");
        assert_eq!(asked.by_rules(&other), None);
        assert!(asked.by_function(&other));
    }

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
        assert!(ledger.accounts.lock().unwrap().is_empty());
    }
}
