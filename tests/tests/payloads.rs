//! Large payloads: loans, samples, one copy for all.

use std::time::Duration;

use librpc::zerocopy::{FromBytes, Immutable, IntoBytes};
use librpc::{
    Inbox, Limits, Loan, LoanError, Node, Policy, PublishError, Rate, RecvError, Sample, SendError, SliceError,
};
use librpc_system_tests::orders::{hold, subscribe};
use librpc_system_tests::{Puppets, TestDomain, wait_until};

/// A limit that no test reaches.
const LONG: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// Bytes that no other message has.
fn pattern(number: u64, bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.wrapping_mul(31)) as u8).collect()
}

#[track_caller]
fn next(inbox: &mut Inbox) -> Vec<u8> {
    inbox.recv_timeout(LONG).expect("it receives").expect("a message comes").payload().to_vec()
}

#[track_caller]
fn next_sample(inbox: &mut Inbox) -> Sample {
    inbox.recv_sample_timeout(LONG).expect("it receives").expect("a message comes")
}

#[test]
fn a_message_of_any_size_is_sent_and_published_without_a_setting() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (mut inbox, mut topic) = (sink.inbox().unwrap(), sink.subscribe("t").unwrap());
    let (mut sender, mut publisher) = (source.connect("sink").unwrap(), source.publisher("t").unwrap());
    for (number, bytes) in (0..).zip([0, 1, 65_472, 65_473, 100_000, MIB, 3_000_001, 33 * MIB, 5]) {
        let payload = pattern(number, bytes);
        sender.send(&payload).unwrap();
        assert!(next(&mut inbox) == payload, "{bytes} bytes sent");
        assert_eq!(publisher.publish(&payload).unwrap().inboxes(), 1);
        assert!(next(&mut topic) == payload, "{bytes} bytes published");
    }
    assert!(inbox.try_recv().unwrap().is_none() && topic.try_recv().unwrap().is_none());
    sender.flush(LONG).unwrap();
    publisher.flush(LONG).unwrap();
    let account = sender.account();
    assert_eq!(
        (account.accepted, account.processed, account.bytes),
        (9, 9, 65_472 + 65_473 + 100_001 + 34 * MIB as u64 + 3_000_006)
    );
}

#[test]
fn large_and_small_messages_arrive_in_order() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    for number in 0..40 {
        sender.send(&pattern(number, if number % 3 == 0 { 200_000 } else { 100 })).unwrap();
    }
    for number in 0..40 {
        assert!(next(&mut inbox) == pattern(number, if number % 3 == 0 { 200_000 } else { 100 }), "{number}");
    }
}

#[test]
fn the_inboxs_own_limit_is_what_too_large_names() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox_builder().max_message(1000).open().unwrap();
    let mut sender = source.connect("sink").unwrap();
    assert_eq!(sender.max_message().unwrap(), Some(1000));
    sender.send(&[1; 1000]).unwrap();
    let error = sender.send(&[1; 1001]).unwrap_err();
    assert_eq!(error.to_string(), "a message of 1001 bytes exceeds the limit of node \"sink\", 1000 bytes");
    assert_eq!(next(&mut inbox).len(), 1000);
    let error = sender.send(&vec![1; 100_000]).unwrap_err();
    assert!(matches!(error, SendError::TooLarge { bytes: 100_000, max: 1000, .. }), "{error}");
}

#[test]
fn a_loan_is_written_once_for_all_inboxes_and_comes_back() {
    let domain = TestDomain::new();
    let source = open(&domain, "source");
    let sinks: Vec<Node> = (0..4).map(|at| open(&domain, &format!("sink-{at}"))).collect();
    let mut inboxes: Vec<Inbox> = sinks.iter().map(|sink| sink.subscribe("t").unwrap()).collect();
    let mut publisher = source.publisher("t").unwrap();
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..20 {
        let mut loan = publisher.loan(MIB).unwrap();
        addresses.insert(loan.as_ptr().addr());
        loan.copy_from_slice(&pattern(number, MIB));
        assert_eq!(publisher.publish_loan(loan).unwrap().inboxes(), 4);
        for inbox in &mut inboxes {
            let sample = next_sample(inbox);
            assert!(sample.is_lent() && sample.payload().is_none(), "the sender is not trusted");
            assert!(sample.to_vec() == pattern(number, MIB), "{number}");
            assert_eq!(sample.view().array::<2>(5), Some([pattern(number, 7)[5], pattern(number, 7)[6]]));
        }
    }
    assert!(addresses.len() <= 4, "slots are used again: {addresses:x?}");
    drop(publisher.loan(MIB).unwrap());
    drop(publisher.loan(10).unwrap());
    assert_eq!(
        publisher.publish_loan(publisher_loan(&mut source.publisher("other").unwrap(), 5)).unwrap().inboxes(),
        4
    );
    assert_eq!(next(&mut inboxes[0]), [5; 100_000], "a loan of another outbox");
}

