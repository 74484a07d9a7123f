//! Asking the nodes of a domain about themselves, each through its rendezvous, all at the same time.
//!
//! Invariant: an observer has at most one connection to a node that has not answered. A connection that was not
//! accepted stays in the node's queue even when it is closed, so the observer keeps it and makes no second one. A
//! process that the kernel shows as stopped is not asked. An answer is kept for one look only. Nothing here waits for
//! one node longer than the limit, and nothing is created: the kernel closes everything that a dead observer leaves.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::observe::asked::{Asked, Identity, Said};
use crate::registry::domain::{Domain, DomainError};
use crate::registry::node_file;
use crate::registry::{NodeInfo, list};
use crate::stats::NodeStats;
use crate::stats::page::Cursor;
use crate::sys::clock::Instant;
use crate::sys::file::{self, Errno, open_directory};
use crate::sys::lock::Holders;
use crate::sys::poll::Poll;
use crate::sys::socket::Socket;
use crate::sys::{Descriptor, OsError, fork, process};
use crate::text::counted;
use crate::wire::Reason;

/// This many nodes are asked at the same time.
const AT_ONCE: usize = 200;
/// How soon a node that does not listen yet is asked again.
const JOINING: Duration = Duration::from_millis(1);
/// The most memory, in bytes, for the answers of all nodes of one user in one look, and for those of all nodes
/// together.
const MAX_BYTES_OF_USER: usize = 128 << 20;
const MAX_BYTES: usize = 512 << 20;

/// A node as it was found in the registry, and what it says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observed {
    /// What the registry says.
    pub node: NodeInfo,
    /// The node's answer, or why it has not answered.
    pub stats: Result<NodeStats, ObserveError>,
}

/// Why a node did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// It is dead, and was not swept yet.
    #[error("it is dead, and its files are still there (`librpc clean` removes them)")]
    Dead,
    /// It lives, but its process is stopped (SIGSTOP, a debugger): it was not asked.
    #[error("its process is stopped")]
    Stopped,
    /// It lives, but does not answer: it is stuck, frozen, or starved.
    #[error("it has not answered for {since:?}: is it frozen or stuck?")]
    Stalled {
        /// How long ago it was asked.
        since: Duration,
    },
    /// It does not admit this process, or does not know the question because it runs an older version.
    #[error("it refuses ({reason:?}): {text}")]
    Refused {
        /// Why.
        reason: Reason,
        /// Why, in its words.
        text: String,
    },
    /// It could not be asked, or its answer is not valid.
    #[error("{0}")]
    Failed(String),
}

/// Observes the nodes of a domain, again and again. One observer is enough for any number of nodes.
///
/// In a forked child it starts over, because the connections belong to the parent.
pub struct Observer {
    domain: Domain,
    poll: Option<Arc<Poll>>,
    /// The nodes that have not answered.
    asked: BTreeMap<Identity, Asked>,
    tokens: u64,
    born: fork::Born,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.domain.path()).finish()
    }
}

/// Why a node was not asked.
enum NotAsked {
    Because(ObserveError),
    NobodyListens,
    /// This process, or the machine, has no descriptor left.
    OutOfDescriptors(OsError),
}

impl Domain {
    /// Asks every node of the domain about itself, all at the same time, and waits up to a limit for each. Joins nothing
    /// and makes nothing; no directory: an empty list. To look again and again, use an [`Observer`].
    ///
    /// ```
    /// # let domain = librpc::Domain::at(format!("/dev/shm/librpc_doc_observe_{}", std::process::id()));
    /// let node = librpc::Node::builder("display").domain(domain.clone()).open()?;
    /// let inbox = node.inbox()?;
    /// let seen = domain.observe(std::time::Duration::from_secs(1))?;
    /// let stats = seen[0].stats.as_ref().expect("it lives and admits us");
    /// assert_eq!((&*seen[0].node.id, stats.inboxes.len()), ("display", 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DomainError`] if there is a directory, but it cannot be read.
    pub fn observe(&self, timeout: Duration) -> Result<Vec<Observed>, DomainError> {
        Observer::new(self.clone()).look(timeout)
    }
}

