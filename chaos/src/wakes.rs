//! Lost wake-ups: two processes put each other to sleep and wake each other, millions of times, without any time-out. The
//! supervisor watches their counts: when one stops, a wake-up was lost.

use std::time::{Duration, Instant};

use testkit::HANG;
use testkit::proc::{sleeps, what_it_does};

use crate::battery::{Battery, Rounds};
use crate::log::Log;
use crate::roles::{Role, RoundsKind, RoundsRole};
use crate::scene::Scene;
use crate::worker::Worker;

/// A count that does not change for this long means a hang. Nothing here takes a thousandth of it.
const STILL: Duration = Duration::from_secs(30);

pub(crate) fn run(battery: &mut Battery) {
    let sleeps = battery.pick(10_000_000, 200_000);
    battery.section("receivers", sleeps, |rounds| wake(rounds, [RoundsKind::Ping, RoundsKind::Pong]));
    battery.section("full-rings", sleeps, |rounds| wake(rounds, [RoundsKind::Source, RoundsKind::Sink]));
}

/// How many pairs run at once, to keep the cores busy while others sleep.
const PAIRS: usize = 2;

/// Runs until there were enough real sleeps (voluntary context switches).
fn wake(rounds: &Rounds, kinds: [RoundsKind; 2]) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut rng = rounds.rng(0);
    let (mut logs, mut workers) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        let ids = [format!("one-{pair}"), format!("other-{pair}")];
        for side in [1, 0] {
            let log = Log::new()?;
            let role = Role::Rounds(RoundsRole {
                domain: scene.domain(),
                id: ids[side].clone(),
                peer: ids[1 - side].clone(),
                log: log.path(),
                kind: kinds[side],
                seed: rng.u64(..),
                most_turns: 300,
            });
            let mut worker = Worker::start(&role)?;
            worker.waits_for("ready", HANG)?;
            logs.push(log);
            workers.push(worker);
        }
    }
    let counts = || logs.iter().map(Log::progress).collect::<anyhow::Result<Vec<u64>>>();
    let mut before = counts()?;
    let mut changed = vec![Instant::now(); before.len()];
    let mut slept = [0; 2 * PAIRS];
    while slept.iter().sum::<u64>() < rounds.count {
        std::thread::sleep(Duration::from_millis(20));
        let now = counts()?;
        for (changed, (now, before)) in changed.iter_mut().zip(now.iter().zip(&before)) {
            if now != before {
                *changed = Instant::now();
            }
        }
        before.clone_from(&now);
        let states = || workers.iter().map(|worker| what_it_does(worker.pid())).collect::<Vec<_>>().join("\n");
        anyhow::ensure!(
            changed.iter().all(|changed| changed.elapsed() < STILL),
            "a LOST WAKE-UP after {now:?} messages:\n{}",
            states()
        );
        for (slept, worker) in slept.iter_mut().zip(&mut workers) {
            let said = worker.has_said()?;
            anyhow::ensure!(said.is_empty(), "after {now:?} messages: {said:?}");
            *slept = sleeps(worker.pid())?;
        }
    }
    for worker in &mut workers {
        worker.kill()?;
    }
    scene.clean()?;
    scene.is_gone()?;
    let side = |n: usize| slept.iter().skip(n).step_by(2).sum::<u64>();
    let messages = before.iter().step_by(2).sum::<u64>();
    Ok(format!("{} and {} sleeps, {messages} messages", side(1), side(0)))
}
