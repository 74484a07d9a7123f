//! What a client knows of its calls, and of the servers of its service.
//!
//! Invariant: a call has an outcome, or its request is with exactly one server, or it waits in `unsent`. A server that is gone is in
//! `gone` until it is clear which requests it had taken: those that it had not taken go to another server. A call whose request it
//! had taken has ended only once its replies were read to the end: its server may have answered before it died.

mod gone; //    servers that are gone, and what becomes of their requests
mod heard; //   what a client hears, and what it does then
mod lookups; // looks at the registry that have failed

use std::cell::OnceCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use librpc_ring::Kind;

use crate::call::error::CallError;
use crate::call::options::CallOptions;
use crate::call::outgoing::{Outgoing, Said};
use crate::call::table::Table;
use crate::fault::fault;
use crate::link::inbox_shared::{InboxShared, Invited};
use crate::name::Peer;
use crate::node_shared::Owned;
use crate::receive::Sample;
use crate::registry::change_counter::Watch;
use crate::registry::lookup::{Listings, is_listed};
use crate::registry::view::Subscription;
use crate::schema::CallSchemas;
use crate::send::SendError;
use crate::send::channel::OutboundChannel;
use crate::send::message::Call;
use crate::send::route::RouteId;
use crate::send::topics::{Mismatched, TopicRoute};
use crate::stats::calls::CallGuard;
use crate::stats::{CallFailure, CallSide};
use crate::sys::clock::Instant;
use crate::sys::slots::Slot;
use crate::text::counted;
use crate::wire::{self, Credit};

use lookups::Lookups;

/// How many parts of a reply a server sends before its client has taken any.
pub(super) const WINDOW: u32 = 16;

/// At most this many servers of other types are remembered.
const MAX_MISMATCHED: usize = 64;

/// A server of the service.
#[derive(Debug)]
struct Server {
    key: Arc<Invited>,
    listed: Arc<Subscription>,
    way: TopicRoute,
    /// How many calls it has not answered.
    outstanding: usize,
}

/// A server that is gone, and what it left unread.
#[derive(Debug)]
struct Gone {
    key: Arc<Invited>,
    listed: Option<Arc<Subscription>>,
    id: RouteId,
    channel: OutboundChannel,
    /// When that was noticed.
    since: Instant,
}

/// A call that nobody has ended.
#[derive(Debug)]
pub(super) struct Ongoing {
    server: Arc<Invited>,
    route: RouteId,
    is_stream: bool,
    to: Option<Arc<str>>,
    deadline: Option<u64>,
    /// When it has begun, if its time is measured.
    measured: Option<Instant>,
    /// What is sent again if the server that has taken it dies.
    body: Option<Box<[u8]>>,
    parts: VecDeque<Sample>,
    /// How many parts were taken since the server was last told.
    taken: u32,
    outcome: Option<Outcome>,
    /// Its server is gone, and had taken it.
    orphaned: Option<Orphaned>,
}

/// How a call has ended.
#[derive(Debug)]
enum Outcome {
    /// With its only reply.
    Reply(Sample),
    /// All that there was is in its parts, or was taken.
    Over,
    Failed(CallError),
}

/// How far it is clear whether a server has answered before it was gone.
#[derive(Clone, Debug)]
enum Orphaned {
    /// Only the connection to it was lost, as far as is known. It may not have attached its channel of replies yet.
    Lives(Arc<Subscription>),
    /// Its channel of replies may have arrived.
    New,
    /// It has been taken in, if it had arrived.
    LookedFor,
}

/// A request that is to be sent again.
#[derive(Debug)]
struct Unsent {
    number: u64,
    payload: Box<[u8]>,
    slot: OnceCell<Slot>,
    /// Why it was not taken, if that was said.
    error: Option<CallError>,
}

/// A new request.
pub(super) struct New<'n> {
    pub(super) payload: &'n [u8],
    pub(super) slot: &'n OnceCell<Slot>,
    pub(super) options: &'n CallOptions,
    pub(super) begun: Instant,
    pub(super) deadline: Option<u64>,
    pub(super) is_stream: bool,
}

/// What became of a new request.
#[derive(Clone, Copy, Debug)]
pub(super) enum Begun {
    /// It is with a server, under this number.
    As(u64),
    /// No server has room for it just now.
    Later,
}

