//! The statistics of nodes, as they and observers see them, in every state of a node.

use std::time::{Duration, Instant};

use librpc::{Acknowledge, ChannelState, Node, NodeStats, ObserveError, Observed, Observer, Policy, Reason};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain, is_root};

const LIMIT: Duration = Duration::from_secs(20);
/// For nodes that never answer, because waiting for them takes all of the limit.
const SHORT: Duration = Duration::from_millis(20);

fn find<'a>(observed: &'a [Observed], id: &str) -> &'a Observed {
    observed.iter().find(|observed| observed.node.id == id).unwrap_or_else(|| panic!("{id} is not listed"))
}

fn stats<'a>(observed: &'a [Observed], id: &str) -> &'a NodeStats {
    find(observed, id).stats.as_ref().unwrap_or_else(|why| panic!("{id}: {why}"))
}

#[test]
fn both_ends_of_a_channel_report_the_same() {
    let domain = TestDomain::new();
    let (mut sink, mut source) = (domain.receiver("sink"), domain.node("source"));
    source.does(connect("sink"));
    source.does(send_numbers("sink", 1..=1000));
    sink.does(receive_numbers(1..=1000));
    let observed = domain.domain().observe(LIMIT).unwrap();
    // The last message is not acknowledged, because nothing was received after it.
    let inbox = &stats(&observed, "sink").inboxes[0];
    let (incoming, outgoing) = (&inbox.channels[0], &stats(&observed, "source").outgoing[0]);
    for channel in [incoming, outgoing] {
        assert_eq!((channel.sent, channel.received, channel.processed, channel.queued), (1000, 1000, 999, 1));
        assert_eq!((channel.bytes_sent, channel.bytes_received), (2893, 2893));
        assert_eq!((channel.dropped, channel.missed, channel.returned), (0, 0, 0));
        assert_eq!((channel.state, channel.policy, channel.ring), (ChannelState::Open, Policy::Block, Some(0)));
        assert!(channel.depth > 0 && channel.depth <= channel.depth_max);
        assert!(channel.latency.count() >= 15, "one in 64: {}", channel.latency.count());
        assert!(channel.latency.count() <= 1000 && channel.latency.quantile(0.5) <= Some(channel.latency.max_ns()));
        assert!(channel.last_sent.is_some() && channel.last_processed <= channel.last_sent);
    }
    assert_eq!((&*incoming.peer, incoming.peer_pid), ("source", source.pid()));
    assert_eq!((&*outgoing.peer, outgoing.inbox), ("sink", inbox.number));
    assert_eq!(incoming.latency, outgoing.latency);
    source.exits();
    assert_eq!(sink.does(next_event()), closed("source"));
    let observed = domain.domain().observe(LIMIT).unwrap();
    let inbox = &stats(&observed, "sink").inboxes[0];
    assert_eq!(
        (inbox.channels.len(), inbox.ended.channels, inbox.ended.processed),
        (0, 1, 1000),
        "the node remembers it"
    );
}

/// The messages take far less than a sixteenth of the ring, below which a sender does not notice a depth by itself.
#[test]
fn the_greatest_depth_is_never_below_the_depth() {
    let domain = TestDomain::new();
    let open = |id: &str| Node::builder(id).domain(domain.domain()).open().unwrap();
    let (sink, source) = (open("sink"), open("source"));
    let mut inbox = sink.inbox().unwrap();
    let mut sender = source.connect("sink").unwrap();
    sender.set_redelivery(Some(LIMIT));
    for _ in 0..2 {
        sender.send(b"12345678").unwrap();
    }
    let observed = domain.domain().observe(LIMIT).unwrap();
    for channel in [&stats(&observed, "sink").inboxes[0].channels[0], &stats(&observed, "source").outgoing[0]] {
        assert!(channel.depth > 0 && channel.depth_max >= channel.depth, "{} of {}", channel.depth_max, channel.depth);
    }
    let full = sender.account();
    assert!(full.depth > 0 && full.depth_max == full.depth, "{full:?}");
    while inbox.try_recv().unwrap().is_some() {}
    let empty = sender.account();
    assert_eq!((empty.depth, empty.depth_max), (0, full.depth), "it does not fall");
    drop((inbox, sink));
    for _ in 0..20 {
        sender.send(b"kept for the next incarnation").unwrap();
    }
    let kept = sender.account();
    assert!(kept.depth > full.depth && kept.depth_max >= kept.depth, "{kept:?}");
}

