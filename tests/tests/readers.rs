//! Who may read what a node publishes: decided by the kernel's word about the process that listens, for each topic.

use std::os::unix::fs::{FileExt, chown};
use std::path::PathBuf;

use librpc::{Admission, Domain, Node, Observer, OpenError, Outbox, Receipt};
use librpc_system_tests::command::Event;
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppet, Puppets, TestDomain, is_root, wait_until};

const GROUP: u32 = 54_341;
const GOOD: u32 = 54_342;
const BAD: u32 = 54_343;
/// Where the incarnation is in a node's file.
const INCARNATION: u64 = 16;

fn shared(domain: &TestDomain) -> Domain {
    domain.domain().shared_with_group(GROUP)
}

/// A node of root's that publishes "secret" for those whom this admits, and "open" for everybody.
fn door(domain: &TestDomain, readers: Admission) -> (Node, Outbox) {
    let node = Node::builder("door").domain(shared(domain)).readers("secret", readers).open().unwrap();
    let outbox = node.outbox();
    (node, outbox)
}

fn subscriber(domain: &TestDomain, id: &str, uid: u32, patterns: &str) -> Puppet {
    let mut puppet = domain.puppet_of(uid, GROUP);
    puppet.does(open(id).group(GROUP).admitting_uid(0));
    puppet.does(subscribe("s", patterns));
    puppet
}

fn publish_on<'o>(outbox: &'o mut Outbox, topic: &str, text: &str) -> Receipt<'o> {
    let topic = outbox.topic(topic).unwrap();
    outbox.publish_timeout(topic, text.as_bytes(), LONG).unwrap()
}

/// A publish reaches this many inboxes, and nothing is wrong with it.
#[track_caller]
fn reaches(outbox: &mut Outbox, topic: &str, text: &str, inboxes: usize) {
    let receipt = publish_on(outbox, topic, text);
    assert_eq!((receipt.inboxes(), receipt.pending(), receipt.undelivered().len()), (inboxes, 0, 0), "{receipt:?}");
}

fn events(puppet: &mut Puppet, count: usize) -> Vec<Event> {
    (0..count).map(|_| puppet.does(next_event_of("s"))).collect()
}

fn is_denied() -> Event {
    Event::Denied("door".into(), "secret".into())
}

#[test]
fn the_admitted_read_and_the_others_are_told_why_they_do_not() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let (node, mut outbox) = door(&domain, Admission::nobody().uid(GOOD));
    let mut good = subscriber(&domain, "good", GOOD, "secret");
    let mut bad = subscriber(&domain, "bad", BAD, "**");
    reaches(&mut outbox, "secret", "code", 1);
    reaches(&mut outbox, "open", "hello", 1);
    assert_eq!(good.does(receive_from("s")).in_full(), "door secret code 0");
    // One inbox, two topics: it gets the one, and is told of the other.
    let happened = events(&mut bad, 3);
    for event in [joined("door"), is_denied(), message("door", "hello")] {
        assert!(happened.contains(&event), "{event:?} in {happened:?}");
    }
    // It is told once, not for each message.
    for _ in 0..100 {
        reaches(&mut outbox, "secret", "code", 1);
    }
    reaches(&mut outbox, "open", "end", 1);
    assert_eq!(events(&mut bad, 1), [message("door", "end")]);
    let text = format!("topic \"secret\" of node \"door\" may not be read by uid {BAD}, pid {}", bad.pid());
    assert_eq!(bad.does(denied("s")), [&*text]);
    assert!(good.does(denied("s")).is_empty());
    // Observers see it, also if they ask for no more than a sign of life.
    let mut observer = Observer::new(shared(&domain));
    for observed in [observer.look(LONG).unwrap(), observer.probe(LONG).unwrap()] {
        let bad = observed.into_iter().find(|observed| observed.node.id == "bad").unwrap();
        let denials = bad.stats.unwrap().denials;
        assert_eq!(denials.iter().map(|denial| &*denial.text).collect::<Vec<_>>(), [&*text]);
    }
    good.does(leave());
    bad.does(leave());
    drop((node, outbox));
}

