//! What the programs of a run share: the ledger, and what they know of each other without being told.
//!
//! It is no part of the simulated machine: writing in the ledger takes no step.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use librpc::{Account, Domain, Event, Inbox, InboxError, Message, Node, Outbox, Receipt, SendError, Topic};

use super::ledger::{Accepted, Got, Id, Ledger, Life, Sent, To};
use crate::kernel::Pid;
use crate::schedule::{self, Program};

/// How long nothing must have come until nothing more will.
const QUIET: Duration = Duration::from_secs(60);
/// How often something is tried that may fail for a reason that passes.
const TRIES: u32 = 400;

/// Shared by all programs of a run.
#[derive(Clone)]
pub struct Scene(Rc<Inner>);

struct Inner {
    domain: Domain,
    ledger: RefCell<Ledger>,
    /// While one of these is there, messages may come.
    senders: RefCell<Vec<Pid>>,
}

impl Scene {
    pub fn new(domain: Domain) -> Self {
        Self(Rc::new(Inner { domain, ledger: RefCell::default(), senders: RefCell::default() }))
    }

    pub fn ledger<R>(&self, with: impl FnOnce(&mut Ledger) -> R) -> R {
        with(&mut self.0.ledger.borrow_mut())
    }

    /// The domain of the run.
    pub fn domain(&self) -> Domain {
        self.0.domain.clone()
    }

    /// Something is wrong.
    pub fn wrong(&self, what: String) {
        schedule::say(|| format!("WRONG: {what}"));
        self.ledger(|ledger| ledger.wrong.push(what));
    }

    /// Starts a program that sends.
    pub fn start_sender(&self, program: Program) -> Pid {
        let pid = schedule::start(program);
        self.0.senders.borrow_mut().push(pid);
        pid
    }

    /// Notes that a process sends.
    pub fn is_sender(&self, pid: Pid) {
        self.0.senders.borrow_mut().push(pid);
    }

    /// Whether no sender runs any more.
    pub fn is_over(&self) -> bool {
        self.0.senders.borrow().iter().all(|&pid| schedule::end_of(pid).is_some())
    }

    /// Opens a node. What is in the way passes: others of the same id, a call that fails.
    pub fn open(&self, id: &str, domain: Domain) -> Node {
        self.retry(&format!("open node {id:?}"), || Node::builder(id).domain(domain.clone()).open())
    }

    /// Tries something until it works.
    pub fn retry<T, E: std::fmt::Display>(&self, what: &str, mut work: impl FnMut() -> Result<T, E>) -> T {
        let mut last = String::new();
        for _ in 0..TRIES {
            match work() {
                Ok(done) => return done,
                Err(error) => {
                    schedule::say(|| format!("cannot {what}: {error}"));
                    last = error.to_string();
                }
            }
            schedule::sleep_until(schedule::clock_ns() + 50_000_000);
        }
        schedule::fail(format!("cannot {what}, {TRIES} times in {} s: {last}", TRIES / 20));
    }

    /// Notes that an inbox is about to be opened, and that it is open.
    pub fn opening<E>(
        &self,
        node: &str,
        hears: To,
        open: impl FnOnce() -> Result<Inbox, E>,
    ) -> Result<(Inbox, usize), E> {
        let life = Life { node: node.to_owned(), hears, opened: None, closed: None, is_drained: false, lossy: false };
        let at = self.ledger(|ledger| {
            ledger.lives.push(life);
            ledger.lives.len() - 1
        });
        schedule::say(|| format!("inbox {at} of {node:?} is being opened"));
        let inbox = open().inspect_err(|_| self.closing(at))?;
        schedule::say(|| format!("inbox {at} is open"));
        let step = schedule::steps();
        self.ledger(|ledger| ledger.lives[at].opened = Some(step));
        Ok((inbox, at))
    }

