//! What a publisher is told of its subscriptions, which are those of real processes: who comes, who goes and why, who is stuck.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use librpc::{Admission, Node, Policy, Publisher, PublisherEvent, SendError, SubscriptionEnd, WaitSet};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain, is_root, wait_until};

const TOPIC: &str = "camera/front";

fn open_here(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// A publisher that has seen that there is nobody.
fn camera(domain: &TestDomain) -> (Node, Publisher) {
    let node = open_here(domain, "camera");
    let mut publisher = node.publisher(TOPIC).unwrap();
    quiet(&mut publisher);
    (node, publisher)
}

fn subscriber(domain: &TestDomain, id: &str) -> Puppet {
    let mut puppet = domain.node(id);
    puppet.does(to("camera/*"));
    puppet
}

/// The subscription `s`.
fn to(patterns: &str) -> OpenInbox {
    subscribe("s", patterns).capacity(4096)
}

/// An event as text: what has happened to the subscription of which node.
fn text(event: &PublisherEvent) -> String {
    let node = &event.inbox().node;
    match event {
        PublisherEvent::Came(_) => format!("{node} came"),
        PublisherEvent::Gone(_, end) => format!("{node} gone: {end:?}"),
        PublisherEvent::Stuck(_) => format!("{node} stuck"),
        PublisherEvent::Moves(_) => format!("{node} moves"),
        PublisherEvent::Denied(_) => format!("{node} denied"),
        other => format!("{other:?}"),
    }
}

#[track_caller]
fn next(publisher: &mut Publisher) -> String {
    text(&publisher.wait_for_event(LONG).unwrap().expect("an event is due"))
}

#[track_caller]
fn quiet(publisher: &mut Publisher) {
    assert_eq!(publisher.wait_for_event(ms(20)).unwrap(), None);
}

/// Publishes a picture. What was lost with those that are gone does not matter here.
#[track_caller]
fn publishes(publisher: &mut Publisher, inboxes: usize) {
    let receipt = publisher.publish(b"a picture").unwrap();
    let is_gone = |error: &SendError| matches!(error, SendError::ReceiverGone { .. });
    assert!(receipt.undelivered().iter().all(is_gone), "{receipt:?}");
    assert_eq!(receipt.inboxes(), inboxes, "{receipt:?}");
}

#[test]
fn who_comes_and_goes_is_told_to_a_publisher_that_publishes_nothing() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    for round in 0..3 {
        let mut one = subscriber(&domain, "one");
        assert_eq!(next(&mut publisher), "one came", "round {round}");
        one.does(unsubscribe("s"));
        assert_eq!(next(&mut publisher), "one gone: Closed");
        one.does(to("camera/front"));
        assert_eq!(next(&mut publisher), "one came");
        one.kill();
        assert_eq!(next(&mut publisher), "one gone: Died");
        let two = subscriber(&domain, "two");
        assert_eq!(next(&mut publisher), "two came");
        two.exits();
        let gone = next(&mut publisher);
        assert!(["two gone: Closed", "two gone: NodeGone"].contains(&&*gone), "{gone}");
        quiet(&mut publisher);
    }
}

#[test]
fn who_comes_and_goes_in_a_shared_domain_is_told_too() {
    const GROUP: u32 = 54_344;
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let node = Node::builder("camera").domain(domain.domain().shared_with_group(GROUP)).open().unwrap();
    let mut publisher = node.publisher(TOPIC).unwrap();
    quiet(&mut publisher);
    for _ in 0..5 {
        let mut display = domain.puppet();
        display.does(open("display").group(GROUP));
        display.does(to("**"));
        assert_eq!(next(&mut publisher), "display came");
        display.does(unsubscribe("s"));
        assert_eq!(next(&mut publisher), "display gone: Closed");
        display.does(to("*/front"));
        assert_eq!(next(&mut publisher), "display came");
        display.kill();
        assert_eq!(next(&mut publisher), "display gone: Died");
    }
    quiet(&mut publisher);
}

#[test]
fn what_is_there_is_told_first_and_says_what_it_is() {
    let domain = TestDomain::new();
    let mut display = domain.node("display");
    display.does(to("camera/*,lidar").latest().capacity(8192));
    let node = open_here(&domain, "camera");
    let mut publisher = node.publisher(TOPIC).unwrap();
    publishes(&mut publisher, 1);
    let Some(PublisherEvent::Came(inbox)) = publisher.try_event().unwrap() else { panic!("it is there") };
    let patterns: Vec<String> = inbox.patterns.iter().map(ToString::to_string).collect();
    assert_eq!((&*inbox.node, &*patterns), ("display", &["camera/*".to_owned(), "lidar".to_owned()][..]));
    assert_eq!((inbox.policy, inbox.capacity, &inbox.durable), (Policy::DropOldest, 8192, &None));
    let info = &domain.domain().nodes().unwrap().into_iter().find(|info| info.id == "display").unwrap();
    assert_eq!((info.incarnation, info.uid, info.listed[0].number), (inbox.incarnation, inbox.uid, inbox.number));
    assert_eq!(publisher.try_event().unwrap(), None);
}

