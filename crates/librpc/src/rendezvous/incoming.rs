//! The receiver's side of a handshake, as the background thread steps it.
//!
//! A step looks at what a peer has said and *returns* what is next ([`Next`]); [`Incoming::apply`] alone locks, answers and
//! ends. A peer that is silent, breaks the order, or sends what it should not costs itself its connection, and nobody else
//! anything.
//!
//! | the peer dies | what becomes of its messages |
//! |---|---|
//! | before its memory came | there are none |
//! | after it | they are in the memory, which is attached all the same, and read to the end |

use crate::sys::OwnedFd;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::fault::fault;
use crate::link::inbox_shared::InboxShared;
use crate::link::ledger::Charge;
use crate::node_shared::NodeShared;
use crate::rendezvous::attach;
use crate::rendezvous::step::{Asked, Next, Offered, Wanted, not_admitted};
use crate::rendezvous::{denied, hello, lend, observed};
use crate::stats::Denial;
use crate::sys::clock::Instant;
use crate::sys::dispose::dispose;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Credentials, Cut, MAX_MESSAGE_BYTES, Received, Sent, Socket};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::thread;
use crate::wire::{self, Answer, Deny, Lend, Observe, Reason, Refusal};

/// How long after a step that lacked descriptors or memory it is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// A node's handshakes under way, in the order in which they were taken.
#[derive(Default)]
pub(super) struct Handshakes(Mutex<BTreeMap<u64, Arc<Incoming>>>);

impl Handshakes {
    /// Looks at the hellos of those that were taken before this one.
    fn look_at_older(&self, reactor: &Arc<Reactor>, token: u64) {
        let older: Vec<_> = self.0.lock().range(..token).map(|(_, incoming)| incoming.clone()).collect();
        older.iter().for_each(|incoming| incoming.look_at_hello(reactor));
    }

    /// Ends all: the node has left.
    pub(super) fn end(&self, reactor: &Arc<Reactor>) {
        let all = std::mem::take(&mut *self.0.lock());
        all.values().for_each(|incoming| incoming.node_left(reactor));
    }
}

/// A connection in its handshake.
pub(super) struct Incoming {
    pub(super) node: Weak<NodeShared>,
    handshakes: Weak<Handshakes>,
    pub(super) credentials: Credentials,
    token: u64,
    state: Mutex<State>,
    /// `accept`, from the connection to the end of the handshake.
    span: tracing::Span,
}

struct State {
    socket: Option<Arc<Socket>>,
    step: Step,
    /// The deadline is not a limit: something must be tried again then.
    is_again: bool,
    /// It wants to send: a refusal is of interest to the node's owner.
    is_of_sender: bool,
    /// Descriptors that came and are not wanted: closed together with the socket.
    strangers: Vec<OwnedFd>,
    /// For as long as something is left of the handshake. A thread that asks the user's function has a share in it.
    charge: Option<Arc<Charge>>,
}

enum Step {
    /// Nothing was said yet.
    Hello,
    /// The user's function is being asked; where everything has come already, for that inbox.
    Deciding(Option<Arc<InboxShared>>),
    /// The user's function is busy with others: it is asked later.
    Undecided(Asked),
    /// The terms were stated, and the memory is due.
    Data(Wanted, Charge),
    /// The memory is there, and what its channel needs of this process is not, just now.
    Attaching(Wanted, Charge),
    /// A memory for payloads is due.
    Memory(Offered),
    /// Statistics are asked for, page by page.
    Observing,
    Done,
}

/// Says why, to a peer that is hung up on next; `false`: it is gone. A peer that does not read it never learns why.
pub(super) fn send_refusal(socket: &Socket, reason: Reason, text: &str) -> bool {
    let refusal = Answer::Refusal(Refusal { reason: reason as u32, text: text.to_owned() });
    !matches!(socket.send(&wire::encode(&refusal), None), Ok(Sent::HungUp))
}