/// A client, as its calls share it.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) node: Arc<Owned>,
    pub(super) service: Arc<str>,
    inbox: Arc<InboxShared>,
    out: Outgoing,
    /// What it says of itself before its first request on a channel.
    caller: Vec<u8>,
    /// What its requests and replies are, and the servers for which they are others.
    schemas: CallSchemas,
    mismatched: Vec<Mismatched>,
    servers: Vec<Server>,
    /// The domain's change counter, and its value when the servers were looked up; the version of the view then.
    registry: Option<(Watch, u64)>,
    version: u64,
    /// Whose turn it is among servers with equally many calls.
    turn: usize,
    calls: Table<Ongoing>,
    max_in_flight: usize,
    /// How many channels of replies each server has.
    connected: BTreeMap<Invited, u32>,
    gone: Vec<Gone>,
    unsent: VecDeque<Unsent>,
    lookups: Lookups,
    counters: CallGuard,
    /// What could not be said yet: calls that were given up, by route.
    uncancelled: VecDeque<(RouteId, u64)>,
    /// Something has to be tended.
    has_work: bool,
}

fn key_of(peer: &Peer) -> Invited {
    (peer.node.clone(), peer.incarnation, peer.uid)
}

fn is_of(peer: &Peer, (node, incarnation, uid): &Invited) -> bool {
    (peer.incarnation, peer.uid) == (*incarnation, *uid) && peer.node == *node
}

impl Calling {
    pub(super) fn new(
        node: Arc<Owned>,
        service: Arc<str>,
        inbox: Arc<InboxShared>,
        (caller, schemas): (Vec<u8>, CallSchemas),
        max_in_flight: usize,
    ) -> Self {
        Self {
            out: Outgoing::new((**node).clone(), inbox.clone()),
            counters: node.calls.begin(service.clone(), CallSide::Client),
            node,
            service,
            inbox,
            caller,
            schemas,
            mismatched: Vec::new(),
            servers: Vec::new(),
            registry: None,
            version: 0,
            turn: 0,
            calls: Table::new(),
            max_in_flight,
            connected: BTreeMap::new(),
            gone: Vec::new(),
            unsent: VecDeque::new(),
            lookups: Lookups::default(),
            uncancelled: VecDeque::new(),
            has_work: false,
        }
    }

    /// Why a call has not got further, if that is because servers could not be looked up.
    pub(super) fn not_looked_up(&self, number: u64) -> Option<CallError> {
        let call = self.calls.get(number).filter(|call| call.outcome.is_none())?;
        let is_stuck = self.unsent.iter().any(|unsent| unsent.number == number)
            || self.gone.iter().any(|gone| gone.id == call.route);
        self.lookups.error().filter(|_| is_stuck).cloned()
    }

    /// Looks up the servers, if the registry has changed.
    pub(super) fn find_servers(&mut self) -> Result<(), CallError> {
        if let Some((watch, seen)) = &mut self.registry
            && watch.counter() == *seen
        {
            return Ok(());
        }
        let (service, routes, version) = (&self.service, &mut self.out.routes, self.version);
        let answer = self.node.ask_view(|view| {
            view.forget(&routes.take_ended());
            let counter = view.refresh()?;
            let found: Vec<_> = view.since(version).filter(|listed| listed.serves(service)).cloned().collect();
            Ok((counter, view.watch.again(), view.version(), found))
        });
        let answer = answer.map_err(|source| CallError::Lookup { service: service.clone(), source: source.into() })?;
        let Some((counter, watch, version, found)) = answer else {
            return Err(CallError::Closed { node: self.node.id.clone() });
        };
        for listed in found.into_iter().rev() {
            self.add(listed);
        }
        self.registry = Some((watch, counter));
        self.version = version;
        Ok(())
    }

