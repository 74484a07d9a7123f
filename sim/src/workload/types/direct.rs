//! Nodes whose inboxes are of several types, some of them again and again of another one, and what is sent to them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use librpc::{ConnectError, Event, Inbox, Message, Node, RecvError, Schema, SchemaMismatch, SendError, Sender};

use super::{Kind, QUIET, any_kind, drain, fits, schema, untold, wanting};
use crate::schedule::{self, Program, random};
use crate::workload::ledger::To;
use crate::workload::scene::{CAPACITY, Scene, bytes};

/// What the senders send, what each node's inbox has wanted so far, and which senders were refused by which node.
#[derive(Default)]
struct Known {
    senders: BTreeMap<String, Kind>,
    inboxes: BTreeMap<String, Vec<Kind>>,
    refused: BTreeSet<(String, String)>,
}

type Record = Rc<RefCell<Known>>;

pub(super) fn setup(scene: &Scene) {
    let record = Record::default();
    let program = |name: String, what: fn(&Scene, &Record, &str)| {
        let (own, record, id) = (scene.clone(), record.clone(), name.clone());
        Program::new(&name, move || what(&own, &record, &id))
    };
    schedule::start(program("steady".into(), stay).lives());
    schedule::start(program("changing".into(), change));
    for at in 0..random(|random| random.u32(1..=3)) {
        scene.start_sender(program(format!("sender-{at}"), send));
    }
}

fn open(scene: &Scene, record: &Record, node: &Node, kind: Kind) -> (Inbox, usize) {
    record.borrow_mut().inboxes.entry(node.id().to_owned()).or_default().push(kind);
    let open = || wanting(node.inbox_builder().capacity(CAPACITY), kind).open();
    scene.retry("open an inbox", || scene.opening(node.id(), To::Node(node.id().to_owned()), open))
}

/// Whether a message may come to an inbox of this type.
fn judge(scene: &Scene, record: &Record, kind: Kind, message: &Message<'_>) {
    let said = record.borrow().senders.get(message.sender()).copied();
    let declared = message.schema().map(|declared| Schema::clone(declared));
    match said {
        Some(sent) if fits(sent, kind) && declared == schema(sent) => {}
        _ => scene.wrong(format!("{:?} of {said:?} came to {kind:?}, as {declared:?}", message.sender())),
    }
}

/// Receives once. `None`: it has failed; otherwise whether something came.
fn receive(
    scene: &Scene,
    record: &Record,
    (inbox, life, kind): (&mut Inbox, usize, Kind),
    limit: Duration,
    told: &mut BTreeSet<String>,
) -> Option<bool> {
    let received = match random(fastrand::Rng::bool) {
        true => inbox.recv_event_timeout(limit),
        false => inbox.recv_timeout(limit).map(|message| message.map(Event::Message)),
    };
    let mismatch = match received {
        Ok(Some(Event::Message(message))) => {
            judge(scene, record, kind, &message);
            return Some(scene.got(life, &message).is_some());
        }
        Ok(Some(Event::Mismatch(mismatch))) | Err(RecvError::Mismatch(mismatch)) => mismatch,
        Ok(Some(_)) => return Some(true),
        Ok(None) => return Some(false),
        Err(error) => {
            schedule::say(|| format!("cannot receive: {error}"));
            schedule::sleep_until(schedule::clock_ns() + 10_000_000);
            return None;
        }
    };
    schedule::say(|| format!("told: {mismatch}"));
    let said = record.borrow().senders.get(&*mismatch.node).copied();
    let is_so = said.is_some_and(|sent| !fits(sent, kind) && mismatch.theirs == schema(sent));
    if !is_so || mismatch.ours != schema(kind) || !mismatch.topic.is_empty() {
        scene.wrong(format!("{mismatch}, but here it is {kind:?}, and there {said:?}"));
    }
    told.insert(mismatch.node.to_string());
    Some(true)
}

