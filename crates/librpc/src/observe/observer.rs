//! Looking at the nodes of a domain from outside: each is asked through its rendezvous, all at the same time.
//!
//! Invariant: an observer has at most one connection to an incarnation of a node, also if that never answers: a connection
//! that nobody has accepted stays in the node's queue even when it is closed, so it is kept and not begun anew. A process
//! that is visibly stopped is not asked at all. Nothing here waits for one node longer than the limit, nor creates
//! anything; an observer that dies leaves nothing but what the kernel closes.

use crate::sys::clock::Instant;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::sys::file::{Errno, open_directory};

use crate::name::Incarnation;
use crate::registry::domain::{Domain, DomainError};
use crate::registry::node_file;
use crate::registry::{NodeInfo, list};
use crate::stats::NodeStats;
use crate::stats::page::{self, Item, Place};
use crate::sys::poll::Poll;
use crate::sys::socket::{Cut, Received, Sent, Socket};
use crate::sys::{Descriptor, OsError};
use crate::wire::Reason;
use crate::wire::{self, Answer, Observe, PROTOCOL, Page};

/// So many nodes are asked at the same time.
const AT_ONCE: usize = 200;
/// How long after a node that does not listen yet is asked again.
const JOINING: Duration = Duration::from_millis(1);
/// No node says more than this.
const MAX_PAGES: usize = 10_000;
const MAX_ITEMS: usize = 100_000;
/// No page is longer, in bytes.
const MAX_PAGE_BYTES: usize = 64 * 1024;

/// A node as it was found in the registry, and what it says about itself.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observed {
    /// What the registry says.
    pub node: NodeInfo,
    /// What the node says, or why it says nothing.
    pub stats: Result<NodeStats, Unobserved>,
}

/// Why a node says nothing about itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unobserved {
    /// It is dead, and nobody has swept it yet.
    #[error("it is dead, and not swept yet (`librpc clean`)")]
    Dead,
    /// It lives, but its process is stopped (SIGSTOP, a debugger): it was not asked.
    #[error("its process is stopped")]
    Stopped,
    /// It lives, but does not answer: it is stuck, frozen, or starved.
    #[error("it has not answered for {since:?}: is it frozen or stuck?")]
    Stalled {
        /// Since it was asked.
        since: Duration,
    },
    /// It does not admit this process, or does not know the question, for it runs an older version.
    #[error("it refuses ({reason:?}): {text}")]
    Refused {
        /// Why.
        reason: Reason,
        /// Why, in its words.
        text: String,
    },
    /// It cannot be asked, or what it says cannot be.
    #[error("{0}")]
    Failed(String),
}

/// Looks at the nodes of a domain, again and again. One process needs one, whatever the number of nodes.
#[derive(Debug)]
pub struct Observer {
    domain: Domain,
    poll: Option<Poll>,
    asked: HashMap<Incarnation, Asked>,
    tokens: u64,
}

/// A node that was asked and has not said everything yet.
#[derive(Debug)]
struct Asked {
    id: String,
    token: u64,
    socket: Socket,
    since: Instant,
    place: Option<Place>,
    stats: NodeStats,
    /// How many pages, and what they held, have come.
    pages: usize,
    items: usize,
}

type Answered = Result<NodeStats, Unobserved>;

/// Why a node was not asked.
enum NotAsked {
    Because(Unobserved),
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
    pub fn observe(&self, limit: Duration) -> Result<Vec<Observed>, DomainError> {
        Observer::new(self.clone()).look(limit)
    }
}

impl Observer {
    /// Observes a domain. Does nothing yet.
    pub fn new(domain: Domain) -> Self {
        Self { domain, poll: None, asked: HashMap::new(), tokens: 0 }
    }

    /// Asks every node of the domain about itself, all at the same time, and waits up to a limit for each that was not
    /// asked before: a node that is known to be stalled is waited for no more, but heard when it goes on.
    ///
    /// # Errors
    ///
    /// [`DomainError`] if there is a directory, but it cannot be read. No directory: an empty list.
    pub fn look(&mut self, limit: Duration) -> Result<Vec<Observed>, DomainError> {
        self.ask_for(None, limit)
    }

