//! Publishers and subscriptions of two types, and of none, on the same topic, and clients and servers likewise: they come and go. What is
//! of another type reaches nobody who wants one, what matches reaches everybody, and both sides learn of what does not.
//!
//! Senders and nodes' own inboxes do the same ([`direct`]).
//!
//! In the ledger, each type is a topic of its own, and a subscription without a type hears all of them.

mod direct; // what is sent to nodes

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use librpc::{
    CallError, Client, ClientBuilder, Event, Inbox, InboxBuilder, Node, RecvError, Reply, Schema, SchemaMismatch,
    SendError, Server,
};

use super::ledger::To;
use super::scene::{CAPACITY, Scene, bytes};
use super::{USER, Workload};
use crate::kernel::Pid;
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "types",
    about: "publishers, subscribers, clients, servers, senders and nodes of several types come and go",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

pub(super) const TOPIC: &str = "pose";
const SERVICE: &str = "work";
/// How long a receive waits until nothing more comes.
const QUIET: Duration = Duration::from_secs(60);

/// What somebody means; `None`: bytes without a type.
pub(super) type Kind = Option<&'static str>;

/// Two of the same name, of which each has another structure, and none.
const KINDS: [Kind; 3] = [Some("A/json/0000000000000001"), Some("A/json/0000000000000002"), None];

pub(super) fn any_kind() -> Kind {
    KINDS[random(|random| random.usize(..KINDS.len()))]
}

pub(super) fn schema(kind: Kind) -> Option<Schema> {
    kind.map(|text| text.parse().expect("a type"))
}

/// Where a message of this type goes.
pub(super) fn sent_as(kind: Kind) -> To {
    To::Topic(format!("{TOPIC} of {kind:?}"))
}

/// What a subscription that wants this type hears.
pub(super) fn heard_as(kind: Kind) -> To {
    if kind.is_none() { To::AllTopics } else { sent_as(kind) }
}

