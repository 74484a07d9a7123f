//! What a server knows of its callers, and of the requests that they wait for.
//!
//! Invariant: a request that has come is in `parked`, in `ready`, or handed out, and counts as in flight until it is answered, or its
//! caller gives it up or is gone. It is handed out only once its caller has attached the channel of replies: then a server that dies
//! leaves each answer where its client finds it.

mod answers; // on their way to its clients

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Kind, is_mappable};

use crate::call::caller::{Arrived, Client, WorkId, Works};
use crate::call::exchange::Side;
use crate::call::outgoing::{Outgoing, decoded};
use crate::call::pause::{AGAIN, Pause};
use crate::fault::fault;
use crate::link::channel_shared::Failure;
use crate::link::inbox_shared::InboxShared;
use crate::name::Address;
use crate::node_shared::Owned;
use crate::policy::Policy;
use crate::receive::inbox::{Heard, Inbox, Spoken};
use crate::receive::{Departure, Sample};
use crate::registry::target::Target;
use crate::registry::view::Subscription;
use crate::schema::{CallSchemas, Schema, SchemaMismatch};
use crate::send::routes::Reached;
use crate::send::topics::TopicRoute;
use crate::stats::calls::CallGuard;
use crate::stats::{CallFailure, CallSide};
use crate::sys::clock::Instant;
use crate::sys::memory::page_size;
use crate::text::{self, counted};
use crate::wire::{Caller, Cause, Credit};

/// How many parts a client may ask for in advance.
const MAX_CREDIT: u32 = 1 << 16;

/// A server, as its requests share it.
#[derive(Debug)]
pub(super) struct Serving {
    /// Kept open until the last request is answered.
    node: Arc<Owned>,
    inbox: Arc<InboxShared>,
    out: Outgoing,
    /// By the serial numbers of their channels.
    clients: BTreeMap<u64, Client>,
    ready: VecDeque<Arrived>,
    works: Works,
    in_flight: usize,
    /// How many of them are in `parked`. They do not count against the limit of all clients: otherwise one that never attaches the channel
    /// of replies could take the places of others.
    parked: usize,
    /// How many requests were cancelled on which the program still works. They count against the limits: otherwise a client that
    /// cancels at once would have no limit.
    given_up: usize,
    max_in_flight: usize,
    max_per_client: usize,
    /// Clients that are to be expelled, by the serial numbers of their channels, and why.
    expelled: Vec<(u64, String)>,
    counters: CallGuard,
    /// It takes no more requests.
    is_closed: bool,
    has_work: bool,
    /// How soon clients that could not be connected to are tried again.
    pause: Pause,
}

impl Serving {
    pub(super) fn new(
        node: Arc<Owned>,
        service: Arc<str>,
        inbox: Arc<InboxShared>,
        (max_in_flight, max_per_client): (usize, usize),
    ) -> Self {
        Self {
            out: Outgoing::new((**node).clone(), inbox.clone()),
            counters: node.calls.begin(service, CallSide::Server),
            node,
            inbox,
            clients: BTreeMap::new(),
            ready: VecDeque::new(),
            works: Works::default(),
            in_flight: 0,
            parked: 0,
            given_up: 0,
            max_in_flight,
            max_per_client,
            expelled: Vec::new(),
            is_closed: false,
            has_work: false,
            pause: Pause::default(),
        }
    }

    /// See [`Outgoing::wait_for_memory`].
    pub(super) fn wait_for_memory(&mut self, grace: Duration) {
        self.out.wait_for_memory(grace);
    }

    /// The next request that somebody still waits for.
    pub(super) fn next(&mut self) -> Option<Arrived> {
        while let Some(arrived) = self.ready.pop_front() {
            let now = Instant::coarse();
            let is_late = arrived.deadline.is_some_and(|deadline| now.has_passed(deadline));
            if let Some(work) = self.works.get(arrived.work).filter(|work| !work.is_cancelled && !is_late) {
                work.is_handed_out = true;
                if self.counters.is_measured(now) {
                    work.measured = Some(Instant::now());
                }
                fault!("call.handed-out");
                return Some(arrived);
            }
            let how = if is_late { CallFailure::Deadline } else { CallFailure::Cancelled };
            self.done(arrived.caller, arrived.number, Err(how));
        }
        None
    }

    /// Whether a request can be handed out.
    pub(super) fn has_next(&self) -> bool {
        !self.ready.is_empty()
    }

