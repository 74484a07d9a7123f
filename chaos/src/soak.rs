//! Very many checksummed, numbered messages, with kills of either side in between.

use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::HANG;

use crate::account::{End, Rules, Totals};
use crate::battery::{Battery, Rounds};
use crate::limit::wait_for;
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Scene};
use crate::worker::Start;

/// The receiver notes and acknowledges this many at once: so many may be in work.
const BATCH: u64 = 256;

pub(crate) fn run(battery: &mut Battery) {
    let every = battery.pick(Duration::from_secs(2), Duration::from_millis(300));
    battery.section("messages", battery.pick(1_000_000_000, 10_000_000), |rounds| soak(rounds, every, false));
    battery.section("redelivery", battery.pick(100_000_000, 5_000_000), |rounds| soak(rounds, every, true));
}

fn soak(rounds: &Rounds, every: Duration, redelivers: bool) -> anyhow::Result<String> {
    let rules = Rules { redelivery: redelivers, in_work: BATCH };
    let scene = Scene::new();
    let mut rng = rounds.rng(0);
    let receive = Receive { id: "sink".into(), batch: BATCH, numbered: redelivers, ..Receive::default() };
    let send = Send { id: "source".into(), to: "sink".into(), burst: 1024, redelivers, ..Send::default() };
    let mut sink = scene.receiver(receive.clone(), &Start::default())?;
    let mut source = scene.sender(send.clone(), &Start::default())?;
    let (mut arrivals, mut totals, mut kills) = (Arrivals::default(), Totals::default(), [0, 0]);
    let (mut before, mut sent, mut next, begun) = (0, Vec::new(), 1, Instant::now());
    while before + sink.log.progress()? < rounds.count {
        let millis = every.as_millis() as u64;
        std::thread::sleep(Duration::from_millis(rng.u64(millis / 2..millis)));
        // Each goes on before the next kill: what a pending sender has sent dies with it.
        sink.goes_on(10 * BATCH, HANG)?;
        wait_for(HANG, || Ok(source.log.segments()?.last().is_some_and(|last| !last.pending))).context("pending")?;
        if rng.bool() {
            source.worker.kill()?;
            // Else the next kill might be that of the other side, with nobody left to tell.
            sink.worker.waits_for("left source Died", HANG)?;
            sent.push(source.ended(End::Killed)?);
            source = scene.sender(Send { stream: next, ..send.clone() }, &Start::default())?;
            source.worker.waits_for("connected", HANG)?;
            next += 1;
            kills[0] += 1;
        } else {
            before += sink.log.progress()?;
            sink.worker.kill()?;
            arrivals.add(&sink.log)?;
            sink = scene.receiver(receive.clone(), &Start::default())?;
            sink.wait_until_ready()?;
            kills[1] += 1;
        }
        source.worker.has_said()?;
    }
    source.worker.finish()?;
    sink.worker.finish()?;
    scene.is_gone()?;
    let seconds = begun.elapsed().as_secs_f64();
    arrivals.add(&sink.log)?;
    totals += arrivals.settle(source.ended(End::Finished)?, End::Finished, rules)?;
    // What a sender has kept for a receiver's return is gone with it.
    let receiver = if redelivers { End::Killed } else { End::Finished };
    for sent in sent {
        totals += arrivals.settle(sent, receiver, rules)?;
    }
    arrivals.are_settled()?;
    let Totals { processed, told, doubled } = totals;
    let rate = processed as f64 / seconds / 1e6;
    let [senders, receivers] = kills;
    Ok(format!(
        "{senders} senders and {receivers} receivers killed; {processed} messages processed ({rate:.1} M/s), {told} told lost, {doubled} of them in work"
    ))
}
