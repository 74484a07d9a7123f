//! Who may connect, and how much of it: decided by what the kernel knows of the peer.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::name::Peer;
use crate::sys::process;

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
        let admitted = self.same_user && peer.uid == process::uid()
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
        !self.executables.is_empty() && process::executable(peer.pid).is_ok_and(|path| self.executables.contains(&path))
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
        let me = process::uid();
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
}
