//! Peers that say what they like to a living node: each check of a handshake and each count of bells, broken on purpose once,
//! is noticed here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use librpc_ring::layout::data as layout;
use librpc_ring::{Head, MemoryMut, Mode, Producer};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use crate::sys::Descriptor;
use crate::sys::memory::{Mapping, Reader, Shape, Writer, no_ack};
use crate::sys::poll::Ready;
use crate::sys::reactor::{Reactor, Source};
use crate::sys::socket::{Cut, MAX_MESSAGE_BYTES, Received, Socket};
use crate::wire::{self, Answer, Attached, Data, Hello};
use crate::{Admission, Departure, Domain, Event, Inbox, Limits, Node, Reason, RecvError};

pub(super) const CAPACITY: u64 = 65_536; // a page, wherever this runs
/// Whatever is to happen has happened by then.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// A domain of one test's own, with a node "victim" in it and a node "evil", whose name the strangers use.
pub(super) struct Scene {
    pub(super) path: PathBuf,
    pub(super) victim: Node,
    pub(super) evil: Node,
}

impl Scene {
    pub(super) fn new() -> Self {
        Self::with(Admission::same_user(), Limits::default())
    }

    pub(super) fn with(admission: Admission, limits: Limits) -> Self {
        Self::open(admission, limits, |domain| domain)
    }

    /// In a shared domain: descriptors are taken after admission only, and who is over a limit is refused at once.
    pub(super) fn shared(limits: Limits) -> Self {
        let gid = rustix::process::getegid().as_raw();
        Self::open(Admission::same_user(), limits, |domain| domain.shared_with_group(gid))
    }

