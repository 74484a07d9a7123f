//! A receiver dies, or ends, again and again, and comes back; its sender lives, and loses nothing: what was accepted is
//! processed at last, or comes back to the sender. What was in work comes again with its flag.

use std::time::Duration;

use librpc::{Acknowledge, Event, Inbox, InboxBuilder, Node};

use super::ledger::{Id, To};
use super::scene::{CAPACITY, Scene, bytes};
use super::types::{self, Kind, TOPIC};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const NODES: Workload = Workload {
    name: "redelivery",
    about: "a receiver dies and comes back; its sender goes on",
    allowed: ALLOWED,
    redelivery: true,
    users: &[USER],
    setup: |scene| setup(scene, &To::Node("display".into()), false),
};

pub const DURABLE: Workload = Workload {
    name: "durable",
    about: "the same with a subscription of a durable name",
    allowed: ALLOWED,
    redelivery: true,
    users: &[USER],
    setup: |scene| setup(scene, &To::Topic(TOPIC.into()), false),
};

pub const TYPES: Workload = Workload {
    name: "durable-types",
    about: "the same with a subscription that comes back as another type",
    allowed: ALLOWED,
    redelivery: true,
    users: &[USER],
    setup: |scene| setup(scene, &To::Topic(TOPIC.into()), true),
};

const ALLOWED: Allowed = Allowed { kills: 3, stops: 2, errors: true, pauses: true, large_pages: false };

fn setup(scene: &Scene, to: &To, of_types: bool) {
    let (receivers, hears) = (scene.clone(), to.clone());
    schedule::start(Program::new("receivers", move || come_back(&receivers, &hears, of_types)).spared());
    let (sender, to) = (scene.clone(), to.clone());
    scene.start_sender(Program::new("sender", move || send(&sender, &to, of_types)).lives());
}

/// Starts the receiver again whenever it has ended, each time as another type. The last one stays.
fn come_back(scene: &Scene, hears: &To, of_types: bool) {
    let incarnations = random(|random| random.u32(1..=3));
    for number in 0..=incarnations {
        let kind = if of_types { types::any_kind() } else { None };
        let (receiver, hears) = (scene.clone(), if of_types { types::heard_as(kind) } else { hears.clone() });
        let is_last = number == incarnations;
        let program = Program::new(&format!("receiver-{number}"), move || receive(&receiver, &hears, kind, is_last));
        let pid = schedule::start(if is_last { program.lives() } else { program });
        while schedule::end_of(pid).is_none() {
            schedule::sleep_until(schedule::clock_ns() + 500_000);
        }
    }
}

fn builder<'n>(node: &'n Node, hears: &To, kind: Kind) -> InboxBuilder<'n> {
    match hears {
        To::Node(_) => node.inbox_builder(),
        To::Topic(_) | To::AllTopics => types::wanting(node.subscriber_builder([TOPIC]).durable("steady"), kind),
    }
}

fn receive(scene: &Scene, hears: &To, kind: Kind, is_last: bool) {
    let node = scene.open("display", scene.domain());
    let acknowledge = if random(fastrand::Rng::bool) { Acknowledge::Explicit } else { Acknowledge::Implicit };
    let open = || builder(&node, hears, kind).capacity(CAPACITY).acknowledge(acknowledge).open();
    let (mut inbox, life) = scene.retry("open the inbox", || scene.opening("display", hears.clone(), open));
    let mut work = Work { scene, life, acknowledge, unprocessed: Vec::new(), processed: Vec::new(), is_closed: false };
    if is_last {
        return work.receive_to_the_end(&mut inbox);
    }
    let count = random(|random| random.u32(..8));
    for _ in 0..count {
        work.receive_one(&mut inbox, Duration::from_millis(20));
    }
    scene.closing(life);
    match random(|random| random.u8(..4)) {
        0 => schedule::exit(),
        1 => schedule::kill(schedule::pid()),
        2 => close_beside(node, &mut inbox, &mut work),
        _ => {
            work.end();
            drop(inbox);
            work.acknowledged();
        }
    }
}

/// Closes the node on another thread, while this one goes on receiving.
fn close_beside(node: Node, inbox: &mut Inbox, work: &mut Work<'_>) {
    work.is_closed = true;
    let closing = schedule::spawn("closing", move || drop(node.close(Duration::from_millis(10))));
    for _ in 0..3 {
        schedule::lose_core(40, random(|random| random.u64(..20_000_000)));
        work.receive_one(inbox, Duration::from_millis(5));
    }
    schedule::join(closing);
    work.end();
}