    /// Errors are about nodes that had an inbox.
    fn know<'n>(&self, nodes: impl Iterator<Item = &'n String>) {
        for node in nodes {
            if !self.ledger(|ledger| ledger.lives.iter().any(|life| life.node == *node)) {
                self.wrong(format!("an error is about node {node:?}, which never had an inbox"));
            }
        }
    }

    /// Notes that an inbox is about to end. To be called before whatever ends it.
    pub fn closing(&self, life: usize) {
        schedule::say(|| format!("inbox {life} is being closed"));
        let step = schedule::steps();
        self.ledger(|ledger| {
            ledger.lives[life].closed.get_or_insert(step);
        });
    }

    /// Opens an inbox of a node and notes it.
    pub fn inbox(&self, node: &Node) -> (Inbox, usize) {
        self.retry("open an inbox", || self.try_inbox(node))
    }

    /// The same, if it works at once.
    pub fn try_inbox(&self, node: &Node) -> Result<(Inbox, usize), InboxError> {
        let open = || node.inbox_builder().capacity(CAPACITY).open();
        self.opening(node.id(), To::Node(node.id().to_owned()), open)
    }

    /// Subscribes to a topic and notes it.
    pub fn subscribe(&self, node: &Node, topic: &str) -> (Inbox, usize) {
        self.subscribe_to(node, &[topic], &To::Topic(topic.to_owned()))
    }

    /// The same for every topic.
    pub fn subscribe_to_all(&self, node: &Node) -> (Inbox, usize) {
        self.subscribe_to(node, &["**"], &To::AllTopics)
    }

    fn subscribe_to(&self, node: &Node, patterns: &[&str], hears: &To) -> (Inbox, usize) {
        let open = || node.subscriber_builder(patterns).capacity(CAPACITY).open();
        self.retry("subscribe", || self.opening(node.id(), hears.clone(), open))
    }

    /// Notes a message that came.
    pub fn got(&self, life: usize, message: &Message<'_>) -> Option<Id> {
        self.got_payload(life, message.payload(), message.is_redelivered())
    }

    /// The same for a payload.
    pub fn got_payload(&self, life: usize, payload: &[u8], redelivered: bool) -> Option<Id> {
        match Id::of(payload) {
            Ok(id) => {
                let ns = schedule::clock_ns();
                schedule::say(|| format!("inbox {life} got {id:?}{}", if redelivered { " again" } else { "" }));
                if self.ledger(|ledger| ledger.acknowledged.contains(&id)) {
                    self.wrong(format!("inbox {life} got {id:?} again, which had been acknowledged"));
                }
                self.ledger(|ledger| ledger.got.push(Got { message: id, life, redelivered, ns }));
                Some(id)
            }
            Err(what) => {
                self.wrong(format!("inbox {life} got {what}"));
                None
            }
        }
    }

    /// Notes that a message counts as processed.
    pub fn processed(&self, id: Id) {
        schedule::say(|| format!("{id:?} is processed"));
        self.ledger(|ledger| ledger.processed.insert(id));
    }

    /// Notes that a message was acknowledged: it never comes again.
    pub fn acknowledged(&self, id: Id) {
        self.ledger(|ledger| ledger.acknowledged.insert(id));
    }

    /// Notes that an accepted message came back to its sender.
    pub fn returned(&self, payload: &[u8]) {
        match Id::of(payload) {
            Ok(id) => {
                if self.ledger(|ledger| ledger.acknowledged.contains(&id)) {
                    self.wrong(format!("{id:?} came back, although it had been acknowledged"));
                }
                schedule::say(|| format!("{id:?} came back"));
                self.ledger(|ledger| ledger.returned.insert(id));
            }
            Err(what) => self.wrong(format!("what came back is {what}")),
        }
    }

    /// Notes that an inbox was there until nobody sent any more, and has heard everything.
    pub fn drained(&self, life: usize) {
        self.ledger(|ledger| ledger.lives[life].is_drained = true);
    }

    /// Receives until nobody sends any more.
    pub fn receive_to_the_end(&self, inbox: &mut Inbox, life: usize) {
        let mut errors = 0;
        loop {
            match inbox.recv_event_timeout(QUIET) {
                Ok(Some(Event::Message(message))) => drop(self.got(life, &message)),
                Ok(Some(_)) => {}
                Ok(None) if self.is_over() => return self.drained(life),
                Ok(None) => {}
                Err(error) => {
                    errors += 1;
                    if errors > TRIES {
                        return self.wrong(format!("inbox {life} cannot receive: {error}"));
                    }
                    schedule::sleep_until(schedule::clock_ns() + 10_000_000);
                }
            }
        }
    }

    /// A new sending program's names for its messages.
    pub fn outgoing(&self) -> Outgoing {
        Outgoing { scene: self.clone(), outbox: self.ledger(Ledger::outbox), next: 0, accepted: 0 }
    }
}

/// The smallest ring: it is full soon.
pub const CAPACITY: u64 = 4096;

/// Names the messages of one outbox, and notes what becomes of them.
pub struct Outgoing {
    scene: Scene,
    outbox: u32,
    next: u32,
    /// How often an inbox was said to have a message.
    accepted: u64,
}