/// When a peer has been silent for too long; `None`: never.
fn patience(node: &NodeShared) -> Option<Instant> {
    Instant::now().checked_add(node.ledger.limits().handshake_timeout)
}

impl Incoming {
    /// Begins a handshake, and keeps it among the others until it ends.
    pub(super) fn begin(
        reactor: &Arc<Reactor>,
        node: &Arc<NodeShared>,
        handshakes: &Arc<Handshakes>,
        socket: Socket,
        (credentials, charge): (Credentials, Charge),
    ) {
        fault!("accept.accepted");
        let token = reactor.token();
        let charge = Some(Arc::new(charge));
        let state = State {
            socket: None,
            step: Step::Hello,
            is_again: false,
            is_of_sender: false,
            strangers: Vec::new(),
            charge,
        };
        let span = tracing::debug_span!("accept", node = &*node.id, pid = credentials.pid, uid = credentials.uid);
        let incoming = Arc::new(Self {
            node: Arc::downgrade(node),
            handshakes: Arc::downgrade(handshakes),
            credentials,
            token,
            state: Mutex::new(state),
            span: span.clone(),
        });
        let _span = span.enter();
        reactor.deadline(token, incoming.clone(), patience(node));
        let socket = Arc::new(socket);
        incoming.state().socket = Some(socket.clone());
        handshakes.0.lock().insert(token, incoming.clone());
        incoming.watch(reactor, &socket);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Has the background thread look at what the peer says; where that is not possible just now, in a moment.
    fn watch(self: &Arc<Self>, reactor: &Reactor, socket: &Socket) {
        if let Err(error) = reactor.watch(self.token, socket, self.clone()) {
            tracing::warn!(%error, "a connection is served later");
            self.state().is_again = true;
            reactor.deadline(self.token, self.clone(), Some(Instant::now() + AGAIN));
        }
    }

    /// Ends the handshake because the node has left.
    fn node_left(self: &Arc<Self>, reactor: &Arc<Reactor>) {
        let state = self.state();
        if !matches!(state.step, Step::Done) {
            self.end(reactor, state, Some((Reason::NoInbox, "the node has left".into())));
        }
    }

    /// Ends the handshake, with a refusal or without a word.
    fn end(&self, reactor: &Reactor, mut state: MutexGuard<'_, State>, refusal: Option<(Reason, String)>) {
        let step = std::mem::replace(&mut state.step, Step::Done);
        let (socket, charge) = (state.socket.take(), state.charge.take());
        let (strangers, is_of_sender) = (std::mem::take(&mut state.strangers), state.is_of_sender);
        drop(state);
        if let Some(socket) = socket {
            if let Some((reason, text)) = &refusal {
                tracing::info!(?reason, text, peer = ?self.credentials, "a connection is refused");
                let tell = || {
                    if is_of_sender && let Some(node) = self.node.upgrade() {
                        self.tell(&node, *reason, text);
                    }
                };
                if *reason != Reason::Identity {
                    tell();
                }
                // A sender that was killed has no node any more when its hello is looked at. That is worth no alarm.
                if send_refusal(&socket, *reason, text) && *reason == Reason::Identity {
                    tell();
                }
            }
            reactor.unwatch(&*socket);
            match Arc::into_inner(socket) {
                Some(socket) => socket.dispose(strangers, charge),
                None => dispose(strangers, charge),
            }
        }
        drop(step); // which may hand over channels that have waited for this one
        self.forget(reactor);
    }

    /// A sender is refused: the node's inboxes are to know.
    fn tell(&self, node: &NodeShared, reason: Reason, text: &str) {
        let Credentials { uid, pid, .. } = self.credentials;
        if let Some(refused) = node.refused.add(uid, pid, reason, text) {
            node.inbox_list().iter().for_each(|inbox| inbox.refused(refused.clone()));
        }
    }

    fn forget(&self, reactor: &Reactor) {
        if let Some(handshakes) = self.handshakes.upgrade() {
            let ended = handshakes.0.lock().remove(&self.token);
            drop(ended); // where nothing is locked
        }
        drop(reactor.forget(self.token));
    }

    /// Does what a step has led to.
    fn apply(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        node: &Arc<NodeShared>,
        mut state: MutexGuard<'_, State>,
        mut next: Next,
    ) {
        loop {
            next = match next {
                Next::Again => return self.again(reactor, state),
                Next::Refuse(reason, text) => return self.end(reactor, state, Some((reason, text))),
                Next::HangUp => return self.end(reactor, state, None),
                Next::Ask(asked) => match node.ledger.decision(self.credentials.uid) {
                    Some(decision) => {
                        state.step = Step::Deciding(asked.inbox_with_delivery());
                        let charges = (state.charge.clone(), decision);
                        reactor.deadline(self.token, self.clone(), None);
                        drop(state);
                        return self.ask(reactor, node, asked, charges);
                    }
                    // What came with it is not lost.
                    None if asked.inbox_with_delivery().is_some() => {
                        state.step = Step::Undecided(asked);
                        return self.again(reactor, state);
                    }
                    None => Next::refuse(Reason::Busy, "the admission function is busy with others"),
                },
                Next::Admitted(Asked::Observer(_, observe)) => match &state.socket {
                    Some(socket) => observed::turn(node, socket, observe),
                    None => Next::HangUp,
                },
                Next::Admitted(Asked::Denier(_, inbox, denial)) => {
                    let Denial { by, topic, text, .. } = &*denial;
                    tracing::info!(by = &**by, topic = &**topic, text = &**text, "a subscription is denied a topic");
                    inbox.denied(denial);
                    Next::HangUp
                }
                Next::Observing => {
                    state.step = Step::Observing;
                    return reactor.deadline(self.token, self.clone(), patience(node));
                }
                Next::Admitted(Asked::Sender(wanted)) => match state.socket.clone() {
                    Some(socket) => attach::admitted(node, &socket, self.credentials, wanted),
                    None => Next::HangUp,
                },
                Next::Data(wanted, charge) => {
                    state.step = Step::Data(wanted, charge);
                    return reactor.deadline(self.token, self.clone(), patience(node));
                }
                Next::DataAgain(wanted, charge) => {
                    state.step = Step::Data(wanted, charge);
                    return self.again(reactor, state);
                }
                Next::Memory(offered) => {
                    state.step = Step::Memory(offered);
                    return reactor.deadline(self.token, self.clone(), patience(node));
                }
                Next::MemoryAgain(offered) => {
                    state.step = Step::Memory(offered);
                    return self.again(reactor, state);
                }
                Next::AttachAgain(wanted, charge) => {
                    state.step = Step::Attaching(wanted, charge);
                    return self.again(reactor, state);
                }
                Next::Attached => {
                    state.step = Step::Done;
                    let (socket, charge) = (state.socket.take(), state.charge.take());
                    drop(state);
                    if let Some(socket) = &socket {
                        reactor.unwatch(&**socket); // it is the inbox's now, or closes here
                    }
                    self.forget(reactor);
                    return drop((socket, charge));
                }
            };
        }
    }

    /// Looks again in a moment. Until then nothing is watched: what is there would be reported without end.
    fn again(self: &Arc<Self>, reactor: &Reactor, mut state: MutexGuard<'_, State>) {
        state.is_again = true;
        if let Some(socket) = &state.socket {
            reactor.unwatch(&**socket);
        }
        reactor.deadline(self.token, self.clone(), Some(Instant::now() + AGAIN));
    }

    /// Asks the user's function, on a thread of its own. The thread pays for the handshake as long as it lasts.
    fn ask(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        node: &Arc<NodeShared>,
        asked: Asked,
        charges: (Option<Arc<Charge>>, Charge),
    ) {
        let (incoming, on, of) = (self.clone(), reactor.clone(), node.clone());
        let asked = Arc::new(Mutex::new(Some(asked)));
        let to_ask = asked.clone();
        let ask = move || {
            let _span = incoming.span.enter();
            let Some(asked) = to_ask.lock().take() else { return };
            let admitted = of.admission.by_function(asked.peer());
            let state = incoming.state();
            if matches!(state.step, Step::Deciding(_)) {
                on.deadline(incoming.token, incoming.clone(), patience(&of));
                let next = match admitted {
                    Ok(()) => Next::Admitted(asked),
                    Err(why) => not_admitted(&of, asked.peer(), &why),
                };
                incoming.apply(&on, &of, state, next);
            }
            drop(charges); // whatever has become of the peer meanwhile
        };
        if let Err(error) = thread::spawn("librpc-admit", ask) {
            tracing::warn!(%error, node = &*node.id, "no thread to ask the admission function on");
            let mut state = self.state();
            if !matches!(state.step, Step::Deciding(_)) {
                return;
            }
            match asked.lock().take() {
                // What came with it is not lost.
                Some(asked) if asked.inbox_with_delivery().is_some() => {
                    state.step = Step::Undecided(asked);
                    self.again(reactor, state);
                }
                _ => self.end(reactor, state, Some((Reason::Busy, "the receiver has no thread left".into()))),
            }
        }
    }

    /// Looks at what a peer has said. What is not due stays in the socket, and ends with it where that may block.
    fn look(self: &Arc<Self>, reactor: &Arc<Reactor>) {
        let state = self.state();
        let Some(node) = self.node.upgrade() else { return self.end(reactor, state, None) };
        self.look_at(reactor, &node, state, |_| {});
    }

    /// The same for a node that is there. `silent`: what to do where nothing was said.
    fn look_at(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        node: &Arc<NodeShared>,
        mut state: MutexGuard<'_, State>,
        silent: impl FnOnce(MutexGuard<'_, State>),
    ) {
        let Some(socket) = state.socket.clone() else { return };
        let mut message = [0; MAX_MESSAGE_BYTES];
        let (bytes, descriptors) = match socket.peek(&mut message) {
            Ok(Received::Message { bytes, descriptors, cut: Cut::Nothing }) => (&message[..bytes], descriptors),
            Ok(Received::Message { descriptors, cut, .. }) => {
                let next = match cut {
                    // This process has none left for those that came: they are still there in a moment.
                    Cut::Descriptors if descriptors.len() < 2 => Next::Again,
                    Cut::Descriptors => Next::refuse(Reason::BadHandshake, "too many descriptors"),
                    _ => Next::refuse(Reason::BadHandshake, "the message is too long"),
                };
                if !matches!(next, Next::Again) {
                    state.strangers = descriptors;
                }
                return self.apply(reactor, node, state, next);
            }
            Ok(Received::Nothing) => return silent(state),
            Err(error) if error.is_passing() => return self.again(reactor, state),
            // What it has sent is delivered, if the function says so and the inbox is still there.
            Ok(Received::HungUp) if matches!(&state.step, Step::Deciding(Some(inbox)) if !inbox.is_shut()) => {
                return reactor.unwatch(&*socket);
            }
            Ok(Received::HungUp) | Err(_) => return self.end(reactor, state, None),
        };
        let next = match &state.step {
            Step::Hello if descriptors.is_empty() && Observe::is_one(bytes) => {
                socket.skip();
                observed::first(node, &socket, self.credentials, bytes)
            }
            Step::Hello if descriptors.is_empty() && Deny::is_one(bytes) => {
                socket.skip();
                denied::look(node, &socket, self.credentials, bytes)
            }
            Step::Hello if Lend::is_one(bytes) => lend::look(node, &socket, self.credentials, bytes, &descriptors),
            Step::Memory(_) => {
                let Step::Memory(offered) = std::mem::replace(&mut state.step, Step::Hello) else { return };
                lend::take(&socket, offered, &descriptors)
            }
            Step::Observing if descriptors.is_empty() => {
                socket.skip();
                observed::next(node, &socket, bytes)
            }
            Step::Hello => {
                state.is_of_sender = true;
                let looked = hello::look(node, &socket, self.credentials, bytes, &descriptors);
                match looked {
                    Ok(wanted) if wanted.is_of_unknown_connection() => {
                        drop(state);
                        return self.of_unknown_connection(reactor, node, wanted);
                    }
                    Ok(wanted) => Next::by_rules(node, Asked::Sender(wanted)),
                    Err(next) => next,
                }
            }
            Step::Data(..) => {
                let Step::Data(wanted, charge) = std::mem::replace(&mut state.step, Step::Hello) else { return };
                attach::data(&socket, self.credentials, wanted, charge, bytes, &descriptors)
            }
            _ => Next::refuse(Reason::BadHandshake, "an unexpected message"),
        };
        if matches!(next, Next::Refuse(..)) {
            state.strangers = descriptors;
        }
        self.apply(reactor, node, state, next);
    }

    /// A channel for a connection that is not known. Its opening hello was sent before this one: it is looked at first. If
    /// the connection is still unknown, it has ended, and what came with this hello is read to the end.
    fn of_unknown_connection(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &Arc<NodeShared>, wanted: Wanted) {
        if let Some(handshakes) = self.handshakes.upgrade() {
            handshakes.look_at_older(reactor, self.token);
        }
        let next = if wanted.has_memory() || !wanted.is_of_unknown_connection() {
            Next::by_rules(node, Asked::Sender(wanted))
        } else {
            Next::refuse(Reason::UnknownConnection, "there is no such connection")
        };
        let state = self.state();
        if matches!(state.step, Step::Hello) {
            self.apply(reactor, node, state, next);
        }
    }

    /// Looks at a hello that may be there, out of turn.
    fn look_at_hello(self: &Arc<Self>, reactor: &Arc<Reactor>) {
        let is_hello = matches!(self.state().step, Step::Hello);
        if is_hello {
            let span = self.span.clone();
            let _span = span.enter();
            self.look(reactor);
        }
    }
}

impl Source for Incoming {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let span = self.span.clone();
        let _span = span.enter();
        self.look(reactor);
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        let span = self.span.clone();
        let _span = span.enter();
        let mut state = self.state();
        let Some(node) = self.node.upgrade() else { return self.end(reactor, state, None) };
        let (socket, is_again) = (state.socket.clone(), std::mem::take(&mut state.is_again));
        match (std::mem::replace(&mut state.step, Step::Hello), socket) {
            (Step::Attaching(wanted, charge), Some(socket)) => {
                let next = attach::finish(&socket, self.credentials, wanted, charge);
                self.apply(reactor, &node, state, next);
            }
            (Step::Undecided(asked), _) => self.apply(reactor, &node, state, Next::Ask(asked)),
            (step, Some(socket)) if is_again => {
                state.step = step;
                drop(state);
                reactor.deadline(self.token, self.clone(), patience(&node));
                self.watch(reactor, &socket);
            }
            (step, _) => {
                state.step = step;
                // This process may have been stopped: what a sender said in time counts, even if the sender is gone by now.
                let is_silent = Some((Reason::Busy, "the sender is silent".into()));
                self.look_at(reactor, &node, state, |state| self.end(reactor, state, is_silent));
            }
        }
    }
}

#[cfg(all(test, not(feature = "simulated")))]
mod tests {
    use super::*;

    /// It is no alarm that a process is killed while it connects: its node is gone when its hello is looked at.
    #[test]
    fn a_refusal_tells_whether_its_peer_is_still_there() {
        let (ours, theirs) = Socket::pair();
        assert!(send_refusal(&ours, Reason::Identity, "no"));
        drop(theirs);
        assert!(!send_refusal(&ours, Reason::Identity, "no"));
    }
}