pub(super) fn wanting(builder: InboxBuilder<'_>, kind: Kind) -> InboxBuilder<'_> {
    match schema(kind) {
        Some(schema) => builder.schema(schema),
        None => builder,
    }
}

/// Whether what is sent as one may be read as the other.
fn fits(given: Kind, wanted: Kind) -> bool {
    wanted.is_none() || given == wanted
}

/// A publisher, a subscription, a client or a server, each on a node of its own.
struct Side {
    kind: Kind,
    /// The steps at which it was open, and at which its end began.
    opened: Option<u64>,
    closed: Option<u64>,
    /// A client that takes every server.
    any: bool,
    /// The steps at which its publishes, or its calls, began that succeeded or found nobody.
    begun: Vec<u64>,
}

/// Who was there, by node.
#[derive(Default)]
struct Sides {
    topic: BTreeMap<String, Side>,
    service: BTreeMap<String, Side>,
}

type Record = Rc<RefCell<Sides>>;

fn setup(scene: &Scene) {
    let record = Record::default();
    let start = |name: String, what: fn(&Scene, &Record, &str), how: fn(&Scene, Program) -> Pid| {
        let (own, record, id) = (scene.clone(), record.clone(), name.clone());
        how(scene, Program::new(&name, move || what(&own, &record, &id)));
    };
    let run: fn(&Scene, Program) -> Pid = |_, program| schedule::start(program);
    let stay: fn(&Scene, Program) -> Pid = |_, program| schedule::start(program.lives());
    let send: fn(&Scene, Program) -> Pid = |scene, program| scene.start_sender(program);
    match random(|random| random.u8(..6)) {
        0 | 1 => direct::setup(scene),
        2 => {
            (0..random(|random| random.u32(1..=2))).for_each(|at| start(format!("server-{at}"), serve_on, stay));
            start("servers".into(), servers, run);
            (0..random(|random| random.u32(1..=3))).for_each(|at| start(format!("client-{at}"), call, send));
        }
        _ => {
            (0..random(|random| random.u32(1..=2))).for_each(|at| start(format!("steady-{at}"), stay_subscribed, stay));
            start("churn".into(), come_and_go, run);
            (0..random(|random| random.u32(1..=3))).for_each(|at| start(format!("publisher-{at}"), publish, send));
        }
    }
}

/// Notes what should have happened if nothing has failed.
fn untold(scene: &Scene, what: String) {
    schedule::say(|| format!("UNTOLD: {what}"));
    scene.ledger(|ledger| ledger.wrong_without_faults.push(what));
}

/// Whether what one side was told of the other can be so.
fn check(scene: &Scene, sides: &BTreeMap<String, Side>, own: Kind, told: &SchemaMismatch, is_receiver: bool) {
    schedule::say(|| format!("told: {told}"));
    let Some(other) = sides.get(&*told.node) else {
        return scene.wrong(format!("{told}, and there is no such node"));
    };
    let (given, wanted) = if is_receiver { (other.kind, own) } else { (own, other.kind) };
    if fits(given, wanted) || told.ours != schema(own) || told.theirs != schema(other.kind) {
        scene.wrong(format!("{told}, but here it is {own:?}, and there {:?}", other.kind));
    }
}

fn subscribe(scene: &Scene, record: &Record, node: &Node, kind: Kind) -> (Inbox, usize) {
    let side = Side { kind, opened: None, closed: None, any: false, begun: Vec::new() };
    record.borrow_mut().topic.insert(node.id().to_owned(), side);
    let open = || wanting(node.subscriber_builder([TOPIC]).capacity(CAPACITY), kind).open();
    let (inbox, life) = scene.retry("subscribe", || scene.opening(node.id(), heard_as(kind), open));
    let step = schedule::steps();
    record.borrow_mut().topic.get_mut(node.id()).expect("it was noted").opened = Some(step);
    (inbox, life)
}

/// Receives once, in one of the ways. `None`: it has failed; otherwise whether something came.
fn receive(
    scene: &Scene,
    record: &Record,
    of: (&mut Inbox, usize, Kind),
    limit: Duration,
    told: &mut Told,
) -> Option<bool> {
    let (inbox, life, kind) = of;
    let mismatch = match random(fastrand::Rng::bool) {
        true => match inbox.recv_event_timeout(limit) {
            Ok(Some(Event::Message(message))) => return Some(scene.got(life, &message).is_some()),
            Ok(Some(Event::Mismatch(mismatch))) => mismatch,
            Ok(Some(_)) => return Some(true),
            Ok(None) => return Some(false),
            Err(error) => return failed(&error),
        },
        false => match inbox.recv_timeout(limit) {
            Ok(Some(message)) => return Some(scene.got(life, &message).is_some()),
            Ok(None) => return Some(false),
            Err(RecvError::Mismatch(mismatch)) => mismatch,
            Err(error) => return failed(&error),
        },
    };
    check(scene, &record.borrow().topic, kind, &mismatch, true);
    told.insert(mismatch.node.to_string());
    Some(true)
}

fn failed<T>(error: &RecvError) -> Option<T> {
    schedule::say(|| format!("cannot receive: {error}"));
    schedule::sleep_until(schedule::clock_ns() + 10_000_000);
    None
}

/// The nodes that somebody was told of.
type Told = BTreeSet<String>;

/// Receives until nobody sends any more. `receive` returns whether something has come; `None`: it has failed. `false`: it fails too often.
fn drain(scene: &Scene, life: usize, mut receive: impl FnMut() -> Option<bool>) -> bool {
    let mut errors = 0;
    loop {
        match receive() {
            Some(true) => {}
            Some(false) if scene.is_over() => break,
            Some(false) => {}
            None => errors += 1,
        }
        if errors > 400 {
            scene.wrong(format!("inbox {life} cannot receive"));
            return false;
        }
    }
    scene.drained(life);
    true
}

/// Subscribes, and stays until nobody publishes any more.
fn stay_subscribed(scene: &Scene, record: &Record, id: &str) {
    let (node, kind) = (scene.open(id, scene.domain()), any_kind());
    let (mut inbox, life) = subscribe(scene, record, &node, kind);
    let mut told = Told::new();
    if !drain(scene, life, || receive(scene, record, (&mut inbox, life, kind), QUIET, &mut told)) {
        return;
    }
    let record = record.borrow();
    let opened = record.topic[id].opened.expect("it is open");
    let others = record.topic.iter().filter(|(_, side)| side.begun.iter().any(|&begun| begun > opened));
    for (other, side) in others.filter(|(_, side)| !fits(side.kind, kind)) {
        if !told.contains(other) {
            untold(scene, format!("{id:?} of {kind:?} was not told of publisher {other:?} of {:?}", side.kind));
        }
    }
}

/// Subscribes and unsubscribes, each time as another type, and as another node.
fn come_and_go(scene: &Scene, record: &Record, id: &str) {
    for number in 0..random(|random| random.u32(1..=5)) {
        let (id, kind) = (format!("{id}-{number}"), any_kind());
        let node = scene.open(&id, scene.domain());
        let (mut inbox, life) = subscribe(scene, record, &node, kind);
        for _ in 0..random(|random| random.u32(..6)) {
            let limit = Duration::from_micros(random(|random| random.u64(..500)));
            receive(scene, record, (&mut inbox, life, kind), limit, &mut Told::new());
        }
        scene.closing(life);
        record.borrow_mut().topic.get_mut(&id).expect("it was noted").closed = Some(schedule::steps());
        drop(inbox);
    }
}

fn publish(scene: &Scene, record: &Record, id: &str) {
    let (node, kind) = (scene.open(id, scene.domain()), any_kind());
    let side = Side { kind, opened: None, closed: None, any: false, begun: Vec::new() };
    record.borrow_mut().topic.insert(id.to_owned(), side);
    let mut outgoing = scene.outgoing();
    let history = if random(|random| random.u8(..4)) == 0 { random(|random| random.usize(1..=4)) } else { 0 };
    let builder = node.publisher_builder(TOPIC).history(history);
    let builder = match schema(kind) {
        Some(schema) => builder.schema(schema),
        None => builder,
    };
    let mut publisher = builder.open().expect("a topic");
    let mut told = Told::new();
    for _ in 0..random(|random| random.u32(3..=20)) {
        let sent = outgoing.begin(sent_as(kind));
        let (begun, limit) = (schedule::steps(), Duration::from_millis(random(|random| random.u64(..3))));
        let published = publisher.publish_timeout(&sent.payload(random(bytes)), limit);
        let receipt = published.as_ref().map(|receipt| receipt.undelivered());
        for error in receipt.unwrap_or_default() {
            if let SendError::Mismatch(mismatch) = error {
                check(scene, &record.borrow().topic, kind, mismatch, false);
                told.insert(mismatch.node.to_string());
            }
        }
        if outgoing.published(sent, published).is_some() {
            record.borrow_mut().topic.get_mut(id).expect("it was noted").begun.push(begun);
            let record = record.borrow();
            for (other, side) in record.topic.iter().filter(|(_, side)| !fits(kind, side.kind)) {
                let was_there = side.opened.is_some_and(|opened| opened < begun) && side.closed.is_none();
                if was_there && !told.contains(other) {
                    untold(scene, format!("{id:?} of {kind:?} was not told of {other:?} of {:?}", side.kind));
                }
            }
        }
        match random(|random| random.u8(..8)) {
            0 => schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..3_000_000))),
            1..4 => schedule::pause(),
            _ => {}
        }
        let known = publisher.mismatches();
        if known.iter().any(|mismatch| !fits_not(&record.borrow().topic, kind, mismatch)) {
            scene.wrong(format!("{id:?} of {kind:?} does not reach {known:?}"));
        }
    }
    let _ = publisher.flush(Duration::from_secs(1));
    if history == 0 {
        outgoing.judge(publisher.account());
    }
}

