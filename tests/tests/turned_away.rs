//! Nothing that cannot arrive goes unsaid: a receiver is told what was turned away, and whom its node has refused. Whether it sleeps in a
//! receive, in an event loop, in a task, or is busy.

use std::os::fd::AsFd;
use std::time::Duration;

use librpc::{Admission, Event, Inbox, Limits, Node, Policy, Publisher, Reason, Refused, TurnedAway, Wait};
use librpc_system_tests::{TestDomain, wait_until};
use rustix::event::{PollFd, PollFlags, poll};

const LONG: Duration = Duration::from_secs(60);
const TOPIC: &str = "camera/front";

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

/// A subscription that takes 100 bytes, and its publisher, which has connected.
struct Scene {
    inbox: Inbox,
    publisher: Publisher,
    _nodes: (Node, Node),
    _domain: TestDomain,
}

impl Scene {
    fn new(policy: Policy, wait: Wait) -> Self {
        Self::with(policy, wait, Limits::default())
    }

    fn with(policy: Policy, wait: Wait, limits: Limits) -> Self {
        let domain = TestDomain::new();
        let sink = open(&domain, "viewer");
        let source = Node::builder("camera").domain(domain.domain()).limits(limits).open().unwrap();
        let builder = sink.subscriber_builder([TOPIC]).policy(policy).wait(wait).capacity(4096);
        let mut inbox = builder.max_message(100_000).open().unwrap();
        let mut publisher = source.publisher(TOPIC).unwrap();
        assert_eq!(publisher.publish(b"1").unwrap().inboxes(), 1);
        assert!(matches!(inbox.recv_event_timeout(LONG).unwrap(), Some(Event::SenderJoined(_))));
        assert!(matches!(inbox.recv_event_timeout(LONG).unwrap(), Some(Event::Message(_))));
        Self { inbox, publisher, _nodes: (sink, source), _domain: domain }
    }

    /// Publishes what the inbox does not take.
    #[track_caller]
    fn publish_too_much(&mut self) {
        assert_eq!(self.publisher.publish(&[0; 100_001]).unwrap().inboxes(), 0);
    }
}

#[track_caller]
fn turned_away(event: Option<Event<'_>>) -> TurnedAway {
    match event {
        Some(Event::TurnedAway(away)) => away,
        other => panic!("{other:?}"),
    }
}

fn sum(TurnedAway { too_large, dropped, no_room, no_memory, .. }: &TurnedAway) -> u64 {
    too_large + dropped + no_room + no_memory
}

/// Waits for events until this many messages were turned away, and returns them by reason: too large, dropped, no room, no memory.
#[track_caller]
fn all_of(inbox: &mut Inbox, messages: u64) -> [u64; 4] {
    let mut all = [0; 4];
    while all.iter().sum::<u64>() < messages {
        if let Event::TurnedAway(away) = inbox.recv_event_timeout(LONG).unwrap().expect("an event is due") {
            assert_eq!(&*away.peer.node, "camera");
            let TurnedAway { too_large, dropped, no_room, no_memory, .. } = away;
            all.iter_mut().zip([too_large, dropped, no_room, no_memory]).for_each(|(sum, more)| *sum += more);
        }
    }
    all
}

#[test]
fn a_receiver_that_sleeps_is_told_at_once() {
    for wait in [Wait::Adaptive, Wait::Block, Wait::Spin] {
        let mut scene = Scene::new(Policy::Block, wait);
        for _ in 0..3 {
            std::thread::scope(|threads| {
                let Scene { inbox, publisher, .. } = &mut scene;
                let waiting = threads.spawn(|| turned_away(inbox.recv_event_timeout(LONG).unwrap()));
                assert_eq!(publisher.publish(&[0; 100_001]).unwrap().inboxes(), 0);
                let away = waiting.join().unwrap();
                assert_eq!(sum(&away), 1);
                assert_eq!(away.too_large, 1);
                assert_eq!(away.to_string(), "of node \"camera\", 1 message too large for the inbox");
            });
        }
        // Messages come as before.
        assert_eq!(scene.publisher.publish(b"2").unwrap().inboxes(), 1);
        assert!(matches!(scene.inbox.recv_event_timeout(LONG).unwrap(), Some(Event::Message(_))));
    }
}

