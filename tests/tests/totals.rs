//! The counts of a node never fall, neither when a channel ends nor when an inbox is opened again.

use std::time::Duration;

use librpc::{ChannelStats, EndedChannels, Node, NodeStats, Totals};
use librpc_system_tests::{TestDomain, wait_until};

const LONG: Duration = Duration::from_secs(30);

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// The counts of these channels, and of former channels between the same ends.
fn sum<'a>(channels: impl Iterator<Item = &'a ChannelStats>, ended: &[EndedChannels], peer: &str) -> Totals {
    let mut sum = Totals::default();
    channels.filter(|channel| &*channel.peer == peer).for_each(|channel| sum.add(channel));
    ended.iter().filter(|ended| &*ended.peer == peer).for_each(|ended| sum += ended.totals);
    sum
}

fn outgoing(stats: &NodeStats, peer: &str) -> Totals {
    sum(stats.outgoing.iter(), &stats.ended_outgoing, peer)
}

fn incoming(stats: &NodeStats, peer: &str) -> Totals {
    sum(stats.inboxes.iter().flat_map(|inbox| &inbox.channels), &stats.ended_incoming, peer)
}

#[test]
fn what_is_counted_stays_when_one_of_two_senders_is_dropped() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let handle = sink.inbox_builder().callback(|_| {}).unwrap();
    let (mut first, mut second) = (source.connect("sink").unwrap(), source.connect("sink").unwrap());
    for (sender, messages) in [(&mut first, 100), (&mut second, 50)] {
        (0..messages).for_each(|_| sender.send(b"hello").unwrap());
        sender.flush(LONG).unwrap();
    }
    drop(first);
    let sent = outgoing(&source.stats(), "sink");
    assert_eq!((sent.channels, sent.sent, sent.bytes_sent, sent.processed), (2, 150, 750, 150));
    wait_until(|| sink.stats().inboxes[0].channels.len() == 1); // the sink has to notice
    let received = incoming(&sink.stats(), "source");
    assert_eq!((received.channels, received.received, received.processed), (2, 150, 150));
    drop(second);
    wait_until(|| source.stats().outgoing.is_empty()); // it has to get a bell
    let (stats, gone) = (source.stats(), outgoing(&source.stats(), "sink"));
    assert_eq!((gone.channels, gone.sent), (2, 150), "and when both are");
    assert!(stats.ended_outgoing[0].latency.count() > 0);
    handle.stop().unwrap();
}

#[test]
fn what_was_counted_stays_when_a_subscription_is_opened_again() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut publisher = source.publisher("topic").unwrap();
    for round in 1..=3 {
        let mut subscription = sink.subscribe("topic").unwrap();
        assert_eq!(publisher.publish(b"hello").unwrap().inboxes(), 1);
        assert!(subscription.recv_timeout(LONG).unwrap().is_some());
        subscription.ack();
        drop(subscription);
        wait_until(|| publisher.subscribers().unwrap() == 0); // the publisher has to notice
        let received = incoming(&sink.stats(), "source");
        assert_eq!((received.sent, received.processed), (round, round));
        assert_eq!(outgoing(&source.stats(), "sink").sent, round);
    }
    let observed = domain.domain().observe(LONG).unwrap();
    let stats: Vec<_> = observed.iter().map(|observed| observed.stats.as_ref().unwrap()).collect();
    assert_eq!((incoming(stats[0], "source").sent, outgoing(stats[1], "sink").sent), (3, 3), "observers see the same");
}
