//! Nodes that receive, send and publish in tasks. Now and then a future is dropped, at any step of its wait: that loses nothing, and doubles
//! nothing.

use std::time::Duration;

use librpc::{Inbox, Outbox};

use super::ledger::To;
use super::scene::{Scene, bytes};
use super::task::run;
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "tasks",
    about: "nodes receive, send and publish in tasks",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

const NODE: &str = "display";
const TOPIC: &str = "pose";
/// How long nothing must have come until nothing more will.
const QUIET: Duration = Duration::from_secs(60);
/// How often something is tried that may fail for a reason that passes.
const TRIES: u32 = 400;

fn setup(scene: &Scene) {
    let receiver = scene.clone();
    schedule::start(Program::new(NODE, move || receive(&receiver)).lives());
    for _ in 0..random(|random| random.u32(1..=3)) {
        let sender = scene.clone();
        scene.start_sender(Program::new("sender", move || send(&sender)));
    }
}

fn receive(scene: &Scene) {
    let node = scene.open(NODE, scene.domain());
    let inner = scene.clone();
    let (mut inbox, life) = scene.inbox(&node);
    let (mut subscription, of_topic) = scene.subscribe(&node, TOPIC);
    let thread = schedule::spawn("subscription", move || receive_to_the_end(&inner, &mut subscription, of_topic));
    receive_to_the_end(scene, &mut inbox, life);
    schedule::join(thread);
}

/// A short time, or none.
fn moment() -> Duration {
    Duration::from_micros(random(|random| random.u64(..2000)))
}

fn receive_to_the_end(scene: &Scene, inbox: &mut Inbox, life: usize) {
    let mut errors = 0;
    loop {
        let is_dropped = random(|random| random.u8(..4) == 0);
        let limit = if is_dropped { moment() } else { QUIET };
        let is_over = match random(fastrand::Rng::bool) {
            true => {
                run(inbox.recv_async(), Some(limit)).map(|received| received.map(|message| scene.got(life, &message?)))
            }
            false => run(inbox.recv_sample_async(), Some(limit)).map(|received| {
                received.map(|sample| {
                    let sample = sample?;
                    scene.got_payload(life, &sample.to_vec(), sample.is_redelivered())
                })
            }),
        };
        match is_over {
            Some(Ok(_)) => {}
            None if !is_dropped && scene.is_over() => return scene.drained(life),
            None => {}
            Some(Err(error)) => {
                errors += 1;
                if errors > TRIES {
                    return scene.wrong(format!("inbox {life} cannot receive: {error}"));
                }
                schedule::sleep_until(schedule::clock_ns() + 10_000_000);
            }
        }
    }
}

fn send(scene: &Scene) {
    let name = format!("sender-{}", schedule::pid());
    let node = scene.open(&name, scene.domain());
    let (mut outgoing, mut outbox) = (scene.outgoing(), node.outbox());
    let mut is_whole = true;
    match random(fastrand::Rng::bool) {
        true => {
            let topic = outbox.topic(TOPIC).expect("a topic");
            if random(fastrand::Rng::bool) {
                let found = run(outbox.wait_for_subscriber_async(topic, QUIET), None);
                schedule::say(|| format!("a subscriber: {found:?}"));
            }
            for _ in 0..random(|random| random.u32(1..=12)) {
                let id = outgoing.begin(To::Topic(TOPIC.to_owned()));
                let payload = id.payload(random(bytes));
                match run(outbox.publish_timeout_async(topic, &payload, limit()), dropped_after()) {
                    Some(receipt) => drop(outgoing.published(id, receipt)),
                    None => is_whole = false,
                }
                pause(&mut outbox);
            }
        }
        false => {
            let Some(Ok(to)) = run(outbox.connect_timeout_async(NODE, QUIET), dropped_after()) else { return };
            for _ in 0..random(|random| random.u32(1..=12)) {
                let id = outgoing.begin(To::Node(NODE.to_owned()));
                let payload = id.payload(random(bytes));
                match run(outbox.send_timeout_async(to, &payload, limit()), dropped_after()) {
                    Some(Ok(())) => outgoing.accepted(id, 1, 0, Vec::new()),
                    Some(Err(error)) => schedule::say(|| format!("{id:?} was not sent: {error}")),
                    None => is_whole = false,
                }
                pause(&mut outbox);
            }
        }
    }
    if is_whole {
        outgoing.judge(outbox.total());
    }
    end();
}

fn limit() -> Duration {
    if random(fastrand::Rng::bool) { QUIET } else { moment() }
}

/// When a future is dropped, if it is.
fn dropped_after() -> Option<Duration> {
    (random(|random| random.u8(..5)) == 0).then(moment)
}

fn pause(outbox: &mut Outbox) {
    match random(|random| random.u8(..6)) {
        0 => drop(run(outbox.flush_async(limit()), dropped_after())),
        1 => schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..10_000_000))),
        2 => schedule::pause(),
        _ => {}
    }
}

/// However a program may end.
fn end() {
    match random(|random| random.u8(..4)) {
        0 => schedule::exit(),
        1 => schedule::kill(schedule::pid()),
        _ => {} // by returning: its handles are dropped
    }
}
