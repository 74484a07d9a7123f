//! kill -9 of a server or a client at a step of a call. Each call ends once, with a true outcome, and no request is handed out twice.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use testkit::HANG;

use crate::battery::Rounds;
use crate::points::{Point, Who};
use crate::roles::{CallCount, Role};
use crate::scene::Scene;
use crate::worker::{Start, Worker};

/// How many calls a client makes.
const CALLS: u64 = 60;

pub(super) fn run(point: &Point, rounds: &Rounds) -> anyhow::Result<String> {
    let (mut answered, mut lost) = (0, 0);
    rounds.each(|_, mut rng| {
        let scene = Scene::new();
        let start = Start::killed_at(point.name, point.nth(&mut rng));
        let serve = |id: &str| Role::Serve { domain: scene.domain(), id: id.into() };
        let call = Role::Call(CallCount { domain: scene.domain(), calls: CALLS });
        let mut steady = Worker::start(&serve("steady"))?;
        steady.waits_for("ready", HANG)?;
        let (mut said, handed_out) = match point.who {
            Who::Server => {
                let mut doomed = Worker::start_as(&serve("doomed"), &start)?;
                doomed.waits_for("ready", HANG)?;
                let mut client = Worker::start(&call)?;
                let said = client.finish().context("a call has no end")?;
                ensure!(said.last().is_some_and(|line| line == "ended"), "the calls have no end: {said:?}");
                (said, doomed.dies()?)
            }
            _ => {
                let mut client = Worker::start_as(&call, &start)?;
                (client.dies()?, Vec::new())
            }
        };
        let handed_out = handed_out.into_iter().chain(steady.finish()?);
        scene.clean()?;
        scene.is_gone()?;
        let mut times = BTreeMap::<u64, u32>::new();
        for line in handed_out {
            *times.entry(line.parse().with_context(|| format!("a server said {line:?}"))?).or_default() += 1;
        }
        ensure!(times.values().all(|&times| times == 1), "DOUBLED: {times:?}");
        for line in said.drain(..) {
            let Some((outcome, number)) = line.split_once(' ') else { continue };
            let was_handed_out = times.contains_key(&number.parse()?);
            match outcome {
                "answered" => ensure!(was_handed_out, "INVENTED: {line}"),
                "untaken" => ensure!(!was_handed_out, "UNTRUE: {line}"),
                "taken" => lost += 1,
                _ => {}
            }
            answered += u64::from(outcome == "answered");
        }
        Ok(())
    })?;
    Ok(format!("{answered} answered, {lost} lost with their server"))
}
