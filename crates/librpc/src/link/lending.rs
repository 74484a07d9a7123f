//! The sender's side of large payloads: handing a memory to an inbox, and what was lent to it.
//!
//! The handshake runs over a passing socket, once the channel is attached. The receiver maps the memory and says so; only then may
//! a record name it. Afterwards nothing is said on the socket. Its hang-up says that nobody there maps the memory any more.
//!
//! | a process dies | what is true then |
//! |---|---|
//! | the sender, before the answer | no record names the memory: the receiver unmaps it |
//! | the sender, afterwards | the receiver reads the ring to the end, and samples stay until they are dropped |
//! | the receiver, at any time | the hang-up: what was lent to it comes back |

use crate::sys::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use librpc_ring::{Claim, Holds};

use crate::fault::fault;
use crate::link::LinkRef;
use crate::link::channel_shared::ChannelShared;
use crate::registry::node_file;
use crate::registry::target::Target;
use crate::sys::clock::Instant;
use crate::sys::dispose::dispose;
use crate::sys::fork;
use crate::sys::memory::Mapping;
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::slots::{Slot, Slots};
use crate::sys::socket::{Cut, MAX_MESSAGE_BYTES, Received, Sent, Socket};
use crate::sys::sync::{Mutex, MutexGuard};
use crate::text::harmless_start;
use crate::wire::{self, Answer, Lend, PROTOCOL, Reason};

/// How long after a failed attempt the next one begins, at first and at most.
const RETRY: Duration = Duration::from_millis(5);
const RETRY_AT_MOST: Duration = Duration::from_millis(500);
/// The longest text of a refusal that is kept, in characters.
const REFUSAL_CHARS: usize = 200;

/// What has become of a hand-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    UnderWay,
    /// The receiver maps the memory.
    Done,
    /// It does not, and why.
    Refused(Reason, Arc<str>),
}

/// A memory that is handed to the inbox at the end of a channel.
#[derive(Debug)]
pub(crate) struct Lending {
    /// The number of the memory.
    pub(crate) segment: u64,
    /// The channel's memories: the claims of its records are read there.
    data: Arc<Mapping>,
    ack: Arc<Mapping>,
    state: Mutex<State>,
    reactor: Weak<Reactor>,
    /// Under which the hand-over is known there.
    token: u64,
    born: fork::Born,
}

#[derive(Debug)]
struct State {
    outcome: Outcome,
    socket: Option<Arc<Socket>>,
}