/// Whether a publisher of this type really does not reach what it says.
fn fits_not(sides: &BTreeMap<String, Side>, kind: Kind, mismatch: &SchemaMismatch) -> bool {
    sides.get(&*mismatch.node).is_some_and(|side| !fits(kind, side.kind))
}

/// The types of requests and of replies are the same here.
fn matches(client: &Side, server: &Side) -> bool {
    client.any || client.kind == server.kind
}

fn kind_number(kind: Kind) -> u8 {
    KINDS.iter().position(|known| *known == kind).expect("it is one of them") as u8
}

fn open_server(scene: &Scene, record: &Record, node: &Node, kind: Kind) -> Server {
    let side = Side { kind, opened: None, closed: None, any: false, begun: Vec::new() };
    record.borrow_mut().service.insert(node.id().to_owned(), side);
    let builder = || match schema(kind) {
        Some(schema) => node.server_builder(SERVICE).schemas(schema.clone(), schema),
        None => node.server_builder(SERVICE),
    };
    let server = scene.retry("serve", || builder().open());
    record.borrow_mut().service.get_mut(node.id()).expect("it was noted").opened = Some(schedule::steps());
    server
}

/// Answers a request, if one comes. The first byte of a request, and of a reply, says of what type it is.
fn answer(scene: &Scene, server: &Server, kind: Kind, limit: Duration) -> bool {
    match server.recv_timeout(limit) {
        Ok(Some(request)) => {
            let is_right = request[0] == kind_number(kind) || request[1] == 1;
            if !is_right {
                scene.wrong(format!("a request of type {} came to a server of {kind:?}", request[0]));
            }
            if let Err(error) = request.reply(&[kind_number(kind)]) {
                schedule::say(|| format!("not answered: {error}"));
            }
            true
        }
        Ok(None) => false,
        Err(error) => {
            schedule::say(|| format!("cannot receive: {error}"));
            schedule::sleep_until(schedule::clock_ns() + 10_000_000);
            false
        }
    }
}