    /// How many requests have come and are not answered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether nobody waits for a request any more.
    pub(super) fn is_cancelled(&mut self, work: WorkId) -> bool {
        self.works.get(work).is_none_or(|work| work.is_cancelled)
    }

    /// A request was cancelled, or its client is gone.
    fn give_up(&mut self, caller: u64, id: WorkId) {
        self.counters.failed(CallFailure::Cancelled);
        let Some(work) = self.works.get(id) else { return };
        if !work.is_handed_out {
            return self.works.remove(id);
        }
        (work.is_cancelled, work.is_given_up) = (true, true);
        self.given_up += 1;
        if let Some(client) = self.clients.get_mut(&caller) {
            client.given_up += 1;
        }
    }

    /// The program no longer works on a request.
    fn let_go(&mut self, caller: u64, id: WorkId) {
        if self.works.get(id).is_some_and(|work| work.is_given_up) {
            self.given_up -= 1;
            if let Some(client) = self.clients.get_mut(&caller) {
                client.given_up -= 1;
            }
        }
        self.works.remove(id);
    }

    /// A request is answered, or given up.
    fn done(&mut self, caller: u64, number: u64, how: Result<(), CallFailure>) {
        if let Some(client) = self.clients.get_mut(&caller)
            && let Some(id) = client.calls.remove(number)
        {
            let work = self.works.get(id);
            match how {
                Ok(()) => self.counters.answered(work.as_ref().and_then(|work| work.measured)),
                Err(how) => self.counters.failed(how),
            }
            if work.is_some_and(|work| !work.is_handed_out) {
                self.works.remove(id);
            }
            self.in_flight -= 1;
            self.has_work |= client.is_silent;
        }
    }

    /// Whether a part may be sent, which takes the right to do so. `Some(false)`: nobody waits for it any more. `None`: the client has to
    /// take some first.
    pub(super) fn may_send_part(&mut self, work: WorkId) -> Option<bool> {
        let Some(work) = self.works.get(work).filter(|work| !work.is_cancelled) else { return Some(false) };
        // Once the server has ended, it hears no more of what is taken.
        (work.credit > 0 || self.is_closed).then(|| {
            work.credit = work.credit.saturating_sub(1);
            true
        })
    }