fn publisher_loan(publisher: &mut librpc::Publisher, byte: u8) -> librpc::Loan {
    let mut loan = publisher.loan(100_000).unwrap();
    loan.fill(byte);
    loan
}

#[test]
fn a_sample_keeps_its_payload_until_it_is_dropped_whatever_has_gone() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut samples = Vec::new();
    for number in 0..8 {
        sender.send(&pattern(number, 200_000)).unwrap();
        samples.push(next_sample(&mut inbox));
    }
    inbox.ack();
    for number in 8..50 {
        sender.send(&pattern(number, 200_000)).unwrap();
        let sample = next_sample(&mut inbox);
        std::thread::spawn(move || drop(sample)).join().unwrap();
    }
    sender.flush(Duration::ZERO).unwrap_err(); // the last one is not processed
    drop(sender);
    drop(source);
    drop(inbox);
    drop(sink);
    for (number, sample) in (0..).zip(&samples) {
        assert!(sample.to_vec() == pattern(number, 200_000), "{number}");
    }
}

#[test]
fn too_many_samples_are_an_error_and_lose_nothing() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut samples = Vec::new();
    for number in 0..511 {
        sender.send(&pattern(number, 66_000)).unwrap();
        samples.push(next_sample(&mut inbox));
    }
    sender.send(&pattern(511, 66_000)).unwrap();
    sender.send(b"short").unwrap();
    for _ in 0..2 {
        let error = inbox.recv_sample_timeout(LONG).unwrap_err();
        assert!(matches!(error, RecvError::TooManyHeld { .. }), "{error}");
    }
    assert!(next(&mut inbox) == pattern(511, 66_000), "a copy needs no hold");
    assert_eq!(next_sample(&mut inbox).payload(), Some(&b"short"[..]));
    assert_eq!(samples.len(), 511);
    samples.truncate(1);
    sender.send(&pattern(512, 66_000)).unwrap();
    assert!(next_sample(&mut inbox).to_vec() == pattern(512, 66_000));
    assert!(samples[0].to_vec() == pattern(0, 66_000));
}

/// However often it is asked for, and although its sender is gone: the ring is not read any further for that.
#[test]
fn a_message_that_cannot_be_held_is_not_lost_when_its_sender_goes() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox_builder().capacity(64 * 1024).open().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut samples = Vec::new();
    for number in 0..511 {
        sender.send(&pattern(number, 66_000)).unwrap();
        samples.push(next_sample(&mut inbox));
    }
    sender.send(&pattern(511, 66_000)).unwrap();
    drop(sender);
    drop(source);
    for asked in 0..5_000 {
        match inbox.try_recv_sample() {
            Err(RecvError::TooManyHeld { .. }) => {}
            other => panic!("{other:?}, when asked {asked} times"),
        }
    }
    samples.clear();
    assert!(next_sample(&mut inbox).to_vec() == pattern(511, 66_000));
}

#[test]
fn a_loan_waits_for_memory_and_then_says_who_has_it() {
    let domain = TestDomain::new();
    let sink = open(&domain, "sink");
    let limits = Limits::default().payload_bytes(4 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut samples = Vec::new();
    for _ in 0..2 {
        sender.send(&vec![1; MIB]).unwrap();
        samples.push(next_sample(&mut inbox));
    }
    let _loans = [sender.loan(MIB).unwrap(), sender.loan(MIB).unwrap()];
    let error = sender.loan(MIB).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no memory for a payload of 1048576 bytes: there may be 4194304 bytes (Limits::payload_bytes), which these nodes \
         have: \"sink\""
    );
    let LoanError::Exhausted { holders, .. } = error else { panic!("{error:?}") };
    assert_eq!((holders[0].queued, holders[0].held, holders[0].bytes), (1, 1, 2 * MIB as u64));
    assert!(matches!(sender.try_send(&vec![1; MIB]), Err(SendError::NoMemory { .. })));
    sender.send(b"short ones go on").unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| sender.loan(MIB));
        std::thread::sleep(Duration::from_millis(20));
        samples.remove(0);
        assert_eq!(waiting.join().unwrap().unwrap().len(), MIB);
    });
}

