//! Starts the roles, kills one or two of them at random again and again, ends them in order, and prints what has come of it.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use librpc::Domain;
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::results::Results;

/// In the order in which they end: those that send first, so that all they have sent can be processed.
const ROLES: [&str; 7] = ["commander", "imu", "camera", "detector", "viewer", "planner", "logger"];
const VIEWER: usize = 4;
/// How long a role may take to begin, or to end.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(2);

#[derive(clap::Args)]
pub(crate) struct Options {
    /// How long the robot runs
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// How often one of its processes is killed, or two at the same time
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    kill_every: Duration,
    /// Who is killed follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let files = tempfile::tempdir()?;
    let mut robot = Robot::start(files.path())?;
    let mut random = fastrand::Rng::with_seed(options.seed);
    let until = Instant::now() + Duration::from_secs_f64(options.seconds);
    while Instant::now() < until && !interrupted.load(Ordering::Relaxed) {
        // The viewer is stopped half of the time, and the camera must not notice.
        let pause = options.kill_every / 2;
        robot.signal(VIEWER, Signal::STOP)?;
        sleep(pause);
        robot.signal(VIEWER, Signal::CONT)?;
        sleep(pause);
        let victims = if random.u32(..4) == 0 { 2 } else { 1 };
        robot.kill(&random.choose_multiple(0..ROLES.len(), victims))?;
        robot.wait_until_complete()?;
    }
    robot.end()?;
    let results = Results::collect(files.path())?;
    println!("{}", results.table(&robot.kills));
    Ok(if results.are_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The processes of the roles, in a domain of their own. Dropping it kills them, and removes the domain.
struct Robot<'f> {
    domain: Domain,
    files: &'f Path,
    children: Vec<Child>,
    kills: BTreeMap<&'static str, u32>,
}

impl<'f> Robot<'f> {
    fn start(files: &'f Path) -> anyhow::Result<Self> {
        let domain = Domain::at(format!("/dev/shm/librpc_robot_{}", std::process::id()));
        let mut robot = Self { domain, files, children: Vec::new(), kills: BTreeMap::new() };
        for role in ROLES {
            let child = robot.start_role(role)?;
            robot.children.push(child);
        }
        robot.wait_until_complete()?;
        Ok(robot)
    }

    fn start_role(&self, role: &str) -> anyhow::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        // Ctrl-C is for the supervisor, which ends the roles in order.
        command.arg(role).arg(self.files).env("LIBRPC_DOMAIN", self.domain.path()).process_group(0);
        command.spawn().with_context(|| format!("cannot start the {role}"))
    }

    /// Waits until each role's node is there.
    fn wait_until_complete(&mut self) -> anyhow::Result<()> {
        let begun = Instant::now();
        loop {
            for (child, role) in self.children.iter_mut().zip(ROLES) {
                let ended = child.try_wait()?;
                ensure!(ended.is_none(), "the {role} has ended by itself: {ended:?}");
            }
            let nodes = self.domain.nodes()?;
            let is_there = |child: &Child| nodes.iter().any(|node| node.alive && node.pid == child.id());
            if self.children.iter().all(is_there) {
                return Ok(());
            }
            ensure!(begun.elapsed() < LIMIT, "a role does not begin");
            sleep(LOOK_EVERY);
        }
    }

    fn signal(&self, at: usize, signal: Signal) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.children[at]), signal).with_context(|| format!("the {} is gone", ROLES[at]))
    }

    /// Kills these roles at the same time, and starts them again.
    fn kill(&mut self, victims: &[usize]) -> anyhow::Result<()> {
        victims.iter().try_for_each(|&at| self.signal(at, Signal::KILL))?;
        for &at in victims {
            self.children[at].wait()?;
            *self.kills.entry(ROLES[at]).or_default() += 1;
            self.children[at] = self.start_role(ROLES[at])?;
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        for (at, role) in ROLES.into_iter().enumerate() {
            self.signal(at, Signal::TERM)?;
            let begun = Instant::now();
            let status = loop {
                match self.children[at].try_wait()? {
                    Some(status) => break status,
                    None => sleep(LOOK_EVERY),
                }
                ensure!(begun.elapsed() < LIMIT, "the {role} does not end");
            };
            ensure!(status.success(), "the {role} has failed: {status}");
        }
        ensure!(self.domain.clean()?.is_empty() && !self.domain.path().exists(), "something is left of the domain");
        Ok(())
    }
}

impl Drop for Robot<'_> {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill().and_then(|()| child.wait()); // it may have ended
        }
        if let Err(error) = self.domain.clean() {
            eprintln!("{error}");
        }
    }
}
