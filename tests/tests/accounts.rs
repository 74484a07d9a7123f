//! The accounts of an outbox compared with a model: random sends, publishes and receives, and inboxes that come and go
//! with every policy. At rest each message is in exactly one sum, for each destination and in total. The sums match
//! what the application has seen: messages that it sent, received, found dropped, and got back.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use librpc::{
    Account, Admission, ChannelState, Destination, FlushError, Inbox, InboxBuilder, Node, Outbox, Policy, Rate,
    SendError, Subscriber, Topic,
};
use librpc_system_tests::{TestDomain, wait_until};

const LONG: Duration = Duration::from_secs(30);
const TOPICS: [&str; 3] = ["a", "b", "c"];
const PATTERNS: [&str; 5] = ["a", "b", "*", "**", "c"];

/// What the application has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Seen {
    sent: u64,
    processed: u64,
    dropped: u64,
    returned: u64,
}

impl Seen {
    /// A message was not delivered.
    fn failed(&mut self, error: &SendError) {
        self.sent += 1;
        match error {
            SendError::Dropped { .. } => self.dropped += 1,
            _ => self.returned += 1,
        }
        self.returned += error.undelivered();
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.processed += other.processed;
        self.dropped += other.dropped;
        self.returned += other.returned;
    }
}

/// An inbox, and the sums to which its messages belong: those of a node's own inbox, or those of all topics.
enum Receiving {
    Own(usize, Inbox),
    Topics(Subscriber),
}

struct World {
    rng: Rng,
    sinks: Vec<Node>,
    receiving: Vec<Receiving>,
    outbox: Outbox,
    destinations: BTreeMap<usize, Destination>,
    topics: Vec<Topic>,
    /// By destination, and for everything that was published.
    own: Vec<Seen>,
    published: Seen,
}

fn at_rest(account: Account) -> bool {
    account.sent == account.processed + account.queued + account.dropped + account.returned
}

/// Before it was closed, an inbox that overwrites may have noticed more losses than the application. These messages are
/// in no other sum.
fn agree(account: Account, seen: Seen) {
    let Account { sent, processed, dropped, returned, .. } = account;
    let found = Seen { sent, processed, dropped: dropped.min(seen.dropped), returned };
    assert_eq!(found, seen, "{account:?}");
}

impl World {
    fn new(domain: &TestDomain, seed: u64) -> Self {
        let open = |id: String| Node::builder(&id).domain(domain.domain()).open().expect("it opens");
        let sinks: Vec<Node> = (0..2).map(|n| open(format!("sink-{n}"))).collect();
        let mut outbox = open("source".into()).outbox();
        let topics = TOPICS.map(|topic| outbox.topic(topic).expect("a topic")).to_vec();
        let own = vec![Seen::default(); sinks.len()];
        let (receiving, destinations, published) = (Vec::new(), BTreeMap::new(), Seen::default());
        Self { rng: Rng::with_seed(seed), sinks, receiving, outbox, destinations, topics, own, published }
    }

    fn payload(&mut self) -> Vec<u8> {
        // A ring of 4 KiB takes 1,024 bytes, one that overwrites 512.
        let longest = if self.rng.u8(..10) == 0 { 2000 } else { 400 };
        vec![7; self.rng.usize(..longest)]
    }

