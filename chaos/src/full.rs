//! Running out of space under `/dev/shm`, of descriptors, of memory. A call that fails returns an error. When there is
//! enough again everything works, nothing is left, and nobody else is delayed.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::HANG;
use testkit::proc::what_it_does;

use crate::account::End;
use crate::battery::{Battery, Rounds, Skipped};
use crate::kills::RULES;
use crate::limit::go_on;
use crate::roles::{Receive, Role, Send};
use crate::scene::{Arrivals, Scene};
use crate::worker::{Start, Worker};

pub(crate) fn run(battery: &mut Battery) {
    battery.section("shm", 1, |_| shm());
    battery.section("descriptors", battery.pick(60, 40), descriptors);
    battery.section("descriptors-of-a-receiver", battery.pick(30, 12), of_a_receiver);
    battery.section("memory-cgroup", battery.pick(10, 1), memory_cgroup);
}

fn shm() -> anyhow::Result<String> {
    let scene = Scene::new();
    let role = Role::FullShm { mount: scene.path().into() };
    let start = Start::unshared(&["--mount", "--propagation=private"]);
    let mut worker = Worker::start_as(&role, &start)?;
    let mut said = Vec::new();
    while let Some(line) = worker.says(Duration::from_secs(120))? {
        said.push(line);
    }
    let status = worker.ends(HANG)?;
    match said.last() {
        Some(line) if line.starts_with("steps") && status.success() => {
            Ok(format!("{line} (that failed, with an error)"))
        }
        Some(line) if line.contains("SKIPPED") => Err(Skipped(line.clone()).into()),
        None if !status.success() && !rustix::process::geteuid().is_root() => {
            Err(Skipped("a mount namespace needs root".into()).into())
        }
        _ => anyhow::bail!("{status}: {said:?}"),
    }
}

fn descriptors(rounds: &Rounds) -> anyhow::Result<String> {
    let scene = Scene::new();
    let mut worker = Worker::start(&Role::Descriptors { domain: scene.path().into(), most: rounds.count })?;
    let line = worker.says(Duration::from_secs(300))?.context("it has died")?;
    anyhow::ensure!(line.starts_with("steps"), "{line}");
    worker.finish()?;
    scene.is_gone()?;
    Ok(format!("{line} (that failed, with an error)"))
}

/// A receiver in another process has only a few descriptors left. Senders wait or get an error, and connect as soon as it
/// has more.
fn of_a_receiver(rounds: &Rounds) -> anyhow::Result<String> {
    rounds.each(|round, _| {
        let scene = Scene::new();
        let mut sink = scene.receiver(Receive::by("sink"))?;
        sink.wait_until_ready()?;
        let pid = sink.worker.pid();
        let used = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64;
        let limit = |current| {
            prlimit(Pid::from_raw(pid as i32), Resource::Nofile, Rlimit { current: Some(current), maximum: Some(4096) })
        };
        limit(used + round % 15)?;
        let send = Send { count: Some(100), ..Send::between("source", "sink") };
        let mut source = scene.sender(send.clone())?;
        std::thread::sleep(Duration::from_millis(50)); // there is no one state to wait for: the sender may be refused, pending, or connected
        scene.probe("bystander")?;
        limit(1024)?;
        let mut said = source.worker.says(HANG).with_context(|| {
            let (said, left) = (sink.worker.has_said(), scene.left());
            format!("the receiver said {said:?}, and {left:?} are left:\n{}", what_it_does(pid))
        })?;
        if said.as_ref().is_some_and(|line| line.starts_with("error:")) {
            // The receiver had no descriptors for it. The next one connects.
            source = scene.sender(send)?;
            said = source.worker.says(go_on().doubled())?;
        }
        anyhow::ensure!(said.as_deref() == Some("connected"), "{said:?}");
        source.worker.waits_for("done", HANG)?;
        Arrivals::default().finish(&scene, &mut source, &mut sink, RULES).map(drop)
    })?;
    Ok(String::new())
}

/// A memory cgroup, removed when dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(bytes: u64) -> anyhow::Result<Self> {
        let v1 = PathBuf::from("/sys/fs/cgroup/memory");
        let (root, limit) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes"),
            false => (PathBuf::from("/sys/fs/cgroup"), "memory.max"),
        };
        let path = root.join(format!("librpc_chaos_{}", std::process::id()));
        let skipped = |error: std::io::Error| Skipped(format!("{}: {error}", path.display()));
        std::fs::create_dir(&path).map_err(skipped)?;
        let this = Self(path.clone());
        std::fs::write(path.join(limit), bytes.to_string()).map_err(skipped)?;
        Ok(this)
    }

    fn take(&self, pid: u32) -> anyhow::Result<()> {
        let context = || format!("cannot move a worker to {}", self.0.display());
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).with_context(context)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10)); // its last process is ending
        }
        eprintln!("librpc-chaos: {} cannot be removed", self.0.display());
    }
}

/// A sender fills the ring of a stopped receiver until the limit of its cgroup kills it, as SIGKILL does.
fn memory_cgroup(rounds: &Rounds) -> anyhow::Result<String> {
    let mut committed = 0;
    rounds.each(|_, _| {
        let cgroup = Cgroup::make(16 << 20)?;
        let scene = Scene::new();
        let receive = Receive { capacity: 64 << 20, ..Receive::by("sink") };
        let mut sink = scene.receiver(receive)?;
        sink.wait_until_ready()?;
        let send = Send { bytes: 100_000, pause_us: 300, ..Send::between("source", "sink") };
        let mut source = scene.sender(send)?;
        source.worker.waits_for("connected", HANG)?;
        cgroup.take(source.worker.pid())?;
        sink.worker.stop()?;
        source.worker.dies().context("the limit should kill it")?;
        sink.worker.go_on()?;
        sink.worker.waits_for("left source Died", go_on())?;
        scene.probe("source")?;
        sink.worker.finish()?;
        scene.is_gone()?;
        let mut arrivals = Arrivals::of(&sink)?;
        committed += arrivals.settle(source.ended(End::Killed)?, End::Finished, RULES)?.processed;
        Ok(())
    })?;
    Ok(format!("{committed} messages survived their sender"))
}