impl Lending {
    /// One that has ended well, over these memories.
    #[cfg(all(test, not(feature = "simulated")))]
    pub(crate) fn done(segment: u64, data: Arc<Mapping>, ack: Arc<Mapping>, socket: Socket) -> Self {
        let state = Mutex::new(State { outcome: Outcome::Done, socket: Some(Arc::new(socket)) });
        Self { segment, data, ack, state, reactor: Weak::new(), token: 0, born: fork::Born::now() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    pub(crate) fn outcome(&self) -> Outcome {
        self.state().outcome.clone()
    }

    /// Whether the receiver does not map the memory, or no longer does. A system call.
    fn is_over(&self) -> bool {
        match &*self.state() {
            State { outcome: Outcome::Done, socket: Some(socket) } => socket.has_hung_up(),
            State { outcome: Outcome::UnderWay, .. } => false,
            _ => true,
        }
    }
}

impl Drop for Lending {
    /// The channel or the memory is gone: a hand-over that is under way ends, whatever the receiver is waiting for, and lets go of
    /// the memory.
    fn drop(&mut self) {
        // In a forked child it is the parent's, and perhaps locked.
        if !self.born.is_here() {
            return;
        }
        let Some(reactor) = self.reactor.upgrade() else { return };
        let mut state = self.state();
        let (outcome, socket) = (state.outcome.clone(), state.socket.take());
        drop(state);
        if outcome == Outcome::UnderWay {
            if let Some(socket) = &socket {
                reactor.unwatch(&**socket);
            }
            drop(reactor.forget(self.token));
        }
    }
}

/// A payload that was lent with a record: a share in its slot, until the receiver is done with it.
#[derive(Debug)]
pub(crate) struct LentOut {
    pub(crate) claim: Claim,
    pub(crate) slot: Slot,
    pub(crate) lending: Arc<Lending>,
}

impl LentOut {
    /// Whether the receiver has consumed the record, or was overtaken. It may still hold the payload.
    pub(crate) fn is_consumed(&self) -> bool {
        let Lending { data, ack, .. } = &*self.lending;
        self.claim.is_consumed(&data.borrowed(), &ack.borrowed())
    }

    /// Whether the receiver is done with the payload.
    pub(crate) fn is_released(&self) -> bool {
        let Lending { data, ack, .. } = &*self.lending;
        self.claim.is_released(&data.borrowed(), &ack.borrowed())
    }
}

/// Looks at many payloads, one after the other: each receiver's hold words are looked at once, and so is each hand-over. (Neighbours
/// mostly have the same.)
#[derive(Debug, Default)]
pub(crate) struct Looks {
    held: Option<(*const Mapping, Holds)>,
    over: Option<(*const Lending, bool)>,
}

impl Looks {
    /// Whether the receiver holds a payload, whose record was consumed before the first call of this.
    pub(crate) fn is_held(&mut self, LentOut { claim, lending, .. }: &LentOut) -> bool {
        let Lending { data, ack, .. } = &**lending;
        let holds = match &mut self.held {
            Some((same, holds)) if *same == Arc::as_ptr(ack) => holds,
            held => {
                let holds = Holds::of_receiver(claim, &data.borrowed(), &ack.borrowed());
                &mut held.insert((Arc::as_ptr(ack), holds)).1
            }
        };
        holds.holds(claim)
    }

    /// Whether the receiver is gone, with everything that it held. A system call.
    pub(crate) fn is_over(&mut self, LentOut { lending, .. }: &LentOut) -> bool {
        match self.over {
            Some((same, is_over)) if same == Arc::as_ptr(lending) => is_over,
            _ => self.over.insert((Arc::as_ptr(lending), lending.is_over())).1,
        }
    }
}

/// What a node has made for payloads: how much, and what is still lent over channels that are closed.
#[derive(Debug)]
pub(crate) struct Payloads {
    used: Mutex<u64>,
    /// Bytes that are lent over channels, each payload once for each.
    lent: AtomicU64,
    limit: u64,
    orphans: Mutex<Vec<LentOut>>,
}

/// Bytes of a node's memory for payloads, until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    payloads: Arc<Payloads>,
    bytes: u64,
    born: fork::Born,
}

impl Payloads {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { used: Mutex::new(0), lent: AtomicU64::new(0), limit, orphans: Mutex::default() })
    }

    /// Takes bytes for a new memory; `None` if there would be too many.
    pub(crate) fn reserve(self: &Arc<Self>, bytes: u64) -> Option<Reserved> {
        let mut used = self.used.lock();
        *used = used.checked_add(bytes).filter(|&used| used <= self.limit)?;
        Some(Reserved { payloads: self.clone(), bytes, born: fork::Born::now() })
    }

    /// How many bytes there are, and how many there may be.
    pub(crate) fn used(&self) -> (u64, u64) {
        (*self.used.lock(), self.limit)
    }

    /// How many bytes there may be.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes notice that the bytes lent over one channel have changed from `before` to `now`.
    pub(crate) fn note_lent(&self, before: u64, now: u64) {
        if now != before {
            // Relaxed: a number that nothing depends on.
            self.lent.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
        }
    }

    /// How many bytes more may be lent.
    pub(crate) fn left(&self) -> u64 {
        // Relaxed: as above.
        self.limit.saturating_sub(self.lent.load(Ordering::Relaxed))
    }

    /// Looks after what is lent over a channel that closes.
    pub(crate) fn adopt(&self, lent: impl IntoIterator<Item = LentOut>) {
        self.orphans.lock().extend(lent);
        self.reap();
    }

    /// Nothing more is lent: the node has ended, so nobody waits for its memory. Receivers have mappings of their own. What is lent holds the
    /// memory, which holds this, so it would be kept for ever otherwise.
    pub(crate) fn end(&self) {
        let lent = std::mem::take(&mut *self.orphans.lock());
        drop(lent);
    }

    /// Takes back what the receivers over channels that are closed are done with. A system call for each memory.
    pub(crate) fn reap(&self) {
        let mut orphans = self.orphans.lock();
        let mut consumed = orphans.iter().map(LentOut::is_consumed).collect::<Vec<_>>().into_iter();
        let mut looks = Looks::default();
        let is_back = |lent: &mut LentOut| {
            let is_consumed = consumed.next().is_some_and(|is_consumed| is_consumed);
            is_consumed && !looks.is_held(lent) || looks.is_over(lent)
        };
        let over: Vec<LentOut> = orphans.extract_if(.., is_back).collect();
        drop(orphans);
        drop(over);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // In a forked child it is the parent's, and perhaps locked.
        if self.born.is_here() {
            *self.payloads.used.lock() -= self.bytes;
        }
    }
}

