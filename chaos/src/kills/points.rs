//! kill -9 at a fault point, again and again. The other side survives all rounds.

use anyhow::Context;
use testkit::HANG;
use testkit::proc::Usage;

use super::RULES;
use crate::account::{End, Totals};
use crate::battery::Rounds;
use crate::health::has_not_grown;
use crate::limit::go_on;
use crate::points::{Commits, Point, Who, receive_for, send_for};
use crate::roles::{Role, Send};
use crate::scene::{Arrivals, Scene};
use crate::worker::{Start, Worker};

/// After this many rounds a survivor has allocated everything that it needs.
pub(super) const WARM: u64 = 20;
/// The stream of the last sender, which is not killed.
pub(super) const LAST: u64 = u64::MAX;

pub(super) fn run(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    match point.who {
        Who::Sender => sender(point, rounds),
        Who::Receiver => receiver(point, rounds),
        Who::Alone => alone(point, rounds),
        Who::Sweeper => sweeper(point, rounds),
        Who::Redeliverer => super::redelivery::sender(point, rounds),
        Who::Caller | Who::Server => super::calls::run(point, rounds),
    }
}

fn sender(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::of(point);
    let mut sink = scene.receiver(receive_for(point))?;
    sink.wait_until_ready()?;
    let leaves = point.name.starts_with("leave.");
    let left = if leaves { "left source Closed" } else { "left source Died" };
    let mut senders = Vec::new();
    let mut healthy = None;
    for (round, mut rng) in rounds.together() {
        let start = Start::killed_at(point.name, point.nth(&mut rng));
        // At a point that is reached while leaving, it must leave soon.
        let count = leaves.then(|| rng.u64(0..50));
        let mut source = scene.sender_as(Send { stream: round, count, ..send_for(point) }, &start)?;
        source.worker.dies().with_context(|| format!("round {round}"))?;
        if source.log.sent()? > 0 {
            sink.worker.waits_for(left, go_on()).with_context(|| format!("the receiver, round {round}"))?;
        }
        if round == WARM {
            healthy = Some(Usage::of(sink.worker.pid())?);
        }
        let mut sent = source.ended(End::Killed)?;
        for segment in &mut sent.segments {
            match point.commits {
                Commits::Yes => segment.sent = segment.begun,
                Commits::No => segment.begun = segment.sent,
                Commits::Open => {}
            }
        }
        senders.push(sent);
    }
    let last = Send { stream: LAST, count: Some(100), burst: 1, ..send_for(point) };
    let mut last = scene.sender(last)?;
    last.worker.waits_for("done", HANG)?;
    if let Some(before) = healthy {
        sink.worker.waits_for("left source Closed", HANG)?;
        has_not_grown(sink.worker.pid(), &before, point.slack()).context("the receiver")?;
    }
    last.worker.finish()?;
    sink.worker.finish()?;
    scene.is_gone()?;
    let mut arrivals = Arrivals::of(&sink)?;
    let mut totals = arrivals.settle(last.ended(End::Finished)?, End::Finished, RULES)?;
    for sent in senders {
        totals += arrivals.settle(sent, End::Finished, RULES)?;
    }
    arrivals.are_settled()?;
    Ok(format!("{} messages arrived", totals.processed))
}

fn receiver(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::of(point);
    let mut source = scene.sender(send_for(point))?;
    let mut arrivals = Arrivals::default();
    let mut healthy = None;
    for (round, mut rng) in rounds.together() {
        let start = Start::killed_at(point.name, point.nth(&mut rng));
        let mut sink = scene.receiver_as(receive_for(point), &start)?;
        sink.worker.dies().with_context(|| format!("round {round}"))?;
        arrivals.add(&sink.log)?;
        source.worker.has_said()?;
        if round == WARM {
            healthy = Some(Usage::of(source.worker.pid())?);
        }
    }
    let mut sink = scene.receiver(receive_for(point))?;
    sink.wait_until_ready()?;
    sink.goes_on(20, go_on())?;
    if let Some(before) = healthy {
        has_not_grown(source.worker.pid(), &before, point.slack()).context("the sender")?;
    }
    let totals = arrivals.finish(&scene, &mut source, &mut sink, RULES)?;
    arrivals.are_settled()?;
    let Totals { processed, reported, doubled } = totals;
    Ok(format!("{processed} messages processed, {reported} reported lost, {doubled} of them in work"))
}

fn alone(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|_, mut rng| {
        let scene = Scene::of(point);
        let role = Role::Live { domain: scene.domain(), id: "display".into() };
        Worker::start_as(&role, &Start::killed_at(point.name, 1))?.dies()?;
        look(&scene, &mut rng)
    })?;
    Ok(String::new())
}

fn sweeper(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|_, mut rng| {
        let scene = Scene::of(point);
        let [sweeper, dead] = scene.users_of(point)?;
        scene.leave_dead_nodes(3, dead)?;
        let domain = scene.domain();
        let role = if rng.bool() { Role::Clean { domain } } else { Role::Probe { domain, id: "dead0".into() } };
        Worker::start_as(&role, &Start::killed_at(point.name, rng.u32(1..=3)).by(sweeper))?.dies()?;
        look(&scene, &mut rng)
    })?;
    Ok(String::new())
}

/// Another process cleans up, or joins and leaves: nothing is left.
fn look(scene: &Scene, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    if rng.bool() {
        scene.clean()?
    } else {
        scene.probe(if rng.bool() { "display" } else { "dead0" })?
    };
    scene.is_gone()
}