/// What one incarnation has in work.
struct Work<'s> {
    scene: &'s Scene,
    life: usize,
    acknowledge: Acknowledge,
    unprocessed: Vec<Id>,
    /// The call that says so has not returned.
    processed: Vec<Id>,
    /// Somebody may have closed the inbox: its sender may have taken over what is acknowledged after that.
    is_closed: bool,
}

impl Work<'_> {
    /// What was handed out counts as processed from here on, whatever becomes of the call that says so.
    fn process(&mut self) {
        self.unprocessed.iter().for_each(|&id| self.scene.processed(id));
        self.processed.append(&mut self.unprocessed);
    }

    /// The call that says what is processed has returned.
    fn acknowledged(&mut self) {
        if !self.is_closed {
            self.processed.drain(..).for_each(|id| self.scene.acknowledged(id));
        }
    }

    fn acknowledge(&mut self, inbox: &mut Inbox) {
        self.process();
        inbox.ack();
        self.acknowledged();
    }

    fn receive_one(&mut self, inbox: &mut Inbox, limit: Duration) -> bool {
        if self.acknowledge == Acknowledge::Implicit {
            self.process();
        }
        match inbox.recv_event_timeout(limit) {
            Ok(Some(Event::Message(message))) => {
                self.acknowledged();
                self.unprocessed.extend(self.scene.got(self.life, &message));
                if self.acknowledge == Acknowledge::Explicit && random(fastrand::Rng::bool) {
                    self.acknowledge(inbox);
                }
                true
            }
            Ok(Some(Event::Mismatch(mismatch))) if mismatch.ours.is_none() => {
                self.scene.wrong(format!("who takes everything is told of types: {mismatch}"));
                true
            }
            Ok(Some(_)) => true,
            Ok(None) => false,
            Err(error) => {
                schedule::say(|| format!("cannot receive: {error}"));
                schedule::sleep_until(schedule::clock_ns() + 10_000_000);
                false
            }
        }
    }

    /// The inbox is about to be dropped.
    fn end(&mut self) {
        if self.acknowledge == Acknowledge::Implicit {
            self.process();
        }
    }

    fn receive_to_the_end(&mut self, inbox: &mut Inbox) {
        loop {
            let came = self.receive_one(inbox, Duration::from_secs(5));
            if self.acknowledge == Acknowledge::Explicit {
                self.acknowledge(inbox);
            }
            if !came && self.scene.is_over() {
                self.end();
                return self.scene.drained(self.life);
            }
        }
    }
}

fn send(scene: &Scene, to: &To, of_types: bool) {
    let node = scene.open("camera", scene.domain());
    let mut outgoing = scene.outgoing();
    let mut outbox = node.outbox();
    outbox.set_redelivery(Some(Duration::from_secs(600)));
    let count = random(|random| random.u32(1..=20));
    match to {
        To::Node(name) => {
            let destination = scene.retry("connect", || outbox.connect(name));
            for _ in 0..count {
                let _ = outgoing.send(name, random(bytes), |payload| outbox.send(destination, payload));
                pause();
            }
        }
        To::AllTopics => {}
        To::Topic(name) => {
            let kind = if of_types { types::any_kind() } else { None };
            let topic = match types::schema(kind) {
                Some(schema) => outbox.typed_topic(name, schema),
                None => outbox.topic(name),
            };
            let (topic, to) = (topic.expect("a topic"), if of_types { types::sent_as(kind) } else { to.clone() });
            for _ in 0..count {
                let id = outgoing.begin(to.clone());
                let payload = id.payload(random(bytes));
                outgoing.published(id, outbox.publish_timeout(topic, &payload, Duration::from_secs(1)));
                pause();
            }
        }
    }
    for _ in 0..20 {
        match outbox.flush(Duration::from_secs(60)) {
            Ok(()) => break,
            Err(error) => schedule::say(|| format!("not flushed: {error}")),
        }
    }
    outgoing.judge(outbox.total());
    match outbox.take_returned() {
        Ok(returned) => returned.iter().for_each(|message| scene.returned(&message.payload)),
        Err(error) => scene.wrong(format!("what came back cannot be had: {error}")),
    }
}

fn pause() {
    if random(|random| random.u8(..3)) == 0 {
        schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..3_000_000)));
    }
}