    fn terms<'n>(rng: &mut Rng, builder: InboxBuilder<'n>) -> InboxBuilder<'n> {
        let policies = [Policy::Block, Policy::DropNewest, Policy::DropOldest];
        builder.policy(policies[rng.usize(..3)]).capacity(4096 << rng.u32(..3))
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..4 => self.open_own(),
            4..10 => self.subscribe(),
            10..15 => self.close_one(),
            15..45 => self.receive(),
            45..70 => self.send(),
            70..95 => self.publish(),
            95..97 => self.limit_rate(),
            _ => self.flush(Duration::ZERO),
        }
    }

    fn open_own(&mut self) {
        let sink = self.rng.usize(..self.sinks.len());
        if self.receiving.iter().any(|receiving| matches!(receiving, Receiving::Own(at, _) if *at == sink)) {
            return;
        }
        let builder = Self::terms(&mut self.rng, self.sinks[sink].inbox_builder());
        self.receiving.push(Receiving::Own(sink, builder.open().expect("it opens")));
    }

    fn subscribe(&mut self) {
        if self.receiving.len() > 6 {
            return;
        }
        let sink = self.rng.usize(..self.sinks.len());
        let patterns = [PATTERNS[self.rng.usize(..5)], PATTERNS[self.rng.usize(..5)]];
        let builder = Self::terms(&mut self.rng, self.sinks[sink].subscriber_builder(patterns));
        self.receiving.push(Receiving::Topics(builder.open().expect("it opens")));
    }

    fn close_one(&mut self) {
        if !self.receiving.is_empty() {
            let closed = self.rng.usize(..self.receiving.len());
            self.receiving.swap_remove(closed);
        }
    }

    /// Receives some of the messages. They are processed once the next one is requested, or the inbox is dropped.
    fn receive(&mut self) {
        if self.receiving.is_empty() {
            return;
        }
        let (at, most) = (self.rng.usize(..self.receiving.len()), self.rng.usize(..30));
        for _ in 0..most {
            if !receive_one(&mut self.receiving[at], &mut self.own, &mut self.published) {
                return;
            }
        }
    }

    fn send(&mut self) {
        let sink = self.rng.usize(..self.sinks.len());
        if !self.destinations.contains_key(&sink) {
            let Ok(destination) = self.outbox.try_connect(self.sinks[sink].id()) else { return };
            self.destinations.insert(sink, destination);
        }
        let payload = self.payload();
        match self.outbox.try_send(self.destinations[&sink], &payload) {
            Ok(()) => self.own[sink].sent += 1,
            Err(error) => self.own[sink].failed(&error),
        }
    }

    fn publish(&mut self) {
        let (topic, payload) = (self.topics[self.rng.usize(..3)], self.payload());
        let receipt = self.outbox.publish_timeout(topic, &payload, Duration::ZERO).expect("the node is open");
        self.published.sent += (receipt.inboxes() + receipt.pending()) as u64;
        for error in receipt.undelivered() {
            match error.undelivered() {
                0 => self.published.failed(error),
                // Messages that were published earlier.
                lost => self.published.returned += lost,
            }
        }
    }

    fn limit_rate(&mut self) {
        let one = |n| std::num::NonZeroU32::new(n).expect("not 0");
        let sink = self.rng.usize(..self.sinks.len());
        let rate = self.rng.bool().then(|| Rate::messages(one(1000), one(3)).or_fail());
        if let Some(&destination) = self.destinations.get(&sink) {
            self.outbox.limit_rate(destination, rate);
        }
    }

    fn flush(&mut self, limit: Duration) {
        let Err(FlushError::Lost { lost, causes, .. }) = self.outbox.flush(limit) else { return };
        assert_eq!(lost, causes.iter().map(SendError::undelivered).sum::<u64>(), "{causes:?}");
        for cause in &causes {
            self.published.returned += cause.undelivered();
        }
    }

    /// Everything is received or gone, and what was lost is reported.
    fn comes_to_rest(mut self) {
        let begun = Instant::now();
        while self.outbox.total().queued > 0 {
            assert!(begun.elapsed() < LONG, "{:?}", self.outbox.inboxes());
            for receiving in &mut self.receiving {
                while receive_one(receiving, &mut self.own, &mut self.published) {}
            }
            self.flush(Duration::from_millis(1));
        }
        let total = self.outbox.total();
        assert!(at_rest(total) && total.queued == 0, "{total:?}");
        let mut all = self.published;
        self.own.iter().for_each(|own| all.add(*own));
        agree(total, all);
        for (sink, destination) in &self.destinations {
            let account = self.outbox.account(*destination);
            assert!(at_rest(account) && account.queued == 0, "{account:?}");
            // A flush may report a loss at either inbox of a node. The total is exact.
            let own = self.own[*sink];
            agree(account, Seen { returned: account.returned, ..own });
        }
    }
}

fn receive_one(receiving: &mut Receiving, own: &mut [Seen], published: &mut Seen) -> bool {
    let (message, seen) = match receiving {
        Receiving::Own(sink, inbox) => (inbox.try_recv(), &mut own[*sink]),
        Receiving::Topics(subscriber) => (subscriber.try_recv(), published),
    };
    let Some(message) = message.expect("it is open") else { return false };
    seen.processed += 1;
    seen.dropped += message.missed();
    true
}

#[test]
fn at_rest_each_message_is_in_one_sum_and_the_sums_are_what_was_seen() {
    for seed in 0..40 {
        let seed = std::env::var("SEED").map_or(seed, |seed| seed.parse().expect("a number"));
        println!("SEED={seed}");
        let domain = TestDomain::new();
        let mut world = World::new(&domain, seed);
        for _ in 0..400 {
            world.step();
        }
        world.comes_to_rest();
    }
}

/// Messages that are lost with the channel count apart from the message that finds the channel failed.
#[test]
fn a_refusal_reports_the_earlier_messages_and_the_one_that_finds_it_each_on_its_own() {
    let domain = TestDomain::new();
    let (refuses, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let admission = Admission::nobody().function(move |_| {
        waits.lock().expect("one peer").recv().expect("the test goes on");
        false
    });
    let open = |id: &str| Node::builder(id).domain(domain.domain());
    let (sink, source) = (open("sink").admit(admission).open().unwrap(), open("source").open().unwrap());
    let _subscriber = sink.subscribe("a").unwrap();
    let mut publisher = source.publisher("a").unwrap();
    for _ in 0..2 {
        assert_eq!(publisher.publish(b"early").unwrap().inboxes(), 1, "the kernel holds it for the receiver");
    }
    refuses.send(()).unwrap();
    wait_until(|| source.stats().outgoing[0].state == ChannelState::Failed);
    let receipt = publisher.publish(b"late").unwrap();
    let lost: Vec<u64> = receipt.undelivered().iter().map(SendError::undelivered).collect();
    assert_eq!((receipt.inboxes(), lost), (0, vec![2, 0]), "{receipt:?}");
    let account = publisher.account();
    assert_eq!((account.sent, account.returned), (3, 3), "{account:?}");
}