/// Has one inbox until nobody sends any more.
fn stay(scene: &Scene, record: &Record, id: &str) {
    let (node, kind) = (scene.open(id, scene.domain()), any_kind());
    let (mut inbox, life) = open(scene, record, &node, kind);
    let mut told = BTreeSet::new();
    if !drain(scene, life, || receive(scene, record, (&mut inbox, life, kind), QUIET, &mut told)) {
        return;
    }
    for (sender, _) in record.borrow().refused.iter().filter(|(_, to)| to == id) {
        if !told.contains(sender) {
            untold(scene, format!("{id:?} of {kind:?} was not told of {sender:?}"));
        }
    }
}

/// Opens its inbox several times, each time as another type.
fn change(scene: &Scene, record: &Record, id: &str) {
    let mut node = scene.open(id, scene.domain());
    for _ in 0..random(|random| random.u32(1..=5)) {
        let kind = any_kind();
        let (mut inbox, life) = open(scene, record, &node, kind);
        for _ in 0..random(|random| random.u32(..8)) {
            let limit = Duration::from_micros(random(|random| random.u64(..3000)));
            receive(scene, record, (&mut inbox, life, kind), limit, &mut BTreeSet::new());
        }
        scene.closing(life);
        drop(inbox);
        if random(fastrand::Rng::bool) {
            drop(node);
            node = scene.open(id, scene.domain());
        }
    }
}

/// Whether a sender may be told this.
fn check(scene: &Scene, record: &Record, (id, to): (&str, &str), told: &SchemaMismatch) {
    schedule::say(|| format!("told: {told}"));
    let mut known = record.borrow_mut();
    let kind = known.senders[id];
    let wanted = known.inboxes.get(to).into_iter().flatten();
    let is_so = wanted.clone().any(|&wanted| !fits(kind, wanted) && told.theirs == schema(wanted));
    if !is_so || *told.node != *to || told.ours != schema(kind) || !told.topic.is_empty() {
        scene.wrong(format!("{told}, but here it is {kind:?}, and there {:?}", known.inboxes.get(to)));
    }
    known.refused.insert((id.to_owned(), to.to_owned()));
}

/// Connects to a node, and sends to it.
fn send(scene: &Scene, record: &Record, id: &str) {
    let (node, kind) = (scene.open(id, scene.domain()), any_kind());
    record.borrow_mut().senders.insert(id.to_owned(), kind);
    for _ in 0..random(|random| random.u32(1..=3)) {
        let to = if random(fastrand::Rng::bool) { "steady" } else { "changing" };
        let builder = node.sender_builder(to).wait(Duration::from_millis(random(|random| random.u64(..50))));
        let opened = match schema(kind) {
            Some(schema) => builder.schema(schema).open(),
            None => builder.open(),
        };
        match opened {
            Ok(sender) => send_some(scene, record, (id, to), sender),
            Err(ConnectError::Mismatch(mismatch)) => check(scene, record, (id, to), &mismatch),
            Err(error) => schedule::say(|| format!("not connected: {error}")),
        }
    }
}

fn send_some(scene: &Scene, record: &Record, (id, to): (&str, &str), mut sender: Sender) {
    let kind = record.borrow().senders[id];
    let mut outgoing = scene.outgoing();
    for _ in 0..random(|random| random.u32(1..=10)) {
        let limit = Duration::from_millis(random(|random| random.u64(..3)));
        match outgoing.send(to, random(bytes), |payload| sender.send_timeout(payload, limit)) {
            Ok(_) if !record.borrow().inboxes[to].iter().any(|&wanted| fits(kind, wanted)) => {
                scene.wrong(format!("{id:?} of {kind:?} sends to {to:?} of {:?}", record.borrow().inboxes[to]));
            }
            Ok(_) => {}
            Err(SendError::Mismatch(mismatch)) => check(scene, record, (id, to), &mismatch),
            Err(_) => {}
        }
        match random(|random| random.u8(..8)) {
            0 => schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..3_000_000))),
            1..4 => schedule::pause(),
            _ => {}
        }
    }
    let _ = sender.flush(Duration::from_secs(1));
    outgoing.judge(sender.account());
}
