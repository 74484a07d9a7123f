//! The receiver's side of a handshake: it listens, reads the hello, admits or refuses, states its terms, checks the
//! sender's memory, and hands the finished channel to the inbox. It is stepped by the background thread.
//!
//! A peer that is silent, breaks the order, or sends what it should not costs itself its connection, and nobody else
//! anything. A peer that dies is a hang-up, and everything held for it is dropped.

mod observed; // a handshake that asks for the node's statistics instead

use crate::sys::clock::Instant;
use crate::sys::sync::{Mutex, MutexGuard};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use librpc_ring::Consumer;

use crate::fault::fault;
use crate::link::admission::NotAdmitted;
use crate::link::inbox_shared::{Arrival, InboxShared};
use crate::link::ledger::Charge;
use crate::name::{Incarnation, Peer, check_node_id};
use crate::node_shared::NodeShared;
use crate::registry::node_file::{self, ReadError};
use crate::sys::memory::{BadMemory, Mapping, Shape};
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Credentials, Cut, MAX_MESSAGE_BYTES, Received, Sent, Socket};
use crate::sys::{barrier, thread};
use crate::wire::{self, Answer, Attached, Data, FENCED_BY_RECEIVER, Hello, Observe, PROTOCOL, Reason, Refusal, Terms};

pub(super) fn send_refusal(socket: &Socket, reason: Reason, text: &str) {
    let refusal = Answer::Refusal(Refusal { reason: reason as u32, text: text.to_owned() });
    // Whoever does not read it is not told.
    let _ = socket.send(&wire::encode(&refusal), None);
}

/// When a peer has been silent for too long; `None`: never.
fn patience(node: &NodeShared) -> Option<Instant> {
    Instant::now().checked_add(node.ledger.limits().handshake_time)
}

/// What a peer is told that the admission function was not asked about.
const UNDECIDED: &str = "the admission function is busy with others";

/// A connection in its handshake.
pub(super) struct Incoming {
    node: Weak<NodeShared>,
    credentials: Credentials,
    token: u64,
    state: Mutex<State>,
    /// `accept`, from the connection to the end of the handshake.
    span: tracing::Span,
}

struct State {
    socket: Option<Socket>,
    step: Step,
    /// Descriptors that came and are not wanted: closed together with the socket.
    strangers: Vec<OwnedFd>,
    /// For as long as something is left of the handshake.
    charge: Option<Charge>,
}

enum Step {
    Hello,
    /// The user's function is being asked.
    Deciding,
    Data(Wanted, Charge),
    /// Statistics are asked for, page by page.
    Observing,
    Done,
}

/// What an admitted sender is to get.
#[derive(Clone)]
struct Wanted {
    peer: Arc<Peer>,
    inbox: Arc<InboxShared>,
    connection: Option<u64>,
    /// The sender has no fence of its own: the receiver's barrier stands for it.
    is_fenced: bool,
}