#[test]
fn an_event_loop_is_told() {
    let mut scene = Scene::new(Policy::Block, Wait::Adaptive);
    let is_readable = |inbox: &Inbox, limit: i64| {
        let limit = rustix::event::Timespec { tv_sec: limit, tv_nsec: 0 };
        poll(&mut [PollFd::new(&inbox.as_fd(), PollFlags::IN)], Some(&limit)).unwrap() == 1
    };
    for round in 1..=3 {
        while is_readable(&scene.inbox, 0) {
            assert!(scene.inbox.try_recv_event().unwrap().is_none());
        }
        scene.publish_too_much();
        assert!(is_readable(&scene.inbox, 60), "round {round}");
        let mut told = None;
        wait_until(|| {
            told = told.take().or(scene.inbox.try_recv_event().unwrap().map(|event| turned_away(Some(event))));
            told.is_some()
        });
        assert_eq!(told.unwrap().too_large, 1);
    }
}

#[test]
fn a_task_is_told() {
    let mut scene = Scene::new(Policy::Block, Wait::Adaptive);
    scene.publish_too_much();
    let event = pollster::block_on(scene.inbox.recv_event_async()).unwrap();
    assert_eq!(turned_away(event).too_large, 1);
}

#[test]
fn each_message_is_told_once_by_its_reason() {
    // Dropped.
    let mut scene = Scene::new(Policy::DropNewest, Wait::Adaptive);
    let mut dropped = 0;
    for _ in 0..1000 {
        dropped += u64::from(scene.publisher.publish(&[0; 500]).unwrap().inboxes() == 0);
    }
    assert!(dropped > 900, "{dropped}");
    assert_eq!(all_of(&mut scene.inbox, dropped), [0, dropped, 0, 0]);
    // Published without room.
    let mut scene = Scene::new(Policy::Block, Wait::Adaptive);
    scene.publisher.set_timeout(Duration::ZERO);
    let mut without_room = 0;
    for _ in 0..1000 {
        without_room += u64::from(scene.publisher.publish(&[0; 500]).unwrap().inboxes() == 0);
    }
    scene.publish_too_much();
    assert_eq!(all_of(&mut scene.inbox, without_room + 1), [1, 0, without_room, 0]);
    // Without memory at the sender.
    let mut limits = Limits::default();
    limits.payload_bytes = 4096;
    let mut scene = Scene::with(Policy::Block, Wait::Adaptive, limits);
    assert_eq!(scene.publisher.publish(&[0; 90_000]).unwrap().inboxes(), 0);
    assert_eq!(all_of(&mut scene.inbox, 1), [0, 0, 0, 1]);
}

