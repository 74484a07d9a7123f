//! A receiver whose senders are rings in this process. Whatever they do, it stays within its limits.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use librpc_ring::{Consumer, Head, Kind, Producer};

use super::polling::{Polled, Step};
use super::*;
use crate::link::bell::Bell;
use crate::link::inbox_shared::{Arrival, Settings};
use crate::link::ledger::{Ledger, Limits};
use crate::name::{Address, Incarnation};
use crate::policy::Policy;
use crate::stats::channels::ChannelRecord;
use crate::sys::file;
use crate::sys::memory::{Mapping, Reader, Shape, Writer};
use crate::sys::poll::{self, Signal};
use crate::sys::socket::Socket;
use crate::{Domain, Node};

const CAPACITY: u64 = 1 << 20;

/// An inbox, and the results of its senders' handshakes.
struct Stage {
    shared: Arc<InboxShared>,
    receiver: Receiver,
    ledger: Arc<Ledger>,
    connections: u64,
    /// The senders' node.
    node: Arc<str>,
    incarnation: Incarnation,
}

/// A sender's ring, and its end of the connection.
struct Sender {
    producer: Producer<Writer, Reader>,
    socket: Socket,
    ack: Reader,
}

impl Sender {
    fn declares(&mut self, number: u64, name: &str) {
        let head = Head { topic: Some(number), ..Head::of(Kind::Topic) };
        self.producer.push(head, name.as_bytes()).expect("room");
    }

    fn publishes(&mut self, number: u64) {
        let head = Head { topic: Some(number), ..Head::MESSAGE };
        self.producer.push(head, b"hello").expect("room");
    }

    fn rings(&self, ring: u32) {
        Bell::Ring(ring).ring(&self.socket);
    }

    /// The numbers of the messages that a sender that takes over finds, and whether they are flagged.
    fn unprocessed(&mut self) -> Vec<(u64, bool)> {
        let mut found = Vec::new();
        assert_eq!(self.producer.unprocessed(|head, number, _| found.push((number, head.redelivered))), 0);
        found
    }

    /// Bytes that the inbox has processed.
    fn consumed(&self) -> u64 {
        use librpc_ring::{Memory, layout};
        self.ack.get(layout::ack::CONSUMED)
    }

    fn is_processed(&self) -> bool {
        self.consumed() == self.producer.committed()
    }
}

impl Stage {
    fn new() -> Self {
        Self::with(Wait::Adaptive, Policy::Block)
    }

    /// The node of its senders does not exist, so a sender that hangs up counts as dead.
    fn with(wait: Wait, policy: Policy) -> Self {
        let node = ".nobody can have this id";
        Self::in_domain(Path::new("/dev/shm"), node, Incarnation::from_bytes([7; 16]), wait, policy)
    }

    fn in_domain(domain: &Path, node: &str, incarnation: Incarnation, wait: Wait, policy: Policy) -> Self {
        let directory = Arc::new(file::open_directory(domain).unwrap());
        let address = Address::Topics(["**".parse().unwrap()].into());
        let settings = Settings {
            history: 0,
            schemas: [].into(),
            address,
            capacity: CAPACITY,
            max_message: 1 << 30,
            policy,
            receive_own: false,
            durable: None,
            by_invitation: false,
        };
        let shared = InboxShared::new(0, settings, directory, Arc::default()).unwrap();
        let receiver = Receiver::new(shared.clone(), wait, None).unwrap();
        let ledger = Ledger::new(Limits::default());
        Self { shared, receiver, ledger, connections: 0, node: node.into(), incarnation }
    }

