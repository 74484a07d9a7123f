//! Schedules of small programs that use the simulated kernel directly.

use std::cell::RefCell;
use std::rc::Rc;

use librpc_sim::kernel::{CWD, Errno, Kernel, Mode, OFlags, Outcome, Receive, Received};
use librpc_sim::schedule::{self, Allowed, Plan, Program, Report, call, start, wait_for_poll};

const PATH: &str = "/dev/shm/server";

fn done(_: &()) -> String {
    "done".into()
}

/// The next message of a socket.
fn receive(socket: i32) -> Outcome<Received> {
    let how = Receive { bytes: 100, descriptors: 0, peek: false };
    let receive = |kernel: &mut Kernel, pid| kernel.receive(pid, socket, how);
    call("receive", || "receive".into(), &[], receive, |_| "a message".into())
}

/// A server that echoes one message, then ends.
fn server() {
    let make = |kernel: &mut Kernel, pid| -> Outcome<(i32, i32)> {
        let (listener, poll) = (kernel.make_socket(pid)?, kernel.make_poll(pid)?);
        kernel.bind(pid, listener, PATH)?;
        kernel.listen(pid, listener, 4)?;
        kernel.poll_add(pid, poll, listener, 0, 1)?;
        Ok((listener, poll))
    };
    let (listener, poll) = call("serve", || "serve".into(), &[], make, |_| "listens".into()).unwrap();
    let accept = |kernel: &mut Kernel, pid| kernel.accept(pid, listener);
    while call("ready", || "ready".into(), &[], |kernel, pid| kernel.ready(pid, poll, 8), |_| String::new())
        .unwrap()
        .is_empty()
    {
        wait_for_poll(poll, None);
    }
    let connection = call("accept", || "accept".into(), &[], accept, ToString::to_string).unwrap();
    call("add", || "add".into(), &[], |kernel, pid| kernel.poll_add(pid, poll, connection, 1, 1), done).unwrap();
    loop {
        match receive(connection) {
            Err(Errno::AGAIN) => wait_for_poll(poll, None),
            Ok(received) => {
                let echo = |kernel: &mut Kernel, pid| kernel.send(pid, connection, &received.bytes, &[]).map(drop);
                let _ = call("send", || "send".into(), &[], echo, done);
                break;
            }
            Err(errno) => panic!("{errno}"),
        };
    }
    call("unlink", || "unlink".into(), &[], |kernel, pid| kernel.unlink(pid, CWD, PATH), done).unwrap();
}

fn client(heard: &Rc<RefCell<Vec<u8>>>) {
    let socket = call("socket", || "socket".into(), &[], |kernel, pid| kernel.make_socket(pid), ToString::to_string);
    let socket = socket.unwrap();
    while let Err(errno) =
        call("connect", || "connect".into(), &[], |kernel, pid| kernel.connect(pid, socket, PATH), done)
    {
        assert!(matches!(errno, Errno::NOENT | Errno::CONNREFUSED), "{errno}");
        schedule::sleep_until(schedule::now_ns() + 1000);
    }
    let say = |kernel: &mut Kernel, pid| kernel.send(pid, socket, b"hello", &[]).map(drop);
    call("send", || "send".into(), &[], say, done).unwrap();
    loop {
        match receive(socket) {
            Err(Errno::AGAIN) => schedule::pause(),
            received => return *heard.borrow_mut() = received.unwrap().bytes,
        }
    }
}

fn echo(seed: u64) -> Report {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let of_client = heard.clone();
    let setup = move || {
        start(Program::new("server", server));
        start(Program::new("client", move || client(&of_client)));
    };
    schedule::run(Plan::new(seed, Allowed::NOTHING), 200, setup, |kernel| {
        assert_eq!(*heard.borrow(), b"hello");
        match kernel.leftovers() {
            left if left.is_empty() => Ok(()),
            left => Err(format!("left: {left:?}")),
        }
    })
}

#[test]
fn a_seed_decides_everything() {
    let mut digests = Vec::new();
    for seed in 0..300 {
        let (one, two) = (echo(seed), echo(seed));
        assert_eq!(one.failure, None, "seed {seed}:\n{}", one.lines.join("\n"));
        assert_eq!((one.digest, one.steps, one.ns), (two.digest, two.steps, two.ns));
        assert_eq!(one.lines, two.lines);
        digests.push(one.digest);
    }
    digests.sort_unstable();
    digests.dedup();
    assert!(digests.len() > 150, "only {} different runs", digests.len());
}

#[test]
fn who_waits_for_ever_is_named() {
    let report = schedule::run(
        Plan::new(1, Allowed::NOTHING),
        100,
        || {
            start(Program::new("sleeper", || {
                schedule::wait(7, None, "a bell that nobody rings");
            }));
        },
        |_| Ok(()),
    );
    let failure = report.failure.unwrap();
    assert!(failure.what.contains("sleeper") && failure.what.contains("a bell that nobody rings"), "{}", failure.what);
}

#[test]
fn a_dead_process_leaves_its_files_and_nothing_else() {
    for seed in 0..200 {
        let report = schedule::run(
            Plan::new(seed, Allowed { kills: 1, ..Allowed::NOTHING }),
            100,
            || {
                start(Program::new("writer", || {
                    let flags = OFlags::RDWR | OFlags::CREATE;
                    let mode = Mode::from_raw_mode(0o600);
                    let open = |kernel: &mut Kernel, pid| kernel.open_at(pid, CWD, "/dev/shm/file", flags, mode);
                    for _ in 0..1000 {
                        let fd = call("open", || "open".into(), &[], open, ToString::to_string).unwrap();
                        call("close", || "close".into(), &[], |kernel, pid| kernel.close(pid, fd), done).unwrap();
                    }
                }));
            },
            |kernel| match kernel.leftovers() {
                left if left.iter().all(|left| left == "/dev/shm/file") => Ok(()),
                left => Err(format!("left: {left:?}")),
            },
        );
        assert_eq!(report.failure, None, "seed {seed}:\n{}", report.lines.join("\n"));
    }
}