#[test]
fn several_subscriptions_of_one_node_are_told_apart() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    let mut display = domain.node("display");
    let mut numbers = Vec::new();
    for name in ["a", "b", "c"] {
        display.does(subscribe(name, "camera/**"));
        match publisher.wait_for_event(LONG).unwrap() {
            Some(PublisherEvent::Came(inbox)) => numbers.push(inbox.number),
            other => panic!("{other:?}"),
        }
    }
    display.does(subscribe("other", "lidar"));
    quiet(&mut publisher);
    display.does(unsubscribe("b"));
    match publisher.wait_for_event(LONG).unwrap() {
        Some(PublisherEvent::Gone(inbox, SubscriptionEnd::Closed)) => assert_eq!(inbox.number, numbers[1]),
        other => panic!("{other:?}"),
    }
    publishes(&mut publisher, 2);
    display.kill();
    let mut died = Vec::new();
    for _ in 0..2 {
        match publisher.wait_for_event(LONG).unwrap() {
            Some(PublisherEvent::Gone(inbox, SubscriptionEnd::Died)) => died.push(inbox.number),
            other => panic!("{other:?}"),
        }
    }
    died.sort();
    assert_eq!(died, [numbers[0], numbers[2]]);
    quiet(&mut publisher);
}

#[test]
fn who_is_stopped_is_stuck_until_it_goes_on() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    publisher.set_timeout(ms(5));
    let mut display = subscriber(&domain, "display");
    assert_eq!(next(&mut publisher), "display came");
    for _ in 0..3 {
        display.stop();
        let mut messages = 0;
        while publisher.publish(&[0; 400]).unwrap().undelivered().is_empty() {
            messages += 1;
        }
        assert_eq!(publisher.try_event().unwrap().as_ref().map(text).as_deref(), Some("display stuck"));
        for _ in 0..3 {
            assert_eq!(publisher.publish(&[0; 400]).unwrap().undelivered().len(), 1);
            quiet(&mut publisher);
        }
        display.go_on();
        let begun = display.begins(receive_from("s"));
        let begun_too = display.begins(receive_from("s"));
        assert_eq!(next(&mut publisher), "display moves");
        display.completes(begun);
        display.completes(begun_too);
        (2..messages).for_each(|_| drop(display.does(receive_from("s"))));
        quiet(&mut publisher);
    }
    // What was taken back by a flush is noticed, too.
    display.stop();
    while publisher.publish(&[0; 400]).unwrap().undelivered().is_empty() {}
    assert_eq!(next(&mut publisher), "display stuck");
    publisher.flush(ms(1)).unwrap_err();
    display.go_on();
    for _ in 0..3 {
        display.does(receive_from("s"));
    }
    assert_eq!(next(&mut publisher), "display moves");
    // And one that is killed while it is stuck does not move.
    display.stop();
    while publisher.publish(&[0; 400]).unwrap().undelivered().is_empty() {}
    assert_eq!(next(&mut publisher), "display stuck");
    display.kill();
    assert_eq!(next(&mut publisher), "display gone: Died");
    quiet(&mut publisher);
}

#[test]
fn who_has_read_everything_is_not_stuck_although_a_publish_has_waited_for_it() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    publisher.set_timeout(ms(5));
    let mut display = subscriber(&domain, "display");
    assert_eq!(next(&mut publisher), "display came");
    publishes(&mut publisher, 1);
    assert_eq!(display.does(receive_from("s")).text, "a picture");
    assert_eq!(display.does(try_receive_from("s")), None);
    display.stop();
    // Its node has to answer first that it has the memory.
    assert_eq!(publisher.publish(&[0; 100_000]).unwrap().undelivered().len(), 1);
    quiet(&mut publisher);
    display.go_on();
    quiet(&mut publisher);
    wait_until(|| publisher.publish(&[0; 100_000]).unwrap().inboxes() == 1);
    assert_eq!(display.does(receive_from("s")).text.len(), 100_000);
    quiet(&mut publisher);
}