#[test]
fn dropped_missed_and_returned_messages_are_counted() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(subscribe("drops", "a").capacity(4096).drop_newest());
    sink.does(subscribe("overwrites", "b").capacity(4096).latest());
    sink.does(subscribe("waits", "c").capacity(4096));
    let mut source = domain.node("source");
    source.does(set_publish_limit(ms(0)));
    for topic in ["a", "b", "c"] {
        source.does(publish_numbers(topic, 1..=1000));
    }
    sink.does(receive_until("overwrites", 1000));
    assert_eq!(sink.does(receive_from("drops")).in_full(), "source a 1 0");
    let observed = loop {
        let observed = domain.domain().observe(LIMIT).unwrap();
        if stats(&observed, "sink").inboxes.iter().all(|inbox| inbox.channels.len() == 1) {
            break observed; // the handshakes are done
        }
    };
    let channel = |at: usize| &stats(&observed, "sink").inboxes[at].channels[0];
    let (drops, overwrites, waits) = (channel(0), channel(1), channel(2));
    assert!(drops.dropped > 0 && drops.sent + drops.dropped == 1000 && drops.returned == 0);
    assert!(overwrites.missed > 0 && overwrites.sent == 1000 && overwrites.received + overwrites.missed == 1000);
    assert!(waits.returned > 0 && waits.sent + waits.returned == 1000 && waits.dropped == 0);
    assert_eq!(drops.topics, ["a".into()], "declared on the channel");
    assert!(waits.depth > waits.capacity / 2 && waits.depth <= waits.depth_max);
    assert_eq!(waits.received, 0);
}

/// The true latency lies between what is measured from outside both calls, and what is measured between them.
#[test]
fn the_histogram_is_right_within_a_bucket() {
    let domain = TestDomain::new();
    let open = |id| Node::builder(id).domain(domain.domain()).open().unwrap();
    let (sink, source) = (open("sink"), open("source"));
    let mut inbox = sink.inbox_builder().acknowledge(Acknowledge::Explicit).open().unwrap();
    for round in 0..30u32 {
        let mut sender = source.connect("sink").unwrap();
        let before_send = Instant::now();
        sender.send(b"the first message of a channel has a time stamp").unwrap();
        let after_send = Instant::now();
        inbox.recv().unwrap().expect("nobody stops this inbox");
        let wait = Duration::from_micros(u64::from(3u32.pow(round % 10)));
        while after_send.elapsed() < wait {} // so that buckets of every size are tested
        let before_ack = Instant::now();
        inbox.ack();
        let after_ack = Instant::now();
        let stats = sink.stats();
        let channel = stats.inboxes[0].channels.last().expect("the sender's");
        let buckets: Vec<_> = channel.latency.buckets().collect();
        let (least, most) = ((before_ack - after_send).as_nanos(), (after_ack - before_send).as_nanos());
        let [bucket] = buckets[..] else { panic!("one message, but {buckets:?}") };
        assert!(u128::from(bucket.from_ns) <= most && u128::from(bucket.to_ns.unwrap()) > least, "{bucket:?}");
        assert!((least..=most).contains(&u128::from(channel.latency.max_ns())), "exact: {least} to {most}");
        assert_eq!(channel.latency.sum_ns(), channel.latency.max_ns());
        println!("measured {least} to {most} ns, counted {} ns, {bucket:?}", channel.latency.max_ns());
    }
}