    /// A sender that has just been connected.
    fn sender(&mut self) -> Sender {
        let (data, ack) = (Mapping::create(Shape::Data { capacity: CAPACITY }), Mapping::create(Shape::Ack));
        let (data, ack) = (Arc::new(data.unwrap().0), Arc::new(ack.unwrap().0));
        let (policy, incarnation) = (self.shared.policy, self.incarnation);
        let producer = Producer::new(data.writer(), ack.reader(), CAPACITY, policy.mode());
        let consumer = Consumer::new(data.reader(), ack.writer(), CAPACITY, policy.mode()).unwrap();
        let peer = Arc::new(Peer { node: self.node.clone(), incarnation, pid: 1, uid: 2, gid: 3, groups: [].into() });
        let (ours, socket) = Socket::pair();
        self.connections += 1;
        let record =
            ChannelRecord { peer: peer.clone(), inbox: 0, ring: 0, policy, capacity: CAPACITY, data, ack: ack.clone() };
        self.shared.arrived(Arrival {
            connection: self.connections,
            ring: 0,
            socket: Some(Arc::new(ours)),
            peer,
            consumer,
            is_fenced: false,
            charge: self.ledger.channel(2, CAPACITY).unwrap(),
            guard: self.shared.channels.add(record),
            lent: Arc::default(),
            ack: ack.clone(),
        });
        Sender { producer, socket, ack: ack.reader() }
    }

    fn next(&mut self, until: Until, wanted: Wanted) -> Option<Found> {
        self.receiver.next(until, wanted).unwrap()
    }

    /// A receive whose time is up when it begins.
    fn next_at_once(&mut self, wanted: Wanted) -> Option<Found> {
        self.next(Until::Deadline(Instant::now()), wanted)
    }

    /// Takes in the new senders.
    fn join(&mut self, senders: usize) {
        for _ in 0..senders {
            assert!(matches!(self.next(Until::Forever, Wanted::Events), Some(Found::Joined(_))));
        }
    }

    /// Until when the departures of all senders are in doubt.
    fn doubts_end(&mut self, at: Instant) {
        self.receiver.channels.iter_mut().flatten().for_each(|channel| channel.in_doubt_until = Some(at));
    }

    /// Takes the next message as an inbox does: in a run while that lasts. Returns its channel.
    fn take_next(&mut self) -> usize {
        if !self.receiver.goes_on(true) {
            self.receiver.consume(true);
            self.take();
        }
        self.receiver.taken.channel
    }

    /// Takes the next message, which is there.
    fn take(&mut self) {
        assert!(matches!(self.next(Until::Now, Wanted::Messages), Some(Found::Message)));
    }

    /// Polls until the inbox sleeps, as far as another event loop can see.
    fn sleeps(&mut self) {
        self.receiver.descriptor(WatchedBy::Library);
        assert!(self.next(Until::Now, Wanted::Events).is_none());
        assert!(self.receiver.active.is_empty());
        self.receiver.watched_by.set(WatchedBy::Nobody);
    }
}

#[test]
fn a_stream_of_topics_does_not_hold_a_receive_beyond_its_limit() {
    for wait in [Wait::Adaptive, Wait::Spin, Wait::Block] {
        let mut stage = Stage::with(wait, Policy::Block);
        let mut sender = stage.sender();
        stage.join(1);
        (0..10_000).for_each(|_| sender.declares(1, "a"));
        assert!(stage.next_at_once(Wanted::Messages).is_none());
        let taken = sender.consumed() * 10_000 / sender.producer.committed();
        assert!((1..1000).contains(&taken), "{wait:?}: {taken} of 10,000 after the limit");
        assert!(stage.next(Until::Now, Wanted::Messages).is_none());
        assert!(!sender.is_processed(), "{wait:?}: a call that must not block has taken 10,000");
        stage.receiver.descriptor(WatchedBy::Program);
        assert!(stage.next(Until::Now, Wanted::Messages).is_none());
        assert!(!sender.is_processed(), "{wait:?}: another event loop's call has taken 10,000");
        sender.publishes(1);
        stage.receiver.watched_by.set(WatchedBy::Nobody);
        assert!(stage.next(Until::Forever, Wanted::Messages).is_some(), "it goes on");
    }
}

