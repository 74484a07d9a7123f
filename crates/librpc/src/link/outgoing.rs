//! The sender's side of a handshake: hello, terms, data, attached. It is stepped by the background thread, and waits as
//! long as the receiver's process lives: a stopped one answers when it goes on.
//!
//! A sender that dies at any step is a hang-up for the receiver, and its memory is gone with it. A receiver that dies is
//! a hang-up here; whether its node still lives then tells a death from a receiver that only lost patience.

use crate::sys::clock::Instant;
use crate::sys::sync::Mutex;
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::link::bell::{self, Bell};
use crate::link::channel_shared::{Attached, Failure, Ring};
use crate::registry::lookup;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::sys::file::Errno;
use crate::sys::memory::{BadMemory, Mapping, Shape, dispose};
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Cut, MAX_MESSAGE_BYTES, Received, Sent, Socket};
use crate::sys::{OsError, barrier};
use crate::wire::Reason;
use crate::wire::{self, Answer, Data, FENCED_BY_RECEIVER, Hello, PROTOCOL};

/// How long after a lost or a refused-for-now attempt the next one begins.
const RETRY: Duration = Duration::from_millis(5);
const UNKNOWN_AT_MOST: u32 = 10;
const RETRY_AT_MOST: Duration = Duration::from_millis(500);

/// A ring that is being connected.
struct Outgoing {
    ring: Arc<Ring>,
    /// The connection to which the ring is added; `None`: the ring opens it.
    connection: Option<u64>,
    token: u64,
    state: Mutex<State>,
    /// `connect`, from the first attempt to the end.
    span: tracing::Span,
}

struct State {
    socket: Option<Arc<Socket>>,
    /// Keeps a descriptor free for the memory that the receiver sends: once that is on its way, there is no second try.
    reserve: Option<Socket>,
    retry: Duration,
    /// How often the receiver did not know the connection that the ring was to be added to.
    unknown: u32,
    /// What the receiver's terms say that it makes use of.
    features: u64,
}

impl State {
    const fn new() -> Self {
        Self { socket: None, reserve: None, retry: RETRY, unknown: 0, features: 0 }
    }
}

/// Starts the handshake of a ring.
pub(crate) fn begin(reactor: &Arc<Reactor>, ring: Arc<Ring>, connection: Option<u64>) {
    let outgoing = Outgoing::new(reactor, ring, connection);
    let span = outgoing.span.clone();
    span.in_scope(|| outgoing.connect(reactor));
}

/// Starts the handshake of a ring that opens the connection, from the background thread's loop.
pub(crate) fn begin_later(reactor: &Arc<Reactor>, ring: Arc<Ring>) {
    let outgoing = Outgoing::new(reactor, ring, None);
    reactor.deadline(outgoing.token, outgoing.clone(), Some(Instant::now()));
}

/// Whether what a system call lacks may be there again in a moment.
fn is_passing(error: &OsError) -> bool {
    [Errno::AGAIN, Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS].into_iter().any(|errno| error.is(errno))
}

impl Outgoing {
    fn new(reactor: &Reactor, ring: Arc<Ring>, connection: Option<u64>) -> Arc<Self> {
        let Target { node, inbox, .. } = &ring.link.target;
        let span = tracing::debug_span!("connect", from = &*ring.node, to = &**node, inbox);
        Arc::new(Self { connection, token: reactor.token(), state: Mutex::new(State::new()), span, ring })
    }

