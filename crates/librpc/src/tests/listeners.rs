//! Listeners that say what they like to a sender that connects to them.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, chown};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::link::bell::Bell;
use crate::sys::Descriptor;
use crate::sys::memory::{Mapping, Shape};
use crate::sys::socket::{MAX_MESSAGE_BYTES, Received, Socket};
use crate::tests::handshakes::{CAPACITY, LONG, Scene, Stranger, say};
use crate::wire::{Answer, Attached, Refusal, Terms};
use crate::{ConnectError, Domain, FlushError, Limits, Node, Reason, SendError, Sender};

/// A listener in the place of the node "evil".
struct Listener(Socket);

impl Listener {
    fn new(scene: &Scene) -> Self {
        scene.evil.shared().neglect(); // it would take its place back
        let path = scene.socket_of("evil");
        std::fs::remove_file(&path).unwrap();
        let socket = Socket::bind(&path).unwrap();
        rustix::net::listen(&socket, 16).unwrap(); // it takes descriptors
        Self(socket)
    }

    fn accepts(&self) -> Stranger {
        let begun = Instant::now();
        loop {
            if let Some(socket) = self.0.accept().unwrap() {
                return Stranger(socket);
            }
            assert!(begun.elapsed() < LONG, "nobody connects");
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            let _ = poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        }
    }
}

impl Stranger {
    /// The next message of a sender.
    fn takes(&self) -> Vec<OwnedFd> {
        let mut message = [0; MAX_MESSAGE_BYTES];
        let begun = Instant::now();
        loop {
            match self.0.receive(&mut message).unwrap() {
                Received::Message { descriptors, .. } => return descriptors,
                Received::HungUp => panic!("the sender hangs up"),
                Received::Nothing => assert!(begun.elapsed() < LONG, "the sender says nothing"),
            }
            let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
            let _ = poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
        }
    }

    /// The receiver's side of an honest handshake, up to the answer, and what comes with it.
    fn attaches(&self, with: impl FnOnce(&Self)) -> Descriptor {
        assert_eq!(self.takes().len(), 1, "the ring comes with the hello");
        let ack = Mapping::create(Shape::Ack).unwrap().1;
        self.says(&Answer::Attached(Attached { ring: 0, features: 0 }), &[ack.as_fd()]);
        with(self);
        ack
    }

    fn is_hung_up_on_after(&self, bell: Bell, at_most: u32) -> u32 {
        let bytes = match bell {
            Bell::Ring(ring) => (1u64 << 32 | u64::from(ring)).to_le_bytes(),
            Bell::Reset(ring) => (2u64 << 32 | u64::from(ring)).to_le_bytes(),
        };
        let begun = Instant::now();
        (0..at_most).take_while(|_| begun.elapsed() < LONG && say(&self.0, &bytes, &[])).count() as u32
    }
}

#[test]
fn a_receiver_that_rings_without_a_reason_is_hung_up_on() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let rings = |ring: u32| {
        let sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
        let stranger = listener.accepts();
        stranger.attaches(|_| {});
        stranger.takes(); // the bell of a sender that has attached it
        let rung = stranger.is_hung_up_on_after(Bell::Ring(ring), u32::MAX);
        drop(sender);
        rung
    };
    let rung = rings(0);
    assert!(rung < 100_000, "{rung} bells, and none waited");
    let rung = rings(9);
    assert!(rung < 1_000_000, "{rung} bells for a ring that is not there");
}

#[test]
fn what_a_receiver_turns_away_is_unsent_again() {
    let says_busy = |stranger: Stranger| {
        let text = "a moment, please".into();
        stranger.says(&Answer::Refusal(Refusal { reason: Reason::Busy as u32, text }), &[]);
    };
    let ends: [&dyn Fn(Stranger); 2] = [&says_busy, &|stranger| drop(stranger)];
    for end in ends {
        let scene = Scene::new(); // a link of the former round may not be closed yet
        let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
        let listener = Listener::new(&scene);
        let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
        sender.try_send(b"the kernel holds this").unwrap();
        let stranger = listener.accepts();
        drop(listener);
        end(stranger); // with the hello unread
        let begun = Instant::now();
        while !matches!(sender.try_send(b"x"), Err(SendError::Unanswered { .. })) {
            assert!(begun.elapsed() < LONG, "only the sender has the ring");
            std::thread::sleep(Duration::from_millis(1));
        }
        let listener = Listener::new(&scene);
        let stranger = listener.accepts();
        stranger.attaches(|_| {});
        stranger.takes(); // the bell of a sender that has attached it
        sender.try_send(b"the receiver reads this").unwrap();
    }
}

