//! Two nodes answer each other, and sleep in between. Nothing but a message wakes them: a wake-up that is lost is seen as a
//! wait that ends with its limit.

use std::time::Duration;

use librpc::{Inbox, Node, Sender};

use super::scene::{Outgoing, Scene};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "wakes",
    about: "two nodes answer each other, and sleep in between",
    allowed: Allowed { kills: 0, stops: 2, errors: false, pauses: true, large_pages: false },
    redelivery: false,
    users: &[USER],
    setup,
};

/// Longer than anything that holds somebody up.
const LIMIT: Duration = Duration::from_secs(1000);

fn setup(scene: &Scene) {
    let answers = scene.clone();
    schedule::start(Program::new("answers", move || answer(&answers)).lives());
    let asks = scene.clone();
    scene.start_sender(Program::new("asks", move || ask(&asks)).lives());
}

/// Sends a few in a row, some of them while the handshake is under way, then one for each answer.
fn ask(scene: &Scene) {
    let node = scene.open("asks", scene.domain());
    let (mut inbox, life) = scene.inbox(&node);
    let mut sender = reach(scene, &node, "answers");
    let mut outgoing = scene.outgoing();
    let (all, at_once) = random(|random| (random.u32(1..=8), random.u32(1..=4)));
    for number in 0..all {
        if number >= at_once {
            receive(scene, &mut inbox, life);
        }
        send(scene, &mut outgoing, &mut sender, "answers");
        if number == 0 {
            schedule::lose_core(20, 1_000_000);
            let _ = sender.account(); // which takes notice of the answer, too
        }
        schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..30_000)));
    }
    (0..all.min(at_once)).for_each(|_| receive(scene, &mut inbox, life));
    scene.drained(life);
}

fn answer(scene: &Scene) {
    let node = scene.open("answers", scene.domain());
    let (mut inbox, life) = scene.inbox(&node);
    let mut sender = None;
    let mut outgoing = scene.outgoing();
    while !scene.is_over() {
        let Some(()) = try_receive(scene, &mut inbox, life) else { continue };
        let sender = sender.get_or_insert_with(|| reach(scene, &node, "asks"));
        send(scene, &mut outgoing, sender, "asks");
    }
    scene.drained(life);
}

/// Connects without waiting for the handshake's end.
fn reach(scene: &Scene, node: &Node, to: &str) -> Sender {
    scene.retry("connect", || node.try_connect(to))
}

fn send(scene: &Scene, outgoing: &mut Outgoing, sender: &mut Sender, to: &str) {
    if let Err(error) = outgoing.send(to, 20, |payload| sender.send_timeout(payload, LIMIT)) {
        scene.wrong(format!("cannot send to {to}: {error}"));
    }
}

fn receive(scene: &Scene, inbox: &mut Inbox, life: usize) {
    if try_receive(scene, inbox, life).is_none() {
        scene.wrong(format!("no answer within {} s", LIMIT.as_secs()));
    }
}

fn try_receive(scene: &Scene, inbox: &mut Inbox, life: usize) -> Option<()> {
    let message = inbox.recv_timeout(LIMIT).ok()??;
    scene.got(life, &message);
    Some(())
}
