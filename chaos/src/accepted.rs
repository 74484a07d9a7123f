//! What was accepted survives its sender: each round, a process sends or publishes one message and ends at once.

use std::collections::BTreeSet;

use anyhow::Context;
use testkit::HANG;

use crate::battery::{Battery, Rounds};
use crate::roles::{DomainAt, Ending, Once, Role, To};
use crate::scene::Scene;
use crate::worker::{Start, Worker};

/// How many processes send to a receiver while it is stopped.
const WHILE_STOPPED: u64 = 50;
const ENDINGS: [Ending; 3] = [Ending::Return, Ending::Exit, Ending::Kill];
/// The step and its count: from here on an inbox is listed, and its process has accepted no connection yet. (The first
/// time, the node lists nothing.)
const LISTED: (&str, u32) = ("announce.selected", 2);

pub(crate) fn run(battery: &mut Battery) {
    battery.section("running", battery.pick(4000, 60), |rounds| running(rounds, Scene::new()));
    battery.section("stopped", battery.pick(3000, 100), stopped);
    battery.section("not-accepting", battery.pick(3000, 30), not_accepting);
    battery.section("shared", battery.pick(1000, 30), |rounds| running(rounds, Scene::shared()));
}

fn to(round: u64) -> To {
    if round.is_multiple_of(2) { To::Node } else { To::Topic }
}

/// A process sends its number, and ends.
fn once(domain: &DomainAt, number: u64) -> anyhow::Result<()> {
    let ending = ENDINGS[(number / 2 % 3) as usize];
    let mut once = Worker::start(&Role::Once(Once { domain: domain.clone(), number, to: to(number), ending }))?;
    once.waits_for("accepted", HANG)?;
    match ending {
        Ending::Kill => once.is_killed(),
        Ending::Return | Ending::Exit => once.finish().map(drop),
    }
}

fn collect(domain: &DomainAt, from: To, start: &Start) -> anyhow::Result<Worker> {
    Worker::start_as(&Role::Collect { domain: domain.clone(), from }, start)
}

fn arrives(sink: &mut Worker, number: u64) -> anyhow::Result<()> {
    sink.waits_for(&number.to_string(), HANG).with_context(|| format!("LOST: number {number} was accepted"))
}

/// The receiver runs.
fn running(rounds: &Rounds, scene: Scene) -> anyhow::Result<String> {
    for receives in [To::Node, To::Topic] {
        let mut sink = collect(&scene.domain(), receives, &Start::default())?;
        sink.waits_for("ready", HANG)?;
        for (number, _) in rounds.together().filter(|(number, _)| to(*number) == receives) {
            once(&scene.domain(), number)?;
            arrives(&mut sink, number)?;
        }
        sink.finish()?;
        scene.is_gone()?;
    }
    Ok("each arrived".into())
}

/// The receiver is stopped, and continues when its senders are gone.
fn stopped(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    for receives in [To::Node, To::Topic] {
        let mut sink = collect(&scene.domain(), receives, &Start::default())?;
        sink.waits_for("ready", HANG)?;
        let numbers: Vec<u64> = rounds.together().map(|(number, _)| number).filter(|n| to(*n) == receives).collect();
        for numbers in numbers.chunks(WHILE_STOPPED as usize) {
            sink.stop()?;
            numbers.iter().try_for_each(|&number| once(&scene.domain(), number))?;
            sink.go_on()?;
            let mut left: BTreeSet<String> = numbers.iter().map(u64::to_string).collect();
            while !left.is_empty() {
                let said = sink.says(HANG).with_context(|| format!("LOST: {left:?} were accepted"))?;
                let said = said.context("the receiver ended")?;
                anyhow::ensure!(left.remove(&said), "DOUBLED or invented: {said}");
            }
        }
        sink.finish()?;
        scene.is_gone()?;
    }
    Ok(format!("{WHILE_STOPPED} at a time"))
}

/// The receiver is stopped as soon as its inbox is listed, before it accepts a connection.
fn not_accepting(rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|number, _| {
        let scene = Scene::new();
        let mut sink = collect(&scene.domain(), to(number), &Start::stopped_at(LISTED.0, LISTED.1))?;
        sink.wait_until_stopped()?;
        once(&scene.domain(), number)?;
        sink.go_on()?;
        arrives(&mut sink, number)?;
        sink.finish()?;
        scene.is_gone()
    })?;
    Ok("each arrived".into())
}
