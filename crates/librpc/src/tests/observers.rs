//! Nodes that answer an observer as they like: each costs it a limited time, and nobody else anything.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use crate::sys::socket::{MAX_MESSAGE_BYTES, Received, Socket};
use crate::wire::{self, Answer, ListedPlace, Page};
use crate::{Domain, Node, NodeStats, ObserveError, Observed, Observer};

const SHORT: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(20);

/// A domain of one test's own with two nodes; "evil" answers through a socket of the test's.
struct Scene {
    _victim: Node,
    _evil: Node,
    listener: Socket,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/librpc_unit_observers_{}_{number}", std::process::id()));
        let open = |id: &str| Node::builder(id).domain(Domain::at(&path)).open().unwrap();
        let (victim, evil) = (open("victim"), open("evil"));
        evil.shared().neglect(); // it would take its place back
        let inode = std::fs::metadata(path.join("evil.node")).unwrap().ino();
        let socket = path.join(format!("evil.{inode:x}.sock"));
        std::fs::remove_file(&socket).unwrap();
        let listener = Socket::bind(&socket).unwrap();
        listener.listen(false).unwrap();
        Self { _victim: victim, _evil: evil, listener, path }
    }

    fn observer(&self) -> Observer {
        Observer::new(Domain::at(&self.path))
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

fn of<'o>(observed: &'o [Observed], id: &str) -> &'o Result<NodeStats, ObserveError> {
    &observed.iter().find(|observed| observed.node.id == id).expect("it is listed").stats
}

/// Ends another thread's loop, also when this one panics.
struct Ends<'f>(&'f AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Takes a connection, and what is asked over it; `None`: nobody asks any more.
fn asked(listener: &Socket, is_over: &AtomicBool) -> Option<Socket> {
    let socket = loop {
        match listener.accept().unwrap() {
            Some(socket) => break socket,
            None if is_over.load(Ordering::Relaxed) => return None,
            None => std::thread::yield_now(),
        }
    };
    hear(&socket).then_some(socket)
}

/// Waits for the next question; `false`: it has hung up.
fn hear(socket: &Socket) -> bool {
    loop {
        match socket.receive(&mut [0; MAX_MESSAGE_BYTES]).unwrap() {
            Received::Nothing => std::thread::yield_now(),
            Received::Message { .. } => return true,
            Received::HungUp => return false,
        }
    }
}

fn say(socket: &Socket, serial: u64) {
    let next = Some(ListedPlace { part: 0, inbox: 0, serial, begun: true });
    socket.send(&wire::encode(&Answer::Page(Page { next, ..Page::default() })), None).unwrap();
}

/// One that has begun to answer has taken the connection: nothing of it is kept, and the next look asks again.
#[test]
fn a_node_that_never_ends_its_answer_is_given_up_at_the_limit() {
    let (scene, is_over) = (Scene::new(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let connections = scope.spawn(|| {
            let mut connections = 0;
            while let Some(socket) = asked(&scene.listener, &is_over) {
                connections += 1;
                // A page, and after the next question nothing.
                say(&socket, 1);
                while hear(&socket) {}
            }
            connections
        });
        let ends = Ends(&is_over);
        let mut observer = scene.observer();
        let mut given_up = 0;
        while given_up < 3 {
            match of(&observer.look(SHORT).unwrap(), "evil") {
                Err(ObserveError::Stalled { .. }) => {} // its thread has not got so far
                Err(ObserveError::Failed(why)) => {
                    assert_eq!(why, "its answer has not ended within 200ms, after 1 page");
                    given_up += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        drop(ends);
        assert_eq!(connections.join().unwrap(), 3, "each look asks anew");
    });
}

/// One that has said nothing keeps its one connection. Once it begins, it has the limit for its answer.
#[test]
fn a_node_that_begins_late_is_heard() {
    let scene = Scene::new();
    let mut observer = scene.observer();
    for _ in 0..3 {
        assert!(matches!(of(&observer.look(SHORT).unwrap(), "evil"), Err(ObserveError::Stalled { .. })));
    }
    let socket = asked(&scene.listener, &AtomicBool::new(true)).expect("it was asked long ago");
    assert!(scene.listener.accept().unwrap().is_none(), "once");
    say(&socket, 1);
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            for serial in 2..100 {
                assert!(hear(&socket), "it is asked for more");
                say(&socket, serial);
            }
            assert!(hear(&socket), "it is asked for more");
            socket.send(&wire::encode(&Answer::Page(Page::default())), None).unwrap();
        });
        let observed = observer.look(LONG).unwrap();
        assert!(of(&observed, "evil").is_ok(), "{:?}", of(&observed, "evil"));
        answering.join().unwrap();
    });
}