#[test]
fn the_next_incarnation_comes_after_the_former_one_is_gone() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    let mut display = subscriber(&domain, "display");
    assert_eq!(next(&mut publisher), "display came");
    for round in 0..10 {
        match round % 3 {
            0 => display.kill(),
            1 => display.does(leave()),
            _ => {
                display.does(unsubscribe("s"));
                display.does(to("**"));
                assert_eq!(next(&mut publisher), "display gone: Closed");
                assert_eq!(next(&mut publisher), "display came");
                continue;
            }
        }
        // Nobody looks in between.
        display = subscriber(&domain, "display");
        let gone = next(&mut publisher);
        assert!(gone.starts_with("display gone: "), "{gone}");
        assert_eq!(next(&mut publisher), "display came");
        assert!(publisher.publish(b"a picture").unwrap().inboxes() > 0);
        assert_eq!(display.does(receive_from("s")).text, "a picture");
    }
    quiet(&mut publisher);
}

#[test]
fn a_durable_subscription_that_is_taken_up_again_is_gone_and_comes() {
    for redelivers in [false, true] {
        let domain = TestDomain::new();
        let (_node, mut publisher) = camera(&domain);
        publisher.set_redelivery(redelivers.then_some(LONG));
        let durable = || to("camera/*").durable("album");
        let mut album = domain.node("album");
        album.does(durable());
        assert_eq!(next(&mut publisher), "album came");
        for _ in 0..3 {
            publishes(&mut publisher, 1);
            album.kill();
            assert_eq!(next(&mut publisher), "album gone: Died");
            quiet(&mut publisher);
            album = domain.node("album");
            album.does(durable());
            assert_eq!(next(&mut publisher), "album came");
            publishes(&mut publisher, 1);
            for _ in 0..if redelivers { 2 } else { 1 } {
                album.does(receive_from("s"));
            }
            assert_eq!(album.does(try_receive_from("s")), None);
        }
        quiet(&mut publisher);
    }
}

#[test]
fn who_may_not_read_the_topic_does_not_come() {
    let domain = TestDomain::new();
    let good = domain.puppet();
    let readers = Admission::nobody().pid(good.pid());
    let node = Node::builder("camera").domain(domain.domain()).readers(TOPIC, readers).open().unwrap();
    let mut publisher = node.publisher(TOPIC).unwrap();
    quiet(&mut publisher);
    let mut bad = subscriber(&domain, "bad");
    assert_eq!(next(&mut publisher), "bad denied");
    let mut good = good;
    good.does(open("good"));
    good.does(to("**"));
    assert_eq!(next(&mut publisher), "good came");
    publishes(&mut publisher, 1);
    quiet(&mut publisher);
    bad.does(unsubscribe("s"));
    quiet(&mut publisher);
    bad.does(to("camera/front"));
    assert_eq!(next(&mut publisher), "bad denied");
    assert_eq!(publisher.subscribers().unwrap(), 1);
    bad.kill();
    good.kill();
    assert_eq!(next(&mut publisher), "good gone: Died");
    quiet(&mut publisher);
}

#[test]
fn who_refuses_the_publisher_is_gone() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    let mut proud = domain.puppet();
    proud.does(open("proud").admitting_only("another"));
    proud.does(to("**"));
    assert_eq!(next(&mut publisher), "proud came");
    let gone = next(&mut publisher);
    assert!(gone.starts_with("proud gone: Refused { reason: NotAdmitted"), "{gone}");
    quiet(&mut publisher);
    publisher.set_timeout(ms(1));
    assert_eq!(publisher.publish(b"a picture").unwrap().undelivered().len(), 1);
    quiet(&mut publisher);
    proud.kill();
    quiet(&mut publisher);
}

#[test]
fn nobody_is_gone_when_the_domain_is_removed() {
    let domain = TestDomain::new().without_cleaning();
    let (node, mut publisher) = camera(&domain);
    let mut display = subscriber(&domain, "display");
    assert_eq!(next(&mut publisher), "display came");
    for round in 0..3 {
        std::fs::remove_dir_all(domain.path()).unwrap();
        quiet(&mut publisher);
        wait_until(|| domain.domain().nodes().is_ok_and(|nodes| nodes.iter().filter(|node| node.alive).count() == 2));
        publishes(&mut publisher, 1);
        display.does(receive_from("s"));
        let mut other = subscriber(&domain, &format!("other{round}"));
        assert_eq!(next(&mut publisher), format!("other{round} came"));
        other.kill();
        assert_eq!(next(&mut publisher), format!("other{round} gone: Died"));
        quiet(&mut publisher);
    }
    display.exits();
    drop((publisher, node));
    domain.assert_gone();
}