#[test]
fn a_receiver_that_does_not_keep_up_is_held_to_a_window() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut blocking = sink.subscribe("t").unwrap();
    let mut dropping = sink.subscriber_builder(["t"]).policy(Policy::DropNewest).open().unwrap();
    let mut latest = sink.subscriber_builder(["t"]).policy(Policy::DropOldest).open().unwrap();
    let mut publisher = source.publisher("t").unwrap();
    publisher.set_timeout(Duration::from_secs(5)); // once: then the blocking inbox counts as stuck
    let mut accepted = [0; 3];
    for number in 0..20u64 {
        let receipt = publisher.publish(&pattern(number, 16 * MIB)).unwrap();
        for (at, count) in accepted.iter_mut().enumerate() {
            *count += usize::from(receipt.inboxes() > 2 - at);
        }
    }
    // 64 MiB wait in each inbox; the one that wants the latest never lets its sender wait.
    assert_eq!(accepted, [4, 4, 20]);
    for number in 0..4 {
        assert!(next(&mut blocking) == pattern(number, 16 * MIB) && next(&mut dropping) == pattern(number, 16 * MIB));
    }
    assert!(blocking.try_recv().unwrap().is_none() && dropping.try_recv().unwrap().is_none());
    let sample = next_sample(&mut latest);
    assert!(sample.missed() >= 16, "{}", sample.missed());
    assert!(sample.to_vec() == pattern(sample.missed(), 16 * MIB));
    let mut last = sample.sequence();
    while let Some(sample) = latest.try_recv_sample().unwrap() {
        assert_eq!(sample.missed(), 0);
        assert!(sample.to_vec() == pattern(sample.sequence(), 16 * MIB));
        last = sample.sequence();
    }
    assert_eq!(last, 19, "the newest has come");
}

#[test]
fn receivers_that_never_let_go_leave_memory_to_the_others() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(32 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let sink = open(&domain, "sink");
    let policies = [Policy::Block, Policy::DropNewest, Policy::DropOldest];
    let mut holders: Vec<Inbox> =
        policies.map(|policy| sink.subscriber_builder(["t"]).policy(policy).open().unwrap()).into();
    let mut honest = open(&domain, "honest").subscribe("t").unwrap();
    let mut publisher = source.publisher("t").unwrap();
    publisher.set_timeout(Duration::from_millis(100)); // once: then the blocking inbox counts as stuck
    let (mut held, mut undelivered) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let receipt = publisher.publish(&pattern(number, MIB)).unwrap();
        undelivered.extend(receipt.undelivered().iter().map(ToString::to_string));
        assert!(next(&mut honest) == pattern(number, MIB), "{number}");
        for holder in &mut holders {
            held.extend(holder.try_recv_sample().unwrap());
        }
    }
    assert!(held.len() >= 3 * 4 && held.len() <= 32, "{} samples are held", held.len());
    undelivered.sort();
    undelivered.dedup();
    assert_eq!(
        undelivered,
        [
            "node \"sink\" is stuck: an earlier publish waited in vain for room in its inbox",
            "the inbox of node \"sink\" has stayed full for 100ms",
            "the inbox of node \"sink\" is full: the message was dropped",
        ]
    );
    held.clear();
    publisher.set_timeout(LONG);
    assert_eq!(publisher.publish(&pattern(7, MIB)).unwrap().inboxes(), 4, "all have room again");
}

/// A receiver that holds its first sample, and no other, holds one.
#[test]
fn what_was_released_after_a_sample_that_is_held_does_not_count() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(8 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let sink = open(&domain, "sink");
    let mut inbox = sink.subscriber_builder(["t"]).policy(Policy::DropNewest).open().unwrap();
    let mut publisher = source.publisher("t").unwrap();
    // All memory is there, so none that was lent is looked for.
    drop([(); 8].map(|()| publisher.loan_uninit(MIB).unwrap()));
    assert_eq!(publisher.publish(&pattern(0, MIB)).unwrap().inboxes(), 1);
    let first = next_sample(&mut inbox);
    for number in 1..20 {
        let receipt = publisher.publish(&pattern(number, MIB)).unwrap();
        assert_eq!(receipt.inboxes(), 1, "{number}: {:?}", receipt.undelivered());
        assert!(next(&mut inbox) == pattern(number, MIB), "{number}");
    }
    assert!(first.to_vec() == pattern(0, MIB));
}

