//! Nodes of a few ids come and go, in all ways; others connect to them meanwhile. Nobody hangs, and nothing is left.

use std::time::Duration;

use librpc::Node;

use super::scene::{Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "open-close",
    about: "nodes of the same ids come and go, in all ways",
    allowed: Allowed { kills: 3, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

const IDS: [&str; 2] = ["left", "right"];

fn setup(scene: &Scene) {
    for number in 0..random(|random| random.u32(2..=4)) {
        let program = scene.clone();
        let name = format!("program-{number}");
        scene.start_sender(Program::new(&name, move || come_and_go(&program)));
    }
}

fn come_and_go(scene: &Scene) {
    for _ in 0..random(|random| random.u32(1..=3)) {
        let id = IDS[random(|random| random.usize(..IDS.len()))];
        match Node::builder(id).domain(scene.domain()).open() {
            Ok(node) => live(scene, node),
            Err(error) => {
                schedule::say(|| format!("cannot open {id:?}: {error}"));
                schedule::sleep_until(schedule::clock_ns() + 1_000_000);
            }
        }
    }
}

fn live(scene: &Scene, node: Node) {
    let other = IDS[random(|random| random.usize(..IDS.len()))];
    let mut inbox = random(fastrand::Rng::bool).then(|| scene.try_inbox(&node).ok()).flatten();
    if random(fastrand::Rng::bool)
        && let Ok(mut sender) = node.connect_timeout(other, Duration::from_millis(random(|random| random.u64(..20))))
    {
        let mut outgoing = scene.outgoing();
        for _ in 0..random(|random| random.u32(..3)) {
            let _ = outgoing.send(other, random(bytes), |payload| sender.try_send(payload));
        }
        if random(fastrand::Rng::bool) {
            let _ = sender.flush(Duration::from_millis(5));
        }
    }
    if let Some((inbox, life)) = &mut inbox {
        while let Ok(Some(message)) = inbox.recv_timeout(Duration::from_millis(2)) {
            scene.got(*life, &message);
        }
        scene.closing(*life);
    }
    match random(|random| random.u8(..4)) {
        0 => schedule::exit(),
        1 => drop(node.close(Duration::from_millis(10))),
        2 => {
            drop(inbox);
            drop(node);
        }
        _ => {}
    }
}
