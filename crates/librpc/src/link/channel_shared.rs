//! The sender's end of a channel as its threads share it: the memories, the state of the connection, and the place where
//! a sender sleeps until its receiver has consumed something.
//!
//! Invariant: `status` only ever grows: `UNSENT`, `SENT`, `OPEN`, `FAILED`. With one exception: a receiver that turns the
//! handshake away makes `SENT` `UNSENT`. Records may be committed in each of the first three: a ring that was not opened yet
//! is one that nobody reads yet. From `SENT` on what is committed survives the sender.
//!
//! | the sender dies while the status is | what becomes of the records |
//! |---|---|
//! | `UNSENT` | they are lost: no send has returned `Ok` for them, and receipts counted them as pending |
//! | `SENT` | the kernel holds the memory in the receiver's socket queue: the receiver maps it, and reads it to the end |
//! | `OPEN` | the receiver has mapped it, and reads it to the end |

use crate::sys::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, compiler_fence, fence};
use std::sync::{Arc, Weak};
use std::time::Duration;

use librpc_ring::{Counters, Memory, MemoryMut, layout};

use crate::link::bell::Bell;
use crate::link::inbox_shared::InboxShared;
use crate::link::ledger::Charge;
use crate::link::readers::{Access, Readers};
use crate::name::{Incarnation, Peer};
use crate::registry::target::Target;
use crate::schema::SchemaMismatch;
use crate::stats::ended::{EndedTable, Pair};
use crate::stats::{ChannelState, ChannelStats, Ends};
use crate::sys::clock::Instant;
use crate::sys::memory::{Mapping, Shape, no_ack};
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use crate::sys::tasks::Tasks;
use crate::sys::{Descriptor, OsError, barrier, fork, thread};

/// Nobody but this process has the ring.
pub(crate) const UNSENT: u32 = 0;
/// The kernel holds the ring for the receiver, which has not answered yet.
pub(crate) const SENT: u32 = 1;
/// The receiver reads the ring.
pub(crate) const OPEN: u32 = 2;
/// Nobody will read it (any more).
pub(crate) const FAILED: u32 = 3;

/// Why a ring is of no further use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The receiver's process is gone, or has closed the inbox.
    Gone,
    /// The receiver does not want it.
    Refused { reason: u32, text: String },
    /// The receiver wrote something invalid, or found it.
    Broken(String),
    /// The sender's own node was closed.
    NodeClosed,
    /// The inbox is of another type than what is sent to it.
    Mismatch(Arc<SchemaMismatch>),
}

/// The sender's end of a channel.
#[derive(Debug)]
pub(crate) struct ChannelShared {
    /// The inbox that it leads to.
    pub(crate) target: Target,
    /// The sender's node, for the handshake.
    pub(crate) node: Arc<str>,
    pub(crate) incarnation: Incarnation,
    /// The domain's directory as it was when the ring was made.
    pub(crate) directory: Arc<Descriptor>,
    pub(crate) data: Arc<Mapping>,
    pub(crate) born: fork::Born,
    status: AtomicU32,
    /// Whether the channel's thread is inside a push: [`ChannelShared::begin_push`].
    pushing: AtomicBool,
    /// The kernel cannot have a barrier in this process's threads, so each push has a fence.
    has_own_fence: bool,
    state: Mutex<State>,
    changed: Condvar,
    charge: Arc<Charge>,
    /// Who may read what.
    readers: Readers,
    /// Where what it has counted is added when it ends.
    ended: Arc<EndedTable>,
    /// How many payloads are lent over it, and their bytes, as of the sender's last look.
    lent: [AtomicU64; 2],
}

fn pair(target: &Target) -> Pair {
    Pair { peer: target.node.clone(), address: target.address.clone() }
}

