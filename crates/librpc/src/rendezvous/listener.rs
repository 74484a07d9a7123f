//! A node's listener: takes connections, and starts a handshake for each.
//!
//! In a shared domain a user with too many unfinished handshakes is refused, and so is everyone while this process has no
//! descriptors left. In a private domain they wait in the kernel's queue instead: what comes with their hello is safe there,
//! and a refusal would lose it with a sender that is gone.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::node_shared::NodeShared;
use crate::rendezvous::incoming::{Handshakes, Incoming, send_refusal};
use crate::sys::clock::Instant;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::Socket;
use crate::sys::sync::Mutex;
use crate::sys::sync::atomic::{AtomicBool, Ordering};
use crate::sys::{OsError, process};
use crate::wire::Reason;

/// How many connections are taken before others get their turn.
const ACCEPTED_AT_ONCE: usize = 64;
/// How long a listener rests that cannot take what is there.
const REST: Duration = Duration::from_millis(20);

/// A node's listener.
struct Listener {
    socket: Socket,
    node: Weak<NodeShared>,
    reactor: Weak<Reactor>,
    token: u64,
    /// Given up to refuse politely when the process has no descriptors left.
    spare: Mutex<Option<Socket>>,
    handshakes: Arc<Handshakes>,
    /// Its socket was removed, and the node listens on another one. Those who came before are served.
    is_retired: AtomicBool,
}

/// Has the background thread serve a node's socket, under this token.
pub(crate) fn listen(node: &Arc<NodeShared>, socket: Socket, token: u64) -> Result<(), OsError> {
    let listener = Arc::new(Listener {
        socket,
        node: Arc::downgrade(node),
        reactor: Arc::downgrade(node.reactor()),
        token,
        spare: Mutex::new(Some(Socket::spare()?)),
        handshakes: Arc::default(),
        is_retired: AtomicBool::new(false),
    });
    node.reactor().watch(token, &listener.socket, listener.clone())
}

impl Source for Listener {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let Some(node) = self.node.upgrade() else { return };
        for _ in 0..ACCEPTED_AT_ONCE {
            if node.is_private() && !node.ledger.may_begin_handshake(process::uid()) {
                return self.rest(reactor, &node);
            }
            match self.socket.accept() {
                Ok(Some(socket)) => self.taken(reactor, &node, socket),
                Ok(None) if self.is_retired.load(Ordering::Relaxed) => return drop(reactor.forget(self.token)),
                Ok(None) => return,
                Err(error) => return self.refuse(reactor, &node, &error),
            }
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        if self.node.upgrade().is_none_or(|node| node.has_left()) {
            drop(reactor.forget(self.token));
        } else if let Err(error) = reactor.watch(self.token, &self.socket, self.clone()) {
            tracing::error!(%error, "a listener cannot go on just now");
            reactor.deadline(self.token, self.clone(), Some(Instant::now() + REST));
        }
    }

    fn retire(self: Arc<Self>, _reactor: &Arc<Reactor>, _token: u64) {
        // Relaxed: the hang-up, which wakes the background thread, comes after it. Nobody can connect from here on.
        self.is_retired.store(true, Ordering::Relaxed);
        self.socket.hang_up();
    }
}

impl Listener {
    fn taken(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &Arc<NodeShared>, socket: Socket) {
        let Ok(credentials) = socket.credentials() else { return };
        match node.ledger.handshake(credentials.uid) {
            Some(charge) => Incoming::begin(reactor, node, &self.handshakes, socket, (credentials, charge)),
            None => {
                send_refusal(&socket, Reason::Busy, "too many handshakes of this user are under way");
            }
        }
    }

    /// At the descriptor limit: refuses with the spare descriptor, or rests instead of spinning.
    fn refuse(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &NodeShared, error: &OsError) {
        tracing::warn!(%error, node = &*node.id, "a connection cannot be taken");
        if node.is_private() {
            return self.rest(reactor, node);
        }
        let mut spare = self.spare.lock();
        let had_spare = spare.take().is_some();
        let refused = match self.socket.accept() {
            Ok(Some(socket)) if had_spare => {
                send_refusal(&socket, Reason::Busy, "the receiver has no descriptors left");
                true
            }
            other => other.is_ok(),
        };
        *spare = Socket::spare().ok();
        if spare.is_none() || !refused {
            drop(spare);
            self.rest(reactor, node);
        }
    }

    fn rest(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &NodeShared) {
        reactor.unwatch(&self.socket);
        reactor.deadline(self.token, self.clone(), Some(Instant::now() + REST));
        if node.has_left() {
            drop(reactor.forget(self.token)); // while this was going on
        }
    }
}

/// A node that leaves hangs up on everyone, also on those who wait for its admission function. The handshakes of a retired
/// listener go on.
impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.upgrade() {
            // Its close alone would not end the watch where a forked child has a copy that is still to be closed.
            reactor.unwatch(&self.socket);
            if self.node.upgrade().is_none_or(|node| node.has_left()) {
                self.handshakes.end(&reactor);
            }
        }
    }
}
