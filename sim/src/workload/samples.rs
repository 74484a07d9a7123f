//! Large payloads are read where their publishers have put them, and held over many steps, by receivers that trust their publishers
//! and by others, until a publisher has no memory left. What is read stays as it is, and in the end all memory is free again.

use std::time::Duration;

use librpc::{Inbox, InboxError, Limits, Node, Policy, Sample};

use super::ledger::{Id, To};
use super::scene::{CAPACITY, Outgoing, Scene};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "samples",
    about: "large payloads are read in place, and held, until there is no memory",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER],
    setup,
};

const TOPIC: &str = "frame";
/// The memory of a publisher: two to eight slots of a page.
const MEMORIES: [u64; 4] = [8192, 8192, 12_288, 32_768];
/// A receiver to which nothing comes for this long lets go of everything. Until then, a loan may wait in vain for a second.
const IDLE: Duration = Duration::from_secs(2);
/// The longest time to wait for room, in microseconds.
const PATIENCE_US: u64 = 3000;

fn setup(scene: &Scene) {
    let steady = scene.clone();
    schedule::start(Program::new("steady", move || stay(&steady)).lives());
    for number in 0..random(|random| random.u32(..=2)) {
        let viewer = scene.clone();
        let name = format!("viewer-{number}");
        schedule::start(Program::new(&name, move || come_and_go(&viewer)));
    }
    for number in 0..random(|random| random.u32(1..=2)) {
        let publisher = scene.clone();
        let name = format!("publisher-{number}");
        scene.start_sender(Program::new(&name, move || publish(&publisher)));
    }
}

/// Subscribes, and trusts the publishers or not.
#[allow(unsafe_code)]
fn subscribe(scene: &Scene, node: &Node, policy: Policy) -> Result<(Inbox, usize), InboxError> {
    let trusts = random(fastrand::Rng::bool);
    scene.opening(node.id(), To::Topic(TOPIC.to_owned()), || {
        let builder = node.subscriber_builder([TOPIC]).capacity(CAPACITY).policy(policy);
        match trusts {
            // SAFETY: no publisher writes what it has lent. If one does, the run fails.
            true => unsafe { builder.trust_publishers() }.open(),
            false => builder.open(),
        }
    })
}

/// The samples of a receiver, with the messages that they were when they came.
struct Held {
    scene: Scene,
    samples: Vec<(Id, Sample)>,
}

impl Held {
    fn new(scene: &Scene) -> Self {
        Self { scene: scene.clone(), samples: Vec::new() }
    }

    /// Drops some samples, in any order, in this thread or in another one.
    fn drop_some(&mut self) {
        for _ in 0..random(|random| random.usize(..=self.samples.len())) {
            let (id, sample) = self.samples.swap_remove(random(|random| random.usize(..self.samples.len())));
            let scene = self.scene.clone();
            let check_and_drop = move || {
                let now = sample.payload().map_or_else(|| sample.to_vec(), <[u8]>::to_vec);
                if Id::of(&now) != Ok(id) {
                    scene.wrong(format!("a sample of {id:?} has become {:?}", Id::of(&now)));
                }
            };
            match random(|random| random.u8(..4)) {
                0 => schedule::join(schedule::spawn("drops", check_and_drop)),
                _ => check_and_drop(),
            }
        }
    }

    fn drop_all(&mut self) {
        while !self.samples.is_empty() {
            self.drop_some();
        }
    }

    /// Receives a message, and keeps it as a sample or reads it while others go on. `None`: nothing came.
    fn receive(&mut self, inbox: &mut Inbox, life: usize, limit: Duration) -> Option<()> {
        if random(fastrand::Rng::bool) {
            let sample = inbox.recv_sample_timeout(limit).ok()??;
            let payload = sample.payload().map_or_else(|| sample.to_vec(), <[u8]>::to_vec);
            let id = self.scene.got_payload(life, &payload, sample.is_redelivered())?;
            self.samples.push((id, sample));
            return Some(());
        }
        let message = inbox.recv_timeout(limit).ok()??;
        let id = self.scene.got(life, &message)?;
        schedule::pause();
        let now = Id::of(message.payload());
        if now != Ok(id) {
            self.scene.wrong(format!("{id:?} has become {now:?} while it was read"));
        }
        Some(())
    }
}