impl Observer {
    /// Observes a domain. Does nothing yet.
    pub fn new(domain: Domain) -> Self {
        Self { domain, poll: None, asked: BTreeMap::new(), tokens: 0, born: fork::Born::now() }
    }

    /// Asks every node of the domain about itself, all at the same time, and waits up to a limit for each that was not
    /// asked before. It does not wait again for a node that is known to be stalled, but takes its answer when the node
    /// continues. If a node began to answer within the limit but did not finish, that is an error, and the next look
    /// asks it again.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if there is a directory, but it cannot be read. No directory: an empty list.
    pub fn look(&mut self, timeout: Duration) -> Result<Vec<Observed>, DomainError> {
        self.ask_for(None, timeout)
    }

    /// The same, asking only for a sign of life: the lists of inboxes and channels stay empty.
    ///
    /// # Errors
    ///
    /// As [`Observer::look`].
    pub fn probe(&mut self, timeout: Duration) -> Result<Vec<Observed>, DomainError> {
        self.ask_for(Some(Cursor::END), timeout)
    }

    fn ask_for(&mut self, after: Option<Cursor>, limit: Duration) -> Result<Vec<Observed>, DomainError> {
        if !self.born.is_here() {
            *self = Self::new(self.domain.clone());
        }
        let directory = match open_directory(self.domain.path()) {
            Ok(directory) => directory,
            Err(error) if error.is(Errno::NOENT) => {
                self.asked.clear();
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let nodes = list(&directory)?;
        let alive: Vec<_> = nodes.iter().filter(|node| node.alive).map(|node| (Identity::of(node), node)).collect();
        self.asked.retain(|asked, _| alive.iter().any(|(identity, _)| identity == asked));
        let mut look = Look { directory: &directory, after, limit, answers: BTreeMap::new(), bytes: BTreeMap::new() };
        self.ask_all(&mut look, alive)?;
        let mut answers = look.answers;
        let is_silent = |node: &NodeInfo| node.alive && !answers.contains_key(&Identity::of(node));
        // One that has not answered may have been stopped since it was asked.
        let holders = if nodes.iter().any(is_silent) { Holders::now() } else { Holders::default() };
        let observed = nodes.into_iter().filter_map(|node| {
            let identity = Identity::of(&node);
            let stats = match answers.remove(&identity) {
                _ if !node.alive => Err(ObserveError::Dead),
                Some(Some(stats)) => stats,
                Some(None) => return None, // the node has left
                None if is_stopped(&directory, &holders, &node) => Err(ObserveError::Stopped),
                None => Err(self.silent(&identity, limit)),
            };
            Some(Observed { node, stats })
        });
        Ok(observed.collect())
    }

    /// The result for a node that has not finished its answer. The next look does not wait for the rest of an answer:
    /// the node has accepted the connection, so nothing stays in its queue.
    fn silent(&mut self, identity: &Identity, limit: Duration) -> ObserveError {
        let Some(asked) = self.asked.get(identity) else { return ObserveError::Stalled { since: Duration::ZERO } };
        match asked.pages() {
            0 => ObserveError::Stalled { since: asked.since.elapsed() },
            pages => {
                self.asked.remove(identity);
                ObserveError::Failed(format!(
                    "its answer has not ended within {limit:?}, after {}",
                    counted(pages, "page", "pages")
                ))
            }
        }
    }

    /// Asks all nodes that are not asked yet, and takes answers until the time of all remaining nodes is up.
    fn ask_all(&mut self, look: &mut Look<'_>, alive: Vec<(Identity, &NodeInfo)>) -> Result<(), OsError> {
        let mut to_ask: VecDeque<_> =
            alive.iter().filter(|(identity, _)| !self.asked.contains_key(identity)).cloned().collect();
        if self.poll.is_none() {
            self.poll = Some(Arc::new(Poll::new()?));
        }
        let holders = if to_ask.is_empty() { Holders::default() } else { Holders::now() };
        let (mut ready, mut joining, begun) = (Vec::new(), Vec::new(), Instant::now());
        loop {
            while self.asked.values().filter(|asked| look.has_time(asked.since)).count() < AT_ONCE
                && let Some((identity, node)) = to_ask.pop_front()
            {
                match self.ask(look, &holders, &identity, node) {
                    Ok(()) => {}
                    Err(NotAsked::Because(why)) => drop(look.answers.insert(identity, Some(Err(why)))),
                    // This says nothing about the node, which is asked once another one has answered.
                    Err(NotAsked::OutOfDescriptors(_))
                        if self.asked.values().any(|asked| look.has_time(asked.since)) =>
                    {
                        to_ask.push_front((identity, node));
                        break;
                    }
                    Err(NotAsked::OutOfDescriptors(error)) => return Err(error),
                    Err(NotAsked::NobodyListens) => match still_there(look.directory, node) {
                        // It may still be joining, and not listen yet.
                        Some(Err(ObserveError::Failed(_))) if look.has_time(begun) => joining.push((identity, node)),
                        gone => drop(look.answers.insert(identity, gone)),
                    },
                }
            }
            // Nodes whose time is up: their messages so far are taken, but there is no further wait.
            let in_time: Vec<Instant> =
                self.asked.values().map(|asked| asked.since).filter(|&since| look.has_time(since)).collect();
            let (is_over, mut until) = (in_time.is_empty() && joining.is_empty(), look.end(in_time));
            if !joining.is_empty() {
                to_ask.extend(joining.drain(..));
                until = Some(Instant::now() + JOINING);
            }
            self.poll.as_ref().expect("it was made above").wait(until, &mut ready)?;
            if ready.is_empty() && is_over && to_ask.is_empty() {
                return Ok(());
            }
            for event in &ready {
                self.hear(look, event.token, &alive);
            }
        }
    }

    /// Takes a node's message.
    fn hear(&mut self, look: &mut Look<'_>, token: u64, alive: &[(Identity, &NodeInfo)]) {
        let Some((identity, asked)) = self.asked.iter_mut().find(|(_, asked)| asked.token == token) else { return };
        let (identity, said, uid) = (identity.clone(), asked.step(), asked.uid);
        let is_too_much = self.is_too_much(look, uid);
        if matches!(said, Said::Some) && !is_too_much {
            return;
        }
        let Some(asked) = self.asked.remove(&identity) else { return };
        let answer = match said {
            Said::Nothing(why) => Some(Err(why)),
            Said::HungUp => {
                let (_, node) = alive.iter().find(|(known, _)| *known == identity).expect("only those are asked");
                still_there(look.directory, node)
            }
            Said::Some | Said::All if is_too_much => {
                Some(Err(ObserveError::Failed("it and others say more than one look keeps".into())))
            }
            Said::Some | Said::All => {
                *look.bytes.entry(uid).or_default() += asked.bytes;
                Some(Ok(asked.into_stats()))
            }
        };
        look.answers.insert(identity, answer);
    }

    /// Whether the answers of a user's nodes, or of all nodes, are too large.
    fn is_too_much(&self, look: &Look<'_>, uid: u32) -> bool {
        let sum = |counts: &dyn Fn(u32) -> bool| {
            let said = look.bytes.iter().filter(|&(&uid, _)| counts(uid)).map(|(_, bytes)| bytes).sum::<usize>();
            said + self.asked.values().filter(|asked| counts(asked.uid)).map(|asked| asked.bytes).sum::<usize>()
        };
        sum(&|other| other == uid) > MAX_BYTES_OF_USER || sum(&|_| true) > MAX_BYTES
    }

    /// Asks a node.
    fn ask(
        &mut self,
        look: &Look<'_>,
        holders: &Holders,
        identity: &Identity,
        node: &NodeInfo,
    ) -> Result<(), NotAsked> {
        let failed = |error: OsError| NotAsked::Because(ObserveError::Failed(error.to_string()));
        if is_stopped(look.directory, holders, node) {
            return Err(NotAsked::Because(ObserveError::Stopped));
        }
        let path = node_file::socket_path(look.directory, &node.id);
        let socket = match path.and_then(|path| Socket::connect(&path)) {
            Ok(socket) => socket,
            Err(error) if error.is(Errno::AGAIN) => {
                return Err(NotAsked::Because(ObserveError::Stalled { since: Duration::ZERO })); // its queue is full
            }
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::CONNREFUSED) => {
                return Err(NotAsked::NobodyListens);
            }
            Err(error) if error.is(Errno::MFILE) || error.is(Errno::NFILE) => {
                return Err(NotAsked::OutOfDescriptors(error));
            }
            Err(error) => return Err(failed(error)),
        };
        let owner = socket.credentials().map_err(failed)?.uid;
        if owner != node.uid {
            let text = format!("its socket belongs to uid {owner}, its file to uid {}", node.uid);
            return Err(NotAsked::Because(ObserveError::Failed(text)));
        }
        self.tokens += 1;
        let poll = self.poll.clone().expect("it was made before");
        let asked = Asked::new(node, look.after, (self.tokens, poll), socket).map_err(NotAsked::Because)?;
        let asked = asked.ok_or(NotAsked::NobodyListens)?;
        self.asked.insert(identity.clone(), asked);
        Ok(())
    }
}

/// One look at a domain.
struct Look<'d> {
    directory: &'d Descriptor,
    after: Option<Cursor>,
    limit: Duration,
    /// The results so far; `None`: the node has left.
    answers: BTreeMap<Identity, Option<Result<NodeStats, ObserveError>>>,
    /// How much memory the answers of each user take.
    bytes: BTreeMap<u32, usize>,
}

