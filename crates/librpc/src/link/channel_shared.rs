//! The sender's end of a channel as its threads share it: the memories, the state of the connection, and the place where
//! a sender sleeps until its receiver has consumed something.
//!
//! Invariant: `status` goes from `PENDING` to `OPEN` to `FAILED`, or straight to `FAILED`, and never back. Records may be
//! committed in each: a pending ring is one that nobody reads yet.

use crate::sys::clock::Instant;
use crate::sys::sync::{Condvar, Mutex, MutexGuard};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use librpc_ring::{Counters, Memory, MemoryMut, layout};

use crate::link::Use;
use crate::link::bell::Bell;
use crate::link::ledger::Charge;
use crate::name::Incarnation;
use crate::sys::memory::{Mapping, Shape, no_ack};
use crate::sys::socket::{Sent, Socket};
use crate::sys::{Descriptor, OsError, fork};

/// The receiver has not answered yet.
pub(crate) const PENDING: u32 = 0;
/// The receiver reads the ring.
pub(crate) const OPEN: u32 = 1;
/// Nobody will read it (any more).
pub(crate) const FAILED: u32 = 2;

/// Why a ring is of no further use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The receiver's process is gone, or has closed the inbox.
    Gone,
    /// The receiver does not want it.
    Refused { reason: u32, text: String },
    /// The receiver wrote, or found, what cannot be.
    Broken(String),
    /// The sender's own node was closed.
    NodeClosed,
}

/// The sender's end of a channel.
#[derive(Debug)]
pub(crate) struct Ring {
    pub(crate) link: Use,
    /// The sender's node, for the handshake.
    pub(crate) node: Arc<str>,
    pub(crate) incarnation: Incarnation,
    /// The domain's directory as it was when the ring was made: the link may be older.
    pub(crate) directory: Arc<Descriptor>,
    pub(crate) data: Arc<Mapping>,
    pub(crate) born: fork::Born,
    status: AtomicU32,
    state: Mutex<State>,
    changed: Condvar,
    charge: Arc<Charge>,
}

#[derive(Debug, Default)]
struct State {
    /// The data memory, until the receiver has it.
    memfd: Option<Descriptor>,
    attached: Option<Attached>,
    /// The receiver's memory, where its connection was lost while the ring was attached: it tells what was processed.
    last_ack: Option<Arc<Mapping>>,
    failure: Option<Failure>,
    epoch: u64,
    waiters: u32,
    rung: u64,
    /// The receiver was rung for the end: an honest sender does that once.
    rung_closed: bool,
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

impl Ring {
    /// Makes the memory of a ring to the link's inbox.
    pub(crate) fn create(
        link: Use,
        charge: Charge,
        node: Arc<str>,
        incarnation: Incarnation,
        directory: Arc<Descriptor>,
    ) -> Result<Arc<Self>, OsError> {
        let (data, memfd) = Mapping::create(Shape::Data { capacity: link.target.capacity })?;
        let state = Mutex::new(State { memfd: Some(memfd), ..State::default() });
        let (data, status) = (Arc::new(data), AtomicU32::new(PENDING));
        let born = fork::Born::now();
        let changed = Condvar::default();
        let charge = Arc::new(charge);
        Ok(Arc::new(Self { link, node, incarnation, directory, data, born, status, state, changed, charge }))
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
        // Relaxed: whatever stands behind it is read under the lock.
        self.status.load(Ordering::Relaxed)
    }

    pub(crate) fn attached(&self) -> Option<Attached> {
        self.state().attached.clone()
    }

    pub(crate) fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// Sends the data memory along with a message.
    pub(crate) fn send_memory(&self, socket: &Socket, message: &[u8]) -> Result<Sent, OsError> {
        use std::os::fd::AsFd;
        let state = self.state();
        socket.send(message, state.memfd.as_ref().map(|memfd| memfd.as_fd()))
    }

    /// The receiver reads the ring from now on.
    pub(crate) fn attach(&self, attached: Attached) {
        let mut state = self.state();
        state.memfd = None;
        state.attached = Some(attached.clone());
        if state.failure.is_none() {
            self.status.store(OPEN, Ordering::Relaxed);
        }
        self.changed.notify_all();
        drop(state);
        // Pairs with the fence in `was_answered_meanwhile`: a sender that sees the ring pending behind its commit has
        // committed before this bell, and is found by it; every other one looks at the armed word itself.
        fence(Ordering::SeqCst);
        attached.ring_bell();
    }

    /// After a commit to a ring that was pending before: whether the receiver has answered since. If not, the bell of
    /// `attach` will find the record.
    pub(crate) fn was_answered_meanwhile(&self) -> bool {
        // Pairs with the fence in `attach`.
        fence(Ordering::SeqCst);
        self.status() != PENDING
    }

    /// The connection was lost behind the receiver's answer: it reads what there is, and nobody rings.
    pub(crate) fn fail_attached(&self, ack: Arc<Mapping>) {
        self.state().last_ack = Some(ack);
        self.fail(Failure::Gone);
    }

    /// The receiver's memory, if it ever came.
    pub(crate) fn ack(&self) -> Option<Arc<Mapping>> {
        let state = self.state();
        state.attached.as_ref().map(|attached| attached.ack.clone()).or_else(|| state.last_ack.clone())
    }

    /// The sender's node is closed: its receiver hears so as from a sender that leaves.
    pub(crate) fn close_with_node(&self) {
        self.fail(Failure::NodeClosed);
        // Release: pairs with the Acquire in Consumer::is_closed.
        self.data.writer().store(layout::data::CLOSED, 1, Ordering::Release);
        self.closed();
    }

    /// The ring is of no further use.
    pub(crate) fn fail(&self, failure: Failure) {
        let mut state = self.state();
        state.memfd = None;
        state.failure.get_or_insert(failure);
        self.status.store(FAILED, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The receiver has rung: wakes whoever waits.
    pub(crate) fn rung(&self) {
        self.state().rung += 1;
        self.changed.notify_all();
    }

    /// How often the receiver may have rung: once per epoch, and once for a sender that has just stopped waiting.
    pub(crate) fn epochs(&self) -> u64 {
        self.state().epoch
    }

    /// Waits until the receiver has answered, or the deadline. `true`: it has.
    pub(crate) fn wait_for_answer(&self, deadline: Instant) -> bool {
        let mut state = self.state();
        while self.status() == PENDING {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            state = self.changed.wait_timeout(state, left);
        }
        true
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
    /// A node may close a ring that its holder drops afterwards, or at the same time: the bell is rung once, for the
    /// receiver hangs up on whoever rings without a reason, and with that on all rings of this process.
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
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.born.is_here()
            && let Some(attached) = &self.state().attached
        {
            self.link.release(attached.number);
        }
    }
}