#[test]
fn memory_is_given_back_when_its_receiver_is_gone() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(8 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    for _ in 0..10 {
        let sink = open(&domain, "sink");
        let mut inbox = sink.inbox().unwrap();
        let mut sender = source.connect("sink").unwrap();
        (0..4).for_each(|_| sender.send(&vec![1; MIB]).unwrap());
        let sample = next_sample(&mut inbox);
        drop((inbox, sink));
        // It may still be reading what it maps.
        assert!(matches!(sender.loan(5 * MIB), Err(LoanError::Exhausted { .. })));
        assert!(sample.to_vec() == vec![1; MIB]);
        drop(sample);
        wait_until(|| sender.loan(8 * MIB).is_ok());
    }
}

/// Its publisher is gone, too, so nobody but the publisher's node looks after what was lent.
#[test]
fn memory_is_given_back_when_its_publisher_and_then_its_receiver_are_gone() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(8 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let mut other = source.publisher("other").unwrap();
    let mut sink = domain.node("sink");
    sink.does(subscribe("s", "t"));
    let mut publisher = source.publisher("t").unwrap();
    for number in 0..2 {
        assert_eq!(publisher.publish(&pattern(number, MIB)).unwrap().inboxes(), 1);
    }
    sink.does(hold("s", 1)); // the other one waits in its inbox
    drop(publisher);
    assert!(matches!(other.loan(8 * MIB), Err(LoanError::Exhausted { .. })));
    sink.kill();
    wait_until(|| other.loan(8 * MIB).is_ok());
}

/// It holds too much, and will never let go: that must not count.
#[test]
fn a_receiver_that_is_gone_is_said_to_be_gone_and_not_to_hold_too_much() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(8 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let sink = open(&domain, "sink");
    let mut inbox = sink.inbox_builder().policy(Policy::DropNewest).open().unwrap();
    let mut sender = source.connect("sink").unwrap();
    let mut lend = |number| {
        let mut loan = sender.loan(MIB).unwrap();
        loan.copy_from_slice(&pattern(number, MIB));
        sender.send_loan(loan)
    };
    // Until one more would be too much.
    let samples: Vec<Sample> = (0..).map_while(|number| lend(number).ok().map(|()| next_sample(&mut inbox))).collect();
    assert!(samples.len() >= 2, "{} samples are held", samples.len());
    // It is made before the receiver is gone: a loan takes back what a receiver that is gone has held.
    let loan = sender.loan(MIB).unwrap();
    drop((inbox, sink));
    wait_until(|| !sender.is_connected());
    let unsent = sender.send_loan(loan).unwrap_err();
    assert!(matches!(unsent.error, SendError::ReceiverGone { .. }), "{}", unsent.error);
    drop(samples);
}

#[test]
fn a_closed_node_lends_nothing() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let _inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    source.close(LONG).unwrap();
    assert!(matches!(sender.loan(MIB), Err(LoanError::Closed { .. })));
}

#[test]
fn a_receiver_that_is_gone_and_back_gets_large_messages_again() {
    let domain = TestDomain::new();
    let source = open(&domain, "source");
    let mut sender = None;
    for number in 0..5 {
        let sink = open(&domain, "sink");
        let mut inbox = sink.inbox().unwrap();
        let sender = sender.get_or_insert_with(|| source.connect("sink").unwrap());
        wait_until(|| sender.send(&pattern(number, 200_000)).is_ok());
        assert!(next(&mut inbox) == pattern(number, 200_000));
        drop((inbox, sink));
        wait_until(|| !sender.is_connected());
    }
}