#[test]
fn what_a_receiver_says_before_it_hangs_up_is_heard() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
    let text = "not you".into();
    let stranger = listener.accepts();
    stranger.says(&Answer::Refusal(Refusal { reason: Reason::NotAdmitted as u32, text }), &[]);
    drop(stranger); // with the hello unread
    let begun = Instant::now();
    while sender.is_connected() {
        assert!(begun.elapsed() < LONG, "it is refused");
    }
    let refused = sender.send(b"x").unwrap_err();
    assert!(matches!(refused, SendError::Refused { reason: Reason::NotAdmitted, .. }), "{refused}");
}

#[test]
fn what_a_receiver_without_a_valid_answer_may_have_read_comes_back_flagged() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
    sender.set_redelivery(Some(LONG));
    sender.try_send(b"perhaps it reads this").unwrap();
    let stranger = listener.accepts();
    assert_eq!(stranger.takes().len(), 1, "the ring comes with the hello");
    say(&stranger.0, b"no answer", &[]);
    assert!(stranger.hears().is_none(), "it is hung up on");
    let lost = sender.flush(LONG).unwrap_err();
    assert!(matches!(lost, FlushError::Lost { lost: 1, .. }), "{lost}");
    let returned = sender.take_returned().unwrap();
    assert!(returned[0].was_in_work, "{returned:?}");
}

#[test]
fn a_node_that_copies_anothers_file_gets_none_of_its_messages() {
    let scene = Scene::new();
    let honest = Node::builder("honest").domain(Domain::at(&scene.path)).open().unwrap();
    let mut inbox = honest.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let file_of = |node: &str| scene.path.join(format!("{node}.node"));
    let copy = std::fs::read(file_of("honest")).unwrap();
    std::fs::OpenOptions::new().write(true).open(file_of("evil")).unwrap().write_all_at(&copy, 0).unwrap();
    let mut to_evil = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
    to_evil.try_send(b"to evil").unwrap();
    let stranger = listener.accepts();
    let _ack = stranger.attaches(|_| {});
    stranger.takes(); // the bell: the connection is open
    let mut to_honest = scene.victim.connect_timeout("honest", LONG).unwrap();
    for text in ["once", "and again, when it sleeps"] {
        to_honest.send(text.as_bytes()).unwrap();
        let message = inbox.recv_timeout(LONG).unwrap().expect("it comes");
        assert_eq!(message.payload(), text.as_bytes());
    }
}

#[test]
fn a_receiver_with_other_terms_is_not_believed() {
    let scene = Scene::shared(Limits::default());
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    for (version, capacity, policy) in [(2, 2 * CAPACITY, 0), (2, CAPACITY, 1), (1, CAPACITY, 0)] {
        let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
        let stranger = listener.accepts();
        stranger.takes();
        stranger.says(&Answer::Terms(Terms { version, features: 0, capacity, policy }), &[]);
        assert!(stranger.hears().is_none(), "it is hung up on");
        assert!(sender.flush(LONG).is_err() || sender.send(b"x").is_err());
    }
}

#[test]
fn a_listener_of_another_user_than_the_nodes_is_not_believed() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let _listener = Listener::new(&scene);
    let file = scene.path.join("evil.node");
    if chown(&file, Some(54_321), None).is_err() {
        eprintln!("SKIPPED: a_listener_of_another_user_than_the_nodes_is_not_believed: this test needs root");
        return;
    }
    let found = scene.victim.connect_timeout("evil", Duration::from_secs(1));
    chown(&file, Some(0), None).unwrap();
    assert!(matches!(found, Err(ConnectError::Broken { .. })), "{found:?}");
}

