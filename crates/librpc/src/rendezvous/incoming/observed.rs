//! A connection that asks for the node's statistics: admitted by the same rules as a sender, answered page by page.
//!
//! Each request is answered by one message of bounded size, so nothing piles up for an observer that does not read, and the
//! background thread's other work waits for one page at most. An observer names no node: the kernel says who it is.

use crate::sys::sync::MutexGuard;
use std::sync::Arc;

use super::{Incoming, State, Step, UNDECIDED, patience};
use crate::link::admission::NotAdmitted;
use crate::name::{Incarnation, Peer};
use crate::node_shared::NodeShared;
use crate::rendezvous::pages;
use crate::stats::page::Place;
use crate::sys::reactor::Reactor;
use crate::sys::socket::{Credentials, Sent, Socket};
use crate::sys::{process, thread};
use crate::wire::{self, Answer, ListedItem, Observe, PROTOCOL, Page, Reason};

/// A page holds at most so many inboxes and channels.
const ITEMS: usize = 64;
/// No item is added to a page that is longer than this, in bytes; the longest item is shorter than that itself.
const PAGE_BYTES: usize = 24 * 1024;

impl Incoming {
    /// Who asks first, and whether it may.
    pub(super) fn observe(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        mut state: MutexGuard<'_, State>,
        node: &Arc<NodeShared>,
        bytes: &[u8],
    ) {
        let asked: Observe = match wire::decode(bytes) {
            Ok(asked) => asked,
            Err(error) => return self.end(reactor, state, Some((Reason::BadHandshake, &error.to_string()))),
        };
        if asked.lowest > PROTOCOL || asked.highest < PROTOCOL {
            let (lowest, highest) = (asked.lowest, asked.highest);
            let text = format!("the observer speaks versions {lowest} to {highest}, the node version {PROTOCOL}");
            return self.end(reactor, state, Some((Reason::Version, &text)));
        }
        if asked.target != *node.incarnation.bytes() {
            return self.end(reactor, state, Some((Reason::Restarted, "the node was opened anew")));
        }
        let Credentials { pid, uid, gid } = self.credentials;
        let groups = state.socket.as_ref().map_or_else(Vec::new, Socket::peer_groups).into();
        let peer = Peer { node: "".into(), incarnation: Incarnation::from_bytes([0; 16]), pid, uid, gid, groups };
        match node.admission.by_rules(&peer) {
            Some(admitted) => self.decided_observer(reactor, state, node, admitted, asked),
            None => {
                state.step = Step::Deciding;
                reactor.deadline(self.token, self.clone(), None);
                drop(state);
                self.ask_about_observer(reactor, node, peer, asked);
            }
        }
    }

    /// Asks the user's function, on a thread of its own.
    fn ask_about_observer(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        node: &Arc<NodeShared>,
        peer: Peer,
        asked: Observe,
    ) {
        let Some(charge) = node.ledger.decision(self.credentials.uid) else {
            return self.end(reactor, self.state(), Some((Reason::Busy, UNDECIDED)));
        };
        let (incoming, on, of) = (self.clone(), reactor.clone(), node.clone());
        let ask = move || {
            let _charge = charge; // as for a sender
            let _span = incoming.span.enter();
            let admitted = of.admission.by_function(&peer);
            let state = incoming.state();
            if matches!(state.step, Step::Deciding) {
                incoming.decided_observer(&on, state, &of, admitted, asked);
            }
        };
        if let Err(error) = thread::spawn("librpc-admit", ask) {
            tracing::warn!(%error, node = &*node.id, "no thread to ask the admission function on");
            self.end(reactor, self.state(), Some((Reason::Resources, "the node lacks memory")));
        }
    }

    fn decided_observer(
        self: &Arc<Self>,
        reactor: &Reactor,
        mut state: MutexGuard<'_, State>,
        node: &NodeShared,
        admitted: Result<(), NotAdmitted>,
        asked: Observe,
    ) {
        if let Err(why) = admitted {
            let Credentials { pid, uid, .. } = self.credentials;
            let text = format!("node {:?} does not admit uid {uid}, pid {pid}{why}", node.id);
            return self.end(reactor, state, Some((Reason::NotAdmitted, &text)));
        }
        state.step = Step::Observing;
        self.turn(reactor, state, node, asked);
    }

    /// Who has been admitted asks for more.
    pub(super) fn answer(
        self: &Arc<Self>,
        reactor: &Reactor,
        state: MutexGuard<'_, State>,
        node: &NodeShared,
        bytes: &[u8],
    ) {
        match wire::decode(bytes) {
            Ok(asked) => self.turn(reactor, state, node, asked),
            Err(error) => self.end(reactor, state, Some((Reason::BadHandshake, &error.to_string()))),
        }
    }

    /// Sends one page.
    fn turn(self: &Arc<Self>, reactor: &Reactor, state: MutexGuard<'_, State>, node: &NodeShared, asked: Observe) {
        let Some(socket) = &state.socket else { return };
        let answer = wire::encode(&Answer::Page(page(node, asked.behind.map(Place::from))));
        if matches!(socket.send(&answer, None), Ok(Sent::Done)) {
            reactor.deadline(self.token, self.clone(), patience(node));
        } else {
            self.end(reactor, state, None);
        }
    }
}

fn page(node: &NodeShared, behind: Option<Place>) -> Page {
    let (mut items, mut bytes) = (Vec::new(), 0);
    let next = pages::read(node, behind.unwrap_or_default(), ITEMS, |item| {
        if bytes > PAGE_BYTES {
            return false;
        }
        let listed = ListedItem::from(&item);
        bytes += wire::encode(&listed).len();
        items.push(listed);
        true
    });
    let namespaces = if behind.is_none() { process::namespaces() } else { Vec::new() };
    Page { version: pages::VERSION.to_owned(), namespaces, items, next: next.map(Into::into) }
}
