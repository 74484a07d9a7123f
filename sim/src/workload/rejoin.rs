//! Somebody removes the domain's files under its nodes: all, or one. The nodes join anew, and can be reached again.

use std::time::Duration;

use librpc::Domain;

use super::scene::{Scene, bytes};
use super::{USER, Workload};
use crate::kernel::{CWD, Kernel, Mode, OFlags, Pid, User};
use crate::schedule::{self, Allowed, Program, call, random};

pub const WORKLOAD: Workload = Workload {
    name: "rejoin",
    about: "somebody removes the domain's files under its nodes",
    allowed: Allowed { kills: 1, stops: 2, errors: true, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER],
    setup,
};

/// How long it may take until a node has noticed.
const NOTICED: u64 = 30_000_000_000;

fn setup(scene: &Scene) {
    let steady = scene.clone();
    schedule::start(Program::new("steady", move || stay(&steady)).lives());
    let sender = scene.clone();
    scene.start_sender(Program::new("sender", move || send(&sender)));
    let cleaner = scene.clone();
    scene.start_sender(Program::new("cleaner", move || clean_and_reach(&cleaner)).by(User::ROOT, &[]).spared());
}

fn stay(scene: &Scene) {
    let node = scene.open("steady", scene.domain());
    let (mut inbox, life) = scene.inbox(&node);
    scene.receive_to_the_end(&mut inbox, life);
}

/// Connects anew and sends, now and then.
fn send(scene: &Scene) {
    for _ in 0..random(|random| random.u32(1..=4)) {
        let node = scene.open("sender", scene.domain());
        let mut outgoing = scene.outgoing();
        if let Ok(mut sender) = node.connect_timeout("steady", Duration::from_secs(2)) {
            for _ in 0..random(|random| random.u32(1..=3)) {
                let _ = outgoing.send("steady", random(bytes), |payload| sender.send(payload));
            }
        }
        schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..2_000_000)));
    }
}

/// Removes files, waits until everybody must have noticed, and then wants to reach the node that is still there.
fn clean_and_reach(scene: &Scene) {
    for _ in 0..random(|random| random.u32(1..=3)) {
        schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..2_000_000)));
        remove(&scene.domain(), random(|random| random.u8(..4)));
    }
    schedule::sleep_until(schedule::clock_ns() + NOTICED);
    let reach = scene.clone();
    let program = Program::new("late", move || {
        let node = reach.open("late", reach.domain());
        let mut outgoing = reach.outgoing();
        let mut sender = reach.retry("reach the node that is still there", || node.connect("steady"));
        reach.retry("send to it", || outgoing.send("steady", 20, |payload| sender.send(payload)));
        let _ = sender.flush(Duration::from_secs(60));
    });
    let pid = scene.start_sender(program.spared());
    schedule::wait_for_end(pid);
}

fn remove(domain: &Domain, how: u8) {
    let path = domain.path().to_str().expect("a path that is text").to_owned();
    let flags = OFlags::DIRECTORY;
    let list = |kernel: &mut Kernel, pid: Pid| {
        let fd = kernel.open_at(pid, CWD, &path, flags, Mode::empty())?;
        let names = kernel.list(pid, fd);
        kernel.close(pid, fd)?;
        names
    };
    let Ok(names) = call("list", || format!("lists {path}"), &[], list, |names| format!("{names:?}")) else { return };
    let names = match how {
        0 => random(|random| random.choice(names).into_iter().collect()),
        _ => names,
    };
    for name in names {
        let file = format!("{path}/{name}");
        let _ =
            call("rm", || format!("rm {file}"), &[], |kernel, pid| kernel.unlink(pid, CWD, &file), |()| String::new());
    }
    if how > 1 {
        let rmdir = |kernel: &mut Kernel, pid: Pid| kernel.remove_directory(pid, CWD, &path);
        let _ = call("rmdir", || format!("rmdir {path}"), &[], rmdir, |()| String::new());
    }
}