    fn add(&mut self, listed: Arc<Subscription>) {
        if self.servers.iter().any(|known| known.listed.target.is_same_inbox(&listed.target)) {
            return;
        }
        let target = &listed.target;
        let theirs = CallSchemas::listed(target.schemas.as_deref().unwrap_or_default(), false);
        if let Some((here, there)) = CallSchemas::difference(&self.schemas, &theirs) {
            if self.mismatched.len() == MAX_MISMATCHED {
                self.mismatched.remove(0);
            }
            self.mismatched.extend(self.out.routes.differ(&listed, &self.service, here, there));
            return;
        }
        let key: Arc<Invited> = Arc::new((target.node.clone(), target.incarnation, target.uid));
        self.inbox.invite((*key).clone());
        let way = TopicRoute::new(self.out.routes.subscription_route(listed.clone(), &self.out.names));
        self.servers.push(Server { key, listed, way, outstanding: 0 });
    }

    /// The nodes that serve the service just now.
    pub(super) fn server_nodes(&mut self) -> Result<Vec<Arc<str>>, CallError> {
        self.find_servers()?;
        let closed = || CallError::Closed { node: self.node.id.clone() };
        let directory = self.node.directory().ok_or_else(closed)?;
        let (mut listings, mut nodes) = (Listings::new(&directory), Vec::new());
        for server in &self.servers {
            let is_listed = listings.contain(&server.listed.target);
            let failed = |source| CallError::Lookup { service: self.service.clone(), source: Arc::new(source) };
            if is_listed.map_err(failed)? {
                nodes.push(server.key.0.clone());
            }
        }
        Ok(nodes)
    }

    /// Sends a new request to the server with the fewest outstanding ones.
    pub(super) fn begin(&mut self, new: &New<'_>) -> Result<Begun, CallError> {
        self.try_begin(new).inspect_err(|error| self.not_begun(error))
    }

    /// Counts a call that has failed before its request was with a server.
    pub(super) fn not_begun(&self, error: &CallError) {
        self.counters.begun();
        self.counters.failed(error.kind());
    }

    fn try_begin(&mut self, new: &New<'_>) -> Result<Begun, CallError> {
        if self.calls.len() >= self.max_in_flight {
            let calls = counted(self.max_in_flight, "call of this client is", "calls of this client are");
            let what = format!("{calls} in flight, its limit").into();
            return Err(CallError::Busy { service: self.service.clone(), what });
        }
        self.find_servers()?;
        let number = self.calls.next_number();
        let to = &new.options.to;
        let (server, route) = match self.send_at_once(number, new) {
            Some(sent) => sent,
            None => match self.send(number, new.deadline, to.as_ref(), new.payload, new.slot) {
                (Some(Said::Yes), server) => server.expect("it was sent to one"),
                (Some(Said::Later), _) => return Ok(Begun::Later),
                (Some(Said::Failed(error)), _) => return Err(self.not_sent(error)),
                (Some(Said::Gone) | None, _) => return Err(self.no_server(to.as_ref())),
            },
        };
        fault!("call.requested");
        self.counters.begun();
        let ongoing = Ongoing {
            server,
            route,
            is_stream: new.is_stream,
            to: to.clone(),
            deadline: new.deadline,
            measured: self.counters.is_measured(new.begun).then_some(new.begun),
            body: new.options.idempotent.then(|| new.payload.into()),
            parts: VecDeque::new(),
            taken: 0,
            outcome: None,
            orphaned: None,
        };
        self.calls.insert(number, ongoing);
        Ok(Begun::As(number))
    }

    /// Why there is no server: there is one of other types, or there is none.
    fn no_server(&self, to: Option<&Arc<str>>) -> CallError {
        let (service, directory) = (self.service.clone(), self.node.directory());
        let is_there = |found: &&Mismatched| {
            let is_listed = |directory: &_| is_listed(directory, &found.subscription.target).unwrap_or(true);
            to.is_none_or(|to| *to == found.subscription.target.node) && directory.as_deref().is_some_and(is_listed)
        };
        match self.mismatched.iter().find(is_there) {
            Some(Mismatched { subscription, mismatch }) => {
                let why = format!("is of other types: {mismatch}").into();
                CallError::Mismatch { service, node: subscription.target.node.clone(), why }
            }
            None => CallError::NoServer { service, node: to.cloned() },
        }
    }

    /// The hot path of [`Calling::send`]: the server whose turn it is takes the request at once.
    #[inline(always)]
    fn send_at_once(&mut self, number: u64, new: &New<'_>) -> Option<(Arc<Invited>, RouteId)> {
        if new.slot.get().is_some() {
            return None;
        }
        let turn = self.turn;
        let at = self.next_server(new.options.to.as_ref(), &[])?;
        let server = &mut self.servers[at];
        let call = Call { kind: Kind::Request, number, deadline: new.deadline, caller: Some(&self.caller) };
        if !self.out.say_at_once(&server.way, &call, new.payload) {
            self.turn = turn;
            return None;
        }
        server.outstanding += 1;
        Some((server.key.clone(), server.way.id))
    }