#[test]
fn a_thousand_channels_are_listed_page_by_page() {
    let domain = TestDomain::new();
    let open = |id: &str| Node::builder(id).domain(domain.domain()).open().unwrap();
    let (sink, source) = (open("sink"), open("source"));
    let mut inbox = sink.inbox_builder().capacity(8192).open().unwrap();
    let mut subscriptions: Vec<_> = (0..100).map(|n| sink.subscribe(&format!("topic/{n}")).unwrap()).collect();
    let mut senders: Vec<_> = (0..200).map(|_| source.connect("sink").unwrap()).collect();
    for (n, sender) in senders.iter_mut().enumerate() {
        (0..=n).for_each(|_| sender.send(b"x").unwrap());
    }
    let observed = domain.domain().observe(LIMIT).unwrap();
    let said = stats(&observed, "sink");
    assert_eq!(said.inboxes.len(), 101);
    let mut sent: Vec<u64> = said.inboxes[0].channels.iter().map(|channel| channel.sent).collect();
    sent.sort_unstable();
    assert_eq!(sent, (1..=200).collect::<Vec<_>>(), "each once");
    let outgoing: u64 = stats(&observed, "source").outgoing.iter().map(|channel| channel.sent).sum();
    assert_eq!(outgoing, 200 * 201 / 2);
    let own = sink.stats();
    assert_eq!((own.inboxes.len(), own.inboxes[0].channels.len()), (101, 200), "the node sees the same");
    subscriptions.clear();
    while inbox.try_recv().unwrap().is_some() {}
    drop(senders);
}

#[test]
fn a_stopped_node_is_reported_as_stopped_without_being_asked() {
    let domain = TestDomain::new();
    let (mut sink, mut source) = (domain.receiver("sink"), domain.node("source"));
    sink.does(leave());
    let sink = domain.receiver("sink");
    sink.stop();
    source.does(try_connect("sink"));
    source.does(send_numbers("sink", 1..=10));
    let observed = domain.domain().observe(LIMIT).unwrap();
    assert_eq!(find(&observed, "sink").stats.as_ref().unwrap_err(), &ObserveError::Stopped);
    assert!(find(&observed, "sink").node.alive);
    let channel = &stats(&observed, "source").outgoing[0];
    assert_eq!((channel.state, channel.sent, channel.queued, channel.ring), (ChannelState::Pending, 10, 10, None));
    sink.go_on();
}

#[test]
fn a_node_that_does_not_answer_costs_one_connection_however_often_it_is_observed() {
    let domain = TestDomain::new();
    let mut stuck = domain.puppet();
    stuck.does(open("stuck").never_deciding());
    let mut lively = domain.receiver("lively");
    let mut observer = Observer::new(domain.domain());
    let stalled = |observed: &[Observed]| matches!(find(observed, "stuck").stats, Err(ObserveError::Stalled { .. }));
    assert!(stalled(&observer.look(SHORT).unwrap()));
    let before = stuck.does(descriptors());
    for _ in 0..20 {
        let observed = observer.look(SHORT).unwrap();
        assert!(stalled(&observed));
        assert_eq!(stats(&observed, "lively").inboxes.len(), 1);
        assert!(stalled(&observer.probe(SHORT).unwrap()));
    }
    assert_eq!(stuck.does(descriptors()), before, "no second connection");
    lively.does(leave());
    stuck.kill();
    assert_eq!(find(&observer.look(LIMIT).unwrap(), "stuck").stats.as_ref().unwrap_err(), &ObserveError::Dead);
}

#[test]
fn an_observer_creates_no_domain() {
    let domain = TestDomain::new();
    assert!(domain.domain().observe(LIMIT).unwrap().is_empty());
    domain.assert_gone();
}

#[test]
fn statistics_are_for_admitted_users_only() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let group = 4_242;
    let mut sink = domain.puppet();
    sink.does(open("sink").group(group));
    let mut guest = domain.puppet_of(1_234, group);
    guest.does(open("guest").group(group));
    let observed = domain.domain().observe(LIMIT).unwrap();
    assert!(find(&observed, "sink").stats.is_ok());
    match &find(&observed, "guest").stats {
        Err(ObserveError::Refused { reason: Reason::NotAdmitted, text }) => assert!(text.contains("uid 0"), "{text}"),
        other => panic!("a guest that admits its own user only: {other:?}"),
    }
    guest.does(leave());
    sink.does(leave());
}

/// Topic, type, publishers, and what nobody has heard: messages and bytes.
fn published(stats: &NodeStats) -> Vec<(&str, &str, u64, [u64; 2])> {
    let shown = |topic: &'_ librpc::PublishedTopic| [topic.unheard, topic.unheard_bytes];
    stats.published.iter().map(|topic| (&*topic.topic, &*topic.schema, topic.publishers, shown(topic))).collect()
}

