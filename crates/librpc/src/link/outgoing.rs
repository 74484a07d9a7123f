//! The sender's side of a handshake.
//!
//! In a private domain the calling thread connects, and sends hello and data memory in one message: from then on the kernel
//! holds the ring for the receiver, whatever becomes of this process. In a shared domain the memory follows the receiver's
//! terms. Answers are taken by the background thread, which waits as long as the receiver's process lives: a stopped one
//! answers when it goes on.
//!
//! A receiver that dies is a hang-up here. If its node still lives, the receiver has only lost patience;
//! otherwise it has died.

use crate::sys::OwnedFd;
use crate::text::{counted, harmless_start};
use std::sync::Arc;
use std::time::Duration;

use crate::fault::fault;
use crate::link::bell::{self, Bell};
use crate::link::channel_shared::{ChannelShared, Failure};
use crate::link::{Answered, Begun, LinkRef};
use crate::registry::lookup;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::sys::clock::Instant;
use crate::sys::dispose::dispose;
use crate::sys::file::Errno;
use crate::sys::memory::{BadMemory, Mapping, Shape};
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Cut, MAX_MESSAGE_BYTES, Received, Sent, Socket};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::sys::{OsError, barrier};
use crate::wire::{self, Answer, Data, FENCED_BY_RECEIVER, Hello, PROTOCOL, Reason, Terms};

/// How long after a lost or a refused-for-now attempt the next one begins, at first and at most.
const RETRY: Duration = Duration::from_millis(5);
const RETRY_AT_MOST: Duration = Duration::from_millis(500);
/// How often a receiver may not know the connection to which a channel is to be added.
const UNKNOWN_AT_MOST: u32 = 10;
/// The longest text of a refusal that is kept, in characters.
const REFUSAL_CHARS: usize = 200;

/// A channel that is being connected.
struct Outgoing {
    channel: Arc<ChannelShared>,
    link: LinkRef,
    /// Whether the data memory goes along with the hello.
    is_private: bool,
    token: u64,
    state: Mutex<State>,
    /// `connect`, from the first attempt to the end.
    span: tracing::Span,
}

struct State {
    socket: Option<Arc<Socket>>,
    /// The hello on that socket opens the connection.
    opens: bool,
    retry: Duration,
    /// How often the receiver did not know the connection to which the channel was to be added.
    unknown: u32,
}

/// Starts the handshake of a channel; its outcome is seen in the channel. Does not block.
pub(crate) fn begin(reactor: &Arc<Reactor>, link: LinkRef, channel: Arc<ChannelShared>, is_private: bool) {
    let Target { node, inbox, .. } = &channel.target;
    let span = tracing::debug_span!("connect", from = &*channel.node, to = &**node, inbox);
    let state = State { socket: None, opens: false, retry: RETRY, unknown: 0 };
    let (token, state) = (reactor.token(), Mutex::new(state));
    let outgoing = Arc::new(Outgoing { channel, link, is_private, token, state, span: span.clone() });
    span.in_scope(|| outgoing.connect(reactor));
}

/// Why a hello was not sent.
enum NotSent {
    /// It is tried again.
    Later,
    Failed(Failure),
}

/// What a step of the handshake leads to.
enum Next {
    /// The receiver will say more.
    Wait,
    /// What it has said is looked at again in a moment.
    Later,
    Retry,
    Fail(Failure),
    Attached {
        number: u32,
        features: u64,
        ack: Arc<Mapping>,
    },
}

fn broken(text: impl Into<String>) -> Next {
    Next::Fail(Failure::Broken(text.into()))
}

