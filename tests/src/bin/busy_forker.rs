//! A process that forks again and again, from the start, while its other threads do everything that takes a lock in the
//! library. Each child uses no handle of its parent, opens its own node, and sends to `peer`.
//!
//! `busy_forker FORKS`, in the domain of the environment. Prints what went wrong, or `ok`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use librpc::{Domain, Node, Observer};

const LIMIT: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(1);
/// A child that takes longer hangs.
const PATIENCE_S: u32 = 30;

fn main() {
    let forks: u32 = std::env::args().nth(1).expect("a number of forks").parse().expect("a number");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let work: [fn(u32); 5] = [connect, publish, observe, start_threads, start_threads];
        for work in work {
            let stop = &stop;
            scope.spawn(move || (0..).take_while(|_| !stop.load(Ordering::Relaxed)).for_each(work));
        }
        let wrong: Vec<String> = (0..forks).filter_map(fork).collect();
        stop.store(true, Ordering::Relaxed);
        println!("{}", if wrong.is_empty() { "ok".into() } else { wrong.join("; ") });
    });
}

fn connect(_: u32) {
    let node = Node::open("connecting").unwrap();
    let mut sender = node.connect("peer").unwrap();
    sender.send(b"hello").unwrap();
    sender.flush(LIMIT).unwrap();
}

/// Waiting for a subscription takes an inotify instance, which is closed on a thread of its own.
fn publish(_: u32) {
    let node = Node::open("publishing").unwrap();
    let mut publisher = node.publisher("nobody/wants/this").unwrap();
    assert!(!publisher.wait_for_subscriber(MOMENT).unwrap());
    let _subscriber = node.subscriber_builder(["own"]).receive_own(true).open().unwrap();
    assert_eq!(node.publisher("own").unwrap().publish(b"hello").unwrap().inboxes(), 1);
}

fn observe(_: u32) {
    Observer::new(Domain::from_env()).look(LIMIT).unwrap();
    Domain::from_env().clean().unwrap();
}

/// std takes a lock when a thread begins, and when it ends.
fn start_threads(_: u32) {
    std::thread::spawn(|| {}).join().unwrap();
}

/// Forks. Returns how the child ended, if not well.
#[allow(unsafe_code)]
fn fork(number: u32) -> Option<String> {
    // SAFETY: the child runs what the library promises to forked children, and the allocator, which libc prepares for a
    // fork; it ends without running what belongs to the parent.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: sets an alarm clock, which ends a child that hangs.
        unsafe { libc::alarm(PATIENCE_S) };
        let code = std::panic::catch_unwind(|| in_child(number)).unwrap_or(1);
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: waits for a child of this process, and fills an int.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child, "the child can be waited for");
    match (libc::WTERMSIG(status), libc::WEXITSTATUS(status)) {
        (0, 0) => None,
        (libc::SIGALRM, _) => Some(format!("child {number} hangs")),
        (0, 2) => Some(format!("child {number} has a mapping of its parent's")),
        (0, 3) => Some(format!("child {number} has a file of the domain open")),
        (signal, code) => Some(format!("child {number}: signal {signal}, exit code {code}")),
    }
}

/// What this process has open.
fn descriptors() -> impl Iterator<Item = PathBuf> {
    std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok())
}

fn inotify_instances() -> usize {
    descriptors().filter(|path| path.ends_with("anon_inode:inotify")).count()
}

/// What each thread of this process is called, and in which system call it is.
fn threads() -> Vec<[String; 2]> {
    let of =
        |task: PathBuf| ["comm", "syscall"].map(|file| std::fs::read_to_string(task.join(file)).unwrap_or_default());
    std::fs::read_dir("/proc/self/task").unwrap().filter_map(|task| Some(of(task.ok()?.path()))).collect()
}

fn in_child(number: u32) -> i32 {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    if maps.contains("memfd:librpc") {
        return 2;
    }
    let domain = Domain::from_env();
    if descriptors().any(|path| path.starts_with(domain.path())) {
        return 3;
    }
    let inherited = inotify_instances(); // one that was being closed at that very instant
    let node = Node::open(&format!("child-{number}")).unwrap();
    let mut sender = node.connect("peer").unwrap();
    sender.send(b"from a child").unwrap();
    if let Err(error) = sender.flush(LIMIT) {
        panic!("{error}: {:?}, {:?}; threads: {:?}", sender.account(), node.stats(), threads());
    }
    assert!(!node.publisher("nobody").unwrap().wait_for_subscriber(MOMENT).unwrap());
    while inotify_instances() > inherited {
        std::thread::yield_now(); // it is closed by a thread of the child's own
    }
    let (says, said) = std::sync::mpsc::channel();
    let called =
        node.inbox_builder().callback(move |message| says.send(message.sender().to_string()).unwrap()).unwrap();
    node.connect(node.id()).unwrap().send(b"to itself").unwrap();
    assert_eq!(said.recv_timeout(LIMIT).unwrap(), format!("child-{number}"));
    called.stop().unwrap();
    drop(sender);
    node.close(LIMIT).unwrap();
    0
}