#[test]
fn what_a_receiver_did_not_process_is_redelivered_from_its_slots_or_comes_back() {
    let domain = TestDomain::new();
    let source = open(&domain, "source");
    let sink = open(&domain, "sink");
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    sender.set_redelivery(Some(LONG));
    for number in 0..3 {
        sender.send(&pattern(number, 200_000)).unwrap();
    }
    sender.send(b"short").unwrap();
    assert!(next(&mut inbox) == pattern(0, 200_000));
    drop((inbox, sink)); // the first is processed
    wait_until(|| !sender.is_connected());
    sender.send(&pattern(4, 300_000)).unwrap(); // while it is away
    let sink = open(&domain, "sink");
    let mut inbox = sink.inbox().unwrap();
    std::thread::scope(|scope| {
        let flushing = scope.spawn(|| sender.flush(LONG));
        for (number, bytes) in [(1, 200_000), (2, 200_000)] {
            let sample = next_sample(&mut inbox);
            assert!(sample.sequence() == number && sample.to_vec() == pattern(number, bytes), "{number}");
        }
        assert_eq!(next(&mut inbox), b"short");
        assert!(next(&mut inbox) == pattern(4, 300_000));
        inbox.ack();
        flushing.join().unwrap().unwrap();
    });
    sender.send(&pattern(5, 200_000)).unwrap();
    drop((inbox, sink));
    wait_until(|| !sender.is_connected());
    sender.set_redelivery(Some(Duration::from_millis(1)));
    sender.flush(LONG).unwrap_err();
    let returned = sender.take_returned().unwrap();
    assert!(returned.len() == 1 && returned[0].payload[..] == pattern(5, 200_000)[..]);
}

#[allow(unsafe_code)]
fn trusting(sink: &Node) -> Inbox {
    // SAFETY: the only sender is this process.
    unsafe { sink.inbox_builder().trust_publishers() }.open().unwrap()
}

#[test]
fn a_trusted_publishers_payload_is_a_slice() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (mut inbox, mut sender) = (trusting(&sink), source.connect("sink").unwrap());
    sender.send(&pattern(1, 200_000)).unwrap();
    let sample = next_sample(&mut inbox);
    assert!(sample.is_lent() && sample.payload() == Some(&pattern(1, 200_000)[..]));
}

#[test]
fn a_trusted_publishers_message_is_read_in_place_until_the_next_receive() {
    let domain = TestDomain::new();
    let limits = Limits::default().payload_bytes(2 * MIB as u64);
    let source = Node::builder("source").domain(domain.domain()).limits(limits).open().unwrap();
    let sink = open(&domain, "sink");
    let mut inbox = trusting(&sink);
    let mut sender = source.connect("sink").unwrap();
    // One slot is free beside the one that is read: if the message were let go early, the next would overwrite it, and if it
    // were never let go, there would be none.
    for number in 0..20 {
        sender.send(&pattern(number, MIB)).unwrap();
        let message = inbox.recv_timeout(LONG).unwrap().unwrap();
        assert!(message.payload().as_ptr().addr().is_multiple_of(4096), "it is where its sender has put it");
        sender.send(&pattern(1000 + number, MIB)).unwrap();
        assert!(matches!(sender.try_send(&[1; MIB]), Err(SendError::NoMemory { .. })));
        assert!(message.payload() == pattern(number, MIB));
        assert!(message.to_owned().payload[..] == pattern(number, MIB));
        inbox.ack();
        assert!(matches!(sender.try_send(&[1; MIB]), Err(SendError::NoMemory { .. })), "it is still read");
        assert!(next(&mut inbox) == pattern(1000 + number, MIB));
        sender.send(b"short").unwrap();
        assert_eq!(next(&mut inbox), b"short");
        drop([(); 2].map(|()| sender.loan_uninit(MIB).expect("nothing is held any more")));
    }
}

/// As of a lidar.
#[derive(Clone, Copy, Debug, PartialEq, FromBytes, IntoBytes, Immutable)]
#[zerocopy(crate = "librpc::zerocopy")]
#[repr(C)]
struct Point {
    at: [f32; 3],
    ring: u32,
}

fn point(number: usize) -> Point {
    Point { at: [number as f32, 0.5, -1.0], ring: number as u32 % 64 }
}