fn serve_on(scene: &Scene, record: &Record, id: &str) {
    let (node, kind) = (scene.open(id, scene.domain()), any_kind());
    let server = open_server(scene, record, &node, kind);
    while answer(scene, &server, kind, QUIET) || !scene.is_over() {}
    let denials = node.stats().denials;
    let record = record.borrow();
    let own = &record.service[id];
    for (other, side) in record.service.iter().filter(|(_, side)| !side.begun.is_empty()) {
        let has_called = side.begun.iter().any(|begun| own.opened.is_some_and(|opened| opened < *begun));
        let is_told = denials.iter().any(|denial| denial.is_mismatch && *denial.by == **other);
        if has_called && !matches(side, own) && !is_told {
            untold(scene, format!("server {id:?} of {kind:?} was not told of {other:?} of {:?}", side.kind));
        }
        if is_told && matches(side, own) {
            scene.wrong(format!("server {id:?} of {kind:?} was told of {other:?} of {:?}", side.kind));
        }
    }
}

/// Servers that come and go.
fn servers(scene: &Scene, record: &Record, id: &str) {
    for number in 0..random(|random| random.u32(..=3)) {
        let (id, kind) = (format!("{id}-{number}"), any_kind());
        let node = scene.open(&id, scene.domain());
        let server = open_server(scene, record, &node, kind);
        for _ in 0..random(|random| random.u32(..5)) {
            answer(scene, &server, kind, Duration::from_millis(20));
        }
        record.borrow_mut().service.get_mut(&id).expect("it was noted").closed = Some(schedule::steps());
    }
}

fn open_client<'n>(node: &'n Node, kind: Kind, any: bool) -> ClientBuilder<'n> {
    match schema(kind) {
        _ if any => node.client_builder(SERVICE).any_types(),
        Some(schema) => node.client_builder(SERVICE).schemas(schema.clone(), schema),
        None => node.client_builder(SERVICE),
    }
}

fn call(scene: &Scene, record: &Record, id: &str) {
    let (node, kind, any) = (scene.open(id, scene.domain()), any_kind(), random(|random| random.u8(..5)) == 0);
    let side = Side { kind, opened: None, closed: None, any, begun: Vec::new() };
    record.borrow_mut().service.insert(id.to_owned(), side);
    let client: Client = scene.retry("open a client", || open_client(&node, kind, any).open());
    for _ in 0..random(|random| random.u32(1..=10)) {
        let begun = schedule::steps();
        let called = client.call(&[kind_number(kind), u8::from(any)], Duration::from_secs(600));
        schedule::say(|| format!("the call of {kind:?} ends: {:?}", called.as_ref().map(|reply| reply[0])));
        record.borrow_mut().service.get_mut(id).expect("it was noted").begun.push(begun);
        judge_call(scene, &record.borrow().service, (id, begun), called);
        if random(fastrand::Rng::bool) {
            schedule::pause();
        }
    }
}

/// Whether a call may end so that began at this step.
fn judge_call(
    scene: &Scene,
    sides: &BTreeMap<String, Side>,
    (id, begun): (&str, u64),
    called: Result<Reply, CallError>,
) {
    let own = &sides[id];
    let (kind, any) = (own.kind, own.any);
    let was_there = |side: &&Side| side.opened.is_some_and(|opened| opened < begun) && side.closed.is_none();
    let mut there = sides.values().filter(was_there);
    let fit = there.clone().any(|server| matches(own, server));
    match called {
        Ok(reply) if any || reply[0] == kind_number(kind) => {}
        Ok(reply) => scene.wrong(format!("a client of {kind:?} got a reply of type {}", reply[0])),
        Err(CallError::Mismatch { node, why, .. }) => {
            let server = sides.get(&*node);
            if server.is_none_or(|server| matches(own, server)) {
                scene.wrong(format!("a client of {kind:?} is told of node {node:?}: {why}"));
            }
            if fit {
                untold(scene, format!("a client of {kind:?} did not find its server: {why}"));
            }
        }
        Err(CallError::ServerDied { .. }) => {} // it has ended just now, and had read the request
        Err(error) if fit => untold(scene, format!("a client of {kind:?} did not find its server: {error}")),
        Err(error) => {
            // A server of its type may have ended just now.
            let had_one = sides.values().any(|side| side.closed.is_some() && matches(own, side));
            if !had_one && there.next().is_some() {
                untold(scene, format!("a client of {kind:?} was told of no type: {error}"));
            }
        }
    }
}