/// Stays to the end, and misses nothing.
fn stay(scene: &Scene) {
    let node = scene.open("steady", scene.domain());
    let (mut inbox, life) = scene.retry("subscribe", || subscribe(scene, &node, Policy::Block));
    let mut held = Held::new(scene);
    let mut quiet = Duration::ZERO;
    // A publisher that was stopped goes on after some seconds.
    while !scene.is_over() || quiet < Duration::from_secs(60) {
        match held.receive(&mut inbox, life, IDLE) {
            Some(()) => {
                quiet = Duration::ZERO;
                if random(|random| random.u8(..4)) == 0 {
                    held.drop_some();
                }
            }
            None => {
                quiet += IDLE;
                held.drop_all();
            }
        }
    }
    scene.drained(life);
}

/// Subscribes a few times, with any policy. What it holds outlives its inbox, and now and then its node.
fn come_and_go(scene: &Scene) {
    let mut held = Held::new(scene);
    let node = scene.open(&format!("viewer-{}", schedule::pid()), scene.domain());
    for _ in 0..random(|random| random.u32(1..=3)) {
        let policy =
            random(|random| *random.choice(&[Policy::Block, Policy::DropNewest, Policy::DropOldest]).expect("three"));
        let Ok((mut inbox, life)) = subscribe(scene, &node, policy) else { continue };
        for _ in 0..random(|random| random.u32(..8)) {
            let limit = Duration::from_micros(random(|random| random.u64(..2000)));
            let _ = held.receive(&mut inbox, life, limit);
            if random(|random| random.u8(..3)) == 0 {
                held.drop_some();
            }
        }
        scene.closing(life);
        drop(inbox);
    }
    drop(node);
    schedule::pause();
    held.drop_all();
}

fn publish(scene: &Scene) {
    let limits = Limits::default().payload_bytes(random(|random| *random.choice(&MEMORIES).expect("four")));
    let id = format!("publisher-{}", schedule::pid());
    let open = || Node::builder(&id).domain(scene.domain()).limits(limits).open();
    let node = scene.retry("open a node", open);
    let mut outgoing = scene.outgoing();
    let mut outbox = node.outbox();
    let topic = outbox.topic(TOPIC).expect("a topic");
    for _ in 0..random(|random| random.u32(3..=15)) {
        let limit = Duration::from_micros(random(|random| random.u64(..PATIENCE_US)));
        // Most are lent; some fit into the ring.
        let bytes = random(|random| if random.u8(..5) == 0 { random.usize(8..500) } else { random.usize(1025..4000) });
        match random(fastrand::Rng::bool) {
            true => _ = outgoing.publish(&mut outbox, (topic, TOPIC), bytes, limit),
            false => publish_loan(&mut outgoing, &mut outbox, topic, bytes, limit),
        }
        if random(fastrand::Rng::bool) {
            schedule::pause();
        }
    }
    let _ = outbox.flush(Duration::from_secs(1));
    // Whoever held something has dropped it, or is gone.
    scene.retry("take all memory", || outbox.loan_uninit(topic, limits.payload_bytes as usize).map(drop));
    outgoing.judge(outbox.total());
}

fn publish_loan(
    outgoing: &mut Outgoing,
    outbox: &mut librpc::Outbox,
    topic: librpc::Topic,
    bytes: usize,
    limit: Duration,
) {
    let mut loan = match outbox.loan_uninit(topic, bytes) {
        Ok(loan) => loan,
        Err(error) => return schedule::say(|| format!("there is no loan: {error}")),
    };
    let id = outgoing.begin(To::Topic(TOPIC.to_owned()));
    loan.copy_from_slice(&id.payload(bytes));
    if random(|random| random.u8(..8)) > 0 {
        outgoing.published(id, outbox.publish_loan(topic, loan, limit));
    }
}