#[test]
fn a_denied_subscription_is_no_subscriber() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let (node, mut outbox) = door(&domain, Admission::nobody().uid(GOOD));
    let mut bad = subscriber(&domain, "bad", BAD, "secret,open");
    let (secret, open) = (outbox.topic("secret").unwrap(), outbox.topic("open").unwrap());
    assert_eq!((outbox.subscribers(secret).unwrap(), outbox.subscribers(open).unwrap()), (0, 1));
    assert!(!outbox.wait_for_subscriber(secret, ms(20)).unwrap());
    reaches(&mut outbox, "secret", "code", 0);
    assert_eq!(outbox.max_topic_message(secret).unwrap(), None);
    assert_eq!(events(&mut bad, 1), [is_denied()], "it is told although nothing was published before");
    let mut good = subscriber(&domain, "good", GOOD, "secret");
    assert_eq!(outbox.subscribers(secret).unwrap(), 1);
    assert!(outbox.wait_for_subscriber(secret, LONG).unwrap());
    good.does(leave());
    bad.does(leave());
    drop((node, outbox));
}

/// Nothing that somebody does who may not read turns a publish into a loss, or makes it wait.
#[test]
fn a_stranger_that_cannot_be_reached_is_no_loss() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let (node, mut outbox) = door(&domain, Admission::nobody().uid(GOOD));
    let mut bad = subscriber(&domain, "bad", BAD, "secret");
    bad.stop();
    bad.wait_until_stopped();
    let is_its_socket =
        |path: &PathBuf| path.to_string_lossy().contains("/bad.") && path.extension() == Some("sock".as_ref());
    let files = || std::fs::read_dir(domain.path()).unwrap().map(|file| file.unwrap().path());
    std::fs::remove_file(files().find(is_its_socket).unwrap()).unwrap();
    let mut good = subscriber(&domain, "good", GOOD, "secret");
    reaches(&mut outbox, "secret", "code", 1);
    bad.go_on();
    good.does(leave());
    bad.does(leave());
    drop((node, outbox));
}

/// Its file says that it is the admitted user's. The kernel says whose process listens.
#[test]
fn a_file_of_the_admitted_user_is_not_enough() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let (node, mut outbox) = door(&domain, Admission::nobody().uid(GOOD));
    let mut bad = subscriber(&domain, "bad", BAD, "secret");
    chown(domain.path().join("bad.node"), Some(GOOD), None).unwrap();
    reaches(&mut outbox, "secret", "code", 0);
    assert_eq!(bad.does(try_receive_from("s")), None);
    chown(domain.path().join("bad.node"), Some(BAD), None).unwrap();
    bad.does(leave());
    drop((node, outbox));
}

#[test]
fn a_copy_of_the_admitted_processs_file_is_not_enough() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let mut good = domain.puppet_of(GOOD, GROUP);
    let (node, mut outbox) = door(&domain, Admission::nobody().pid(good.pid()));
    good.does(open("good").group(GROUP).admitting_uid(0));
    good.does(subscribe("s", "secret"));
    // Of the same user, and with the same inbox.
    let mut bad = subscriber(&domain, "bad", GOOD, "secret");
    let open = |id: &str| {
        let path = domain.path().join(format!("{id}.node"));
        std::fs::File::options().read(true).write(true).open(path).unwrap()
    };
    let mut incarnation = [0; 16];
    open("good").read_exact_at(&mut incarnation, INCARNATION).unwrap();
    open("bad").write_all_at(&incarnation, INCARNATION).unwrap();
    let nodes = domain.domain().nodes().unwrap();
    let copies = nodes.iter().filter(|node| node.incarnation.to_string() == hex(&incarnation)).count();
    assert_eq!(copies, 2, "it is copied");
    reaches(&mut outbox, "secret", "code", 1);
    assert_eq!(good.does(receive_from("s")).text, "code");
    assert_eq!(bad.does(try_receive_from("s")), None);
    good.does(leave());
    bad.does(leave());
    drop((node, outbox));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Waits until the receiver is back, and has what was kept for it.
fn is_redelivered(outbox: &mut Outbox) {
    wait_until(|| {
        let _ = outbox.flush(ms(1));
        !outbox.inboxes().is_empty()
    });
}