/// A hand-over under way, for as long as anybody needs it.
struct HandOver {
    lending: Weak<Lending>,
    channel: Arc<ChannelShared>,
    link: LinkRef,
    slots: Arc<Slots>,
    ring: u32,
    /// Whether the memory goes along with the first message.
    is_private: bool,
    token: u64,
    retry: Mutex<Duration>,
}

/// What a step of the hand-over leads to.
enum Next {
    Wait,
    Later,
    Retry,
    Done,
    Refused(Reason, Arc<str>),
}

/// Starts to hand a memory to the inbox at the end of an attached channel. Does not block.
pub(crate) fn begin(
    link: &LinkRef,
    channel: &Arc<ChannelShared>,
    slots: &Arc<Slots>,
    is_private: bool,
) -> Arc<Lending> {
    let (segment, data) = (slots.number, channel.data.clone());
    let lending = |outcome, ack, reactor, token| {
        let (state, born) = (Mutex::new(State { outcome, socket: None }), fork::Born::now());
        Arc::new(Lending { segment, data, ack, state, reactor, token, born })
    };
    let (Some(reactor), Some(attached)) = (link.reactor(), channel.attached()) else {
        let closed = Outcome::Refused(Reason::Unknown, "the channel is closed".into());
        return lending(closed, channel.data.clone(), Weak::new(), 0);
    };
    let token = reactor.token();
    let lending = lending(Outcome::UnderWay, attached.ack, Arc::downgrade(&reactor), token);
    let hand_over = HandOver {
        lending: Arc::downgrade(&lending),
        channel: channel.clone(),
        link: link.clone(),
        slots: slots.clone(),
        ring: attached.number,
        is_private,
        token,
        retry: Mutex::new(RETRY),
    };
    Arc::new(hand_over).connect(&reactor, &lending);
    lending
}

impl HandOver {
    fn connect(self: Arc<Self>, reactor: &Arc<Reactor>, lending: &Lending) {
        if self.channel.failure().is_some() {
            return self.end(reactor, lending, Outcome::Refused(Reason::Unknown, "the receiver is gone".into()));
        }
        match self.ask() {
            Ok(socket) => {
                lending.state().socket = Some(socket.clone());
                self.watch(reactor, &socket);
            }
            Err(Next::Refused(reason, why)) => self.end(reactor, lending, Outcome::Refused(reason, why)),
            Err(_) => self.retry(reactor, lending),
        }
    }

    /// Has the background thread wait for the answer.
    fn watch(self: &Arc<Self>, reactor: &Arc<Reactor>, socket: &Arc<Socket>) {
        if let Err(error) = reactor.watch(self.token, &**socket, self.clone()) {
            tracing::debug!(%error, node = &*self.channel.target.node, "an answer is waited for later");
            reactor.deadline(self.token, self.clone(), Some(Instant::now() + RETRY));
        }
    }

    fn ask(&self) -> Result<Arc<Socket>, Next> {
        let target = &self.channel.target;
        // Whoever is gone, the channel learns it.
        let path = node_file::socket_path(&self.channel.directory, &target.node).map_err(|_| Next::Retry)?;
        let socket = Arc::new(Socket::connect(&path).map_err(|_| Next::Retry)?);
        let peer = socket.credentials().map_err(|_| Next::Retry)?;
        if peer.uid != target.uid || !self.channel.meet(peer, || socket.peer_groups()) {
            return Err(Next::Refused(Reason::Identity, "another process listens there now".into()));
        }
        self.send(&socket, self.is_private)?;
        fault!("lend.asked");
        Ok(socket)
    }

    /// Offers the memory, without it or along with it.
    fn send(&self, socket: &Socket, with_memory: bool) -> Result<(), Next> {
        use std::os::fd::AsFd;
        let target = &self.channel.target;
        let message = wire::encode(&Lend {
            lowest: PROTOCOL,
            highest: PROTOCOL,
            target: *target.incarnation.bytes(),
            inbox: target.inbox,
            connection: self.link.connection,
            ring: self.ring,
            segment: self.slots.number,
            bytes: self.slots.bytes(),
        });
        let memory = with_memory.then(|| self.slots.memfd.as_fd());
        match socket.send(&message, memory) {
            Ok(Sent::Done) => Ok(()),
            _ => Err(Next::Retry),
        }
    }

