//! A program opens a node, publishes or sends a little, and ends at once: by returning, by `exit`, by a kill. Whatever was
//! accepted must come, for the receiver lives on.

use std::time::Duration;

use super::scene::{Outgoing, Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "once",
    about: "publish or send a little, and end at once",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

fn setup(scene: &Scene) {
    let receiver = scene.clone();
    // It is not killed: what it has not processed would be lost with it.
    schedule::start(Program::new("receiver", move || receive(&receiver)).lives());
    for _ in 0..random(|random| random.u32(1..=3)) {
        let sender = scene.clone();
        scene.start_sender(Program::new("sender", move || send(&sender)));
    }
}

fn receive(scene: &Scene) {
    let node = scene.open("display", scene.domain());
    let inner = scene.clone();
    let (mut inbox, life) = scene.inbox(&node);
    let (mut subscriber, of_topic) = scene.subscribe(&node, "pose");
    let thread = schedule::spawn("subscriber", move || inner.receive_to_the_end(&mut subscriber, of_topic));
    scene.receive_to_the_end(&mut inbox, life);
    schedule::join(thread);
}

fn send(scene: &Scene) {
    let mut outgoing = scene.outgoing();
    let name = format!("sender-{}", schedule::pid());
    let node = scene.open(&name, scene.domain());
    let count = random(|random| random.u32(1..=3));
    let is_publisher = random(fastrand::Rng::bool);
    let ending = random(|random| random.u8(..4));
    if is_publisher {
        let mut outbox = node.outbox();
        let topic = outbox.topic("pose").expect("a topic");
        for _ in 0..count {
            outgoing.publish(&mut outbox, (topic, "pose"), random(bytes), Duration::from_secs(1));
        }
        end(ending);
        return;
    }
    let Ok(mut sender) = node.connect("display") else { return };
    for _ in 0..count {
        send_one(&mut outgoing, &mut sender);
    }
    end(ending);
}

fn send_one(outgoing: &mut Outgoing, sender: &mut librpc::Sender) {
    let _ = outgoing.send("display", random(bytes), |payload| sender.send(payload));
}

/// However a program may end.
fn end(ending: u8) {
    match ending {
        0 => schedule::exit(),
        1 => schedule::kill(schedule::pid()),
        _ => {} // by returning: its handles are dropped
    }
}
