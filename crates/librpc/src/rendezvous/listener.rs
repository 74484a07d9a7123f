//! A node's listener: takes connections, and starts a handshake for each.

use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::node_shared::NodeShared;
use crate::rendezvous::incoming::{Incoming, send_refusal};
use crate::sys::OsError;
use crate::sys::clock::Instant;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::Socket;
use crate::sys::sync::Mutex;
use crate::wire::Reason;

/// Has the background thread serve a node's socket, under this token.
pub(crate) fn listen(node: &Arc<NodeShared>, socket: Socket, token: u64) -> Result<(), OsError> {
    let spare = Mutex::new(Some(Socket::spare()?));
    let listener = Arc::new(Listener { socket, node: Arc::downgrade(node), token, spare });
    node.reactor().watch(token, &listener.socket, listener.clone())
}

/// The node's ear: takes connections and starts a handshake for each.
struct Listener {
    socket: Socket,
    node: Weak<NodeShared>,
    token: u64,
    /// Given up to refuse politely when the process has no descriptors left.
    spare: Mutex<Option<Socket>>,
}

/// How many connections are taken before others get their turn.
const ACCEPTED_AT_ONCE: usize = 64;
/// How long a listener rests that cannot even refuse.
const REST: Duration = Duration::from_millis(20);

impl Source for Listener {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let Some(node) = self.node.upgrade() else { return };
        for _ in 0..ACCEPTED_AT_ONCE {
            match self.socket.accept() {
                Ok(Some(socket)) => Incoming::begin(reactor, &node, socket),
                Ok(None) => return,
                Err(error) => return self.refuse(reactor, &node, &error),
            }
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        if self.node.upgrade().is_none_or(|node| node.has_left()) {
            drop(reactor.forget(self.token));
        } else if let Err(error) = reactor.watch(self.token, &self.socket, self.clone()) {
            tracing::error!(%error, "a listener cannot go on");
        }
    }
}

impl Listener {
    /// At the descriptor limit: refuses with the spare descriptor, or rests instead of spinning.
    fn refuse(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &NodeShared, error: &OsError) {
        tracing::warn!(%error, node = &*node.id, "a connection cannot be taken");
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
            reactor.unwatch(&self.socket);
            reactor.deadline(self.token, self.clone(), Some(Instant::now() + REST));
            if node.has_left() {
                drop(reactor.forget(self.token)); // while this was going on
            }
        }
    }
}