    fn connect(self: Arc<Self>, reactor: &Arc<Reactor>) {
        if let Some(failure) = self.ring.failure() {
            return self.fail(reactor, failure); // the sender has closed it in the meantime
        }
        match Socket::spare() {
            Ok(reserve) => self.state().reserve = Some(reserve),
            Err(error) => {
                tracing::debug!(%error, "not connected yet");
                return self.retry(reactor);
            }
        }
        let target = &self.ring.link.target;
        let socket = match Socket::connect(&node_file::socket_path(&self.ring.directory, &target.node)) {
            Ok(socket) => Arc::new(socket),
            Err(error) if is_passing(&error) || self.may_come_back() => {
                tracing::debug!(%error, node = &*target.node, "not connected yet");
                return self.retry(reactor);
            }
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::CONNREFUSED) => {
                return self.fail(reactor, Failure::Gone);
            }
            Err(error) => return self.fail(reactor, Failure::Broken(error.to_string())),
        };
        fault!("connect.connected");
        match socket.credentials() {
            Ok(peer) if peer.uid == target.uid => {}
            Ok(peer) => {
                let text = format!("its socket is uid {}'s, its file uid {}'s", peer.uid, target.uid);
                return self.fail(reactor, Failure::Broken(text));
            }
            Err(error) => return self.fail(reactor, Failure::Broken(error.to_string())),
        }
        let hello = wire::encode(&Hello {
            lowest: PROTOCOL,
            highest: PROTOCOL,
            features: if barrier::register() { FENCED_BY_RECEIVER } else { 0 },
            node: self.ring.node.to_string(),
            incarnation: *self.ring.incarnation.bytes(),
            target: *target.incarnation.bytes(),
            inbox: target.inbox,
            connection: self.connection,
        });
        let sent = socket.send(&hello, None);
        fault!("connect.hello-sent");
        match sent {
            Ok(Sent::Done) => {}
            Ok(_) => return self.retry(reactor),
            Err(error) => return self.fail(reactor, Failure::Broken(error.to_string())),
        }
        self.state().socket = Some(socket.clone());
        if let Err(error) = reactor.watch(self.token, &*socket, self.clone()) {
            tracing::debug!(%error, node = &*target.node, "a handshake is begun again");
            self.retry(reactor);
        }
    }

    fn state(&self) -> crate::sys::sync::MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Whether the receiver's incarnation still lives, so that a lost connection means nothing.
    fn may_come_back(&self) -> bool {
        // A look that fails says nothing: there will be another one.
        lookup::is_listed(&self.ring.directory, &self.ring.link.target).unwrap_or(true)
    }

    /// Lets go of the socket.
    fn disconnect(&self, reactor: &Reactor) -> Option<Arc<Socket>> {
        let socket = self.state().socket.take();
        if let Some(socket) = &socket {
            reactor.unwatch(socket);
        }
        drop(reactor.forget(self.token));
        socket
    }

    fn fail(&self, reactor: &Arc<Reactor>, failure: Failure) {
        self.disconnect(reactor);
        tracing::debug!(node = &*self.ring.link.target.node, ?failure, "not connected");
        self.ring.fail(failure.clone());
        if self.connection.is_none() {
            self.ring.link.first_failed(reactor, &failure);
        }
    }

    fn retry(self: Arc<Self>, reactor: &Arc<Reactor>) {
        self.disconnect(reactor);
        let after = {
            let mut state = self.state();
            let after = state.retry;
            state.retry = (after * 2).min(RETRY_AT_MOST);
            after
        };
        reactor.deadline(self.token, self.clone(), Some(Instant::now() + after));
    }

    /// Fails a ring that the receiver may be reading already: it cannot be offered again, or it would be read twice.
    fn fail_behind_data(&self, reactor: &Arc<Reactor>, why: String) {
        let text = format!("{why}; what was sent may have been delivered all the same");
        self.fail(reactor, Failure::Refused { reason: Reason::Resources as u32, text });
    }

    fn answered(self: Arc<Self>, reactor: &Arc<Reactor>, answer: &[u8], descriptors: Vec<std::os::fd::OwnedFd>) {
        let Target { capacity, policy, .. } = self.ring.link.target;
        let broken = |text: String| Failure::Broken(text);
        match wire::decode::<Answer>(answer) {
            Ok(Answer::Terms(terms)) if descriptors.is_empty() => {
                if (terms.version, terms.capacity, terms.policy) != (PROTOCOL, capacity, policy.number()) {
                    return self.fail(reactor, broken(format!("its terms are not those of its file: {terms:?}")));
                }
                self.state().features = terms.features & FENCED_BY_RECEIVER;
                let data = wire::encode(&Data { capacity, policy: policy.number() });
                let Some(socket) = self.state().socket.clone() else { return };
                match Socket::spare() {
                    Ok(reserve) => self.state().reserve = Some(reserve),
                    Err(_) => return self.retry(reactor),
                }
                fault!("connect.terms-received");
                socket.accept_descriptors(true);
                match self.ring.send_memory(&socket, &data) {
                    Ok(Sent::Done) => {
                        fault!("connect.data-sent");
                    }
                    Ok(_) => self.retry(reactor),
                    Err(error) => self.fail(reactor, broken(error.to_string())),
                }
            }
            Ok(Answer::Attached(attached)) if descriptors.len() == 1 => {
                match Mapping::receive(&descriptors[0], Shape::Ack) {
                    Ok(ack) => {
                        let Some(socket) = self.state().socket.clone() else { return };
                        socket.skip();
                        // From here on, bells alone.
                        match bell::take_early(&socket) {
                            Ok(bells) => self.attach(reactor, attached, Arc::new(ack), &bells),
                            Err(descriptors) => {
                                dispose(descriptors, self.ring.charge());
                                self.fail(reactor, broken("it says more than its answer".into()));
                            }
                        }
                    }
                    Err(BadMemory::Os(error)) => self.fail_behind_data(reactor, error.to_string()),
                    Err(error) => {
                        dispose(descriptors, self.ring.charge());
                        self.fail(reactor, broken(error.to_string()));
                    }
                }
            }
            Ok(Answer::Refusal(refusal)) if descriptors.is_empty() => {
                match Reason::from_number(refusal.reason) {
                    Reason::Busy => return self.retry(reactor),
                    // The link's hang-up is on its way, or has come.
                    Reason::UnknownConnection if !self.ring.link.is_closed() => {
                        let unknown = {
                            let mut state = self.state();
                            state.unknown += 1;
                            state.unknown
                        };
                        if unknown < UNKNOWN_AT_MOST {
                            return self.retry(reactor);
                        }
                    }
                    Reason::UnknownConnection | Reason::Restarted | Reason::NoInbox => {
                        return self.fail(reactor, Failure::Gone);
                    }
                    _ => {}
                }
                let text: String = refusal.text.chars().filter(|c| !c.is_control()).take(200).collect();
                self.fail(reactor, Failure::Refused { reason: refusal.reason, text });
            }
            Ok(answer) => {
                let text = format!("{} descriptors with {answer:?}", descriptors.len());
                dispose(descriptors, self.ring.charge());
                self.fail(reactor, broken(text));
            }
            Err(error) => {
                dispose(descriptors, self.ring.charge());
                self.fail(reactor, broken(error.to_string()));
            }
        }
    }

    fn attach(self: Arc<Self>, reactor: &Arc<Reactor>, attached: wire::Attached, ack: Arc<Mapping>, bells: &[Bell]) {
        fault!("connect.attached");
        let socket = self.disconnect(reactor);
        let first = self.connection.is_none().then_some(socket).flatten().map(|socket| (socket, attached.connection));
        let number = attached.ring;
        match self.ring.link.attached(reactor, &self.ring, number, first) {
            Some(socket) => {
                let Target { node, inbox, .. } = &self.ring.link.target;
                tracing::debug!(from = &*self.ring.node, to = &**node, inbox, ring = number, "connected");
                let is_fenced_by_receiver = self.state().features & FENCED_BY_RECEIVER != 0;
                self.ring.attach(Attached { ack, socket, number, is_fenced_by_receiver });
                for bell in bells {
                    match bell {
                        Bell::Ring(_) => self.ring.rung(),
                        Bell::Reset(_) => self.ring.fail(Failure::Broken("the receiver found the ring corrupt".into())),
                    }
                }
            }
            None => self.ring.fail_attached(ack),
        }
    }
}