#[derive(Debug, Default)]
struct State {
    /// The data memory, until the receiver has it.
    memfd: Option<Descriptor>,
    /// The process that listens at the other end, where it matters: as the kernel knew it before anything was sent.
    reader: Option<Arc<Peer>>,
    /// Who has had the data memory.
    offer: Offer,
    attached: Option<Attached>,
    /// The receiver's memory, if its connection was lost while the ring was attached: it shows what was processed.
    last_ack: Option<Arc<Mapping>>,
    failure: Option<Failure>,
    epoch: u64,
    waiters: u32,
    rung: u64,
    /// The receiver was rung for the end: an honest sender does that once.
    rung_closed: bool,
    /// Is woken when the receiver has answered, and when it is gone.
    reports_to: Weak<InboxShared>,
    /// The tasks that wait for the channel: those of its outbox.
    tasks: Weak<Tasks>,
}

/// What has become of the data memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Offer {
    /// The receiver does not have it.
    #[default]
    NotTaken,
    /// It was sent, and the receiver has not answered yet.
    Unanswered,
    /// The receiver reads the ring, or has read it; or it never answered, and nobody knows.
    MayBeRead,
}

/// What the receiver's answer has brought.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) ack: Arc<Mapping>,
    pub(crate) socket: Arc<Socket>,
    pub(crate) number: u32,
    pub(crate) is_fenced_by_receiver: bool,
}

impl Attached {
    /// Has the receiver look at this ring. Never blocks for a receiver that does not read its bells.
    pub(crate) fn ring_bell(&self) {
        Bell::Ring(self.number).ring(&self.socket);
    }
}

impl ChannelShared {
    /// Makes the memory of a ring to an inbox.
    pub(crate) fn create(
        target: Target,
        charge: Charge,
        node: Arc<str>,
        incarnation: Incarnation,
        directory: Arc<Descriptor>,
        ended: Arc<EndedTable>,
        readers: Readers,
    ) -> Result<Arc<Self>, OsError> {
        let (data, memfd) = Mapping::create(Shape::Data { capacity: target.capacity })?;
        let state = Mutex::new(State { memfd: Some(memfd), ..State::default() });
        let (data, status) = (Arc::new(data), AtomicU32::new(UNSENT));
        let born = fork::Born::now();
        ended.begin(&pair(&target));
        let (changed, charge, pushing) = (Condvar::default(), Arc::new(charge), AtomicBool::new(false));
        Ok(Arc::new(Self {
            target,
            node,
            incarnation,
            directory,
            data,
            born,
            status,
            pushing,
            has_own_fence: !barrier::is_registered(),
            state,
            changed,
            charge,
            readers,
            ended,
            lent: [AtomicU64::new(0), AtomicU64::new(0)],
        }))
    }

    /// Takes notice of the process that listens at the other end, before anything is sent to it. `false`: it is not the one
    /// that was there before. What it may read was decided for that one.
    pub(crate) fn meet(&self, found: Credentials, groups: impl FnOnce() -> Vec<u32>) -> bool {
        if self.readers.is_empty() {
            return true;
        }
        let (Target { node, incarnation, .. }, Credentials { pid, uid, gid }) = (&self.target, found);
        let (node, incarnation, groups) = (node.clone(), *incarnation, groups().into());
        let found = Peer { node, incarnation, pid, uid, gid, groups };
        let mut state = self.state();
        **state.reader.get_or_insert_with(|| Arc::new(found.clone())) == found
    }

    /// Whether the process at the other end may read a topic.
    pub(crate) fn access(&self, topic: &str) -> Access {
        match self.readers.is_empty() {
            true => Access::Granted,
            false => self.readers.access(topic, self.target.uid, self.reader().as_deref()),
        }
    }

    /// The process at the other end; `None`: it is not known yet, or every topic is open to everybody.
    pub(crate) fn reader(&self) -> Option<Arc<Peer>> {
        self.state().reader.clone()
    }