#[test]
fn what_a_receiver_sends_after_its_answer_must_be_bells() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    let bell = (1u64 << 32).to_le_bytes();
    // A bell, and after it what no receiver sends, with a descriptor that the sender must not keep.
    for _ in 0..20 {
        let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
        let stranger = listener.accepts();
        stranger.attaches(|stranger| {
            say(&stranger.0, &bell, &[]);
            say(&stranger.0, &[0; 8], &[null.as_fd()]); // unless it is refused by now
            say(&stranger.0, &[0; 8], &[]);
        });
        // Nothing more is said: a bell without a reason would do as much.
        let (begun, mut message) = (Instant::now(), [0; MAX_MESSAGE_BYTES]);
        while !matches!(stranger.0.receive(&mut message).unwrap(), Received::HungUp) {
            assert!(begun.elapsed() < LONG, "it is hung up on");
            std::thread::sleep(Duration::from_millis(1));
        }
        while sender.send(b"x").is_ok() {}
    }
}

/// A sender of a payload that does not fit into its ring, and the hand-over of the payload's memory, not answered yet.
fn hands_over(scene: &Scene, listener: &Listener) -> (Sender, [Stranger; 2], Descriptor) {
    let mut sender = scene.victim.connect_timeout("evil", Duration::ZERO).unwrap();
    let channel = listener.accepts();
    let ack = channel.attaches(|_| {});
    let begun = Instant::now();
    let memory = loop {
        sender.try_send(&[1; 2 * CAPACITY as usize]).unwrap_err();
        if let Some(socket) = listener.0.accept().unwrap() {
            break Stranger(socket);
        }
        assert!(begun.elapsed() < LONG, "no memory is handed over");
    };
    assert_eq!(memory.takes().len(), 1, "the memory");
    (sender, [channel, memory], ack)
}

#[track_caller]
fn comes_back(scene: &Scene) {
    let begun = Instant::now();
    while scene.victim.shared().payloads.used().0 > 0 {
        assert!(begun.elapsed() < LONG, "the memory for payloads is in use for ever");
        std::thread::yield_now();
    }
}

#[test]
fn a_memory_whose_hand_over_is_never_answered_comes_back_with_its_sender() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let (sender, strangers, _ack) = hands_over(&scene, &listener);
    assert!(scene.victim.shared().payloads.used().0 > 0);
    drop(sender);
    comes_back(&scene);
    drop(strangers);
}

#[test]
fn what_was_lent_over_a_closed_channel_comes_back_once_its_receiver_is_gone() {
    let scene = Scene::new();
    let _its = scene.evil.inbox_builder().capacity(CAPACITY).open().unwrap();
    let listener = Listener::new(&scene);
    let mut other = scene.victim.publisher("nobody/subscribes").unwrap();
    let (mut sender, [channel, memory], _ack) = hands_over(&scene, &listener);
    memory.says(&Answer::Lent, &[]);
    sender.send_timeout(&[1; 2 * CAPACITY as usize], LONG).unwrap();
    drop(sender);
    other.flush(LONG).unwrap();
    assert!(scene.victim.shared().payloads.used().0 > 0, "the receiver may read it");
    drop(memory);
    other.flush(LONG).unwrap();
    comes_back(&scene);
    drop(channel);
}

/// It sleeps for as long as it waits for an answer.
#[test]
fn a_task_that_publishes_and_never_waits_for_room_does_not_spin() {
    use std::future::{Future, poll_fn};

    let scene = Scene::new();
    let _its = scene.evil.subscriber_builder(["t"]).max_message(1 << 20).open().unwrap();
    let _silent = Listener::new(&scene);
    let mut publisher = scene.victim.publisher_builder("t").never_waits().open().unwrap();
    let frame = vec![0; 1 << 20];
    let (mut polls, mut publishing) = (0, Box::pin(publisher.publish_async(&frame)));
    let receipt = pollster::block_on(poll_fn(|context| {
        polls += 1;
        publishing.as_mut().poll(context)
    }));
    assert!(matches!(receipt.unwrap().undelivered(), [SendError::Unanswered { .. }]));
    assert!((2..20).contains(&polls), "{polls} looks");
}