    /// Takes no more requests. What nobody has seen goes back to its clients, who may ask others.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        let parked = self.clients.values_mut().flat_map(|client| std::mem::take(&mut client.parked));
        let parked = parked.map(|(arrived, _)| arrived);
        let unseen: Vec<Arrived> = std::mem::take(&mut self.ready).into_iter().chain(parked).collect();
        self.parked = 0;
        for Arrived { caller, number, .. } in unseen {
            let _ = self.fail(caller, number, (Cause::NotTaken, 0, "")); // otherwise the client learns it from the hang-up
        }
    }

    /// Whether answers wait for room.
    pub(super) fn has_backlog(&self) -> bool {
        self.clients.values().any(|client| !client.backlog.is_empty())
    }

    /// A client is gone, or no longer takes replies: nobody waits for what it has asked.
    fn client_gone(&mut self, caller: u64) {
        let Some(client) = self.clients.get_mut(&caller) else { return };
        client.is_gone = true;
        let calls = std::mem::take(&mut client.calls);
        self.parked -= client.parked.len();
        client.parked.clear();
        client.backlog.clear();
        client.backlog_bytes = 0;
        self.in_flight -= calls.len();
        self.ready.retain(|arrived| arrived.caller != caller);
        calls.iter().for_each(|work| self.give_up(caller, work));
    }

    /// Hears a client no more, because it cannot be answered.
    fn expel(&mut self, caller: u64, why: String) {
        self.client_gone(caller);
        self.expelled.push((caller, why));
        self.has_work = true;
        self.inbox.nudge();
    }

    /// A client that has connected again is there twice, and is answered over one route.
    fn forget(&mut self, caller: u64) {
        if let Some(client) = self.clients.remove(&caller)
            && self.clients.values().all(|other| other.way.id != client.way.id)
        {
            self.out.routes.remove(client.way.id);
        }
    }

    fn spoken(&mut self, inbox: &mut Inbox, spoken: Spoken) {
        let Spoken { channel, kind, number, deadline, sample } = spoken;
        let taken = match kind {
            Kind::Caller => self.introduced(channel, &sample),
            Kind::Request => self.requested(channel, number, deadline, sample),
            Kind::Cancel => {
                self.cancelled(channel, number);
                Ok(())
            }
            Kind::Credit => decoded(&sample).map(|Credit { parts }| {
                let work = self.clients.get(&channel).and_then(|client| client.calls.get(number));
                if let Some(work) = work.and_then(|work| self.works.get(work)) {
                    work.credit = work.credit.saturating_add(parts).min(MAX_CREDIT);
                }
            }),
            kind => Err(format!("it sends an unexpected record, {kind:?}")),
        };
        if let Err(why) = taken {
            inbox.expel(channel, why);
        }
    }

    /// A client says where it takes replies.
    fn introduced(&mut self, channel: u64, sample: &Sample) -> Result<(), String> {
        if self.clients.contains_key(&channel) {
            return Err("it says twice where it takes replies".into());
        }
        let Caller { inbox, capacity, max_message, schemas, any } = decoded(sample)?;
        let schemas = schemas.unwrap_or_default().into_iter().take(2).map(Schema::try_from);
        let schemas = schemas.collect::<Result<Vec<_>, _>>().map_err(|bad| bad.to_string())?;
        let theirs = CallSchemas::listed(&schemas, any == Some(true));
        // An honest client knows what the list of inboxes says.
        if let Some((there, here)) = CallSchemas::difference(&theirs, &CallSchemas::listed(&self.inbox.schemas, false))
            && let Address::Service(service) = &self.inbox.address
        {
            let (node, uid) = (&sample.peer().node, sample.peer().uid);
            return Err(SchemaMismatch::new(service, node, uid, here, there).to_string());
        }
        if !is_mappable(capacity, page_size()) {
            return Err(format!(
                "it takes replies in a ring of {}, which this system cannot map",
                text::bytes(capacity)
            ));
        }
        let peer = sample.peer().clone();
        let target = Target {
            node: peer.node.clone(),
            incarnation: peer.incarnation,
            uid: peer.uid,
            inbox,
            address: Address::Replies,
            capacity,
            policy: Policy::Block,
            max_message,
            schemas: None,
        };
        let listed = Arc::new(Subscription::of_replies(target));
        let way = TopicRoute::new(self.out.routes.subscription_route(listed, &self.out.names));
        self.clients.insert(channel, Client::new(peer, max_message, way));
        self.open(channel);
        Ok(())
    }

    /// Connects to a client. Once it has answered, its requests are ready.
    fn open(&mut self, channel: u64) {
        let Some(client) = self.clients.get_mut(&channel).filter(|client| !client.is_open && !client.is_gone) else {
            return;
        };
        match self.out.routes.connect(client.way.id) {
            Reached::Open => {
                client.is_open = true;
                for (arrived, _) in std::mem::take(&mut client.parked) {
                    self.parked -= 1;
                    match self.taken() {
                        taken if taken > self.max_in_flight => {
                            let _ = self.fail(channel, arrived.number, (Cause::Busy, 0, &too_many(taken - 1)));
                        }
                        _ => self.ready.push_back(arrived),
                    }
                }
            }
            Reached::Later => self.has_work = true,
            Reached::Gone => self.client_gone(channel),
            Reached::Failed(error) => {
                tracing::info!(%error, node = &*client.peer.node, "a client cannot be answered");
                self.expel(channel, format!("it cannot be answered: {error}"));
            }
        }
    }

    fn requested(&mut self, channel: u64, number: u64, deadline: Option<u64>, sample: Sample) -> Result<(), String> {
        let (is_closed, taken) = (self.is_closed, self.taken());
        let Some(client) = self.clients.get_mut(&channel) else {
            return Err("it has not said where it takes replies".into());
        };
        if client.is_gone {
            return Ok(());
        }
        if client.calls.get(number).is_some() {
            return Err(format!("it uses the number {number} for two requests at once"));
        }
        let work = self.works.add();
        let arrived = Arrived { caller: channel, number, work, sample, deadline };
        let mut charge = None;
        let refusal = match (is_closed, client.calls.len() + client.given_up) {
            (true, _) => Some((Cause::NotTaken, String::new())),
            (_, calls) if calls >= self.max_per_client => {
                let calls = counted(calls, "request of this client is", "requests of this client are");
                Some((Cause::Busy, format!("{calls} in flight, the limit of the server")))
            }
            _ if client.is_open => (taken >= self.max_in_flight).then(|| (Cause::Busy, too_many(taken))),
            _ => {
                let (uid, sending) = (client.peer.uid, &self.node.sending);
                charge = sending.waiting(uid, arrived.bytes() as u64);
                let limit = sending.limits().waiting_bytes_per_user;
                charge.is_none().then(|| {
                    let text = format!(
                        "more than {limit} bytes would wait for clients of uid {uid} that have not attached their channels of \
                         replies, or do not read them (Limits::waiting_bytes_per_user)"
                    );
                    (Cause::Busy, text)
                })
            }
        };
        client.calls.insert(number, work);
        self.counters.begun();
        self.in_flight += 1;
        if let Some((cause, text)) = refusal {
            let _ = self.fail(channel, number, (cause, 0, &text)); // a client that is gone needs none
            return Ok(());
        }
        match charge {
            None => self.ready.push_back(arrived),
            Some(charge) => {
                client.parked.push_back((arrived, charge));
                self.parked += 1;
            }
        }
        Ok(())
    }

    /// How many requests count against the limit of all clients.
    fn taken(&self) -> usize {
        self.in_flight - self.parked + self.given_up
    }

    fn cancelled(&mut self, channel: u64, number: u64) {
        let Some(client) = self.clients.get_mut(&channel) else { return };
        let Some(work) = client.calls.remove(number) else { return };
        let is_it = |arrived: &Arrived| arrived.caller == channel && arrived.number == number;
        let parked = client.parked.len();
        client.parked.retain(|(arrived, _)| !is_it(arrived));
        self.parked -= parked - client.parked.len();
        self.ready.retain(|arrived| !is_it(arrived));
        self.in_flight -= 1;
        self.give_up(channel, work);
    }
}