impl Source for Outgoing {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let span = self.span.clone();
        let _span = span.enter();
        let ring = self.ring.clone();
        let Some(socket) = self.state().socket.clone() else { return };
        let mut message = [0; MAX_MESSAGE_BYTES];
        drop(self.state().reserve.take());
        // As on the other side: what is not an answer stays in the socket, and ends with it where that may block.
        match socket.peek(&mut message) {
            Ok(Received::Message { bytes, descriptors, cut: Cut::Nothing }) => {
                if descriptors.is_empty() {
                    socket.skip();
                }
                self.answered(reactor, &message[..bytes], descriptors);
            }
            Ok(Received::Message { descriptors, cut, .. }) => {
                let (count, is_none_left) = (descriptors.len(), cut == Cut::Descriptors);
                dispose(descriptors, ring.charge());
                match is_none_left {
                    // This process has no descriptor left for the memory that came.
                    true if count < 2 => self.fail_behind_data(reactor, "this process has no descriptors left".into()),
                    true => self.fail(reactor, Failure::Broken("its answer bears too many descriptors".into())),
                    false => self.fail(reactor, Failure::Broken("its answer is too long".into())),
                }
            }
            Ok(Received::Nothing) => {}
            Ok(Received::HungUp) | Err(_) if self.may_come_back() => self.retry(reactor),
            Ok(Received::HungUp) | Err(_) => self.fail(reactor, Failure::Gone),
        }
        // A receiver that was not believed may have left descriptors in the socket.
        if ring.failure().is_some()
            && let Some(socket) = Arc::into_inner(socket)
        {
            socket.dispose(Vec::new(), ring.charge());
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        let span = self.span.clone();
        let _span = span.enter();
        drop(reactor.forget(self.token));
        self.connect(reactor);
    }
}
