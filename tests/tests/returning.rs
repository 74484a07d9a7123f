//! Redelivery compared with a model: random sends and publishes to receivers that close and come back with other sizes,
//! policies and patterns. In the end every accepted message was received or came back, and every message that came
//! twice was flagged.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fastrand::Rng;
use librpc::{Destination, Inbox, Node, Outbox, Policy, SendError, Topic};
use librpc_system_tests::TestDomain;

const LONG: Duration = Duration::from_secs(60);
const TOPICS: [&str; 2] = ["a", "b"];
/// The largest ring, which holds everything that was accepted before.
const LARGEST: u64 = 1 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Own,
    Durable,
}

/// Closes without processing what it has handed out, like a process that dies.
struct Receiving {
    way: Way,
    inbox: Inbox,
}

struct World {
    rng: Rng,
    sink: Node,
    receiving: Vec<Receiving>,
    outbox: Outbox,
    to: Option<Destination>,
    topics: Vec<Topic>,
    next: u64,
    accepted: BTreeSet<u64>,
    /// What nobody had when the call returned. It may come.
    pending: BTreeSet<u64>,
    received: BTreeMap<u64, u32>,
    returned: BTreeSet<u64>,
}

fn number(payload: &[u8]) -> u64 {
    u64::from_le_bytes(payload[..8].try_into().expect("a message begins with its number"))
}

impl World {
    fn new(domain: &TestDomain, seed: u64) -> Self {
        let open = |id: &str| Node::builder(id).domain(domain.domain()).open().expect("it opens");
        let (sink, mut outbox) = (open("sink"), open("source").outbox());
        outbox.set_redelivery(Some(LONG));
        let topics = TOPICS.map(|topic| outbox.topic(topic).expect("a topic")).to_vec();
        Self {
            rng: Rng::with_seed(seed),
            sink,
            receiving: Vec::new(),
            outbox,
            to: None,
            topics,
            next: 0,
            accepted: BTreeSet::new(),
            pending: BTreeSet::new(),
            received: BTreeMap::new(),
            returned: BTreeSet::new(),
        }
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..5 => self.open(),
            5..9 => self.close(),
            9..45 => self.receive(),
            45..70 => self.send(),
            70..95 => self.publish(),
            95..98 => drop(self.outbox.flush(Duration::ZERO)),
            _ => self.take_returned(),
        }
    }

    fn open(&mut self) {
        let (way, capacity) = (if self.rng.bool() { Way::Own } else { Way::Durable }, 4096 << self.rng.u32(..5));
        let policy = if self.rng.u8(..4) == 0 { Policy::DropNewest } else { Policy::Block };
        let patterns = [&["a", "b"][..], &["a"], &["**"]][self.rng.usize(..3)];
        self.open_as(way, capacity, policy, patterns);
    }

    fn open_as(&mut self, way: Way, capacity: u64, policy: Policy, patterns: &[&str]) {
        if self.receiving.iter().any(|receiving| receiving.way == way) {
            return;
        }
        let builder = match way {
            Way::Own => self.sink.inbox_builder(),
            Way::Durable => self.sink.subscriber_builder(patterns).durable("again"),
        };
        let inbox = builder.capacity(capacity).policy(policy).open().expect("it opens");
        self.receiving.push(Receiving { way, inbox });
    }

    fn close(&mut self) {
        if !self.receiving.is_empty() {
            let closed = self.rng.usize(..self.receiving.len());
            self.receiving.swap_remove(closed);
        }
    }

    fn receive(&mut self) {
        if !self.receiving.is_empty() {
            let (at, most) = (self.rng.usize(..self.receiving.len()), self.rng.u32(1..20));
            for _ in 0..most {
                if !self.receive_one(at) {
                    break;
                }
            }
        }
    }

    fn receive_one(&mut self, at: usize) -> bool {
        let Some(message) = self.receiving[at].inbox.try_recv().expect("it receives") else { return false };
        let number = number(message.payload());
        let times = self.received.entry(number).or_default();
        assert!(*times == 0 || message.is_redelivered(), "{number} came again without its flag");
        *times += 1;
        true
    }

    fn payload(&mut self) -> (u64, Vec<u8>) {
        let longest = if self.rng.u8(..10) == 0 { 3000 } else { 300 };
        let mut payload = vec![7; self.rng.usize(8..longest)];
        payload[..8].copy_from_slice(&self.next.to_le_bytes());
        self.next += 1;
        (self.next - 1, payload)
    }

    fn send(&mut self) {
        if self.to.is_none() {
            self.to = self.outbox.try_connect("sink").ok();
        }
        let Some(to) = self.to else { return };
        let (number, payload) = self.payload();
        match self.outbox.try_send(to, &payload) {
            Ok(()) => assert!(self.accepted.insert(number)),
            Err(SendError::Os(error)) => panic!("{error}"),
            Err(_) => {}
        }
    }

    fn publish(&mut self) {
        let (number, payload) = self.payload();
        let topic = self.topics[self.rng.usize(..self.topics.len())];
        let receipt = self.outbox.try_publish(topic, &payload).expect("it can be published");
        if receipt.inboxes() > 0 {
            assert!(self.accepted.insert(number));
        } else if receipt.pending() > 0 {
            self.pending.insert(number);
        }
    }

    fn take_returned(&mut self) {
        for returned in self.outbox.take_returned().expect("few came back") {
            assert!(self.returned.insert(number(&returned.payload)), "came back twice: {returned:?}");
        }
    }

    /// All receivers are back, and take everything.
    fn settle(&mut self) {
        self.receiving.clear();
        let until = Instant::now() + LONG;
        self.open_as(Way::Own, LARGEST, Policy::Block, &[]);
        self.open_as(Way::Durable, LARGEST, Policy::Block, &["a", "b"]);
        while self.outbox.total().queued > 0 {
            assert!(Instant::now() < until, "{:?}", self.outbox.total());
            let _ = self.outbox.flush(Duration::from_millis(1)); // what is lost comes back
            for at in 0..self.receiving.len() {
                while self.receive_one(at) {}
                self.receiving[at].inbox.ack();
            }
        }
        self.take_returned();
        for number in &self.accepted {
            assert!(self.received.contains_key(number) || self.returned.contains(number), "LOST: {number}");
        }
        let known = |number: &u64| self.accepted.contains(number) || self.pending.contains(number);
        assert!(self.received.keys().all(known) && self.returned.iter().all(known), "INVENTED");
        let total = self.outbox.total();
        assert_eq!(total.sent, total.processed + total.dropped + total.returned, "{total:?}");
    }
}

#[test]
fn what_was_accepted_is_received_or_comes_back_whatever_its_receivers_return_as() {
    let seeds = std::env::var("SEEDS").map_or(40, |seeds| seeds.parse().expect("a number"));
    for seed in 0..seeds {
        let run = std::panic::catch_unwind(|| {
            let domain = TestDomain::new();
            let mut world = World::new(&domain, seed);
            (0..400).for_each(|_| world.step());
            world.settle();
        });
        assert!(run.is_ok(), "seed {seed}");
    }
}
