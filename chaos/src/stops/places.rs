//! Unusual processes: a parent that dies before its forked child, equal pids in two pid namespaces, a clock that is wrong by
//! an hour.

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use testkit::HANG;
use testkit::proc::children_of;

use crate::account::{End, Segment};
use crate::battery::{Rounds, Skipped};
use crate::kills::RULES;
use crate::limit::go_on;
use crate::roles::{Receive, Role, Send};
use crate::scene::{Arrivals, Scene, Sent};
use crate::worker::{Start, Worker};

/// The parent dies first. That is a death, although its forked child lives on.
pub(super) fn fork(rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|_, _| {
        let scene = Scene::new();
        let mut sink = scene.receiver(Receive::by("sink"))?;
        sink.wait_until_ready()?;
        let role = Role::Fork { domain: scene.domain(), id: "parent".into(), to: "sink".into() };
        let mut parent = Worker::start(&role)?;
        let mut said = [parent.says(HANG)?, parent.says(HANG)?];
        said.sort();
        anyhow::ensure!(
            said == [Some("forked".to_owned()), Some("the child can use nothing".to_owned())],
            "a forked child: {said:?}"
        );
        let stream = u64::from(parent.pid());
        let children = children_of(parent.pid());
        anyhow::ensure!(children.len() == 1, "one child: {children:?}");
        parent.kill()?;
        sink.worker.waits_for("left parent Died", go_on()).context("its forked child must not keep it alive")?;
        scene.probe("parent").context("the id should be free")?;
        kill(children[0]);
        sink.worker.finish()?;
        scene.is_gone()?;
        let mut arrivals = Arrivals::of(&sink)?;
        let segments = vec![Segment { first: 0, sent: 20, begun: 20, reported: None, pending: false }];
        arrivals.settle(Sent { stream, segments, sender: End::Killed }, End::Finished, RULES)?;
        Ok(())
    })?;
    Ok(String::new())
}

fn kill(orphan: Pid) {
    let _ = kill_process(orphan, Signal::KILL);
    let _ = rustix::process::waitpid(Some(orphan), rustix::process::WaitOptions::empty()); // this process is its subreaper
}

fn can_unshare(options: &[&str]) -> anyhow::Result<()> {
    testkit::can_unshare(options).map_err(|why| Skipped(why).into())
}

/// Each is the first process of a pid namespace, so both have pid 1. Either is stopped, then killed.
pub(super) fn pid_namespaces(rounds: &Rounds) -> anyhow::Result<String> {
    can_unshare(&["--pid"])?;
    elsewhere(rounds, &["--pid"], &["--pid"])
}

/// Their monotonic clocks differ by an hour, in either direction.
pub(super) fn clocks(rounds: &Rounds) -> anyhow::Result<String> {
    const AHEAD: &[&str] = &["--time", "--monotonic=3600", "--boottime=3600"];
    const BEHIND: &[&str] = &["--time", "--monotonic=-3600", "--boottime=-3600"];
    can_unshare(AHEAD)?;
    // A clock cannot go back before the start of the machine: the machine must have run for over an hour.
    let behind = if can_unshare(BEHIND).is_ok() { BEHIND } else { &["--time"] };
    elsewhere(rounds, AHEAD, behind)
}

pub(super) fn wall_clock(_: &Rounds) -> anyhow::Result<String> {
    Err(Skipped("Linux has no namespace for it, and a test must not change the machine's clock".into()).into())
}

/// Two processes that `unshare` runs exchange messages; one is stopped, one is killed and replaced.
fn elsewhere(rounds: &Rounds, one: &[&str], other: &[&str]) -> anyhow::Result<String> {
    rounds.each(|_, mut rng| {
        let scene = Scene::new();
        let (one, other) = if rng.bool() { (one, other) } else { (other, one) };
        let receive = Receive::by("sink");
        let mut sink = scene.receiver_as(receive, &Start::unshared(one))?;
        sink.wait_until_ready()?;
        let send = Send { pause_us: 100, bytes: 100, ..Send::between("source", "sink") };
        let mut source = scene.sender_as(send.clone(), &Start::unshared(other))?;
        source.worker.waits_for("connected", HANG)?;
        sink.goes_on(50, go_on())?;
        let stopped = if rng.bool() { &source.worker } else { &sink.worker };
        stopped.stop()?;
        std::thread::sleep(std::time::Duration::from_millis(rng.u64(0..50)));
        scene.probe("bystander")?;
        stopped.go_on()?;
        sink.goes_on(50, go_on())?;
        source.worker.kill()?;
        sink.worker.waits_for("left source Died", go_on())?;
        let killed = source.ended(End::Killed)?;
        let mut source = scene.sender_as(Send { stream: 1, count: Some(100), ..send }, &Start::unshared(other))?;
        source.worker.waits_for("done", HANG)?;
        let mut arrivals = Arrivals::default();
        arrivals.finish(&scene, &mut source, &mut sink, RULES)?;
        arrivals.settle(killed, End::Finished, RULES)?;
        arrivals.are_settled()
    })?;
    Ok(format!("{} and {}", one.join(" "), other.join(" ")))
}