    /// What the ring costs its receiver's user's account, to be held for as long as something of it is left.
    pub(crate) fn charge(&self) -> Arc<Charge> {
        self.charge.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    #[inline(always)]
    pub(crate) fn status(&self) -> u32 {
        // Relaxed: everything that depends on it is read under the lock.
        self.status.load(Ordering::Relaxed)
    }

    pub(crate) fn attached(&self) -> Option<Attached> {
        self.state().attached.clone()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// Sends the data memory along with a message. Once this is done, what is committed survives this process.
    pub(crate) fn send_memory(&self, socket: &Socket, message: &[u8]) -> Result<Sent, OsError> {
        use std::os::fd::AsFd;
        let mut state = self.state();
        let sent = socket.send(message, state.memfd.as_ref().map(|memfd| memfd.as_fd()))?;
        if sent == Sent::Done {
            state.offer = Offer::Unanswered;
            self.raise_status(SENT);
            self.wake_all(state);
        }
        Ok(sent)
    }

    /// The receiver has not taken the data memory.
    pub(crate) fn not_taken(&self) {
        self.state().offer = Offer::NotTaken;
    }

    /// The receiver has turned the handshake away, and it is tried again: until then only this process has the ring.
    pub(crate) fn turned_away(&self) {
        let mut state = self.state();
        state.offer = Offer::NotTaken;
        if self.status() == SENT {
            self.status.store(UNSENT, Ordering::Relaxed);
            self.wake_all(state);
        }
    }

    /// Whether the receiver reads the ring, or may have read it.
    pub(crate) fn may_be_read(&self) -> bool {
        self.state().offer != Offer::NotTaken
    }

    /// Whether the receiver may have answered, and its answer has not been seen.
    pub(crate) fn awaits_answer(&self) -> bool {
        self.state().offer == Offer::Unanswered
    }

    /// Called under the lock.
    fn raise_status(&self, to: u32) {
        if self.status() < to {
            self.status.store(to, Ordering::Relaxed);
        }
    }

    /// The channel's thread is about to commit a record. Returns the status. [`ChannelShared::end_push`] must
    /// follow: a node that closes waits for it, so that nothing is committed after the end.
    #[inline(always)]
    pub(crate) fn begin_push(&self) -> u32 {
        self.pushing.store(true, Ordering::Relaxed);
        // Between this store and the load of the status. `close_with_node` makes up for it where it is only the compiler's.
        if self.has_own_fence {
            fence(Ordering::SeqCst)
        } else {
            compiler_fence(Ordering::SeqCst)
        }
        self.status()
    }

    #[inline(always)]
    pub(crate) fn end_push(&self) {
        // Release: pairs with the Acquire in `close_with_node`: what was committed is seen before the ring is closed.
        self.pushing.store(false, Ordering::Release);
    }

    /// The receiver reads the ring from now on.
    pub(crate) fn attach(&self, attached: Attached) {
        let mut state = self.state();
        state.memfd = None;
        state.offer = Offer::MayBeRead;
        state.attached = Some(attached.clone());
        self.raise_status(OPEN);
        let reports_to = state.reports_to.upgrade();
        self.wake_all(state);
        if let Some(inbox) = reports_to {
            inbox.nudge();
        }
        // Pairs with the fence in `was_answered_meanwhile`: a sender that still sees the ring pending after its commit
        // committed before this bell, which finds the record. Every other sender looks at the armed word itself.
        fence(Ordering::SeqCst);
        attached.ring_bell();
    }

    /// After a commit to a ring that was pending before: whether the receiver has answered since. If not, the bell of
    /// `attach` will find the record.
    pub(crate) fn was_answered_meanwhile(&self) -> bool {
        // Pairs with the fence in `attach`.
        fence(Ordering::SeqCst);
        self.status() >= OPEN
    }

    /// The connection was lost after the receiver's answer: the receiver reads what there is, and nobody rings.
    pub(crate) fn fail_attached(&self, ack: Arc<Mapping>) {
        self.state().last_ack = Some(ack);
        self.unanswered(Failure::Gone);
    }

    /// The handshake has ended; there will be no answer. A receiver that had the data memory may have read it.
    pub(crate) fn unanswered(&self, failure: Failure) {
        let mut state = self.state();
        if state.offer == Offer::Unanswered {
            state.offer = Offer::MayBeRead;
        }
        drop(state);
        self.fail(failure);
    }

    /// The receiver's memory, if it ever came.
    pub(crate) fn ack(&self) -> Option<Arc<Mapping>> {
        let state = self.state();
        state.attached.as_ref().map(|attached| attached.ack.clone()).or_else(|| state.last_ack.clone())
    }

    /// The sender's node is closing: no push begins any more.
    pub(crate) fn refuse_pushes(&self) {
        self.fail(Failure::NodeClosed);
    }

    /// The sender's node is closed: its receiver hears so as from a sender that leaves. Since
    /// [`ChannelShared::refuse_pushes`], [`barrier::in_own_threads`] was called: each push under way is seen here.
    pub(crate) fn close_with_node(&self) {
        // A push is a matter of nanoseconds, unless its thread lost its core. Acquire: pairs with the Release in `end_push`.
        while self.pushing.load(Ordering::Acquire) {
            thread::yield_now();
        }
        // Release: pairs with the Acquire in Consumer::is_closed.
        self.data.writer().store(layout::data::CLOSED, 1, Ordering::Release);
        self.closed();
    }

    /// The ring is of no further use.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.state();
        state.memfd = None;
        state.failure.get_or_insert(failure);
        self.raise_status(FAILED);
        let reports_to = state.reports_to.upgrade();
        self.wake_all(state);
        if let Some(inbox) = reports_to {
            inbox.nudge();
        }
    }

    /// Wakes an inbox when the receiver answers, and when it is gone. If that has happened, it does so now.
    pub(crate) fn report_to(&self, inbox: &Arc<InboxShared>) {
        let mut state = self.state();
        state.reports_to = Arc::downgrade(inbox);
        let has_answered = self.status() >= OPEN;
        drop(state);
        if has_answered {
            inbox.nudge();
        }
    }

    /// The receiver has rung: wakes the threads that wait.
    pub(crate) fn rung(&self) {
        let mut state = self.state();
        state.rung += 1;
        self.wake_all(state);
    }

    /// How often the receiver may have rung: once per epoch, and once for a sender that has just stopped waiting.
    pub(crate) fn epochs(&self) -> u64 {
        self.state().epoch
    }

    /// Waits until the receiver has answered, or the deadline. `true`: it has.
    pub(crate) fn wait_for_answer(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while self.status() < OPEN {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.changed.wait_timeout(state, left);
        }
        true
    }

    /// Waits until what is committed survives this process, the ring has failed, or the deadline. `true`: it does.
    pub(crate) fn wait_until_sent(&self, deadline: Option<Instant>) -> bool {
        let mut state = self.state();
        while self.status() == UNSENT {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left);
        }
        matches!(self.status(), SENT | OPEN)
    }