    /// The same, asking only for a sign of life: the lists of inboxes and channels stay empty.
    ///
    /// # Errors
    ///
    /// As [`Observer::look`].
    pub fn probe(&mut self, limit: Duration) -> Result<Vec<Observed>, DomainError> {
        self.ask_for(Some(Place::END), limit)
    }

    fn ask_for(&mut self, behind: Option<Place>, limit: Duration) -> Result<Vec<Observed>, DomainError> {
        let directory = match open_directory(self.domain.path()) {
            Ok(directory) => directory,
            Err(error) if error.is(Errno::NOENT) => {
                self.asked.clear();
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.into()),
        };
        let nodes = list(&directory)?;
        self.asked.retain(|incarnation, _| nodes.iter().any(|node| node.alive && node.incarnation == *incarnation));
        if self.poll.is_none() {
            self.poll = Some(Poll::new()?);
        }
        let mut answers = HashMap::new();
        self.ask_all(&directory, &nodes, (behind, limit), &mut answers)?;
        let observed = nodes.into_iter().filter_map(|node| {
            let stats = match answers.remove(&node.incarnation) {
                _ if !node.alive => Err(Unobserved::Dead),
                Some(Some(stats)) => stats,
                Some(None) => return None, // it has left
                None => Err(Unobserved::Stalled { since: self.since(&node) }),
            };
            Some(Observed { node, stats })
        });
        Ok(observed.collect())
    }

    fn since(&self, node: &NodeInfo) -> Duration {
        self.asked.get(&node.incarnation).map_or(Duration::ZERO, |asked| asked.since.elapsed())
    }

    /// Asks all that are not asked yet, and takes what comes, until nobody is left for whom there is time.
    fn ask_all(
        &mut self,
        directory: &Descriptor,
        nodes: &[NodeInfo],
        (behind, limit): (Option<Place>, Duration),
        answers: &mut HashMap<Incarnation, Option<Answered>>,
    ) -> Result<(), OsError> {
        let alive = nodes.iter().filter(|node| node.alive);
        let mut to_ask: VecDeque<&NodeInfo> =
            alive.filter(|node| !self.asked.contains_key(&node.incarnation)).collect();
        let (mut ready, mut joining, begun) = (Vec::new(), Vec::new(), Instant::now());
        loop {
            let in_time = |asked: &&Asked| asked.since.elapsed() < limit;
            while self.asked.values().filter(in_time).count() < AT_ONCE
                && let Some(node) = to_ask.pop_front()
            {
                match self.ask(directory, node, behind) {
                    Ok(()) => {}
                    Err(NotAsked::Because(why)) => drop(answers.insert(node.incarnation, Some(Err(why)))),
                    Err(NotAsked::NobodyListens) => match still_there(directory, node) {
                        // Perhaps it does not listen yet: it is on its way in.
                        Some(Err(Unobserved::Failed(_))) if begun.elapsed() < limit => joining.push(node),
                        gone => drop(answers.insert(node.incarnation, gone)),
                    },
                    // It says nothing about the node. The node is asked when another one has answered.
                    Err(NotAsked::OutOfDescriptors(_)) if self.asked.values().any(|asked| in_time(&asked)) => {
                        to_ask.push_front(node);
                        break;
                    }
                    Err(NotAsked::OutOfDescriptors(error)) => return Err(error),
                }
            }
            let mut last = self.asked.values().filter(in_time).map(|asked| asked.since + limit).max();
            if !joining.is_empty() {
                to_ask.extend(joining.drain(..));
                last = Some(Instant::now() + JOINING);
            }
            // What has come from those for whom there is no time any more is taken, but not waited for.
            self.poll.as_ref().expect("it was made above").wait(Some(last.unwrap_or_else(Instant::now)), &mut ready)?;
            if ready.is_empty() && last.is_none() && to_ask.is_empty() {
                return Ok(());
            }
            for event in &ready {
                let found = self.asked.iter().find(|(_, asked)| asked.token == event.token);
                let Some(incarnation) = found.map(|(incarnation, _)| *incarnation) else { continue };
                let step = self.asked.get_mut(&incarnation).expect("it was found just now").step(incarnation);
                let Some(answer) = step else { continue };
                self.asked.remove(&incarnation); // which closes its socket, and so takes it out of the set
                let node = nodes.iter().find(|node| node.incarnation == incarnation).expect("only those are asked");
                let answer = match answer {
                    Ok(answer) => Some(answer),
                    Err(HungUp) => still_there(directory, node),
                };
                answers.insert(incarnation, answer);
            }
        }
    }