#[test]
fn a_message_that_its_sender_still_has_is_not_turned_away() {
    let domain = TestDomain::new();
    let (sink, source) = (open(&domain, "sink"), open(&domain, "source"));
    let mut inbox = sink.inbox_builder().capacity(4096).open().unwrap();
    let mut sender = source.connect("sink").unwrap();
    while sender.try_send(&[0; 500]).is_ok() {}
    assert!(sender.try_send(&[0; 500]).is_err());
    let mut messages = 0;
    while messages < sender.account().accepted {
        match inbox.recv_event_timeout(LONG).unwrap().expect("more are there") {
            Event::Message(_) => messages += 1,
            Event::SenderJoined(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let stats = source.stats();
    assert!(stats.outgoing[0].returned >= 2 && stats.outgoing[0].no_room == 0, "{stats:?}");
}

#[test]
fn what_was_turned_away_is_told_before_its_sender_leaves() {
    let mut scene = Scene::new(Policy::DropNewest, Wait::Adaptive);
    // What comes soon after this is not told while there are messages.
    scene.publish_too_much();
    all_of(&mut scene.inbox, 1);
    assert_eq!(scene.publisher.publish(b"2").unwrap().inboxes(), 1);
    assert!(matches!(scene.inbox.recv_event_timeout(LONG).unwrap(), Some(Event::Message(_))));
    let mut dropped = 0;
    for _ in 0..100 {
        dropped += u64::from(scene.publisher.publish(&[0; 500]).unwrap().inboxes() == 0);
    }
    scene.publish_too_much();
    let Scene { _domain, _nodes: (_sink, source), mut inbox, publisher } = scene;
    drop((publisher, source));
    let mut all = 0;
    loop {
        match inbox.recv_event_timeout(LONG).unwrap().expect("an event is due") {
            Event::TurnedAway(away) => all += sum(&away),
            Event::SenderLeft(..) => break,
            _ => {}
        }
    }
    assert_eq!(all, dropped + 1);
}

#[test]
fn those_who_receive_only_messages_are_not_disturbed() {
    let mut scene = Scene::new(Policy::Block, Wait::Adaptive);
    scene.publish_too_much();
    assert!(scene.inbox.try_recv().unwrap().is_none());
    assert_eq!(scene.publisher.publish(b"2").unwrap().inboxes(), 1);
    assert_eq!(scene.inbox.recv_timeout(LONG).unwrap().expect("the second one").payload(), b"2");
}

#[test]
fn statistics_show_what_was_turned_away_and_why() {
    let mut scene = Scene::new(Policy::Block, Wait::Adaptive);
    (0..3).for_each(|_| scene.publish_too_much());
    let stats = scene._nodes.0.stats();
    let channel = &stats.inboxes[0].channels[0];
    assert_eq!([channel.too_large, channel.no_room, channel.no_memory, channel.returned], [3, 0, 0, 3]);
    let observed = scene._domain.domain().observe(LONG).unwrap();
    let viewer = observed.iter().find(|observed| &*observed.node.id == "viewer").unwrap();
    assert_eq!(viewer.stats.as_ref().unwrap().inboxes[0].channels[0].too_large, 3);
    let Scene { _domain, _nodes: (sink, _source), mut inbox, publisher } = scene;
    drop(publisher);
    let ended = || sink.stats().inboxes[0].ended.too_large;
    wait_until(|| {
        while inbox.try_recv_event().unwrap().is_some() {}
        ended() == 3
    });
}

#[test]
fn a_node_tells_whom_it_has_refused() {
    let domain = TestDomain::new();
    let sink = Node::builder("sink").domain(domain.domain()).admit(Admission::nobody()).open().unwrap();
    let source = open(&domain, "source");
    let mut inbox = sink.inbox().unwrap();
    for expected in [1, 2, 4] {
        while sink.stats().refused.first().map_or(0, |refused| refused.count) < expected {
            let sent = source.connect("sink").map(|mut sender| sender.send_timeout(b"x", LONG).is_err());
            assert!(!matches!(sent, Ok(false)), "nobody is admitted");
        }
    }
    let Some(Event::Refused(refused)) = inbox.recv_event_timeout(LONG).unwrap() else { panic!("it is told") };
    let Refused { uid, pid, reason, count, .. } = &*refused;
    assert_eq!((*uid, *pid), (rustix::process::getuid().as_raw(), std::process::id()));
    assert_eq!((*reason, *count), (Reason::NotAdmitted, 4), "the last one that is told");
    assert!(refused.to_string().contains("does not admit"), "{refused}");
    let observed = domain.domain().observe(LONG).unwrap();
    assert!(observed.iter().any(|observed| &*observed.node.id == "sink" && observed.stats.is_err()), "nor observers");
}