fn too_many(requests: usize) -> String {
    format!("{} in flight, the limit of the server", counted(requests, "request is", "requests are"))
}

impl Side for Serving {
    #[inline]
    fn has_work(&self) -> bool {
        self.has_work
    }

    fn heard(&mut self, inbox: &mut Inbox, heard: Heard) {
        match heard {
            Heard::Record(spoken) => self.spoken(inbox, spoken),
            Heard::Joined(_) => {}
            // It may have lost only this connection. If not, it has no place for replies any more, which shows when it is connected to.
            Heard::Left(_, Departure::Disconnected | Departure::Closed, channel) => {
                let Some(client) = self.clients.get_mut(&channel) else { return };
                client.is_silent = true;
                for id in client.calls.iter() {
                    self.works.get(id).into_iter().for_each(|work| work.credit = MAX_CREDIT);
                }
                self.has_work = true;
            }
            Heard::Left(_, _, channel) => {
                self.client_gone(channel);
                self.forget(channel);
            }
            Heard::Nudged => self.has_work = true,
        }
    }

    #[inline]
    fn tend(&mut self, inbox: Option<&mut Inbox>) -> Option<Instant> {
        let gives_back_at = self.out.give_back();
        match std::mem::take(&mut self.has_work) {
            true => self.work(inbox, gives_back_at),
            false => gives_back_at,
        }
    }

    fn idle(&mut self) {
        self.out.idle();
    }
}

impl Serving {
    /// Does what has become due. Returns when something is due again.
    #[cold]
    fn work(&mut self, inbox: Option<&mut Inbox>, gives_back_at: Option<Instant>) -> Option<Instant> {
        for (id, channel) in self.out.routes.take_failed() {
            let takes_none = channel.failure() == Some(Failure::Gone) && !channel.may_be_read();
            let mut without = Vec::new();
            for (&serial, client) in self.clients.iter_mut().filter(|(_, client)| client.way.id == id) {
                // Perhaps only the connection is lost: what the client still waits for is answered over another one.
                client.is_open = false;
                without.push(serial);
            }
            for serial in without.into_iter().filter(|_| takes_none) {
                self.expel(serial, "it takes no replies where it says".into());
            }
        }
        let serials: Vec<u64> = self.clients.keys().copied().collect();
        for serial in serials {
            self.open(serial);
            self.send_backlog(serial);
            let is_over = |client: &Client| client.is_silent && client.calls.is_empty() && client.backlog.is_empty();
            if self.clients.get(&serial).is_some_and(is_over) {
                self.forget(serial);
            }
        }
        if let Some(inbox) = inbox {
            std::mem::take(&mut self.expelled).into_iter().for_each(|(channel, why)| inbox.expel(channel, why));
        }
        let has_backlog = self.has_backlog();
        self.has_work |= has_backlog;
        if !self.has_work {
            self.pause = Pause::default();
            return gives_back_at;
        }
        // That a client has room again is not reported. Whether it could be connected to is.
        let pause = if has_backlog { AGAIN } else { self.pause.next() };
        Some(gives_back_at.into_iter().fold(Instant::now() + pause, Instant::min))
    }
}
