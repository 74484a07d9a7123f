//! A publisher keeps its last messages for subscriptions that come late. Each gets them before anything newer, once, and in order.

use std::collections::BTreeMap;
use std::time::Duration;

use librpc::Event;

use super::ledger::{Id, To};
use super::scene::{CAPACITY, Scene, bytes};
use super::{USER, Workload};
use crate::schedule::{self, Allowed, Program, random};

pub const WORKLOAD: Workload = Workload {
    name: "history",
    about: "subscribers come late, and get what was kept for them",
    allowed: Allowed { kills: 2, stops: 2, errors: true, pauses: true, large_pages: true },
    redelivery: false,
    users: &[USER],
    setup,
};

const TOPIC: &str = "map";

fn setup(scene: &Scene) {
    let kept = random(|random| random.usize(1..=6));
    let publisher = scene.clone();
    scene.start_sender(Program::new("publisher", move || publish(&publisher, kept)));
    for number in 0..random(|random| random.u32(1..=3)) {
        let late = scene.clone();
        let name = format!("late-{number}");
        let own = name.clone();
        schedule::start(Program::new(&name, move || come_late(&late, &own, kept)).lives());
    }
}

fn publish(scene: &Scene, kept: usize) {
    let node = scene.open("publisher", scene.domain());
    let mut outgoing = scene.outgoing();
    let mut publisher = node.publisher_builder(TOPIC).history(kept).open().expect("a topic");
    for _ in 0..random(|random| random.u32(2..=15)) {
        let id = outgoing.begin(To::Topic(TOPIC.to_owned()));
        let limit = Duration::from_millis(random(|random| random.u64(..3)));
        outgoing.published(id, publisher.publish_timeout(&id.payload(random(bytes)), limit));
        match random(|random| random.u8(..4)) {
            0 => schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..300_000_000))),
            1 => schedule::pause(),
            _ => {}
        }
    }
    // Who comes now gets what is kept, although nothing is published.
    schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..500_000_000)));
    let _ = publisher.flush(Duration::from_secs(1));
}

fn come_late(scene: &Scene, name: &str, kept: usize) {
    let node = scene.open(name, scene.domain());
    schedule::sleep_until(schedule::clock_ns() + random(|random| random.u64(..600_000_000)));
    let wanted = random(|random| random.usize(0..=7));
    let open = || node.subscriber_builder([TOPIC]).capacity(CAPACITY).history(wanted).open();
    let hears = To::Topic(TOPIC.to_owned());
    let (mut inbox, life) = scene.retry("subscribe", || scene.opening(name, hears.clone(), open));
    let mut got: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::new();
    let mut errors = 0;
    loop {
        match inbox.recv_event_timeout(Duration::from_secs(60)) {
            Ok(Some(Event::Message(message))) => {
                let is_past = message.is_past();
                if let Some(Id { outbox, number }) = scene.got(life, &message) {
                    got.entry(outbox).or_default().push((number, is_past));
                }
            }
            Ok(Some(_)) => {}
            Ok(None) if scene.is_over() => break,
            Ok(None) => {}
            Err(error) => {
                errors += 1;
                if errors > 400 {
                    return scene.wrong(format!("inbox {life} cannot receive: {error}"));
                }
                schedule::sleep_until(schedule::clock_ns() + 10_000_000);
            }
        }
    }
    scene.drained(life);
    for (outbox, got) in got {
        if let Err(why) = judge(scene, name, outbox, &got, kept.min(wanted)) {
            scene.wrong(format!("inbox {life} of {name:?} got {got:?} of outbox {outbox}: {why}"));
        }
    }
}

/// Whether a subscription may have got these numbers of an outbox: each with whether it was a past one.
fn judge(scene: &Scene, name: &str, outbox: u32, got: &[(u32, bool)], most: usize) -> Result<(), String> {
    let past: Vec<u32> = got.iter().take_while(|(_, is_past)| *is_past).map(|(number, _)| *number).collect();
    let new = &got[past.len()..];
    if new.iter().any(|(_, is_past)| *is_past) {
        return Err("a past one came after a new one".to_owned());
    }
    if past.len() > most {
        return Err(format!("at most {most} past ones are due"));
    }
    let was_accepted = |number| {
        let id = Id { outbox, number };
        scene.ledger(|ledger| ledger.sent.get(&id).is_some_and(|sent| sent.accepted.is_some()))
    };
    let may_be_without = |number| {
        scene.ledger(|ledger| {
            let accepted = ledger.sent.get(&Id { outbox, number }).and_then(|sent| sent.accepted.as_ref());
            accepted.is_none_or(|accepted| accepted.without.iter().any(|node| node.is_empty() || node == name))
        })
    };
    let gap = |from: u32, to: u32| (from..to).find(|&number| !may_be_without(number));
    if let Some(pair) = past.windows(2).find(|pair| (pair[0] + 1..pair[1]).any(was_accepted)) {
        return Err(format!("{pair:?} leave one out"));
    }
    let Some(&(first_new, _)) = new.first() else { return Ok(()) };
    match past.last() {
        Some(&last) => match gap(last + 1, first_new) {
            Some(missing) => return Err(format!("{missing} is missing between the past and the new ones")),
            None => {
                let accepted = (0..=last).filter(|&number| was_accepted(number)).count();
                if past.len() != most.min(accepted) {
                    return Err(format!("of {accepted} messages that were there, {} were due", most.min(accepted)));
                }
            }
        },
        None if most > 0 => {
            if let Some(missing) = (0..first_new).find(|&number| was_accepted(number) && !may_be_without(number)) {
                return Err(format!("{missing} was kept, and did not come"));
            }
        }
        None => {}
    }
    Ok(())
}