#[test]
fn one_poll_takes_a_bounded_number_of_topics_from_all_channels_together() {
    let mut stage = Stage::new();
    let mut senders: Vec<_> = (0..20).map(|_| stage.sender()).collect();
    stage.join(20);
    senders.iter_mut().for_each(|sender| (0..50).for_each(|_| sender.declares(1, "a")));
    assert!(matches!(stage.receiver.poll(Wanted::Messages), Polled::Unfinished));
    let taken: u64 = senders.iter().map(|sender| sender.consumed() * 50 / sender.producer.committed()).sum();
    assert!((1..=128).contains(&taken), "{taken} of 1,000 topics in one poll");
}

#[test]
fn a_stream_of_topics_starves_no_other_channel() {
    for wait in [Wait::Adaptive, Wait::Spin, Wait::Block] {
        let mut stage = Stage::with(wait, Policy::Block);
        let (mut other, mut sender) = (stage.sender(), stage.sender());
        stage.join(2);
        stage.sleeps();
        (0..30_000).for_each(|_| sender.declares(1, "a"));
        sender.rings(0);
        assert!(stage.next_at_once(Wanted::Messages).is_none());
        assert_eq!(stage.receiver.active.len(), 1, "the other one is armed");
        other.declares(1, "a");
        other.publishes(1);
        other.rings(0);
        assert!(stage.next(Until::Forever, Wanted::Messages).is_some());
        assert!(!sender.is_processed(), "{wait:?}: 30,000 records came first");
    }
}

#[test]
fn a_look_takes_in_a_bounded_number_of_senders_and_forgets_none() {
    let mut stage = Stage::new();
    let senders: Vec<_> = (0..200).map(|_| stage.sender()).collect();
    assert!(stage.next_at_once(Wanted::Messages).is_none());
    assert!((1..200).contains(&stage.receiver.connections.len()), "{}", stage.receiver.connections.len());
    while stage.receiver.connections.len() < senders.len() {
        // It sleeps without a limit: what is left must wake it.
        stage.receiver.sleep(None).unwrap();
        assert!(stage.receiver.found.len() <= 64);
        assert!(matches!(stage.receiver.poll(Wanted::Messages), Polled::Nothing));
        assert!(stage.receiver.found.is_empty(), "nothing piles up that nobody asks for");
    }
}

#[test]
fn departures_do_not_hold_a_receive_beyond_its_limit() {
    let mut stage = Stage::new();
    let senders: Vec<_> = (0..60).map(|_| stage.sender()).collect();
    stage.join(60);
    drop(senders);
    assert!(stage.next_at_once(Wanted::Messages).is_none());
    let left = stage.receiver.channels.iter().filter(|channel| channel.is_none()).count();
    assert!((1..60).contains(&left), "{left} departures after the limit");
    for _ in left..60 {
        assert!(matches!(stage.next(Until::Forever, Wanted::Events), Some(Found::Left(_))));
    }
}

/// A domain that is removed when it is dropped.
struct TestDomain(PathBuf);

impl TestDomain {
    fn new(test: &str) -> Self {
        Self(format!("/dev/shm/librpc_unit_{}_{test}", std::process::id()).into())
    }
}

impl Drop for TestDomain {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // it is there unless the last node has removed it
    }
}

#[test]
fn a_look_asks_about_a_bounded_number_of_senders_whose_departure_is_in_doubt() {
    let domain = TestDomain::new("doubts");
    let node = Node::builder("alive").domain(Domain::at(&domain.0)).open().unwrap();
    let mut stage = Stage::in_domain(&domain.0, "alive", node.incarnation(), Wait::Adaptive, Policy::Block);
    let senders: Vec<_> = (0..60).map(|_| stage.sender()).collect();
    stage.join(60);
    stage.doubts_end(Instant::now() + Duration::from_secs(3600));
    drop(senders);
    while stage.receiver.doubtful.len() < 60 {
        // They have hung up without a word, and their node lives.
        assert!(stage.next(Until::Now, Wanted::Events).is_none());
        assert!(stage.receiver.found.is_empty());
    }
    stage.doubts_end(Instant::now());
    let mut left = 0;
    while left < 60 {
        stage.receiver.sleep(None).unwrap();
        assert!((1..60).contains(&stage.receiver.found.len()), "{}", stage.receiver.found.len());
        for found in stage.receiver.found.drain(..) {
            let Found::Left(departed) = found else { panic!("{found:?}") };
            assert_eq!(departed.1, Departure::Disconnected);
            left += 1;
        }
    }
}