    /// Sends a request to one server. The answer is that of the server that took it, or the best of the others'. `None`: there is no
    /// server.
    fn send(
        &mut self,
        number: u64,
        deadline: Option<u64>,
        to: Option<&Arc<str>>,
        payload: &[u8],
        slot: &OnceCell<Slot>,
    ) -> (Option<Said>, Option<(Arc<Invited>, RouteId)>) {
        let mut best = None;
        let mut tried: Vec<RouteId> = Vec::new();
        while let Some(at) = self.next_server(to, &tried) {
            let call = Call { kind: Kind::Request, number, deadline, caller: Some(&self.caller) };
            let server = &mut self.servers[at];
            let said = self.out.say(&mut server.way, call, payload, slot);
            match said {
                Said::Yes => {
                    server.outstanding += 1;
                    return (Some(said), Some((server.key.clone(), server.way.id)));
                }
                Said::Gone => {
                    self.has_work = true; // what it had is looked after
                    self.inbox.nudge();
                    let id = server.way.id;
                    tried.push(id);
                    if self.out.routes.get(id).is_none() {
                        self.forget(at);
                    }
                    best.get_or_insert(Said::Gone);
                }
                Said::Later | Said::Failed(_) => {
                    tried.push(server.way.id);
                    if !matches!(best, Some(Said::Later)) {
                        best = Some(said);
                    }
                }
            }
        }
        (best, None)
    }

    /// The server with the fewest outstanding calls among those that were not tried; in turn where several have equally many.
    fn next_server(&mut self, to: Option<&Arc<str>>, tried: &[RouteId]) -> Option<usize> {
        let servers = self.servers.len();
        let is_asked = |at: &usize| {
            let server = &self.servers[*at];
            to.is_none_or(|to| server.key.0 == *to) && !tried.contains(&server.way.id)
        };
        if servers == 1 {
            return is_asked(&0).then_some(0); // as is usual
        }
        let order = (0..servers).map(|at| (self.turn + at) % servers);
        let next = order.filter(is_asked).min_by_key(|&at| self.servers[at].outstanding)?;
        self.turn = (next + 1) % servers;
        Some(next)
    }

    fn forget(&mut self, at: usize) {
        let server = self.servers.remove(at);
        self.out.routes.remove(server.way.id);
        self.disinvite(&server.key);
    }

    /// A server that is gone, and from which nothing more is to come, may no longer connect.
    fn disinvite(&self, key: &Invited) {
        let is_known = self.servers.iter().any(|server| *server.key == *key)
            || self.gone.iter().any(|gone| *gone.key == *key)
            || self.calls.iter().any(|(_, call)| call.outcome.is_none() && *call.server == *key);
        if !is_known {
            self.inbox.disinvite(key);
        }
    }

    fn not_sent(&self, error: SendError) -> CallError {
        let service = self.service.clone();
        match error {
            SendError::Refused { node, reason, text, .. } => CallError::Refused { service, node, reason, text },
            SendError::Closed { node } => CallError::Closed { node },
            source => CallError::Send { service, source: Arc::new(source) },
        }
    }

    /// The next part of a reply, or how it has ended. `None`: nothing has come yet.
    pub(super) fn next_part(&mut self, number: u64) -> Option<Result<Option<Sample>, CallError>> {
        let call = self.calls.get_mut(number)?;
        if let Some(part) = call.parts.pop_front() {
            call.taken += 1;
            if call.is_stream && call.taken >= WINDOW / 2 && call.outcome.is_none() {
                self.give_credit(number);
            }
            return Some(Ok(Some(part)));
        }
        if let Outcome::Reply(_) = call.outcome.as_ref()? {
            let Some(Outcome::Reply(reply)) = call.outcome.replace(Outcome::Over) else { return None };
            return Some(Ok(Some(reply)));
        }
        match self.calls.remove(number, |call| call.outcome.take())?? {
            Outcome::Failed(error) => Some(Err(error)),
            _ => Some(Ok(None)),
        }
    }

