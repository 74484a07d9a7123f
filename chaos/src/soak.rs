//! Up to a billion numbered messages with checksums, and kills of either side in between.

use std::time::{Duration, Instant};

use testkit::HANG;

use crate::account::{End, Rules, Totals};
use crate::battery::{Battery, Rounds};
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Scene};

/// The receiver notes and acknowledges this many at once, so this many may be in work.
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
    let receive = Receive { batch: BATCH, numbered: redelivers, ..Receive::by("sink") };
    let send = Send { burst: 1024, redelivers, ..Send::between("source", "sink") };
    let mut sink = scene.receiver(receive.clone())?;
    let mut source = scene.sender(send.clone())?;
    let (mut arrivals, mut totals, mut kills) = (Arrivals::default(), Totals::default(), [0, 0]);
    let (mut before, mut sent, mut next, begun) = (0, Vec::new(), 1, Instant::now());
    while before + sink.log.progress()? < rounds.count {
        let millis = every.as_millis() as u64;
        std::thread::sleep(Duration::from_millis(rng.u64(millis / 2..millis)));
        // Both make progress before the next kill.
        sink.goes_on(10 * BATCH, HANG)?;
        if rng.bool() {
            source.worker.kill()?;
            // Otherwise the other side might be killed next, and nobody would be left to report to.
            sink.worker.waits_for("left source Died", HANG)?;
            sent.push(source.ended(End::Killed)?);
            source = scene.sender(Send { stream: next, ..send.clone() })?;
            source.worker.waits_for("connected", HANG)?;
            next += 1;
            kills[0] += 1;
        } else {
            before += sink.log.progress()?;
            sink.worker.kill()?;
            arrivals.add(&sink.log)?;
            sink = scene.receiver(receive.clone())?;
            sink.wait_until_ready()?;
            kills[1] += 1;
        }
        source.worker.has_said()?;
    }
    totals += arrivals.finish(&scene, &mut source, &mut sink, rules)?;
    let seconds = begun.elapsed().as_secs_f64();
    // What a killed sender had kept for redelivery is gone with it.
    let receiver = if redelivers { End::Killed } else { End::Finished };
    for sent in sent {
        totals += arrivals.settle(sent, receiver, rules)?;
    }
    arrivals.are_settled()?;
    let Totals { processed, reported, doubled } = totals;
    let rate = processed as f64 / seconds / 1e6;
    let [senders, receivers] = kills;
    Ok(format!(
        "{senders} senders and {receivers} receivers killed; {processed} messages processed ({rate:.1} M/s), {reported} reported lost, {doubled} of them in work"
    ))
}
