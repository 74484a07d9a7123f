//! An inbox as the background thread and other threads see it: where finished channels wait until the inbox takes them.

use crate::sys::sync::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use librpc_ring::Consumer;

use crate::link::ledger::Charge;
use crate::name::{Address, Peer};
use crate::policy::Policy;
use crate::registry::node_file::ReadError;
use crate::registry::{self, node_file};
use crate::stats::channels::{Entry, Roll};
use crate::sys::memory::{Reader, Writer};
use crate::sys::poll::Signal;
use crate::sys::process::random;
use crate::sys::socket::{Credentials, Socket};
use crate::sys::{Descriptor, OsError};

/// Every receive is over, for so its owner wants it.
const STOPPED: u8 = 1;
/// The node was closed.
const CLOSED: u8 = 2;

/// A channel that has just been connected.
pub(crate) struct Arrival {
    /// The connection's number, and the ring's on it.
    pub(crate) connection: u64,
    pub(crate) ring: u32,
    /// The first ring of a connection brings its socket.
    pub(crate) socket: Option<Arc<Socket>>,
    pub(crate) peer: Arc<Peer>,
    pub(crate) consumer: Consumer<Reader, Writer>,
    /// Its sender has no fence of its own.
    pub(crate) is_fenced: bool,
    pub(crate) charge: Charge,
    pub(crate) entry: Entry,
}

/// The part of an inbox that other threads reach.
pub(crate) struct InboxShared {
    pub(crate) number: u32,
    pub(crate) address: Address,
    pub(crate) capacity: u64,
    pub(crate) policy: Policy,
    /// Whether it wants what its own node publishes, too.
    pub(crate) own: bool,
    /// The name under which a subscription may be taken up again.
    pub(crate) durable: Option<String>,
    /// Wakes the inbox: something has arrived, or it is to stop.
    pub(crate) signal: Signal,
    /// Its channels, as its statistics see them.
    pub(crate) roll: Arc<Roll>,
    directory: Arc<Descriptor>,
    /// Bits: [`STOPPED`], [`CLOSED`].
    ended: AtomicU8,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The inbox takes nothing more.
    shut: bool,
    arrivals: Vec<Arrival>,
    connections: HashMap<u64, Connection>,
}

struct Connection {
    owner: Credentials,
    next_ring: u32,
    socket: Option<Arc<Socket>>,
}

impl InboxShared {
    pub(crate) fn new(
        number: u32,
        address: Address,
        (capacity, policy): (u64, Policy),
        (own, durable): (bool, Option<String>),
        directory: Arc<Descriptor>,
    ) -> Result<Arc<Self>, OsError> {
        let (ended, state, roll) = Default::default();
        let signal = Signal::new()?;
        Ok(Arc::new(Self { number, address, capacity, policy, own, durable, signal, roll, directory, ended, state }))
    }

    /// Whether a peer's node lives, unless a look says otherwise. What a dead one has left is swept.
    pub(crate) fn is_alive(&self, peer: &Peer) -> bool {
        match node_file::read(&self.directory, &peer.node) {
            Ok(Some(file)) if file.incarnation == peer.incarnation && file.alive => true,
            Ok(Some(file)) if file.incarnation == peer.incarnation => {
                if let Err(error) = registry::sweep(&self.directory, &peer.node) {
                    tracing::debug!(%error, node = &*peer.node, "a dead node could not be swept");
                }
                false
            }
            // A look that fails says nothing: there will be another one.
            Err(ReadError::Os(_)) => true,
            _ => false,
        }
    }

    fn state(&self) -> crate::sys::sync::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Numbers a new ring: on a new connection, or on one that there is already and that belongs to the same process.
    pub(crate) fn place(&self, connection: Option<u64>, owner: Credentials) -> Option<(u64, u32)> {
        let mut state = self.state();
        if state.shut {
            return None;
        }
        let Some(connection) = connection else {
            // Random: another process cannot guess it.
            let connection = u64::from_ne_bytes(random());
            state.connections.insert(connection, Connection { owner, next_ring: 1, socket: None });
            return Some((connection, 0));
        };
        let found = state
            .connections
            .get_mut(&connection)
            .filter(|found| (found.owner.pid, found.owner.uid) == (owner.pid, owner.uid))?;
        let ring = found.next_ring;
        found.next_ring = ring.checked_add(1)?;
        Some((connection, ring))
    }

    /// Takes a number back: its sender has gone before it could know it.
    pub(crate) fn unplace(&self, connection: u64, ring: u32) {
        if ring == 0 {
            self.forget(connection);
        }
    }

    /// A connection is gone: no further ring may be added to it.
    pub(crate) fn forget(&self, connection: u64) {
        self.state().connections.remove(&connection);
    }

    /// Hands a channel to the inbox, and wakes it.
    pub(crate) fn arrived(&self, arrival: Arrival) {
        let mut state = self.state();
        if state.shut {
            drop(state);
            return drop(arrival); // its sender sees the hang-up
        }
        if let (Some(socket), Some(found)) = (&arrival.socket, state.connections.get_mut(&arrival.connection)) {
            found.socket = Some(socket.clone());
        }
        state.arrivals.push(arrival);
        drop(state);
        self.signal.raise();
    }

    /// Takes nothing more, and hangs up on every sender: also on those that the inbox has not seen yet, and while its
    /// owner still holds it.
    pub(crate) fn shut(&self) {
        let mut state = self.state();
        state.shut = true;
        let (arrivals, connections) = (std::mem::take(&mut state.arrivals), std::mem::take(&mut state.connections));
        drop(state);
        connections.values().filter_map(|connection| connection.socket.as_ref()).for_each(|socket| socket.hang_up());
        drop(arrivals);
    }

    /// Takes what has arrived.
    pub(crate) fn take_arrivals(&self) -> Vec<Arrival> {
        self.signal.clear();
        std::mem::take(&mut self.state().arrivals)
    }

    /// Ends every receive, now and later.
    pub(crate) fn stop(&self) {
        // Release/Acquire only so that a stopper's earlier writes are seen by whoever was stopped.
        self.ended.fetch_or(STOPPED, Ordering::Release);
        self.signal.raise();
    }

    /// Whether it was stopped or closed.
    #[inline(always)]
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire) != 0
    }

    /// The node was closed under the inbox.
    pub(crate) fn close(&self) {
        self.ended.fetch_or(CLOSED, Ordering::Release);
        self.shut();
        self.signal.raise();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.ended.load(Ordering::Acquire) & CLOSED != 0
    }
}