    /// Whether a call has an answer, or a part of one, that was not taken. `Some(false)`: it is over, and was taken. `None`: it has not
    /// ended.
    pub(super) fn has_answer(&self, number: u64) -> Option<bool> {
        match self.calls.get(number) {
            None => Some(false),
            Some(call) => (call.outcome.is_some() || !call.parts.is_empty()).then_some(true),
        }
    }

    /// The only reply to a call, or the error with which it ended. `None`: it has not ended.
    pub(super) fn reply(&mut self, number: u64) -> Option<Result<Sample, CallError>> {
        self.calls.get(number)?.outcome.as_ref()?;
        match self.calls.remove(number, |call| call.outcome.take())?? {
            Outcome::Reply(reply) => Some(Ok(reply)),
            Outcome::Failed(error) => Some(Err(error)),
            Outcome::Over => unreachable!("a call that does not take parts was answered with a reply"),
        }
    }

    fn mismatch(&self, node: &Arc<str>, why: &str) -> CallError {
        CallError::Mismatch { service: self.service.clone(), node: node.clone(), why: why.into() }
    }

    /// Lets a server send as many more parts as were taken.
    fn give_credit(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(number) else { return };
        let Some(server) = self.servers.iter_mut().find(|server| server.way.id == call.route) else { return };
        let credit = wire::encode(&Credit { parts: call.taken });
        let record = Call { kind: Kind::Credit, number, deadline: None, caller: Some(&self.caller) };
        match self.out.say(&mut server.way, record, &credit, &OnceCell::new()) {
            Said::Yes => call.taken = 0,
            // With the next part that is taken, or the next look.
            _ => self.has_work = true,
        }
    }

    /// Nobody waits for a call any more: its server learns that.
    pub(super) fn abandon(&mut self, number: u64, how: CallFailure) {
        let removed = self.calls.remove(number, |call| (call.route, call.outcome.is_none()));
        let Some((route, is_unanswered)) = removed else { return };
        self.unsent.retain(|unsent| unsent.number != number);
        if is_unanswered {
            self.counters.failed(how);
            self.answered(route);
            self.cancel(route, number);
        }
    }

    /// Ends a call that is under way, and has its server learn that. `false`: it has ended already.
    pub(super) fn cancel_call(&mut self, number: u64) -> bool {
        let Some(call) = self.calls.get(number).filter(|call| call.outcome.is_none()) else { return false };
        let route = call.route;
        self.unsent.retain(|unsent| unsent.number != number);
        self.end(number, Err(CallError::Cancelled { service: self.service.clone() }));
        self.cancel(route, number);
        true
    }

    fn cancel(&mut self, route: RouteId, number: u64) {
        if !self.try_cancel(route, number) && self.uncancelled.len() < self.max_in_flight {
            self.uncancelled.push_back((route, number));
            self.has_work = true;
            self.inbox.nudge(); // a thread that receives just now looks after it
        }
    }

    /// `false`: it is to be tried again.
    fn try_cancel(&mut self, route: RouteId, number: u64) -> bool {
        let Some(server) = self.servers.iter_mut().find(|server| server.way.id == route) else { return true };
        let record = Call { kind: Kind::Cancel, number, deadline: None, caller: Some(&self.caller) };
        let said = self.out.say(&mut server.way, record, &[], &OnceCell::new());
        fault!("call.cancelled");
        !matches!(said, Said::Later)
    }

    /// A server has one call less.
    fn answered(&mut self, route: RouteId) {
        if let Some(server) = self.servers.iter_mut().find(|server| server.way.id == route) {
            server.outstanding = server.outstanding.saturating_sub(1);
        }
    }

    fn end(&mut self, number: u64, outcome: Result<(), CallError>) {
        let Some(call) = self.calls.get_mut(number).filter(|call| call.outcome.is_none()) else { return };
        call.outcome = Some(match outcome {
            Ok(()) => {
                self.counters.answered(call.measured);
                Outcome::Over
            }
            Err(error) => {
                self.counters.failed(error.kind());
                Outcome::Failed(error)
            }
        });
        (call.body, call.orphaned) = (None, None);
        let route = call.route;
        self.answered(route);
    }
}