    /// Whether records are committed that only this process holds.
    pub(crate) fn has_unsent(&self) -> bool {
        // Relaxed: the caller's own thread wrote it, or the channel's thread is done with its push.
        self.status() == UNSENT && self.data.reader().load(layout::data::COMMITTED, Ordering::Relaxed) > 0
    }

    /// Wakes the threads that wait for something else than the receiver's progress.
    pub(crate) fn wake(&self) {
        self.wake_all(self.state());
    }

    /// Wakes the threads and the tasks that wait. It lets go of the lock first: a waker is the user's code.
    fn wake_all(&self, state: MutexGuard<'_, State>) {
        let tasks = state.tasks.upgrade();
        drop(state);
        self.changed.notify_all();
        if let Some(tasks) = tasks {
            tasks.wake();
        }
    }

    /// Has these tasks woken with every change, as the threads that wait are. Returns the status.
    pub(crate) fn watched_by(&self, tasks: &Arc<Tasks>) -> u32 {
        self.state().tasks = Arc::downgrade(tasks);
        self.status()
    }

    /// Looks for a task whether `enough` says so of the claimed consumed position, or the ring has failed. If not, the receiver
    /// rings, and the [tasks](ChannelShared::watched_by) are woken.
    pub(crate) fn is_consumed(&self, enough: impl FnOnce(u64) -> bool) -> bool {
        let mut state = self.state();
        state.epoch += 1;
        let data = self.data.writer();
        let is_enough = match &state.attached {
            _ if self.status() == FAILED => true,
            Some(attached) => enough(librpc_ring::wait_for_receiver(&data, &attached.ack.reader(), state.epoch)),
            None => false,
        };
        if is_enough && state.waiters == 0 && state.attached.is_some() {
            librpc_ring::stop_waiting(&data);
        }
        is_enough
    }

