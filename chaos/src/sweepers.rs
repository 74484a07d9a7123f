//! Killing a process while it cleans up. The next one cleans up, and living nodes notice nothing.

use std::time::Duration;

use anyhow::Context;
use testkit::HANG;

use crate::battery::{Battery, Rounds};
use crate::limit::go_on;
use crate::points::{POINTS, Who};
use crate::roles::{Receive, Role, Send};
use crate::scene::{Arrivals, Scene};
use crate::worker::{Start, Worker};
use crate::{account::End, kills::RULES};

pub(crate) fn run(battery: &mut Battery) {
    battery.section("alone", battery.pick(3000, 100), alone);
    battery.section("among-the-living", battery.pick(1000, 30), among_the_living);
}

/// Up to three processes clean up at once, and are killed at a step or at any moment.
fn doomed_sweepers(scene: &Scene, dead: u32, rng: &mut fastrand::Rng) -> anyhow::Result<()> {
    let steps: Vec<_> = POINTS
        .iter()
        .filter(|point| {
            point.who == Who::Sweeper || matches!(point.name, "last.locked" | "last.swept" | "last.generation-removed")
        })
        .collect();
    let mut sweepers = Vec::new();
    for _ in 0..rng.u32(1..=3) {
        let domain = scene.domain();
        let role = match rng.u32(0..3) {
            0 => Role::Clean { domain },
            n => Role::Live { domain, id: format!("dead{}", rng.u32(0..dead * n)) },
        };
        let start = match rng.bool() {
            true => Start::killed_at(steps[rng.usize(0..steps.len())].name, rng.u32(1..=3)),
            false => Start::default(),
        };
        sweepers.push(Worker::start_as(&role, &start)?);
    }
    std::thread::sleep(Duration::from_micros(rng.u64(0..3000)));
    for sweeper in &mut sweepers {
        sweeper.kill()?; // it may have ended, or died at its step
    }
    Ok(())
}

fn alone(rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|_, mut rng| {
        let scene = Scene::new();
        let dead = rng.u32(1..=8);
        scene.leave_dead_nodes(dead, None)?;
        doomed_sweepers(&scene, dead, &mut rng)?;
        if rng.bool() {
            scene.clean()?
        } else {
            scene.probe(&format!("dead{}", rng.u32(0..dead)))?
        };
        scene.is_gone()
    })?;
    Ok(String::new())
}

fn among_the_living(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut sink = scene.receiver(Receive::by("sink"))?;
    let send = Send { pause_us: 200, bytes: 100, ..Send::between("source", "sink") };
    let mut source = scene.sender(send)?;
    source.worker.waits_for("connected", HANG)?;
    for (round, mut rng) in rounds.together() {
        let dead = rng.u32(1..=8);
        scene.leave_dead_nodes(dead, None)?;
        doomed_sweepers(&scene, dead, &mut rng)?;
        sink.goes_on(3, go_on()).with_context(|| format!("round {round}"))?;
        scene.probe(&format!("dead{}", rng.u32(0..dead))).with_context(|| format!("round {round}"))?;
        if round % 10 == 9 {
            scene.clean()?;
            let left = scene.left().len();
            let living = 6; // the directory, `generation`, a file and a socket of each
            anyhow::ensure!(left == living, "LEFT BEHIND in round {round}: {:?}", scene.left());
        }
    }
    source.worker.finish()?;
    // The receiver has to report this before it is asked to end.
    sink.worker.waits_for("left source Closed", HANG).context("living nodes were swept")?;
    let said = sink.worker.finish()?;
    anyhow::ensure!(
        said.iter().filter(|line| line.starts_with("left")).count() == 0,
        "living nodes were swept: {said:?}"
    );
    scene.is_gone()?;
    let mut arrivals = Arrivals::of(&sink)?;
    let totals = arrivals.settle(source.ended(End::Finished)?, End::Finished, RULES)?;
    Ok(format!("{} messages meanwhile", totals.processed))
}
