//! A process forks while its other threads are busy. The child finds that what it has inherited is its parent's, hangs
//! nowhere, and has a node of its own; the parent does not notice.

use std::time::Duration;

use librpc::{Inbox, Node, RecvError, SendError, Sender};

use super::scene::{Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "fork",
    about: "a process forks while its threads are busy",
    allowed: Allowed { kills: 1, stops: 1, errors: false, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER],
    setup,
};

fn setup(scene: &Scene) {
    let receiver = scene.clone();
    schedule::start(Program::new("receiver", move || receive(&receiver)).lives());
    for number in 0..random(|random| random.u32(1..=2)) {
        let parent = scene.clone();
        let name = format!("parent-{number}");
        scene.start_sender(Program::new(&name, move || be_parent(&parent)).lives());
    }
}

fn receive(scene: &Scene) {
    let node = scene.open("display", scene.domain());
    let (mut inbox, life) = scene.inbox(&node);
    scene.receive_to_the_end(&mut inbox, life);
}

fn be_parent(scene: &Scene) {
    let busy = scene.clone();
    // It opens a node of its own, connects for the first time, and goes away again: all of that beside the fork.
    let thread = schedule::spawn("busy", move || {
        for _ in 0..2 {
            send_some(&busy, &format!("busy-{}-{}", schedule::pid(), schedule::thread().number()));
        }
    });
    let node = scene.open(&format!("parent-{}", schedule::pid()), scene.domain());
    let inbox = node.inbox_builder().capacity(super::scene::CAPACITY).open();
    let sender = node.connect("display");
    let mut outgoing = scene.outgoing();
    if let (Ok(mut inbox), Ok(mut sender)) = (inbox, sender) {
        for _ in 0..random(|random| random.u32(1..=2)) {
            let _ = outgoing.send("display", random(bytes), |payload| sender.send(payload));
            let child = scene.clone();
            let then = scene.clone();
            let first = || try_inherited(&child, &node, &mut inbox, &mut sender);
            let pid = schedule::fork(first, move || send_some(&then, &format!("child-{}", schedule::pid())));
            scene.is_sender(pid);
        }
        let _ = outgoing.send("display", random(bytes), |payload| sender.send(payload));
        let _ = sender.flush(Duration::from_secs(1));
    }
    schedule::join(thread);
}

/// In the child: nothing of its parent's works, and nothing of it hangs.
fn try_inherited(scene: &Scene, node: &Node, inbox: &mut Inbox, sender: &mut Sender) {
    let sent = sender.try_send(b"from a child");
    if !matches!(sent, Err(SendError::Forked)) {
        scene.wrong(format!("a child sends with its parent's sender: {sent:?}"));
    }
    match inbox.try_recv() {
        Err(RecvError::Forked) => {}
        other => scene
            .wrong(format!("a child receives with its parent's inbox: {:?}", other.map(|message| message.is_some()))),
    }
    if node.inbox().is_ok() || node.try_connect("display").is_ok() || node.subscribe("topic").is_ok() {
        scene.wrong("a child opens something at its parent's node".into());
    }
    sender.set_high_water(Some(0.5));
    let _ = sender.flush(Duration::ZERO);
    let _ = (sender.account(), sender.is_connected(), sender.take_returned());
    let _ = node.stats();
    inbox.stop_handle().stop();
    inbox.ack();
}

fn send_some(scene: &Scene, id: &str) {
    let Ok(node) = Node::builder(id).domain(scene.domain()).open() else { return };
    let mut outgoing = scene.outgoing();
    if let Ok(mut sender) = node.connect_timeout("display", Duration::from_secs(1)) {
        for _ in 0..random(|random| random.u32(1..=2)) {
            let _ = outgoing.send("display", random(bytes), |payload| sender.send(payload));
        }
    }
}
