//! Nodes that come and go: up to 1,000 at a time, some of them killed by the hundred; and the race between the last node
//! that leaves and the first one that joins.

use std::time::{Duration, Instant};

use anyhow::Context;
use testkit::HANG;
use testkit::proc::what_it_does;

use crate::battery::{Battery, Rounds};
use crate::roles::Role;
use crate::scene::Scene;
use crate::worker::Worker;

/// How many processes share the nodes equally.
const PROCESSES: u64 = 4;
const RACERS: u64 = 8;

pub(crate) fn run(battery: &mut Battery) {
    let most = battery.pick(1000, 200);
    battery.section("joins-and-leaves", battery.pick(100_000, 8000), |rounds| joins_and_leaves(rounds, most));
    battery.section("last-out", battery.pick(10_000, 500), last_out);
}

fn joins_and_leaves(rounds: &Rounds, most: u64) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut rng = rounds.rng(0);
    let begun = Instant::now();
    let start = |n: u64, operations: u64, seed: u64| {
        let (prefix, most) = (format!("p{n}-"), (most / PROCESSES) as usize);
        Worker::start(&Role::Churn { domain: scene.domain(), prefix, most, operations, seed })
    };
    let each = rounds.count.div_ceil(PROCESSES);
    let mut left: Vec<u64> = vec![each; PROCESSES as usize];
    let mut workers = (0..PROCESSES).map(|n| start(n, each, rng.u64(..))).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut killed, mut last_sign, mut done) =
        (0, vec![Instant::now(); PROCESSES as usize], vec![false; PROCESSES as usize]);
    while done.contains(&false) {
        for n in 0..workers.len() {
            let mut progress = 0;
            for line in workers[n].has_said()? {
                last_sign[n] = Instant::now();
                match line.as_str() {
                    "done" => done[n] = true,
                    line if line.starts_with("error") => anyhow::bail!("process {n}: {line}"),
                    line => progress = line.parse().unwrap_or(progress),
                }
            }
            if done[n] {
                continue;
            }
            anyhow::ensure!(last_sign[n].elapsed() < HANG, "HANG:\n{}", what_it_does(workers[n].pid()));
            // Now and then a process dies with all its nodes. The next one uses the same ids.
            if progress > each / 8 && progress < left[n] && rng.u32(0..8) == 0 {
                workers[n].kill()?;
                killed += 1;
                left[n] -= progress;
                workers[n] = start(n as u64, left[n], rng.u64(..))?;
                last_sign[n] = Instant::now();
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for worker in &mut workers {
        worker.finish()?;
    }
    scene.is_gone()?;
    let each_us = begun.elapsed().as_micros() as f64 / rounds.count as f64;
    Ok(format!("up to {most} nodes, {killed} processes killed, {each_us:.0} µs each"))
}

/// All join at once: there is one registry, and all are in it. All leave at once: nothing is left.
fn last_out(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let racer = |n: u64| Worker::start(&Role::InAndOut { domain: scene.domain(), id: format!("racer-{n}") });
    let mut racers = (0..RACERS).map(racer).collect::<anyhow::Result<Vec<_>>>()?;
    let all = |racers: &mut Vec<Worker>, what: &str, answer: &str| -> anyhow::Result<()> {
        racers.iter_mut().for_each(|racer| racer.tell(what));
        racers.iter_mut().try_for_each(|racer| racer.waits_for(answer, HANG))
    };
    racers.iter_mut().try_for_each(|racer| racer.waits_for("ready", HANG))?;
    for (round, mut rng) in rounds.together() {
        let context = || format!("round {round}");
        all(&mut racers, "in", "in").with_context(context)?;
        if rng.bool() {
            // All leave and come back at once.
            all(&mut racers, "turn", "turned").with_context(context)?;
        }
        let witness = &mut racers[rng.usize(0..RACERS as usize)];
        witness.tell("count");
        let seen = witness.says(HANG)?;
        anyhow::ensure!(seen.as_deref() == Some("8"), "two registries in round {round}? {seen:?} of 8 are listed");
        all(&mut racers, "out", "out").with_context(context)?;
        scene.is_gone().with_context(context)?;
    }
    racers.iter_mut().try_for_each(|racer| racer.finish().map(drop))?;
    Ok(format!("{RACERS} processes"))
}