#[test]
fn what_nobody_asks_for_is_not_kept() {
    let domain = TestDomain::new();
    let (_node, mut publisher) = camera(&domain);
    let mut stays = subscriber(&domain, "stays");
    assert_eq!(next(&mut publisher), "stays came");
    let flapping = open_here(&domain, "flapping");
    for round in 0..1000 {
        let inbox = flapping.subscriber_builder(["**"]).capacity(4096).open().unwrap();
        if round % 10 == 0 {
            assert!(publisher.publish(b"a picture").unwrap().inboxes() >= 2);
        }
        drop(inbox);
    }
    quiet(&mut publisher);
    let inbox = flapping.subscribe("**").unwrap();
    assert_eq!(next(&mut publisher), "flapping came");
    drop((inbox, flapping));
    let gone = next(&mut publisher);
    assert!(gone.starts_with("flapping gone: "), "{gone}");
    stays.kill();
    assert_eq!(next(&mut publisher), "stays gone: Died");
}

#[test]
fn a_publisher_with_a_history_is_told_the_same_and_keeps_its_order() {
    let domain = TestDomain::new();
    let node = open_here(&domain, "camera");
    let mut publisher = node.publisher_builder(TOPIC).history(100).open().unwrap();
    quiet(&mut publisher);
    for number in 0..100_u32 {
        let _ = publisher.publish(&[number.to_le_bytes(); 100].concat()).unwrap();
    }
    // Its ring takes some of them at first: the rest must come before anything newer, whoever looks meanwhile.
    let mut inbox = node.subscriber_builder(["**"]).capacity(4096).receive_own(true).open().unwrap();
    assert_eq!(next(&mut publisher), "camera came");
    let (mut due, mut next_number) = ((0..100).collect::<VecDeque<u32>>(), 100_u32);
    while let Some(number) = due.pop_front() {
        let message = inbox.recv_timeout(LONG).unwrap().expect("none is missing");
        assert_eq!(message.payload()[..4], number.to_le_bytes());
        if next_number < 300 {
            assert_eq!(publisher.try_event().unwrap(), None);
            let receipt = publisher.try_publish(&[next_number.to_le_bytes(); 100].concat()).unwrap();
            due.extend((receipt.inboxes() == 1).then_some(next_number));
            next_number += 1;
        }
    }
    assert_eq!(next_number, 300);
    drop(inbox);
    assert_eq!(next(&mut publisher), "camera gone: Closed");
    quiet(&mut publisher);
}

#[test]
fn one_thread_waits_for_events_while_others_publish() {
    let domain = TestDomain::new();
    let (_node, publisher) = camera(&domain);
    let publisher = publisher.into_shared();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let _ = publisher.try_publish(b"a picture").unwrap();
                    std::thread::yield_now();
                }
            });
        }
        for round in 0..5 {
            let mut display = domain.node("display");
            display.does(to("**").latest());
            let event = |limit| publisher.wait_for_event(limit).unwrap().as_ref().map(text);
            assert_eq!(event(LONG).as_deref(), Some("display came"), "round {round}");
            display.kill();
            assert_eq!(event(LONG).as_deref(), Some("display gone: Died"));
            assert_eq!(event(ms(5)), None);
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_wait_set_waits_for_events() {
    let domain = TestDomain::new();
    let (node, mut publisher) = camera(&domain);
    let shared = node.publisher("lidar").unwrap().into_shared();
    let mut set = WaitSet::new().unwrap();
    set.add(1, &publisher).unwrap();
    set.add(2, &shared).unwrap();
    // Nobody has looked at the second one yet.
    assert_eq!(set.wait_timeout(LONG).unwrap(), [2]);
    assert_eq!(shared.try_event().unwrap(), None);
    // Other domains of this process may have it look once more.
    wait_until(|| {
        assert_eq!((publisher.try_event().unwrap(), shared.try_event().unwrap()), (None, None));
        set.wait_timeout(ms(20)).unwrap().is_empty()
    });
    let mut display = domain.node("display");
    let mut is_told = |wanted: [bool; 2], set: &mut WaitSet| {
        let mut told = Vec::new();
        while told.len() < wanted.iter().filter(|&&wanted| wanted).count() {
            let tokens = set.wait_timeout(LONG).unwrap().to_vec();
            assert!(!tokens.is_empty());
            for token in tokens {
                let event = if token == 1 { publisher.try_event() } else { shared.try_event() };
                told.extend(event.unwrap().map(|event| (token, text(&event))));
            }
        }
        told.sort();
        told
    };
    display.does(to("camera/**"));
    assert_eq!(is_told([true, false], &mut set), [(1, "display came".to_owned())]);
    display.does(subscribe("all", "*"));
    assert_eq!(is_told([false, true], &mut set), [(2, "display came".to_owned())]);
    display.kill();
    let died = |token| (token, "display gone: Died".to_owned());
    assert_eq!(is_told([true, true], &mut set), [died(1), died(2)]);
    drop((publisher, shared));
    assert_eq!(set.wait_timeout(Duration::ZERO).unwrap(), [0; 0], "it keeps no publisher");
}