    /// Asks a node.
    fn ask(&mut self, directory: &Descriptor, node: &NodeInfo, behind: Option<Place>) -> Result<(), NotAsked> {
        if is_stopped(node) {
            return Err(NotAsked::Because(Unobserved::Stopped));
        }
        let failed = |error: OsError| NotAsked::Because(Unobserved::Failed(error.to_string()));
        let socket = match Socket::connect(&node_file::socket_path(directory, &node.id)) {
            Ok(socket) => socket,
            Err(error) if error.is(Errno::AGAIN) => {
                return Err(NotAsked::Because(Unobserved::Stalled { since: Duration::ZERO })); // nobody empties its queue
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
            let text = format!("its socket is uid {owner}'s, its file uid {}'s", node.uid);
            return Err(NotAsked::Because(Unobserved::Failed(text)));
        }
        match socket.send(&question(node.incarnation, behind), None) {
            Ok(Sent::Done) => {}
            Ok(_) => return Err(NotAsked::NobodyListens),
            Err(error) => return Err(failed(error)),
        }
        self.tokens += 1;
        self.poll.as_ref().expect("it was made before").add(&socket, self.tokens).map_err(failed)?;
        let stats = NodeStats {
            node: node.id.as_str().into(),
            incarnation: node.incarnation,
            version: String::new(),
            namespaces: Vec::new(),
            inboxes: Vec::new(),
            outgoing: Vec::new(),
        };
        let (id, since) = (node.id.clone(), Instant::now());
        self.asked.insert(
            node.incarnation,
            Asked { id, token: self.tokens, socket, since, place: None, stats, pages: 0, items: 0 },
        );
        Ok(())
    }
}

fn question(target: Incarnation, behind: Option<Place>) -> Vec<u8> {
    let behind = behind.map(Into::into);
    wire::encode(&Observe { lowest: PROTOCOL, highest: PROTOCOL, target: *target.bytes(), behind })
}

/// Nobody answers: the node has left (`None`), or is another one now.
fn still_there(directory: &Descriptor, node: &NodeInfo) -> Option<Answered> {
    match node_file::read(directory, &node.id) {
        Ok(Some(file)) if file.alive && file.incarnation == node.incarnation => {
            Some(Err(Unobserved::Failed("it has closed the connection".into())))
        }
        Ok(Some(file)) if file.incarnation == node.incarnation => Some(Err(Unobserved::Dead)),
        Ok(_) => None,
        Err(error) => Some(Err(Unobserved::Failed(error.to_string()))),
    }
}

/// Whether a node's process is visibly stopped. Its pid is what the process says: a lie harms only itself.
fn is_stopped(node: &NodeInfo) -> bool {
    use std::os::unix::fs::MetadataExt;
    let process = std::path::PathBuf::from(format!("/proc/{}", node.pid));
    let is_owners = std::fs::metadata(&process).is_ok_and(|found| found.uid() == node.uid);
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    is_owners && stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['T', 't']))
}

struct HungUp;

