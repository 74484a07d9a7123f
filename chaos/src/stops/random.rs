//! Processes are stopped at random moments, for random times. No loss is reported, everything arrives.

use std::time::Duration;

use anyhow::Context;
use testkit::HANG;

use crate::battery::Rounds;
use crate::kills::RULES;
use crate::limit::go_on;
use crate::roles::{Receive, Send};
use crate::scene::{Arrivals, Receiver, Scene, Sender};

pub(super) fn run(rounds: &Rounds, longest: Duration) -> anyhow::Result<String> {
    let mut pair = Pair::start(0)?;
    for (round, mut rng) in rounds.together() {
        std::thread::sleep(Duration::from_micros(rng.u64(0..5000)));
        let hold = Duration::from_micros(rng.u64(0..longest.as_micros() as u64));
        // Most stops are short, because a long one shows no more.
        let hold = if rng.u32(0..10) == 0 { hold } else { hold / 20 };
        pair.stop_one(rng.bool(), hold).with_context(|| format!("round {round}"))?;
    }
    pair.end()
}

/// Stops that are long enough for a library with heartbeats to declare the process dead.
pub(super) fn long(rounds: &Rounds, hold: Duration) -> anyhow::Result<String> {
    let mut pair = Pair::start(1)?;
    for (round, _) in rounds.together() {
        pair.stop_one(round % 2 == 0, hold).with_context(|| format!("round {round}"))?;
    }
    pair.end()
}

struct Pair {
    scene: Scene,
    sink: Receiver,
    source: Sender,
}

impl Pair {
    fn start(stream: u64) -> anyhow::Result<Self> {
        let scene = Scene::new();
        let receive = Receive { capacity: 16_384, ..Receive::by("sink") };
        let mut sink = scene.receiver(receive)?;
        sink.wait_until_ready()?;
        let send = Send { stream, bytes: 300, burst: 8, ..Send::between("source", "sink") };
        let mut source = scene.sender(send)?;
        source.worker.waits_for("connected", HANG)?;
        Ok(Self { scene, sink, source })
    }

    fn stop_one(&mut self, receiver: bool, hold: Duration) -> anyhow::Result<()> {
        let stopped = if receiver { &self.sink.worker } else { &self.source.worker };
        stopped.stop()?;
        std::thread::sleep(hold);
        stopped.go_on()?;
        self.sink.goes_on(10, go_on())?;
        let mut said = self.source.worker.has_said()?;
        said.extend(self.sink.worker.has_said()?);
        said.retain(|line| line != "joined source");
        anyhow::ensure!(said.is_empty(), "nobody has died, but: {said:?}");
        Ok(())
    }

    fn end(mut self) -> anyhow::Result<String> {
        let totals = Arrivals::default().finish(&self.scene, &mut self.source, &mut self.sink, RULES)?;
        anyhow::ensure!(totals.reported == 0, "{totals:?}");
        Ok(format!("{} messages", totals.processed))
    }
}