#[test]
fn plain_values_are_lent_and_read_as_slices() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (mut inbox, mut sender) = (sink.inbox().unwrap(), source.connect("sink").unwrap());
    let check = |sample: &Sample, values: usize| {
        assert_eq!(sample.len(), 16 * values);
        let (view, copy) = (sample.view(), sample.to_vec_of::<Point>().unwrap());
        assert!(copy.iter().copied().eq((0..values).map(point)), "{values} values");
        assert!((0..values).all(|at| view.read(at) == Some(point(at))));
        assert!(view.read::<Point>(values).is_none() && view.read::<Point>(usize::MAX).is_none());
        let odd = sample.to_vec_of::<[u8; 7]>().map(|_| ());
        assert_eq!(odd, if values == 0 { Ok(()) } else { Err(SliceError::Length { bytes: 16 * values, of: 7 }) });
    };
    for values in [0, 1, 256, 257, 10_000] {
        let mut loan = sender.loan_slice::<Point>(values).unwrap();
        assert!(loan.iter().all(|value| *value == Point { at: [0.0; 3], ring: 0 }), "it is all zero");
        loan.iter_mut().enumerate().for_each(|(at, value)| *value = point(at));
        sender.send_loan(loan).unwrap();
        let sample = next_sample(&mut inbox);
        check(&sample, values);
        let slice = sample.slice::<Point>().map(<[Point]>::len);
        assert_eq!(slice, if sample.is_lent() { Err(SliceError::Untrusted) } else { Ok(values) });
    }
    let mut inbox = {
        drop(inbox);
        wait_until(|| !sender.is_connected());
        trusting(&sink)
    };
    let mut loan = sender.loan_slice::<Point>(10_000).unwrap();
    loan.iter_mut().enumerate().for_each(|(at, value)| *value = point(at));
    sender.send_loan(loan).unwrap();
    let sample = next_sample(&mut inbox);
    check(&sample, 10_000);
    assert!(sample.is_lent() && sample.slice::<Point>().unwrap()[9_999] == point(9_999));
    assert_eq!(sample.slice::<[u8; 7]>(), Err(SliceError::Length { bytes: 160_000, of: 7 }));
    let loan: Loan = sender.loan(10).unwrap();
    assert_eq!(loan.into_slice::<u64>().unwrap_err().len(), 10, "it is given back");
}

#[test]
fn a_loan_is_all_zero_whatever_was_in_its_memory() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (mut inbox, mut sender) = (sink.inbox().unwrap(), source.connect("sink").unwrap());
    for as_slice in [true, false, true, false] {
        match as_slice {
            true => assert!(sender.loan_slice::<u64>(MIB / 8).unwrap().iter().all(|word| *word == 0)),
            false => assert!(sender.loan(MIB).unwrap().iter().all(|byte| *byte == 0)),
        }
        let mut loan = sender.loan_uninit(MIB).unwrap();
        loan.fill(0xee);
        sender.send_loan(loan).unwrap();
        assert_eq!(next(&mut inbox), [0xee; MIB]);
    }
}

#[test]
fn a_loan_that_can_never_be_had_fails_at_once() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let (_inbox, mut sender) = (sink.inbox().unwrap(), source.connect("sink").unwrap());
    for bytes in [5 << 30, usize::MAX / 2, usize::MAX - 1, usize::MAX] {
        assert!(matches!(sender.loan(bytes), Err(LoanError::Exhausted { bytes: wanted, .. }) if wanted == bytes));
        assert!(matches!(sender.loan_uninit(bytes), Err(LoanError::Exhausted { .. })));
        assert!(matches!(sender.loan_slice::<u64>(bytes), Err(LoanError::Exhausted { .. })));
    }
    assert_eq!(source.stats().payload_bytes, 0, "no memory was made");
}

#[test]
fn a_loan_that_is_not_published_is_given_back() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.subscribe("t").unwrap();
    let mut publisher = source.publisher("t").unwrap();
    let burst = std::num::NonZeroU32::new(9).unwrap();
    publisher.limit_rate(Some(Rate::bytes(std::num::NonZeroU32::MIN, burst).or_fail()));
    assert_eq!(publisher.publish(b"the burst").unwrap().inboxes(), 1);
    assert_eq!(next(&mut inbox), b"the burst");
    let mut loan = publisher.loan(MIB).unwrap();
    loan.copy_from_slice(&pattern(1, MIB));
    let unsent = publisher.publish_loan(loan).unwrap_err();
    assert!(matches!(unsent.error, PublishError::RateLimited { .. }), "{unsent}");
    publisher.limit_rate(None);
    assert_eq!(publisher.publish_loan(unsent.loan.unwrap()).unwrap().inboxes(), 1);
    assert!(next(&mut inbox) == pattern(1, MIB));
}