/// A process that returns under the same name is another one.
#[test]
fn each_new_channel_is_decided_anew() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let processes: Vec<Puppet> = (0..3).map(|_| domain.puppet_of(GOOD, GROUP)).collect();
    let (node, mut outbox) = door(&domain, Admission::nobody().pid(processes[1].pid()));
    outbox.set_redelivery(Some(LONG));
    let opens = |puppet: &mut Puppet| {
        puppet.does(open("sink").group(GROUP).admitting_uid(0));
        puppet.does(subscribe("s", "**").durable("d"));
    };
    let [mut first, mut second, mut third] = <[Puppet; 3]>::try_from(processes).unwrap();
    opens(&mut first);
    reaches(&mut outbox, "secret", "1", 0);
    reaches(&mut outbox, "open", "2", 1);
    assert_eq!(first.does(receive_from("s")).text, "2");
    first.kill();
    // The admitted one gets what was kept of the open topic, and the other one from now on.
    opens(&mut second);
    reaches(&mut outbox, "secret", "3", 1);
    is_redelivered(&mut outbox);
    assert_eq!(second.does(receive_from("s")).text, "2");
    assert_eq!(second.does(receive_from("s")).text, "3");
    reaches(&mut outbox, "secret", "4", 1);
    second.kill();
    // What was kept for it comes back: nobody who may read it returns.
    opens(&mut third);
    let mut returned = Vec::new();
    wait_until(|| {
        let _ = outbox.flush(ms(1));
        returned.extend(outbox.take_returned().unwrap());
        returned.len() == 2
    });
    let texts: Vec<&[u8]> = returned.iter().map(|returned| &*returned.payload).collect();
    assert_eq!(texts, [b"3", b"4"]);
    is_redelivered(&mut outbox);
    reaches(&mut outbox, "secret", "5", 0);
    reaches(&mut outbox, "open", "6", 1);
    assert_eq!(third.does(receive_from("s")).text, "6");
    third.does(leave());
    drop((node, outbox));
}

#[test]
fn an_invalid_pattern_and_a_function_are_errors_when_the_node_is_opened() {
    let domain = TestDomain::new();
    let open = |pattern: &str, readers| Node::builder("x").domain(domain.domain()).readers(pattern, readers).open();
    assert!(matches!(open("a//b", Admission::same_user()), Err(OpenError::InvalidTopic(_))));
    let function = open("a/*", Admission::same_user().function(|_| true));
    assert!(matches!(function, Err(OpenError::ReadersFunction { .. })), "{function:?}");
    open("a/*", Admission::same_user()).unwrap();
}

/// Also in a private domain, and of the node's own subscriptions.
#[test]
fn a_nodes_own_subscriptions_go_by_the_same_rules() {
    let domain = TestDomain::new();
    let me = rustix::process::geteuid().as_raw();
    let readers = Admission::nobody().uid(me + 1);
    let node = Node::builder("door").domain(domain.domain()).readers("secret/**", readers).open().unwrap();
    let own = node.subscriber_builder(["**"]).receive_own(true).open().unwrap();
    let mut outbox = node.outbox();
    reaches(&mut outbox, "secret/code", "1", 0);
    reaches(&mut outbox, "open", "2", 1);
    wait_until(|| node.stats().denials.len() == 1);
    assert_eq!(&*node.stats().denials[0].topic, "secret/code");
    drop(own);
}

#[test]
fn a_denial_that_cannot_be_sent_just_now_is_sent_later() {
    let domain = TestDomain::new();
    let (mut source, mut sink) = (domain.puppet(), domain.node("sink"));
    source.does(open("source").readers("secret", rustix::process::geteuid().as_raw() + 1));
    sink.does(subscribe("s", "*"));
    assert_eq!(source.does(publish("open", "1")), reached(1));
    assert_eq!(events(&mut sink, 2), [joined("source"), message("source", "1")]);
    source.does(limit_descriptors(0)); // a channel is there, but a denial has a connection of its own
    assert_eq!(source.does(publish("secret", "2")), reached(0));
    source.does(unlimit_descriptors());
    assert_eq!(events(&mut sink, 1), [Event::Denied("source".into(), "secret".into())]);
}