impl Outgoing {
    /// Notes a message that is about to be sent.
    pub fn begin(&mut self, to: To) -> Id {
        let id = Id { outbox: self.outbox, number: self.next };
        self.next += 1;
        schedule::say(|| format!("{id:?} goes to {to:?}"));
        let sent = Sent { to, begun: schedule::steps(), accepted: None };
        self.scene.ledger(|ledger| ledger.sent.insert(id, sent));
        id
    }

    /// Notes that a message was accepted.
    pub fn accepted(&mut self, id: Id, inboxes: usize, pending: usize, without: Vec<String>) {
        let ns = schedule::clock_ns();
        self.accepted += (inboxes + pending) as u64;
        schedule::say(|| format!("{id:?} was accepted: {inboxes} inboxes, {pending} pending, without {without:?}"));
        self.scene.ledger(|ledger| {
            ledger.sent.get_mut(&id).expect("it was noted").accepted = Some(Accepted { inboxes, pending, without, ns });
        });
    }

    /// What the outbox says became of the messages must be what its calls have said.
    pub fn judge(&self, account: Account) {
        let Account { sent, accepted, processed, queued, dropped, returned, .. } = account;
        if sent != processed + queued + dropped + returned {
            self.scene.wrong(format!("an account does not add up: {account:?}"));
        }
        if accepted != self.accepted {
            let own = self.accepted;
            self.scene
                .wrong(format!("an account counts {accepted} accepted messages, its calls said {own}: {account:?}"));
        }
    }

    /// Sends a message to a node, and notes it.
    pub fn send(
        &mut self,
        to: &str,
        bytes: usize,
        send: impl FnOnce(&[u8]) -> Result<(), SendError>,
    ) -> Result<Id, SendError> {
        let id = self.begin(To::Node(to.to_owned()));
        match send(&id.payload(bytes)) {
            Ok(()) => {
                self.accepted(id, 1, 0, Vec::new());
                Ok(id)
            }
            Err(error) => {
                schedule::say(|| format!("{id:?} was not sent: {error}"));
                Err(error)
            }
        }
    }

    /// Publishes a message on a topic, and notes it. `None`: the call has failed.
    pub fn publish(
        &mut self,
        outbox: &mut Outbox,
        topic: (Topic, &str),
        bytes: usize,
        limit: Duration,
    ) -> Option<(Id, usize)> {
        let id = self.begin(To::Topic(topic.1.to_owned()));
        self.published(id, outbox.publish_timeout(topic.0, &id.payload(bytes), limit))
    }

    /// Notes what a publish has returned. `None`: it has failed.
    pub fn published<E: std::fmt::Display>(&mut self, id: Id, result: Result<Receipt<'_>, E>) -> Option<(Id, usize)> {
        match result {
            Ok(receipt) => {
                // An inbox of another type is owed nothing.
                let is_owed = |error: &&SendError| !matches!(error, SendError::Mismatch(_));
                let undelivered: Vec<_> = receipt.undelivered().iter().filter(is_owed).collect();
                undelivered.iter().for_each(|error| schedule::say(|| format!("{id:?}: {error}")));
                let without: Vec<_> = undelivered.iter().map(|error| node_of(error)).collect();
                self.scene.know(without.iter().flatten());
                let without = without.into_iter().map(Option::unwrap_or_default).collect();
                let (inboxes, pending) = (receipt.inboxes(), receipt.pending());
                self.accepted(id, inboxes, pending, without);
                Some((id, inboxes))
            }
            Err(error) => {
                schedule::say(|| format!("{id:?} was not published: {error}"));
                None
            }
        }
    }
}

/// Which node an error is about; `None`: it does not say.
fn node_of(error: &SendError) -> Option<String> {
    Some(match error {
        SendError::Full { node, .. }
        | SendError::Unanswered { node, .. }
        | SendError::Dropped { node }
        | SendError::Stuck { node }
        | SendError::TooLarge { node, .. }
        | SendError::NoMemory { node, .. }
        | SendError::ReceiverGone { node, .. }
        | SendError::Refused { node, .. } => node.to_string(),
        _ => return None,
    })
}

/// A number of bytes for a message: mostly few, now and then as many as fit into a ring, or more: then they are lent.
pub fn bytes(random: &mut Rng) -> usize {
    match random.u8(..16) {
        0 => random.usize(1025..3000),
        1 | 2 => random.usize(8..900),
        _ => random.usize(8..80),
    }
}
