//! Subscribers come and go while others publish. One stays to the end: it must not be forgotten, and misses nothing.

use std::time::Duration;

use super::scene::{Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "subscribers",
    about: "subscribers come and go while others publish",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

const TOPICS: [&str; 2] = ["pose", "scan"];

fn setup(scene: &Scene) {
    let steady = scene.clone();
    schedule::start(Program::new("steady", move || stay(&steady)).lives());
    for number in 0..random(|random| random.u32(1..=2)) {
        let churn = scene.clone();
        let name = format!("churn-{number}");
        schedule::start(Program::new(&name, move || come_and_go(&churn)));
    }
    for number in 0..random(|random| random.u32(1..=2)) {
        let publisher = scene.clone();
        let name = format!("publisher-{number}");
        scene.start_sender(Program::new(&name, move || publish(&publisher)));
    }
}

/// Subscribes and stays.
fn stay(scene: &Scene) {
    let node = scene.open("steady", scene.domain());
    let (mut inbox, life) = scene.subscribe(&node, TOPICS[0]);
    scene.receive_to_the_end(&mut inbox, life);
}

/// Subscribes and unsubscribes, on one or two threads.
fn come_and_go(scene: &Scene) {
    let node = std::sync::Arc::new(scene.open(&format!("churn-{}", schedule::pid()), scene.domain()));
    let threads: Vec<_> = (0..random(|random| random.u32(1..=2)))
        .map(|_| {
            let (scene, node) = (scene.clone(), node.clone());
            schedule::spawn("churn", move || {
                for _ in 0..random(|random| random.u32(1..=4)) {
                    let (mut inbox, life) = match random(|random| random.usize(..3)) {
                        2 => scene.subscribe_to_all(&node),
                        topic => scene.subscribe(&node, TOPICS[topic]),
                    };
                    for _ in 0..random(|random| random.u32(..4)) {
                        if let Ok(Some(message)) =
                            inbox.recv_timeout(Duration::from_micros(random(|random| random.u64(..500))))
                        {
                            scene.got(life, &message);
                        }
                    }
                    scene.closing(life);
                    drop(inbox);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(schedule::join);
}

fn publish(scene: &Scene) {
    let node = scene.open(&format!("publisher-{}", schedule::pid()), scene.domain());
    let mut outgoing = scene.outgoing();
    let mut outbox = node.outbox();
    let topics = TOPICS.map(|name| (outbox.topic(name).expect("a topic"), name));
    for _ in 0..random(|random| random.u32(3..=25)) {
        let topic = topics[random(|random| random.usize(..2))];
        let limit = Duration::from_millis(random(|random| random.u64(..3)));
        outgoing.publish(&mut outbox, topic, random(bytes), limit);
        if random(fastrand::Rng::bool) {
            schedule::pause();
        }
    }
    let _ = outbox.flush(Duration::from_secs(1));
    outgoing.judge(outbox.total());
}