#[test]
fn a_sender_whose_file_cannot_be_read_is_not_said_to_have_died() {
    let domain = TestDomain::new("unreadable");
    std::fs::create_dir(&domain.0).unwrap();
    std::os::unix::fs::symlink("elsewhere", domain.0.join("odd.node")).unwrap(); // no link is followed
    let incarnation = Incarnation::from_bytes([7; 16]);
    let mut stage = Stage::in_domain(&domain.0, "odd", incarnation, Wait::Adaptive, Policy::Block);
    drop(stage.sender());
    stage.join(1);
    match stage.next(Until::Forever, Wanted::Events) {
        Some(Found::Left(departed)) => assert_eq!(departed.1, Departure::Disconnected),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_look_reads_a_bounded_number_of_bells() {
    let mut stage = Stage::new();
    let senders: Vec<_> = (0..8).map(|_| stage.sender()).collect();
    stage.join(8);
    stage.sleeps();
    senders.iter().for_each(|sender| (0..150).for_each(|_| sender.rings(77)));
    let mut heard = 0;
    while heard < 8 * 150 {
        stage.receiver.sleep(None).unwrap();
        assert!((1..600).contains(&stage.receiver.bells_heard), "{}", stage.receiver.bells_heard);
        heard += stage.receiver.bells_heard;
    }
}

#[test]
fn what_shows_without_end_does_not_keep_the_clock_from_being_looked_at() {
    let mut stage = Stage::new();
    let mut sender = stage.sender();
    stage.join(1);
    sender.publishes(1);
    stage.receiver.polls = 0;
    assert_eq!((0..1000).take_while(|_| stage.receiver.spin()).count(), POLLS_PER_CLOCK as usize);
}

#[test]
fn a_message_that_is_taken_after_the_inbox_has_ended_is_not_handed_out() {
    for (end, in_run) in [InboxShared::close, InboxShared::stop].into_iter().flat_map(|end| [(end, false), (end, true)])
    {
        let mut stage = Stage::new();
        let mut sender = stage.sender();
        stage.join(1);
        sender.declares(1, "a");
        (0..3).for_each(|_| sender.publishes(1));
        stage.take();
        // As if the inbox had ended just after the receive had looked whether it has.
        end(&stage.shared);
        if in_run {
            assert!(!stage.receiver.take_in_run(true));
        } else {
            stage.receiver.consume(true);
            assert!(matches!(stage.receiver.poll_ring(0), Step::Nothing));
        }
        assert!(stage.next(Until::Forever, Wanted::Messages).is_none());
        stage.receiver.consume(false); // as if the inbox was dropped
        assert_eq!(sender.unprocessed(), [(1, false), (2, false)]);
        let counted = stage.shared.channels.after(0, 1)[0].1.stats();
        assert_eq!((counted.received, counted.processed, counted.queued), (1, 1, 2));
        assert_eq!(counted.bytes_received, 5);
    }
}

#[test]
fn what_was_handed_out_before_can_still_be_acknowledged_after_the_end() {
    let mut stage = Stage::new();
    let mut sender = stage.sender();
    stage.join(1);
    sender.declares(1, "a");
    (0..3).for_each(|_| sender.publishes(1));
    stage.take();
    assert!(stage.receiver.take_in_run(false));
    stage.shared.stop();
    assert!(!stage.receiver.take_in_run(false));
    assert_eq!(sender.unprocessed(), [(0, true), (1, true), (2, false)]);
    stage.receiver.consume(false);
    assert_eq!(sender.unprocessed(), [(2, false)]);
}

#[test]
fn a_message_of_a_run_can_be_acknowledged_like_any_other() {
    let mut stage = Stage::new();
    let mut sender = stage.sender();
    stage.join(1);
    sender.declares(1, "a");
    (0..3).for_each(|_| sender.publishes(1));
    stage.take();
    stage.receiver.consume(false);
    for left in [1, 0] {
        assert!(stage.receiver.take_in_run(false));
        assert!(!sender.is_processed());
        stage.receiver.consume(false);
        assert_eq!(sender.unprocessed().len(), left);
    }
    assert!(sender.is_processed());
}

#[test]
fn a_run_takes_no_message_of_a_topic_that_was_not_declared() {
    let mut stage = Stage::new();
    let mut sender = stage.sender();
    stage.join(1);
    sender.declares(1, "a");
    sender.publishes(1);
    sender.publishes(2);
    stage.take();
    assert!(!stage.receiver.take_in_run(true));
    match stage.next(Until::Forever, Wanted::Events) {
        Some(Found::Left(departed)) => assert!(matches!(departed.1, Departure::Corrupt(_)), "{departed:?}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_of_messages_leaves_other_channels_their_turn() {
    const MESSAGES: usize = 10 * QUANTUM as usize;
    let mut stage = Stage::new();
    let mut senders = [stage.sender(), stage.sender()];
    stage.join(2);
    for sender in &mut senders {
        sender.declares(1, "a");
        (0..MESSAGES).for_each(|_| sender.publishes(1));
    }
    let taken: Vec<_> = (0..2 * MESSAGES).map(|_| stage.take_next()).collect();
    let longest = taken.chunk_by(|one, next| one == next).map(<[usize]>::len).max();
    assert!(longest <= Some(QUANTUM as usize), "{longest:?} messages of one channel in a row");
}

#[test]
fn a_stream_of_messages_does_not_drown_the_bells() {
    const MESSAGES: u32 = 10 * (POLLS_PER_CLOCK + QUANTUM);
    let mut stage = Stage::new();
    let (mut other, mut sender) = (stage.sender(), stage.sender());
    stage.join(2);
    stage.sleeps();
    sender.declares(1, "a");
    (0..MESSAGES).for_each(|_| sender.publishes(1));
    sender.rings(0);
    let streaming = {
        assert!(stage.next(Until::Forever, Wanted::Messages).is_some());
        stage.receiver.taken.channel
    };
    assert_eq!(stage.receiver.active.len(), 1, "the other one is armed");
    other.declares(1, "a");
    other.publishes(1);
    other.rings(0);
    // As if the last look was long ago.
    stage.receiver.last_look = Instant::now() - Duration::from_secs(1);
    let first_of_other = (1..MESSAGES).position(|_| stage.take_next() != streaming);
    assert!(first_of_other.is_some(), "{MESSAGES} messages came first");
}

/// Otherwise an event loop that is told only of what is new would not come again for what was left.
#[test]
fn a_look_that_leaves_something_unread_raises_the_signal() {
    let mut stage = Stage::new();
    let ready: Vec<Signal> = (0..poll::AT_ONCE).map(|_| Signal::new().unwrap()).collect();
    let descriptor = stage.receiver.descriptor(WatchedBy::Program).clone();
    for (number, signal) in ready.iter().enumerate() {
        signal.raise();
        descriptor.add(signal, 1_000 + number as u64).unwrap();
    }
    assert!(stage.next(Until::Now, Wanted::Messages).is_none());
    let (poll, mut seen) = (Poll::new().unwrap(), Vec::new());
    poll.add(&stage.shared.signal, 1).unwrap();
    poll.wait(Some(Instant::now()), &mut seen).unwrap();
    assert_eq!(seen.len(), 1);
}