#[test]
fn topics_are_listed_whether_anybody_subscribes_or_not() {
    let domain = TestDomain::new();
    let (mut camera, mut display) = (domain.node("camera"), domain.puppet());
    for text in ["1", "22"] {
        assert_eq!(camera.does(publish("a/b", text)), reached(0));
    }
    let observed = domain.domain().observe(LIMIT).unwrap();
    let stats_of_camera = stats(&observed, "camera");
    assert_eq!(published(stats_of_camera), [("a/b", "", 1, [2, 3])]);
    assert!(stats_of_camera.published[0].last_unheard.is_some());
    // What a subscription gets is counted on its channel.
    display.does(open("display"));
    display.does(subscribe("all", "a/*"));
    assert_eq!(camera.does(publish("a/b", "333")), reached(1));
    display.does(receive_from("all"));
    let observed = domain.domain().observe(LIMIT).unwrap();
    assert_eq!(published(stats(&observed, "camera")), [("a/b", "", 1, [2, 3])]);
    assert_eq!(stats(&observed, "display").inboxes[0].channels[0].sent, 1);
    camera.stop();
    let observed = domain.domain().observe(SHORT).unwrap();
    assert_eq!(find(&observed, "camera").stats.as_ref().unwrap_err(), &ObserveError::Stopped);
    assert_eq!(*stats(&observed, "display").inboxes[0].channels[0].topics[0], *"a/b", "its subscriber knows it");
    camera.go_on();
}

#[test]
fn a_topic_is_listed_as_long_as_its_publisher_and_nobody_is_woken() {
    let domain = TestDomain::new();
    let node = Node::builder("camera").domain(domain.domain()).open().unwrap();
    let counter = || std::fs::read(domain.path().join("generation")).unwrap();
    let before = counter();
    let observed = || domain.domain().observe(LIMIT).unwrap();
    let mut observer = Observer::new(domain.domain());
    let mut plain = node.publisher("plain").unwrap();
    let again = node.publisher("plain").unwrap();
    let typed = node.publisher_builder("typed").schema("Pose/json".parse().unwrap()).history(1).open().unwrap();
    let mut outbox = node.outbox();
    let topics = ["x", "y"].map(|topic| outbox.topic(topic).unwrap());
    outbox.topic("x").unwrap(); // it has this one already
    // Large payloads count, too, whether they are copied or not.
    assert_eq!(plain.publish(&[0; 300_000]).unwrap().inboxes(), 0);
    let loan = plain.loan(200_000).unwrap();
    assert_eq!(plain.publish_loan(loan).unwrap().inboxes(), 0);
    assert_eq!(outbox.publish(topics[1], b"y").unwrap().inboxes(), 0);
    let expected =
        [("plain", "", 2, [2, 500_000]), ("typed", "Pose/json", 1, [0, 0]), ("x", "", 1, [0, 0]), ("y", "", 1, [1, 1])];
    assert_eq!(published(stats(&observed(), "camera")), expected);
    assert_eq!(published(&node.stats()), expected, "it sees the same itself");
    assert_eq!(published(stats(&observer.probe(LIMIT).unwrap(), "camera")), [], "a sign of life has no topics");
    drop((plain, typed, outbox));
    assert_eq!(published(stats(&observed(), "camera")), [("plain", "", 1, [2, 500_000])]);
    drop(again);
    assert_eq!(published(stats(&observed(), "camera")), []);
    assert_eq!(counter(), before, "a change would have every publisher look again");
}

#[test]
fn a_node_lists_thousands_of_topics_and_counts_the_rest() {
    const MANY: usize = 5000;
    let domain = TestDomain::new();
    let node = Node::builder("many").domain(domain.domain()).open().unwrap();
    let mut outbox = node.outbox();
    (0..MANY).for_each(|number| _ = outbox.topic(&format!("t/{number}")).unwrap());
    let observed = domain.domain().observe(LIMIT).unwrap();
    let many = stats(&observed, "many");
    assert_eq!((many.published.len(), many.published_left_out), (4096, MANY as u64 - 4096));
    let names: std::collections::BTreeSet<_> = many.published.iter().map(|topic| &topic.topic).collect();
    assert_eq!(names.len(), 4096, "each once");
    drop(outbox);
    let observed = domain.domain().observe(LIMIT).unwrap();
    assert_eq!((stats(&observed, "many").published.len(), stats(&observed, "many").published_left_out), (0, 0));
}