    fn retry(self: Arc<Self>, reactor: &Arc<Reactor>, lending: &Lending) {
        self.disconnect(reactor, lending);
        let after = {
            let mut retry = self.retry.lock();
            let after = *retry;
            *retry = (after * 2).min(RETRY_AT_MOST);
            after
        };
        reactor.deadline(self.token, self.clone(), Some(Instant::now() + after));
    }

    fn disconnect(&self, reactor: &Reactor, lending: &Lending) -> Option<Arc<Socket>> {
        let socket = lending.state().socket.take();
        if let Some(socket) = &socket {
            reactor.unwatch(&**socket);
        }
        drop(reactor.forget(self.token));
        socket
    }

    fn end(&self, reactor: &Reactor, lending: &Lending, outcome: Outcome) {
        let socket = self.disconnect(reactor, lending);
        let Target { node, inbox, .. } = &self.channel.target;
        match &outcome {
            Outcome::Refused(reason, why) => {
                tracing::warn!(
                    node = &**node,
                    inbox,
                    ?reason,
                    why = &**why,
                    "a memory for payloads was not handed over"
                );
            }
            _ => tracing::debug!(
                node = &**node,
                inbox,
                bytes = self.slots.bytes(),
                "a memory for payloads was handed over"
            ),
        }
        let mut state = lending.state();
        if outcome == Outcome::Done {
            state.socket = socket;
        }
        state.outcome = outcome;
        drop(state);
        self.channel.wake();
    }

    fn answered(&self, socket: &Socket, answer: &[u8]) -> Next {
        match wire::decode::<Answer>(answer) {
            Ok(Answer::Lent) => Next::Done,
            Ok(Answer::Ready) if !self.is_private => match self.send(socket, true) {
                Ok(()) => Next::Wait,
                Err(next) => next,
            },
            Ok(Answer::Refusal(refusal)) => match Reason::from_number(refusal.reason) {
                Reason::Busy => Next::Retry,
                reason => {
                    let why = harmless_start(&refusal.text, REFUSAL_CHARS);
                    Next::Refused(reason, why.into())
                }
            },
            Ok(answer) => Next::Refused(Reason::Unknown, format!("an unexpected answer, {answer:?}").into()),
            Err(error) => Next::Refused(Reason::Unknown, error.to_string().into()),
        }
    }

    /// Takes the receiver's answer from the socket.
    fn read(self: &Arc<Self>, reactor: &Arc<Reactor>, lending: &Lending, socket: &Arc<Socket>) {
        let mut message = [0; MAX_MESSAGE_BYTES];
        let mut strangers: Vec<OwnedFd> = Vec::new();
        let next = match socket.receive(&mut message) {
            Ok(Received::Message { bytes, descriptors, cut: Cut::Nothing }) if descriptors.is_empty() => {
                self.answered(socket, &message[..bytes])
            }
            Ok(Received::Message { descriptors, .. }) => {
                strangers = descriptors;
                Next::Refused(Reason::Unknown, "its answer is invalid".into())
            }
            Ok(Received::Nothing) => Next::Wait,
            Ok(Received::HungUp) => Next::Retry,
            Err(error) if error.is_passing() => Next::Later,
            Err(error) => Next::Refused(Reason::Unknown, error.to_string().into()),
        };
        dispose(strangers, self.channel.charge());
        match next {
            Next::Wait => {}
            Next::Later => {
                reactor.unwatch(&**socket);
                reactor.deadline(self.token, self.clone(), Some(Instant::now() + RETRY));
            }
            Next::Retry => self.clone().retry(reactor, lending),
            Next::Done => self.end(reactor, lending, Outcome::Done),
            Next::Refused(reason, why) => self.end(reactor, lending, Outcome::Refused(reason, why)),
        }
    }
}

impl Source for HandOver {
    fn ready(self: Arc<Self>, reactor: &Arc<Reactor>, _ready: Ready) {
        // Otherwise it has just ended.
        let Some(lending) = self.lending.upgrade() else { return };
        let socket = lending.state().socket.clone();
        if let Some(socket) = socket {
            self.read(reactor, &lending, &socket);
        }
    }

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, _token: u64) {
        let Some(lending) = self.lending.upgrade() else { return };
        let socket = lending.state().socket.clone();
        match socket {
            Some(socket) => self.watch(reactor, &socket),
            None => {
                drop(reactor.forget(self.token));
                self.connect(reactor, &lending);
            }
        }
    }
}