impl Outgoing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Connects, and says hello.
    fn connect(self: Arc<Self>, reactor: &Arc<Reactor>) {
        if let Some(failure) = self.channel.failure() {
            return self.fail(reactor, failure); // the sender has closed it in the meantime
        }
        let mut said = Err(NotSent::Later);
        let begun = self.link.begin(&self.channel, |opens| {
            said = self.say_hello(opens);
            said.is_ok()
        });
        match (begun, said) {
            (Begun::Closed, _) => self.fail(reactor, Failure::Gone),
            (Begun::Sent { opens }, Ok(socket)) => {
                let mut state = self.state();
                state.opens = opens;
                state.socket = Some(socket.clone());
                drop(state);
                self.watch(reactor, &socket);
            }
            (_, Err(NotSent::Failed(failure))) => self.fail(reactor, failure),
            (_, _) => self.retry(reactor),
        }
    }

    fn say_hello(&self, opens: bool) -> Result<Arc<Socket>, NotSent> {
        let failed = |error: OsError| NotSent::Failed(Failure::Broken(error.to_string()));
        let target = &self.channel.target;
        let path = node_file::socket_path(&self.channel.directory, &target.node);
        let socket = match path.and_then(|path| Socket::connect(&path)) {
            Ok(socket) => Arc::new(socket),
            Err(error) if error.is_passing() || self.may_come_back() => {
                tracing::debug!(%error, node = &*target.node, "not connected yet");
                return Err(NotSent::Later);
            }
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::CONNREFUSED) => {
                return Err(NotSent::Failed(Failure::Gone));
            }
            Err(error) => return Err(failed(error)),
        };
        fault!("connect.connected");
        let peer = socket.credentials().map_err(failed)?;
        if peer.uid != target.uid {
            let text = format!("its socket belongs to uid {}, its file to uid {}", peer.uid, target.uid);
            return Err(NotSent::Failed(Failure::Broken(text)));
        }
        if !self.channel.meet(peer, || socket.peer_groups()) {
            tracing::debug!(node = &*target.node, "another process listens now: it gets a channel of its own");
            return Err(NotSent::Failed(Failure::Gone));
        }
        let terms = Data { capacity: target.capacity, policy: target.policy.number() };
        let hello = wire::encode(&Hello {
            lowest: PROTOCOL,
            highest: PROTOCOL,
            features: if barrier::is_registered() { FENCED_BY_RECEIVER } else { 0 },
            node: self.channel.node.to_string(),
            incarnation: *self.channel.incarnation.bytes(),
            target: *target.incarnation.bytes(),
            inbox: target.inbox,
            connection: self.link.connection,
            opens,
            data: self.is_private.then_some(terms),
        });
        let sent = if self.is_private {
            socket.accept_descriptors(true);
            self.channel.send_memory(&socket, &hello)
        } else {
            socket.send(&hello, None)
        };
        match sent {
            Ok(Sent::Done) => {
                fault!("connect.hello-sent");
                Ok(socket)
            }
            Ok(_) => Err(NotSent::Later),
            Err(error) if error.is_passing() => Err(NotSent::Later),
            Err(error) => Err(failed(error)),
        }
    }

    /// Has the background thread wait for the answer. What was sent is not sent again only because that cannot be watched
    /// just now.
    fn watch(self: &Arc<Self>, reactor: &Arc<Reactor>, socket: &Arc<Socket>) {
        if let Err(error) = reactor.watch(self.token, &**socket, self.clone()) {
            tracing::debug!(%error, node = &*self.channel.target.node, "an answer is waited for later");
            reactor.deadline(self.token, self.clone(), Some(Instant::now() + RETRY));
        }
    }

    /// Whether the receiver's incarnation still lives, so that a lost connection means nothing.
    fn may_come_back(&self) -> bool {
        // A look that fails says nothing: there will be another one.
        lookup::is_listed(&self.channel.directory, &self.channel.target).unwrap_or(true)
    }

    /// Lets go of the socket; whether its hello was to open the connection.
    fn disconnect(&self, reactor: &Reactor) -> (Option<Arc<Socket>>, bool) {
        let (socket, opens) = {
            let mut state = self.state();
            (state.socket.take(), std::mem::take(&mut state.opens))
        };
        if let Some(socket) = &socket {
            reactor.unwatch(socket);
        }
        drop(reactor.forget(self.token));
        (socket, opens)
    }

    fn fail(&self, reactor: &Arc<Reactor>, failure: Failure) {
        let (_socket, opens) = self.disconnect(reactor);
        tracing::debug!(node = &*self.channel.target.node, ?failure, "not connected");
        self.channel.unanswered(failure.clone());
        match failure {
            _ if !opens => {}
            // This channel was closed; the others may go on.
            Failure::NodeClosed => self.link.opens_later(),
            failure => self.link.refused(&failure),
        }
    }

    fn retry(self: Arc<Self>, reactor: &Arc<Reactor>) {
        let (_socket, opens) = self.disconnect(reactor);
        self.channel.turned_away();
        if opens {
            self.link.opens_later();
        }
        let after = {
            let mut state = self.state();
            let after = state.retry;
            state.retry = (after * 2).min(RETRY_AT_MOST);
            after
        };
        reactor.deadline(self.token, self.clone(), Some(Instant::now() + after));
    }

    /// The receiver states its terms: they must be those that its node's file announced.
    fn terms(&self, terms: &Terms) -> Next {
        let Target { capacity, policy, .. } = self.channel.target;
        if self.is_private {
            return broken("it states terms after it was given the memory");
        }
        if terms.version != PROTOCOL {
            return broken(format!(
                "it speaks version {} of the handshake, this node version {PROTOCOL}",
                terms.version
            ));
        }
        if (terms.capacity, terms.policy) != (capacity, policy.number()) {
            return broken("its terms are not those that its file announced");
        }
        let Some(socket) = self.state().socket.clone() else { return Next::Wait };
        fault!("connect.terms-received");
        socket.accept_descriptors(true);
        let data = wire::encode(&Data { capacity, policy: policy.number() });
        match self.channel.send_memory(&socket, &data) {
            Ok(Sent::Done) => {
                fault!("connect.data-sent");
                Next::Wait
            }
            Ok(_) => Next::Retry,
            Err(error) if error.is_passing() => Next::Retry,
            Err(error) => broken(error.to_string()),
        }
    }

    /// A message of the receiver's, and the descriptors that came with it. What is wrong with it leaves these in place.
    fn answered(&self, answer: &[u8], descriptors: &[OwnedFd]) -> Next {
        match (wire::decode::<Answer>(answer), descriptors) {
            (Ok(Answer::Terms(terms)), []) => self.terms(&terms),
            (Ok(Answer::Attached(attached)), [ack]) => match Mapping::receive(ack, Shape::Ack) {
                Ok(ack) => Next::Attached { number: attached.ring, features: attached.features, ack: Arc::new(ack) },
                Err(BadMemory::Os(error)) => {
                    tracing::debug!(%error, "a receiver's memory is mapped later");
                    Next::Later
                }
                Err(error) => broken(error.to_string()),
            },
            (Ok(Answer::Refusal(refusal)), []) => self.refusal(refusal.reason, &refusal.text),
            (Ok(answer), _) => {
                broken(format!("{} with {answer:?}", counted(descriptors.len(), "descriptor", "descriptors")))
            }
            (Err(error), _) => broken(error.to_string()),
        }
    }

    fn refusal(&self, reason: u32, text: &str) -> Next {
        self.channel.not_taken();
        match Reason::from_number(reason) {
            Reason::Busy => Next::Retry,
            // The link's hang-up is on its way, or has come.
            Reason::UnknownConnection => {
                let mut state = self.state();
                state.unknown += 1;
                if state.unknown < UNKNOWN_AT_MOST { Next::Retry } else { Next::Fail(Failure::Gone) }
            }
            Reason::Restarted | Reason::NoInbox => Next::Fail(Failure::Gone),
            _ => {
                let text = harmless_start(text, REFUSAL_CHARS);
                Next::Fail(Failure::Refused { reason, text })
            }
        }
    }

    fn attached(&self, reactor: &Arc<Reactor>, number: u32, features: u64, ack: Arc<Mapping>, bells: &[Bell]) {
        fault!("connect.attached");
        let (socket, opens) = self.disconnect(reactor);
        let Target { node, inbox, .. } = &self.channel.target;
        tracing::debug!(from = &*self.channel.node, to = &**node, inbox, ring = number, "connected");
        let is_fenced_by_receiver = features & FENCED_BY_RECEIVER != 0;
        let answered = Answered { channel: self.channel.clone(), number, ack, is_fenced_by_receiver };
        match socket {
            Some(socket) if opens => self.link.opened(reactor, answered, socket, bells),
            _ => self.link.attached(answered),
        }
    }

    /// Takes the receiver's answer from the socket. Anything else stays there, and is closed with the socket, where that may
    /// block.
    fn read(self: &Arc<Self>, reactor: &Arc<Reactor>, socket: &Arc<Socket>) {
        let mut message = [0; MAX_MESSAGE_BYTES];
        let (next, descriptors) = match socket.peek(&mut message) {
            Ok(Received::Message { bytes, descriptors, cut: Cut::Nothing }) => {
                if descriptors.is_empty() {
                    socket.skip();
                }
                (self.answered(&message[..bytes], &descriptors), descriptors)
            }
            Ok(Received::Message { descriptors, cut, .. }) => {
                let next = match cut {
                    // This process has no descriptor left for the memory that came: it is still there in a moment.
                    Cut::Descriptors if descriptors.len() < 2 => Next::Later,
                    Cut::Descriptors => broken("too many descriptors come with its answer"),
                    _ => broken("its answer is too long"),
                };
                (next, descriptors)
            }
            Ok(Received::Nothing) => (Next::Wait, Vec::new()),
            Err(error) if error.is_passing() => (Next::Later, Vec::new()),
            Ok(Received::HungUp) => {
                // A receiver that takes a ring answers first.
                self.channel.not_taken();
                let next = if self.may_come_back() { Next::Retry } else { Next::Fail(Failure::Gone) };
                (next, Vec::new())
            }
            Err(error) => (broken(error.to_string()), Vec::new()),
        };
        match next {
            Next::Wait => {}
            Next::Later => {
                dispose(descriptors, self.channel.charge());
                reactor.unwatch(&**socket);
                reactor.deadline(self.token, self.clone(), Some(Instant::now() + RETRY));
            }
            Next::Retry => self.clone().retry(reactor),
            Next::Fail(failure) => {
                dispose(descriptors, self.channel.charge());
                self.fail(reactor, failure);
            }
            Next::Attached { number, features, ack } => {
                socket.skip();
                // From here on, bells alone.
                match bell::take_early(socket) {
                    Ok(bells) => self.attached(reactor, number, features, ack, &bells),
                    Err(strange) => {
                        dispose(strange, self.channel.charge());
                        self.fail(reactor, Failure::Broken("it says more than its answer".into()));
                    }
                }
            }
        }
    }
}

impl Source for Outgoing {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        let span = self.span.clone();
        let _span = span.enter();
        let Some(socket) = self.state().socket.clone() else { return };
        self.read(reactor, &socket);
        // A receiver that was not believed may have left descriptors in the socket.
        if self.channel.failure().is_some()
            && let Some(socket) = Arc::into_inner(socket)
        {
            socket.dispose(Vec::new(), self.channel.charge());
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        let span = self.span.clone();
        let _span = span.enter();
        let socket = self.state().socket.clone();
        match socket {
            Some(socket) => self.watch(reactor, &socket),
            None => {
                drop(reactor.forget(self.token));
                self.connect(reactor);
            }
        }
    }
}