impl Asked {
    /// Takes the next message; `None`: there is more to come.
    fn step(&mut self, incarnation: Incarnation) -> Option<Result<Answered, HungUp>> {
        let mut message = vec![0; MAX_PAGE_BYTES];
        let answer = match self.socket.receive(&mut message) {
            Ok(Received::Nothing) => return None,
            Ok(Received::HungUp) => return Some(Err(HungUp)),
            Ok(Received::Message { bytes, cut: Cut::Nothing, descriptors }) if descriptors.is_empty() => {
                wire::decode::<Answer>(&message[..bytes])
            }
            Ok(Received::Message { descriptors, .. }) => {
                crate::sys::memory::dispose(descriptors, ());
                return Some(Ok(Err(Unobserved::Failed("its answer is none".into()))));
            }
            Err(error) => return Some(Ok(Err(Unobserved::Failed(error.to_string())))),
        };
        match answer {
            Ok(Answer::Page(page)) => self.page(incarnation, page).map_err(Unobserved::Failed).transpose().map(Ok),
            Ok(Answer::Refusal(refusal)) => match Reason::from_number(refusal.reason) {
                Reason::Restarted | Reason::NoInbox => Some(Err(HungUp)),
                reason => {
                    let text = refusal.text.chars().filter(|c| !c.is_control()).take(200).collect();
                    Some(Ok(Err(Unobserved::Refused { reason, text })))
                }
            },
            Ok(_) => Some(Ok(Err(Unobserved::Failed("its answer is to another question".into())))),
            Err(error) => Some(Ok(Err(Unobserved::Failed(error.to_string())))),
        }
    }

    /// Adds a page, and asks for the next one; `None`: that is to come.
    fn page(&mut self, incarnation: Incarnation, page: Page) -> Result<Option<NodeStats>, String> {
        let Page { version, namespaces, items, next } = page;
        self.stats.version = version.chars().filter(|c| !c.is_control()).take(40).collect();
        self.pages += 1;
        self.items += items.len();
        if self.pages > MAX_PAGES || self.items > MAX_ITEMS {
            return Err(format!("its statistics do not end after {} pages with {} items", self.pages, self.items));
        }
        if self.pages == 1 {
            self.stats.namespaces = namespaces;
        }
        for item in items {
            page::add(&mut self.stats, Item::try_from(item).map_err(|bad| bad.to_string())?);
        }
        let Some(next) = next.map(Place::from) else {
            let stats = NodeStats { node: self.id.as_str().into(), ..self.stats.clone() };
            return Ok(Some(stats));
        };
        if self.place.is_some_and(|place| next <= place) {
            return Err("its statistics never end".into());
        }
        self.place = Some(next);
        match self.socket.send(&question(incarnation, Some(next)), None) {
            Ok(Sent::Done) => Ok(None),
            Ok(_) => Err("it has closed the connection".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ListedPlace;

    #[test]
    fn a_node_that_never_ends_is_heard_no_more() {
        let incarnation = Incarnation::from_bytes([1; 16]);
        let stats = NodeStats {
            node: "endless".into(),
            incarnation,
            version: String::new(),
            namespaces: Vec::new(),
            inboxes: Vec::new(),
            outgoing: Vec::new(),
        };
        let socket = Socket::spare().expect("a descriptor");
        let (id, since) = ("endless".to_owned(), Instant::now());
        let mut asked = Asked { id, token: 1, socket, since, place: None, stats, pages: 0, items: 0 };
        let mut why = String::new();
        for serial in 1..=MAX_PAGES as u64 + 1 {
            let next = Some(ListedPlace { part: 0, inbox: 0, serial, begun: true });
            let namespaces = vec![("pid".into(), serial)];
            // Nobody is at the socket's other end, so each next question fails.
            why = asked.page(incarnation, Page { namespaces, next, ..Page::default() }).expect_err("it does not end");
        }
        assert_eq!(why, format!("its statistics do not end after {} pages with 0 items", MAX_PAGES + 1));
        assert_eq!(asked.stats.namespaces.len(), 1, "those of the first page");
    }
}