impl Look<'_> {
    /// Whether the observer still waits for a node that was asked then.
    fn has_time(&self, since: Instant) -> bool {
        since.elapsed() < self.limit
    }

    /// When the wait for nodes that were asked then ends; `None`: never, because the limit is too far away for the
    /// clock.
    fn end(&self, since: Vec<Instant>) -> Option<Instant> {
        since.into_iter().max().map_or_else(|| Some(Instant::now()), |last| last.checked_add(self.limit))
    }
}

/// No answer will come: the node has left (`None`), or is another one now.
fn still_there(directory: &Descriptor, node: &NodeInfo) -> Option<Result<NodeStats, ObserveError>> {
    match node_file::read(directory, &node.id) {
        Ok(Some(file)) if file.incarnation != node.incarnation || file.uid != node.uid => None,
        Ok(Some(file)) if file.alive => Some(Err(ObserveError::Failed("it has closed the connection".into()))),
        Ok(Some(_)) => Some(Err(ObserveError::Dead)),
        Ok(None) => None,
        Err(error) => Some(Err(ObserveError::Failed(error.to_string()))),
    }
}

/// Whether a node's process is stopped, as far as the kernel shows it: the process is the one that holds the lock of the
/// node's file, whatever number the file says.
fn is_stopped(directory: &Descriptor, holders: &Holders, node: &NodeInfo) -> bool {
    let file = file::stat_at(directory, &node_file::node_file(&node.id));
    file.ok().and_then(|file| holders.of(file.identity)).is_some_and(|pid| process::is_stopped(pid, node.uid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_nodes_say_together_is_bounded_for_each_user_and_in_all() {
        let (observer, directory) = (Observer::new(Domain::at("/x")), open_directory("/".as_ref()).unwrap());
        let look = |said: &[(u32, usize)]| Look {
            directory: &directory,
            after: None,
            limit: Duration::ZERO,
            answers: BTreeMap::new(),
            bytes: said.iter().copied().collect(),
        };
        assert!(!observer.is_too_much(&look(&[(1, MAX_BYTES_OF_USER), (2, 1)]), 1));
        let much = look(&[(1, MAX_BYTES_OF_USER + 1), (2, 1)]);
        assert!(observer.is_too_much(&much, 1) && !observer.is_too_much(&much, 2), "the others go on");
        let all = [1, 2, 3, 4].map(|uid| (uid, MAX_BYTES / 4));
        assert!(!observer.is_too_much(&look(&all), 5));
        assert!(observer.is_too_much(&look(&[&all[..], &[(5, 1)]].concat()), 5));
    }
}
