//! Every call that takes a time limit keeps it, however the others get on; and no limit is too long to be one.

use std::time::Duration;

use librpc::Node;

use super::scene::{Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "limits",
    about: "calls with short limits, and with the longest",
    allowed: Allowed { kills: 1, stops: 1, errors: true, pauses: false, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

/// A call that is not to wait makes at most this many steps, whatever the others do.
const AT_ONCE_STEPS: u64 = 100;

fn setup(scene: &Scene) {
    let receiver = scene.clone();
    schedule::start(Program::new("receiver", move || receive(&receiver)).lives());
    let sender = scene.clone();
    scene.start_sender(Program::new("sender", move || send(&sender)));
    let looker = scene.clone();
    scene.start_sender(Program::new("looker", move || look(&looker)));
}

fn receive(scene: &Scene) {
    let node = scene.open("display", scene.domain());
    let (mut inbox, life) = scene.inbox(&node);
    let limit = if random(fastrand::Rng::bool) { Duration::MAX } else { Duration::from_secs(60) };
    let stop = inbox.stop_handle();
    let ends = scene.clone();
    let thread = schedule::spawn("stopping", move || {
        while !ends.is_over() {
            schedule::sleep_until(schedule::clock_ns() + 1_000_000_000);
        }
        schedule::sleep_until(schedule::clock_ns() + 60_000_000_000);
        stop.stop();
    });
    loop {
        match inbox.recv_timeout(limit) {
            Ok(Some(message)) => drop(scene.got(life, &message)),
            Ok(None) if limit == Duration::MAX || scene.is_over() => break,
            Ok(None) => {}
            Err(_) => schedule::sleep_until(schedule::clock_ns() + 1_000_000),
        }
    }
    scene.drained(life);
    schedule::join(thread);
}

/// Calls something that is not to wait.
fn at_once<R>(scene: &Scene, what: &str, call: impl FnOnce() -> R) -> R {
    let before = schedule::own_steps();
    let result = call();
    let steps = schedule::own_steps() - before;
    if steps > AT_ONCE_STEPS {
        scene.wrong(format!("{what} took {steps} steps, with no time to wait"));
    }
    result
}

fn send(scene: &Scene) {
    let node = scene.open("camera", scene.domain());
    let mut outgoing = scene.outgoing();
    let Ok(mut sender) = node.connect_timeout("display", Duration::MAX) else { return };
    for _ in 0..random(|random| random.u32(1..=30)) {
        let bytes = random(bytes);
        match random(|random| random.u8(..4)) {
            0 => {
                sender.set_timeout(Duration::MAX);
                let _ = outgoing.send("display", bytes, |payload| sender.send(payload));
            }
            1 => {
                let _ = at_once(scene, "flush", || sender.flush(Duration::ZERO));
            }
            _ => {
                let _ =
                    outgoing.send("display", bytes, |payload| at_once(scene, "try_send", || sender.try_send(payload)));
            }
        }
    }
    let _ = sender.flush(Duration::MAX);
    outgoing.judge(sender.account());
    if node.close(Duration::MAX).is_err() {
        schedule::say(|| "not everything was processed".into());
    }
}

/// Looks at the domain from outside, as long as it takes.
fn look(scene: &Scene) {
    for _ in 0..random(|random| random.u32(1..=2)) {
        match scene.domain().observe(Duration::MAX) {
            Ok(seen) => schedule::say(|| format!("sees {} nodes", seen.len())),
            Err(error) => schedule::say(|| format!("sees nothing: {error}")),
        }
        if let Ok(node) = Node::builder("looker").domain(scene.domain()).open() {
            let _ = node.try_connect("nobody");
            let _ = node.stats();
        }
    }
}