    fn open(admission: Admission, limits: Limits, kind: impl Fn(Domain) -> Domain) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/librpc_unit_{}_{number}", std::process::id()));
        let victim = Node::builder("victim").domain(kind(Domain::at(&path))).admit(admission).limits(limits);
        let evil = Node::builder("evil").domain(kind(Domain::at(&path)));
        Self { victim: victim.open().unwrap(), evil: evil.open().unwrap(), path }
    }

    pub(super) fn socket_of(&self, node: &str) -> PathBuf {
        let file = std::fs::metadata(self.path.join(format!("{node}.node"))).unwrap();
        self.path.join(format!("{node}.{:x}.sock", file.ino()))
    }

    fn inbox(&self) -> Inbox {
        self.victim.inbox_builder().capacity(CAPACITY).open().unwrap()
    }

    pub(super) fn stranger(&self) -> Stranger {
        let socket = Socket::connect(&self.socket_of("victim")).unwrap();
        socket.accept_descriptors(true);
        Stranger(socket)
    }

    fn hello(&self) -> Hello {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Hello {
            lowest: 2,
            highest: 2,
            features: 0,
            node: "evil".into(),
            incarnation: *self.evil.incarnation().bytes(),
            target: *self.victim.incarnation().bytes(),
            inbox: 0,
            connection: NEXT.fetch_add(1, Ordering::Relaxed),
            opens: true,
            data: None,
        }
    }

    /// Why a hello is refused.
    fn refusal(&self, hello: &Hello) -> Reason {
        let stranger = self.stranger();
        stranger.says(hello, &[]);
        stranger.refusal()
    }

    /// A stranger that has been sent the terms.
    fn admitted(&self, hello: &Hello) -> Stranger {
        let stranger = self.stranger();
        stranger.says(hello, &[]);
        assert!(matches!(stranger.hears(), Some((Answer::Terms(_), _))), "it is admitted");
        stranger
    }

    /// A stranger whose ring is read by the victim, and the ring.
    fn attached(&self, hello: &Hello) -> (Stranger, Attached, Producer<Writer, Reader>) {
        let stranger = self.admitted(hello);
        let (data, memfd) = Mapping::create(Shape::Data { capacity: CAPACITY }).unwrap();
        let producer = Producer::new(Arc::new(data).writer(), no_ack(), CAPACITY, Mode::Lossless);
        stranger.says(&DATA, &[memfd.as_fd()]);
        match stranger.hears() {
            Some((Answer::Attached(attached), descriptors)) if descriptors.len() == 1 => (stranger, attached, producer),
            other => panic!("it is attached: {other:?}"),
        }
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// An empty ring as it should be.
fn memory() -> Descriptor {
    let (data, memfd) = Mapping::create(Shape::Data { capacity: CAPACITY }).unwrap();
    drop(Producer::new(Arc::new(data).writer(), no_ack(), CAPACITY, Mode::Lossless));
    memfd
}

/// The background thread does nothing until this is dropped.
pub(super) struct Busy(#[expect(dead_code, reason = "its drop ends it")] mpsc::Sender<()>);

struct KeepsBusy {
    begun: mpsc::Sender<()>,
    end: Mutex<mpsc::Receiver<()>>,
}

impl Busy {
    pub(super) fn keep(reactor: &Arc<Reactor>) -> Self {
        let ((begun, has_begun), (ends, end)) = (mpsc::channel(), mpsc::channel());
        let keeps = Arc::new(KeepsBusy { begun, end: Mutex::new(end) });
        reactor.deadline(reactor.token(), keeps, Some(crate::sys::clock::Instant::now()));
        has_begun.recv().unwrap();
        Self(ends)
    }
}

impl Source for KeepsBusy {
    fn ready(self: Arc<Self>, _reactor: &Arc<Reactor>, _ready: Ready) {}

    fn expired(self: Arc<Self>, reactor: &Arc<Reactor>, token: u64) {
        self.begun.send(()).unwrap();
        let _ = self.end.lock().unwrap().recv();
        drop(reactor.forget(token));
    }
}

const DATA: Data = Data { capacity: CAPACITY, policy: 0 };

/// A connection to a node, that says what it likes.
pub(super) struct Stranger(pub(super) Socket);

/// Sends whatever it is with any number of descriptors; `false`: it cannot, because it was hung up on. A peer that takes no
/// descriptors gets none of it.
pub(super) fn say(socket: &Socket, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> bool {
    let mut space = vec![std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(253))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    assert!(descriptors.is_empty() || control.push(SendAncillaryMessage::ScmRights(descriptors)));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::net::sendmsg(socket, &[std::io::IoSlice::new(bytes)], &mut control, flags) {
        Ok(_) | Err(Errno::AGAIN | Errno::PERM) => true,
        Err(Errno::PIPE | Errno::CONNRESET) => false,
        Err(errno) => panic!("{errno}"),
    }
}

impl Stranger {
    pub(super) fn says<T: minicbor::Encode<()>>(&self, message: &T, descriptors: &[BorrowedFd<'_>]) {
        say(&self.0, &wire::encode(message), descriptors);
    }

    /// The next answer; `None`: a hang-up.
    pub(super) fn hears(&self) -> Option<(Answer, Vec<OwnedFd>)> {
        let mut message = [0; MAX_MESSAGE_BYTES];
        let begun = Instant::now();
        loop {
            match self.0.receive(&mut message).unwrap() {
                Received::Message { bytes, descriptors, cut } => {
                    assert_eq!(cut, Cut::Nothing);
                    return Some((wire::decode(&message[..bytes]).unwrap(), descriptors));
                }
                Received::HungUp => return None,
                Received::Nothing => {
                    assert!(begun.elapsed() < LONG, "neither an answer nor a hang-up");
                    let mut ready = [PollFd::new(&self.0, PollFlags::IN)];
                    let _ = poll(&mut ready, Some(&Timespec { tv_sec: 1, tv_nsec: 0 }));
                }
            }
        }
    }

    pub(super) fn refusal(&self) -> Reason {
        match self.hears() {
            Some((Answer::Refusal(refusal), _)) => {
                assert!(self.hears().is_none(), "behind a refusal it is hung up");
                Reason::from_number(refusal.reason)
            }
            other => panic!("not a refusal: {other:?}"),
        }
    }

    /// Rings without a reason until it is hung up on, while the inbox is looked at. How often it rang.
    fn rings(&self, inbox: &mut Inbox, ring: u32, at_most: u32) -> u32 {
        let bell = (1u64 << 32 | u64::from(ring)).to_le_bytes();
        let mut rung = 0;
        while rung < at_most && say(&self.0, &bell, &[]) {
            rung += 1;
            while let Some(event) = inbox.try_recv_event().unwrap() {
                assert!(matches!(event, Event::SenderJoined(_) | Event::SenderLeft(..) | Event::Refused(_)));
            }
        }
        rung
    }
}

#[test]
fn a_hello_that_is_not_right_is_refused_and_says_why() {
    let scene = Scene::new();
    let _inbox = scene.inbox();
    let good = scene.hello();
    for (lowest, highest) in [(3, 9), (0, 1), (1, 1), (3, 0)] {
        assert_eq!(scene.refusal(&Hello { lowest, highest, ..good.clone() }), Reason::Version);
    }
    assert_eq!(scene.refusal(&Hello { target: good.incarnation, ..good.clone() }), Reason::Restarted);
    assert_eq!(scene.refusal(&Hello { inbox: 1, ..good.clone() }), Reason::NoInbox);
    assert_eq!(scene.refusal(&Hello { node: "nobody".into(), ..good.clone() }), Reason::Busy);
    for node in ["", "a/b", ".x"] {
        assert_eq!(scene.refusal(&Hello { node: node.into(), ..good.clone() }), Reason::Identity);
    }
    assert_eq!(scene.refusal(&Hello { incarnation: good.target, ..good.clone() }), Reason::Identity);
    assert_eq!(scene.refusal(&Hello { node: "victim".into(), ..good.clone() }), Reason::Identity);
    scene.admitted(&good);
}

/// Under this number an inbox waits for its own signal: it would never see the hang-up.
#[test]
fn a_connection_of_number_0_is_refused() {
    let scene = Scene::new();
    let _inbox = scene.inbox();
    assert_eq!(scene.refusal(&Hello { connection: 0, ..scene.hello() }), Reason::BadHandshake);
}

/// The ring arrives without a connection, which is opened before the inbox looks.
#[test]
fn a_ring_that_leaves_takes_no_other_of_its_number_along() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    let attaches = |hello: &Hello| {
        let stranger = scene.stranger();
        stranger.says(&Hello { data: Some(DATA), ..hello.clone() }, &[memory().as_fd()]);
        assert!(matches!(stranger.hears(), Some((Answer::Attached(Attached { ring: 0, .. }), _))));
        stranger
    };
    let hello = scene.hello();
    drop(attaches(&Hello { opens: false, ..hello.clone() }));
    let connection = attaches(&hello);
    let mut leaves = || {
        let mut events =
            std::iter::from_fn(|| Some(matches!(inbox.recv_event_timeout(LONG).unwrap()?, Event::SenderLeft(..))));
        events.any(|is_left| is_left)
    };
    assert!(leaves(), "the ring without a connection");
    drop(connection);
    assert!(leaves(), "the one that was opened");
}

#[test]
fn a_dead_node_speaks_no_more() {
    let scene = Scene::new();
    let _inbox = scene.inbox();
    let dead = scene.path.join("dead.node");
    std::fs::copy(scene.path.join("evil.node"), &dead).unwrap(); // a file that nobody holds
    assert_eq!(scene.refusal(&Hello { node: "dead".into(), ..scene.hello() }), Reason::Identity);
    let _ = std::fs::remove_file(dead);
}

#[test]
fn nobody_speaks_as_a_node_of_another_user() {
    let scene = Scene::new();
    let _inbox = scene.inbox();
    if chown(scene.path.join("evil.node"), Some(54_321), None).is_err() {
        eprintln!("SKIPPED: nobody_speaks_as_a_node_of_another_user: this test needs root");
        return;
    }
    assert_eq!(scene.refusal(&scene.hello()), Reason::Identity);
    chown(scene.path.join("evil.node"), Some(0), None).unwrap();
    scene.admitted(&scene.hello());
}

#[test]
fn a_peer_that_is_not_admitted_is_refused() {
    let scene = Scene::with(Admission::nobody(), Limits::default());
    let _inbox = scene.inbox();
    assert_eq!(scene.refusal(&scene.hello()), Reason::NotAdmitted);
}

#[test]
fn a_silent_peer_is_hung_up_on_in_time() {
    let limits = Limits::default().handshake_timeout(Duration::from_millis(30));
    let scene = Scene::with(Admission::same_user(), limits);
    let _inbox = scene.inbox();
    assert_eq!(scene.stranger().refusal(), Reason::Busy);
    assert_eq!(scene.admitted(&scene.hello()).refusal(), Reason::Busy);
}

#[test]
fn other_terms_other_memory_and_more_than_was_due_are_refused() {
    let scene = Scene::new();
    let _inbox = scene.inbox();
    let null: OwnedFd = std::fs::File::open("/dev/null").unwrap().into();
    for other in [Data { capacity: 2 * CAPACITY, ..DATA }, Data { policy: 1, ..DATA }] {
        let stranger = scene.admitted(&scene.hello());
        stranger.says(&other, &[memory().as_fd()]);
        assert_eq!(stranger.refusal(), Reason::BadHandshake, "{other:?}");
    }
    let (good, ack) = (memory(), Mapping::create(Shape::Ack).unwrap().1);
    let offers: [&[BorrowedFd<'_>]; 5] = [
        &[],
        &[null.as_fd()],
        &[ack.as_fd()],
        &[good.as_fd(), good.as_fd()],
        &[good.as_fd(), null.as_fd(), null.as_fd()],
    ];
    for offer in offers {
        let stranger = scene.admitted(&scene.hello());
        stranger.says(&DATA, offer);
        assert_eq!(stranger.refusal(), Reason::BadHandshake, "{} descriptors", offer.len());
    }
    let stranger = scene.admitted(&scene.hello());
    stranger.says(&scene.hello(), &[]);
    assert_eq!(stranger.refusal(), Reason::BadHandshake);
}

#[test]
fn what_is_sent_after_the_memory_is_not_left_for_others_to_close() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    let (memfd, null) = (memory(), OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let says_both = |stranger: &Stranger| {
        stranger.says(&DATA, &[memfd.as_fd()]);
        say(&stranger.0, &[0; 8], &[null.as_fd()]);
    };
    for _ in 0..20 {
        let stranger = scene.admitted(&scene.hello());
        says_both(&stranger);
        match stranger.hears() {
            // They came one by one: then the second was not taken, or is found to be no bell.
            Some((Answer::Attached(_), _)) => assert!(stranger.rings(&mut inbox, 0, 200_000) < 200_000),
            Some((Answer::Refusal(refusal), _)) => assert_eq!(refusal.reason, Reason::BadHandshake as u32),
            other => panic!("{other:?}"),
        }
    }
    // Both are there before it is answered.
    let stranger = scene.admitted(&scene.hello());
    let busy = Busy::keep(scene.victim.shared().reactor());
    says_both(&stranger);
    drop(busy);
    assert_eq!(stranger.refusal(), Reason::BadHandshake);
}

#[test]
fn a_ring_is_added_to_a_connection_of_the_same_process_alone() {
    use crate::sys::socket::Credentials;
    let scene = Scene::new();
    let inbox = scene.inbox();
    let first = scene.hello();
    let (_first, attached, _ring) = scene.attached(&first);
    assert_eq!(attached.ring, 0);
    let (_second, attached, _ring) = scene.attached(&Hello { opens: false, ..first.clone() });
    assert_eq!(attached.ring, 1);
    assert_eq!(scene.refusal(&Hello { opens: false, ..scene.hello() }), Reason::UnknownConnection);
    assert_eq!(scene.refusal(&first), Reason::BadHandshake, "a connection is opened once");
    let shared = scene.victim.shared().inbox(0).unwrap();
    let me = scene.stranger().0.credentials().unwrap();
    assert!(shared.knows(first.connection, me));
    for other in [Credentials { pid: me.pid + 1, ..me }, Credentials { uid: me.uid + 1, ..me }] {
        assert!(!shared.knows(first.connection, other), "{other:?}");
    }
    drop(inbox);
}

#[test]
fn a_sender_that_rings_without_a_reason_is_hung_up_on() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    let (stranger, attached, _ring) = scene.attached(&scene.hello());
    let rung = stranger.rings(&mut inbox, attached.ring, 100_000);
    assert!((1..100_000).contains(&rung), "{rung} bells, and none slept");
    let (stranger, ..) = scene.attached(&scene.hello());
    let rung = stranger.rings(&mut inbox, 77, 100_000);
    assert!((1..100_000).contains(&rung), "{rung} bells for a ring that is not there");
}

#[test]
fn a_ring_that_never_ends_is_read_for_its_capacity_after_the_hang_up() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    let stranger = scene.admitted(&scene.hello());
    let (data, memfd) = Mapping::create(Shape::Data { capacity: CAPACITY }).unwrap();
    let data = Arc::new(data);
    drop(Producer::new(data.writer(), no_ack(), CAPACITY, Mode::Lossless));
    stranger.says(&DATA, &[memfd.as_fd()]);
    let Some((Answer::Attached(_), descriptors)) = stranger.hears() else { panic!("it is attached") };
    let ack = Arc::new(Mapping::receive(&descriptors[0], Shape::Ack).unwrap());
    let mut producer = Producer::new(data.writer(), ack.reader(), CAPACITY, Mode::Lossless);
    drop(stranger);
    let mut received = 0;
    loop {
        producer.push(Head::MESSAGE, &[7; 48]).expect("what was received makes room");
        match inbox.recv_event_timeout(LONG).unwrap() {
            Some(Event::Message(_)) => received += 64,
            // No state to wait for: the inbox reads the clock every few messages, and looks for hang-ups every 30 µs.
            Some(Event::SenderJoined(_)) => std::thread::sleep(Duration::from_millis(1)),
            Some(Event::SenderLeft(_, left)) => break assert!(matches!(left, Departure::Disconnected), "{left:?}"),
            other => panic!("it ends: {other:?}"),
        }
        assert!(received <= 2 * CAPACITY, "{received} bytes");
    }
}

/// Who has hung up may still write into the memory that is being read.
#[test]
fn a_sender_that_counts_on_after_it_has_hung_up_leaves_all_the_same() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    let stranger = scene.admitted(&scene.hello());
    let (data, memfd) = Mapping::create(Shape::Data { capacity: CAPACITY }).unwrap();
    let mut producer = Producer::new(Arc::new(data).writer(), no_ack(), CAPACITY, Mode::Lossless);
    stranger.says(&DATA, &[memfd.as_fd()]);
    assert!(matches!(stranger.hears(), Some((Answer::Attached(_), _))));
    drop(stranger);
    let mut told = 0;
    loop {
        producer.note_dropped();
        match inbox.recv_event_timeout(LONG).unwrap() {
            Some(Event::SenderJoined(_)) => {}
            Some(Event::TurnedAway(_)) => told += 1,
            Some(Event::SenderLeft(..)) => break,
            other => panic!("it leaves: {other:?}"),
        }
        assert!(told < 1000, "told {told} times");
    }
}

#[test]
fn what_senders_claim_to_have_counted_does_not_overflow() {
    let scene = Scene::new();
    let mut inbox = scene.inbox();
    for _ in 0..3 {
        let stranger = scene.admitted(&scene.hello());
        let (data, memfd) = Mapping::create(Shape::Data { capacity: CAPACITY }).unwrap();
        let data = Arc::new(data);
        drop(Producer::new(data.writer(), no_ack(), CAPACITY, Mode::Lossless));
        let words = data.writer();
        for word in [layout::SEQUENCE, layout::BYTES, layout::DROPPED] {
            words.store(word, u64::MAX, Ordering::Relaxed);
        }
        stranger.says(&DATA, &[memfd.as_fd()]);
        assert!(matches!(stranger.hears(), Some((Answer::Attached(_), _))));
        drop(stranger);
        while !matches!(inbox.recv_event_timeout(LONG).unwrap(), Some(Event::SenderLeft(..))) {}
    }
    let ended = &scene.victim.stats().inboxes[0].ended;
    assert_eq!((ended.channels, ended.sent, ended.dropped), (3, u64::MAX, u64::MAX));
}

/// A socket whose last close waits for a minute, for data that nobody reads, and the other end, which ends that.
fn lingering() -> (OwnedFd, std::net::TcpStream) {
    use std::io::Write;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let far = listener.accept().unwrap().0;
    near.set_nonblocking(true).unwrap();
    while near.write(&[0; 1 << 16]).is_ok() {}
    rustix::net::sockopt::set_socket_linger(&near, Some(Duration::from_secs(60))).unwrap();
    (near.into(), far)
}

#[test]
fn what_waits_to_be_closed_is_on_its_users_account() {
    const MOST: u32 = 20;
    let limits = Limits::default().handshakes_per_user(MOST).handshake_timeout(LONG);
    let scene = Scene::shared(limits);
    let mut inbox = scene.inbox();
    let mut far_ends = Vec::new();
    let me = rustix::process::geteuid().as_raw();
    let ledger = &scene.victim.shared().ledger;
    // Each leaves a socket that blocks the thread that closes it last: there are eight threads for that.
    for round in 0.. {
        if ledger.handshake(me).is_none() {
            break;
        }
        assert!(round < 10 * MOST, "no end of what this user may leave behind");
        let stranger = scene.admitted(&scene.hello());
        let (near, far) = lingering();
        stranger.says(&DATA, &[near.as_fd()]);
        std::thread::spawn(move || drop(near)); // which is the last one, now and then
        far_ends.push(far);
        assert_eq!(stranger.refusal(), Reason::BadHandshake, "{round}");
    }
    // The account is full, and stays so as long as they are blocked: nothing more is taken of this user.
    for _ in 0..3 {
        assert_eq!(scene.refusal(&scene.hello()), Reason::Busy);
    }
    assert!(ledger.handshake(me).is_none());
    assert!(ledger.handshake(me + 1).is_some(), "another user's account");
    // What is connected goes on, and when they are closed, so does the rest.
    far_ends.clear();
    let begun = Instant::now();
    while ledger.handshake(me).is_none() {
        assert!(begun.elapsed() < LONG, "the account stays full");
        std::thread::yield_now();
    }
    let mut sender = scene.evil.connect_timeout("victim", LONG).unwrap();
    sender.send(b"hello").unwrap();
    let heard: Result<_, RecvError> = inbox.recv_timeout(LONG);
    assert_eq!(heard.unwrap().expect("a message").payload(), b"hello");
}
