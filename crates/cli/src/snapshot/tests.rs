//! Losses and rates between two looks.

use super::*;
use librpc::{Inbox, Node, Policy, Publisher, SendError};

/// A domain with a node that subscribes, and drops messages when its small inbox is full.
struct Place {
    domain: Domain,
    subscriber: Node,
    inbox: Inbox,
}

fn place(test: &str) -> Place {
    let domain = Domain::at(format!("/dev/shm/librpc_unit_{}_{test}", std::process::id()));
    let subscriber = Node::builder("subscriber").domain(domain.clone()).open().expect("it opens");
    let inbox = subscriber.subscriber_builder(["t"]).policy(Policy::DropNewest).capacity(4096);
    let inbox = inbox.open().expect("it opens");
    Place { domain, subscriber, inbox }
}

impl Place {
    fn look(&self) -> Snapshot {
        Looker::new(self.domain.clone()).look().expect("it can be looked at")
    }

    fn publisher(&self, id: &str, topic: &str) -> (Node, Publisher) {
        let node = Node::builder(id).domain(self.domain.clone()).open().expect("it opens");
        let publisher = node.publisher(topic).expect("a topic");
        (node, publisher)
    }
}

/// Publishes until this many messages were dropped.
fn lose(publisher: &mut Publisher, messages: u64) {
    let mut lost = 0;
    while lost < messages {
        let receipt = publisher.publish(&[0; 100]).expect("it goes");
        lost += receipt.undelivered().iter().filter(|why| matches!(why, SendError::Dropped { .. })).count() as u64;
    }
}

#[test]
fn losses_count_whether_their_channel_stays_begins_or_ends_between_two_looks() {
    let mut place = place("losses");
    let (_one, mut stays) = place.publisher("stays", "t");
    let (_two, mut ends) = place.publisher("ends", "t");
    lose(&mut stays, 5);
    lose(&mut ends, 7);
    let earlier = place.look();
    assert_eq!(place.look().lost_since(&earlier), 0, "what was lost before does not count");
    lose(&mut stays, 1);
    lose(&mut ends, 20);
    let (_three, mut begins) = place.publisher("begins", "t");
    lose(&mut begins, 300);
    let (_four, mut passes) = place.publisher("passes", "t");
    lose(&mut passes, 4000);
    let late = place.subscriber.subscriber_builder(["u"]).policy(Policy::DropNewest).capacity(4096);
    let _late = late.open().expect("it opens");
    let (_five, mut to_late) = place.publisher("to-late", "u");
    lose(&mut to_late, 50_000);
    drop((ends, passes));
    // What they have sent is received, and then their channels end.
    while place.subscriber.stats().inboxes[0].channels.len() > 2 {
        place.inbox.recv_timeout(Duration::from_millis(1)).expect("it receives");
    }
    assert_eq!(place.look().lost_since(&earlier), 54_321);
}

#[test]
fn a_channel_that_begins_between_two_looks_has_rates() {
    let place = place("rates");
    let earlier = place.look();
    let (_node, mut publisher) = place.publisher("begins", "t");
    lose(&mut publisher, 10);
    let mut later = place.look();
    later.compare_with(&earlier);
    let rates = later.channels[0].rates();
    assert!(rates.sent > 0.0 && rates.lost > 0.0, "{rates:?}");
    // A second look at the same state shows that nothing has happened since.
    let mut again = place.look();
    again.compare_with(&later);
    assert_eq!(again.channels[0].rates().sent, 0.0);
}