    /// Waits while the ring has not failed and this holds, up to a deadline. [`ChannelShared::wake`] has it looked at again.
    pub(crate) fn wait_while(&self, deadline: Option<Instant>, mut holds: impl FnMut(&Self) -> bool) {
        let mut state = self.state();
        while self.status() != FAILED && holds(self) {
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::from_secs(3600),
            };
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left);
        }
    }

    /// Sleeps until `enough` says so of the claimed consumed position, the ring fails, or the deadline.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>, mut enough: impl FnMut(u64) -> bool) {
        let mut state = self.state();
        state.waiters += 1;
        let data = self.data.writer();
        loop {
            let rung = state.rung;
            state.epoch += 1;
            let announced = |attached: &Attached| {
                enough(librpc_ring::wait_for_receiver(&data, &attached.ack.reader(), state.epoch))
            };
            if self.status() == FAILED || state.attached.as_ref().is_some_and(announced) {
                break;
            }
            crate::fault::fault!("wait.announced");
            let (had_answer, was) = (state.attached.is_some(), self.status());
            let unchanged = |state: &mut State| {
                state.rung == rung && state.attached.is_some() == had_answer && self.status() == was
            };
            state = match deadline {
                None => self.changed.wait_while(state, |state| unchanged(state)),
                Some(deadline) => {
                    let Some(left) = deadline.checked_duration_since(Instant::now()) else { break };
                    self.changed.wait_timeout_while(state, left, |state| unchanged(state))
                }
            };
        }
        state.waiters -= 1;
        if state.waiters == 0 && state.attached.is_some() {
            librpc_ring::stop_waiting(&data);
        }
    }

    /// The sender has written its last record: a receiver that sleeps is to see it. (A pending ring's is rung anyway.)
    /// A node may close a ring that its holder drops afterwards, or at the same time: the bell is rung only once,
    /// because the receiver hangs up on a connection that rings without a reason, with all rings on it.
    pub(crate) fn closed(&self) {
        let mut state = self.state();
        if state.attached.is_some() && !std::mem::replace(&mut state.rung_closed, true) {
            state.attached.iter().for_each(Attached::ring_bell);
        }
    }

    /// Waits until everything committed is processed, from any thread; returns how many messages are not.
    pub(crate) fn flush(&self, deadline: Option<Instant>) -> u64 {
        let committed = self.data.reader().load(layout::data::COMMITTED, Ordering::Acquire);
        self.wait_until(deadline, |consumed| consumed >= committed);
        self.counters().queued()
    }

    /// What has gone through the ring.
    pub(crate) fn counters(&self) -> Counters {
        let ack = self.ack().map_or_else(no_ack, |ack| ack.reader());
        Counters::read(&self.data.reader(), &ack)
    }

    /// For the statistics: what is lent.
    pub(crate) fn note_lent(&self, (payloads, bytes): (u64, u64)) {
        // Relaxed, here and below: numbers to look at.
        self.lent[0].store(payloads, Ordering::Relaxed);
        self.lent[1].store(bytes, Ordering::Relaxed);
    }

    /// The channel as its node's statistics show it.
    pub(crate) fn stats(&self) -> ChannelStats {
        let Target { node, incarnation, inbox, policy, capacity, .. } = &self.target;
        let ends = Ends {
            peer: node.clone(),
            peer_incarnation: *incarnation,
            peer_pid: 0,
            inbox: *inbox,
            ring: self.attached().map(|attached| attached.number),
            state: match self.status() {
                UNSENT | SENT => ChannelState::Pending,
                OPEN => ChannelState::Open,
                _ => ChannelState::Failed,
            },
            policy: *policy,
            capacity: *capacity,
            topics: Vec::new(),
            types: Vec::new(),
            lent: self.lent.each_ref().map(|word| word.load(Ordering::Relaxed)),
        };
        ChannelStats::read(ends, &self.data.reader(), &self.ack().map_or_else(no_ack, |ack| ack.reader()))
    }
}

impl Drop for ChannelShared {
    fn drop(&mut self) {
        if self.born.is_here() {
            self.ended.end(&pair(&self.target), &self.stats());
        }
    }
}