impl Incoming {
    pub(super) fn begin(reactor: &Arc<Reactor>, node: &Arc<NodeShared>, socket: Socket) {
        fault!("accept.accepted");
        let Ok(credentials) = socket.credentials() else { return };
        let Some(charge) = node.ledger.handshake(credentials.uid) else {
            return send_refusal(&socket, Reason::Busy, "too many handshakes of this user are under way");
        };
        let token = reactor.token();
        let state = State { socket: None, step: Step::Hello, strangers: Vec::new(), charge: Some(charge) };
        let span = tracing::debug_span!("accept", node = &*node.id, pid = credentials.pid, uid = credentials.uid);
        let of = Arc::downgrade(node);
        let incoming = Arc::new(Self { node: of, credentials, token, state: Mutex::new(state), span: span.clone() });
        let _span = span.enter();
        reactor.deadline(token, incoming.clone(), patience(node));
        let mut state = incoming.state();
        match reactor.watch(token, &socket, incoming.clone()) {
            Ok(()) => state.socket = Some(socket),
            Err(error) => {
                tracing::warn!(%error, node = &*node.id, "a connection cannot be served");
                send_refusal(&socket, Reason::Busy, "the receiver lacks memory");
                drop(reactor.forget(token));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Ends the handshake, with a refusal or without a word.
    fn end(&self, reactor: &Reactor, mut state: MutexGuard<'_, State>, refusal: Option<(Reason, &str)>) {
        state.step = Step::Done;
        if let Some(socket) = state.socket.take() {
            if let Some((reason, text)) = refusal {
                tracing::info!(?reason, text, peer = ?self.credentials, "a connection is refused");
                send_refusal(&socket, reason, text);
            }
            reactor.unwatch(&socket);
            socket.dispose(std::mem::take(&mut state.strangers), state.charge.take());
        }
        drop(state);
        drop(reactor.forget(self.token));
    }

    /// Who says hello, and whether it may.
    fn hello(
        self: &Arc<Self>,
        reactor: &Arc<Reactor>,
        mut state: MutexGuard<'_, State>,
        node: &Arc<NodeShared>,
        bytes: &[u8],
    ) {
        let hello: Hello = match wire::decode(bytes) {
            Ok(hello) => hello,
            Err(error) => return self.end(reactor, state, Some((Reason::BadHandshake, &error.to_string()))),
        };
        if hello.lowest > PROTOCOL || hello.highest < PROTOCOL {
            let (lowest, highest) = (hello.lowest, hello.highest);
            let text = format!("the sender speaks versions {lowest} to {highest}, the receiver version {PROTOCOL}");
            return self.end(reactor, state, Some((Reason::Version, &text)));
        }
        if hello.target != *node.incarnation.bytes() {
            return self.end(reactor, state, Some((Reason::Restarted, "the node was opened anew")));
        }
        let Some(inbox) = node.inbox(hello.inbox) else {
            return self.end(reactor, state, Some((Reason::NoInbox, "there is no such inbox")));
        };
        let groups = state.socket.as_ref().map_or_else(Vec::new, Socket::peer_groups);
        let peer = match self.identify(node, &hello, groups) {
            Ok(peer) => Arc::new(peer),
            Err((reason, why)) => return self.end(reactor, state, Some((reason, &why))),
        };
        let is_fenced = hello.features & FENCED_BY_RECEIVER != 0 && barrier::is_available();
        let wanted = Wanted { peer, inbox, connection: hello.connection, is_fenced };
        match node.admission.by_rules(&wanted.peer) {
            Some(admitted) => self.decided(reactor, state, node, wanted, admitted),
            None => {
                state.step = Step::Deciding;
                reactor.deadline(self.token, self.clone(), None);
                drop(state);
                self.ask(reactor, node, wanted);
            }
        }
    }

    /// A node is whoever owns its file, and is alive.
    fn identify(&self, node: &NodeShared, hello: &Hello, groups: Vec<u32>) -> Result<Peer, (Reason, String)> {
        let Credentials { pid, uid, gid } = self.credentials;
        let incarnation = Incarnation::from_bytes(hello.incarnation);
        let directory = node.directory().ok_or_else(|| (Reason::NoInbox, "the node is closed".to_owned()))?;
        check_node_id(&hello.node).map_err(|bad| (Reason::Identity, bad.to_string()))?;
        match node_file::read(&directory, &hello.node) {
            Ok(Some(file)) if file.alive && file.uid == uid && file.incarnation == incarnation => {
                let node = hello.node.as_str().into();
                Ok(Peer { node, incarnation, pid, uid, gid, groups: groups.into() })
            }
            // Our own trouble, which may pass.
            Err(ReadError::Os(error)) => Err((Reason::Busy, error.to_string())),
            // So may this: the domain was removed, and one of the two has not joined anew yet.
            Ok(None) => Err((Reason::Busy, format!("there is no node {:?} here just now", hello.node))),
            _ => {
                let why = format!("there is no node {:?} of uid {uid} with this incarnation", hello.node);
                Err((Reason::Identity, why))
            }
        }
    }

    /// Asks the user's function, on a thread of its own.
    fn ask(self: &Arc<Self>, reactor: &Arc<Reactor>, node: &Arc<NodeShared>, wanted: Wanted) {
        let Some(charge) = node.ledger.decision(self.credentials.uid) else {
            return self.end(reactor, self.state(), Some((Reason::Busy, UNDECIDED)));
        };
        let (incoming, on, asked) = (self.clone(), reactor.clone(), node.clone());
        let ask = move || {
            let _charge = charge; // until the function has returned, whatever has become of its peer
            let _span = incoming.span.enter();
            let admitted = asked.admission.by_function(&wanted.peer);
            let state = incoming.state();
            if matches!(state.step, Step::Deciding) {
                on.deadline(incoming.token, incoming.clone(), patience(&asked));
                incoming.decided(&on, state, &asked, wanted, admitted);
            }
        };
        if let Err(error) = thread::spawn("librpc-admit", ask) {
            tracing::warn!(%error, node = &*node.id, "no thread to ask the admission function on");
            self.end(reactor, self.state(), Some((Reason::Resources, "the receiver lacks memory")));
        }
    }

    fn decided(
        self: &Arc<Self>,
        reactor: &Reactor,
        mut state: MutexGuard<'_, State>,
        node: &NodeShared,
        wanted: Wanted,
        admitted: Result<(), NotAdmitted>,
    ) {
        if let Err(why) = admitted {
            let uid = self.credentials.uid;
            let text = format!("node {:?} does not admit uid {uid}, pid {}{why}", node.id, self.credentials.pid);
            return self.end(reactor, state, Some((Reason::NotAdmitted, &text)));
        }
        let capacity = wanted.inbox.capacity;
        let Some(charge) = node.ledger.channel(self.credentials.uid, capacity) else {
            let text = format!("uid {} has as many channels as node {:?} allows", self.credentials.uid, node.id);
            return self.end(reactor, state, Some((Reason::TooMuch, &text)));
        };
        let features = if wanted.is_fenced { FENCED_BY_RECEIVER } else { 0 };
        let terms = Terms { version: PROTOCOL, features, capacity, policy: wanted.inbox.policy.number() };
        let Some(socket) = &state.socket else { return };
        socket.accept_descriptors(true);
        let sent = socket.send(&wire::encode(&Answer::Terms(terms)), None);
        fault!("accept.terms-sent");
        if !matches!(sent, Ok(Sent::Done)) {
            return self.end(reactor, state, None);
        }
        state.step = Step::Data(wanted, charge);
    }

    /// The sender's memory: checks it, answers with ours, and hands the channel to the inbox.
    fn data(&self, reactor: &Reactor, mut state: MutexGuard<'_, State>, bytes: &[u8], descriptors: Vec<OwnedFd>) {
        let Step::Data(wanted, charge) = std::mem::replace(&mut state.step, Step::Done) else { return };
        let Some(socket) = state.socket.take() else { return };
        let handshake = state.charge.take();
        drop(state);
        reactor.unwatch(&socket);
        let this = reactor.forget(self.token);
        match self.attach(&wanted, charge, bytes, &descriptors, socket) {
            Ok(()) => {}
            Err((socket, refusal)) => {
                if let Some((reason, text)) = refusal {
                    tracing::info!(?reason, text, peer = ?self.credentials, "a connection is refused");
                    send_refusal(&socket, reason, &text);
                }
                socket.dispose(descriptors, handshake);
            }
        }
        drop(this);
    }

    /// `Err`: the socket, to be closed where that may block, and what is said before; nothing to one that is gone.
    fn attach(
        &self,
        wanted: &Wanted,
        charge: Charge,
        bytes: &[u8],
        descriptors: &[OwnedFd],
        socket: Socket,
    ) -> Result<(), (Socket, Option<(Reason, String)>)> {
        let refused = |socket, reason, text| Err((socket, Some((reason, text))));
        let InboxShared { capacity, policy, .. } = *wanted.inbox;
        let expected = Data { capacity, policy: policy.number() };
        if descriptors.len() != 1 || !wire::decode::<Data>(bytes).is_ok_and(|data| data == expected) {
            let text = format!("{} descriptors, of 1 with the agreed terms", descriptors.len());
            return refused(socket, Reason::BadHandshake, text);
        }
        let data = match Mapping::receive(&descriptors[0], Shape::Data { capacity }) {
            Ok(data) => Arc::new(data),
            Err(error) => {
                let ours = matches!(error, BadMemory::Os(_));
                return refused(socket, if ours { Reason::Busy } else { Reason::BadHandshake }, error.to_string());
            }
        };
        socket.skip();
        // What lies behind it could bear descriptors, and its reader would have to close them. An honest sender waits.
        if !socket.shut_to_descriptors() {
            return refused(socket, Reason::BadHandshake, "more is said than was due".into());
        }
        let (ack, memfd) = match Mapping::create(Shape::Ack) {
            Ok(made) => made,
            Err(error) => return refused(socket, Reason::Busy, error.to_string()),
        };
        fault!("accept.mapped");
        let ack = Arc::new(ack);
        let consumer = match Consumer::new(data.reader(), ack.writer(), capacity, policy.mode()) {
            Ok(consumer) => consumer,
            Err(corrupt) => return refused(socket, Reason::BadHandshake, corrupt.to_string()),
        };
        let Some((connection, ring)) = wanted.inbox.place(wanted.connection, self.credentials) else {
            return refused(socket, Reason::UnknownConnection, "the connection is not there".into());
        };
        let answer = wire::encode(&Answer::Attached(Attached { connection, ring }));
        let sent = socket.send(&answer, Some(std::os::fd::AsFd::as_fd(&memfd)));
        fault!("accept.attached");
        if !matches!(sent, Ok(Sent::Done)) {
            wanted.inbox.unplace(connection, ring);
            return Err((socket, None));
        }
        let socket = wanted.connection.is_none().then(|| Arc::new(socket));
        let peer = wanted.peer.clone();
        let numbers = (wanted.inbox.number, ring);
        let entry = wanted.inbox.roll.enroll(peer.clone(), numbers, (policy, capacity), (data, ack));
        let is_fenced = wanted.is_fenced;
        wanted.inbox.arrived(Arrival { connection, ring, socket, peer, consumer, is_fenced, charge, entry });
        Ok(())
    }
}

impl Source for Incoming {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let _span = self.span.enter();
        let mut state = self.state();
        let Some(node) = self.node.upgrade() else { return self.end(reactor, state, None) };
        let Some(socket) = &state.socket else { return };
        let mut message = [0; MAX_MESSAGE_BYTES];
        // What a stranger sends may bear descriptors that nobody should have to close: a message that is not what is due
        // stays in the socket, and ends with it on an expendable thread.
        match socket.peek(&mut message) {
            Ok(Received::Message { bytes, descriptors, cut: Cut::Nothing }) => match state.step {
                Step::Hello if descriptors.is_empty() && Observe::is_one(&message[..bytes]) => {
                    socket.skip();
                    self.observe(reactor, state, &node, &message[..bytes]);
                }
                Step::Observing if descriptors.is_empty() => {
                    socket.skip();
                    self.answer(reactor, state, &node, &message[..bytes]);
                }
                Step::Hello if descriptors.is_empty() => {
                    socket.skip();
                    self.hello(reactor, state, &node, &message[..bytes]);
                }
                Step::Data(..) => self.data(reactor, state, &message[..bytes], descriptors),
                _ => {
                    state.strangers = descriptors;
                    self.end(reactor, state, Some((Reason::BadHandshake, "a message that is not due")));
                }
            },
            Ok(Received::Message { descriptors, cut, .. }) => {
                let refusal = match cut {
                    Cut::Descriptors if descriptors.len() < 2 => (Reason::Busy, "the receiver has no descriptors left"),
                    Cut::Descriptors => (Reason::BadHandshake, "too many descriptors"),
                    _ => (Reason::BadHandshake, "a message that is too long"),
                };
                state.strangers = descriptors;
                self.end(reactor, state, Some(refusal));
            }
            Ok(Received::Nothing) => {}
            Ok(Received::HungUp) | Err(_) => self.end(reactor, state, None),
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        let _span = self.span.enter();
        // Either of the two may have been stopped: the sender may try again. Its ring was not taken yet.
        self.end(reactor, self.state(), Some((Reason::Busy, "the sender is silent")));
    }
}
