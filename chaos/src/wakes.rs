//! Lost wake-ups: two processes put each other to sleep and wake each other, millions of times, with no time-out that
//! would save one. The supervisor watches their counts: if they stand still, a wake-up was lost.

use std::time::{Duration, Instant};

use crate::battery::{Battery, Rounds};
use crate::health;
use crate::log::Log;
use crate::roles::{Role, RoundsKind, RoundsRole};
use crate::scene::Scene;
use crate::worker::{HANG, Worker};

/// Counts that stand still for so long are a hang: nothing here takes a thousandth of it.
const STILL: Duration = Duration::from_secs(10);

pub(crate) fn run(battery: &mut Battery) {
    let sleeps = battery.pick(10_000_000, 200_000);
    battery.section("receivers", sleeps, |rounds| wake(rounds, [RoundsKind::Ping, RoundsKind::Pong]));
    battery.section("full-rings", sleeps, |rounds| wake(rounds, [RoundsKind::Source, RoundsKind::Sink]));
}

/// Counted are real sleeps: voluntary context switches of both processes.
fn wake(rounds: &Rounds, kinds: [RoundsKind; 2]) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut rng = rounds.rng(0);
    let logs = [Log::new()?, Log::new()?];
    let mut workers = Vec::new();
    let ids = ["one", "other"];
    for side in [1, 0] {
        let role = Role::Rounds(RoundsRole {
            domain: scene.path().into(),
            id: ids[side].into(),
            peer: ids[1 - side].into(),
            log: logs[side].path(),
            kind: kinds[side],
            seed: rng.u64(..),
            most_turns: 300,
        });
        let mut worker = Worker::start(&role)?;
        worker.waits_for("ready", HANG)?;
        workers.push(worker);
    }
    let counts = || -> anyhow::Result<[u64; 2]> { Ok([logs[0].progress()?, logs[1].progress()?]) };
    let (mut before, mut changed) = (counts()?, Instant::now());
    let mut slept = [0; 2];
    while slept.iter().sum::<u64>() < rounds.count {
        std::thread::sleep(Duration::from_millis(20));
        let now = counts()?;
        if now != before {
            (before, changed) = (now, Instant::now());
        }
        let states = || workers.iter().map(|worker| health::state(worker.pid())).collect::<Vec<_>>().join("\n");
        anyhow::ensure!(changed.elapsed() < STILL, "a LOST WAKE-UP, behind {now:?} messages:\n{}", states());
        for (slept, worker) in slept.iter_mut().zip(&mut workers) {
            let said = worker.said()?;
            anyhow::ensure!(said.is_empty(), "behind {now:?} messages: {said:?}");
            *slept = health::sleeps(worker.pid())?;
        }
    }
    for worker in &mut workers {
        worker.kill()?;
    }
    scene.clean()?;
    scene.is_gone()?;
    let [other, one] = slept;
    Ok(format!("{one} and {other} sleeps, {} messages", before[1]))
}
