//! One long run: a receiver and a sender survive all the kills of their peers, and do not grow.

use std::time::Duration;

use anyhow::Context;
use testkit::proc::Usage;

use super::RULES;
use crate::account::{End, Totals};
use crate::battery::Rounds;
use crate::health::{Slack, has_not_grown};
use crate::limit::{go_on, wait_for};
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Scene, Sent};

pub(super) fn run(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut sink = scene.receiver(Receive::by("sink"))?;
    sink.wait_until_ready()?;
    // Slow, so that its log stays small. The ring is often full when its receiver dies.
    let send = Send { bytes: 500, burst: 16, pause_us: 20, ..Send::between("source", "target") };
    let mut source = scene.sender(send)?;
    let (mut to_source, mut receivers) = (Arrivals::default(), 0);
    let mut killed: Vec<Sent> = Vec::new();
    let mut healthy = None;
    let warm = rounds.count / 10;
    for (round, mut rng) in rounds.together() {
        let id = format!("victim-{}", rng.u32(0..5));
        let delay = Duration::from_micros(rng.u64(0..8000));
        if rng.bool() {
            let send =
                Send { stream: round, bytes: rng.usize(24..900), burst: rng.u64(1..20), ..Send::between(&id, "sink") };
            let mut victim = scene.sender(send)?;
            std::thread::sleep(delay);
            victim.worker.kill()?;
            if victim.log.sent()? > 0 {
                let context = || format!("the receiver should report the death, round {round}");
                sink.worker.waits_for(&format!("left {id} Died"), go_on()).with_context(context)?;
            }
            killed.push(victim.ended(End::Killed)?);
        } else {
            receivers += 1;
            let receive = Receive { block: rng.bool(), ..Receive::by("target") };
            let mut victim = scene.receiver(receive)?;
            victim.wait_until_ready()?;
            if rng.u32(0..4) == 0 {
                victim.goes_on(1, go_on()).with_context(|| format!("round {round}"))?;
            }
            std::thread::sleep(delay);
            victim.worker.kill()?;
            to_source.add(&victim.log)?;
        }
        source.worker.has_said()?;
        sink.worker.has_said()?;
        if round == warm {
            healthy = Some((Usage::of(sink.worker.pid())?, Usage::of(source.worker.pid())?));
        }
    }
    let mut target = scene.receiver(Receive::by("target"))?;
    target.wait_until_ready()?;
    target.goes_on(100, go_on())?;
    if let Some((sink_before, source_before)) = healthy {
        let calm = || Ok(has_not_grown(sink.worker.pid(), &sink_before, Slack::CHANNEL).is_ok());
        if wait_for(Duration::from_secs(5), calm).is_err() {
            has_not_grown(sink.worker.pid(), &sink_before, Slack::CHANNEL).context("the receiver")?;
        }
        has_not_grown(source.worker.pid(), &source_before, Slack::CHANNEL).context("the sender")?;
    }
    source.worker.finish()?;
    target.worker.finish()?;
    sink.worker.finish()?;
    scene.is_gone()?;
    to_source.add(&target.log)?;
    let mut totals = to_source.settle(source.ended(End::Finished)?, End::Finished, RULES)?;
    to_source.are_settled()?;
    let mut to_sink = Arrivals::default();
    to_sink.add(&sink.log)?;
    let senders = killed.len();
    for sent in killed {
        totals += to_sink.settle(sent, End::Finished, RULES)?;
    }
    to_sink.are_settled()?;
    let Totals { processed, reported, doubled } = totals;
    Ok(format!(
        "{senders} senders, {receivers} receivers; {processed} messages processed, {reported} reported lost, {doubled} of them in work"
    ))
}
