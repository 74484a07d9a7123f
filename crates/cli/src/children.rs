//! Processes of this program that a command starts: they report lines, end with their parent, and are waited for.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;
use librpc::Domain;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::interrupt::Interrupt;

/// What a child reports.
#[derive(Debug)]
pub(crate) enum Report {
    Line(String),
    Ended(ExitStatus),
}

/// Some children. When this is dropped, those that still run are asked to leave, and waited for.
pub(crate) struct Children {
    handles: Vec<Arc<std::os::fd::OwnedFd>>,
    pids: Vec<u32>,
    reports: Receiver<(usize, Report)>,
    running: usize,
}

impl Children {
    /// Starts a child for each list of arguments, in this domain. A signal to the parent is passed on to them.
    pub(crate) fn start(domain: &Domain, commands: &[Vec<String>], interrupt: &Interrupt) -> anyhow::Result<Self> {
        let (report, reports) = channel();
        let mut children = Self { handles: Vec::new(), pids: Vec::new(), reports, running: 0 };
        for (index, arguments) in commands.iter().enumerate() {
            let mut child = start(domain, arguments)?;
            let handle = Arc::new(pidfd(&child)?);
            children.handles.push(handle.clone());
            children.pids.push(child.id());
            children.running += 1;
            interrupt.then(move || {
                let _ = pidfd_send_signal(&*handle, Signal::TERM); // it may have ended
            });
            let stdout = child.stdout.take().expect("its stdout is a pipe");
            let report = report.clone();
            let wait = move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = report.send((index, Report::Line(line)));
                }
                if let Ok(status) = child.wait() {
                    let _ = report.send((index, Report::Ended(status)));
                }
            };
            std::thread::Builder::new().name(format!("child-{index}")).spawn(wait).context("cannot start a thread")?;
        }
        Ok(children)
    }

    /// The next report; `None`: all have ended, or the time is up.
    pub(crate) fn next(&mut self, limit: Duration) -> Option<(usize, Report)> {
        if self.running == 0 {
            return None;
        }
        let (child, report) = self.reports.recv_timeout(limit).ok()?;
        if let Report::Ended(_) = report {
            self.running -= 1;
        }
        Some((child, report))
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.pids.clone()
    }

    pub(crate) fn are_running(&self) -> bool {
        self.running > 0
    }

    /// Asks all to leave.
    pub(crate) fn end(&self) {
        self.signal(Signal::TERM);
    }

    fn signal(&self, signal: Signal) {
        for handle in &self.handles {
            let _ = pidfd_send_signal(&**handle, signal); // it may have ended
        }
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        self.end();
        while self.next(Duration::from_secs(2)).is_some() {}
        if self.running > 0 {
            self.signal(Signal::KILL);
            while self.next(Duration::from_secs(2)).is_some() {}
        }
    }
}

fn start(domain: &Domain, arguments: &[String]) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let mut command = Command::new(program);
    command.arg("--domain").arg(domain.path());
    if let Some(gid) = domain.group() {
        command.arg("--group").arg(gid.to_string());
    }
    command.args(arguments).arg("--parent").arg(std::process::id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start a process of this program")
}

fn pidfd(child: &Child) -> anyhow::Result<std::os::fd::OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).context("a child has no pid")?;
    pidfd_open(pid, PidfdFlags::empty()).context("cannot watch a process")
}

/// The option that makes a command a child.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct ParentArgs {
    #[arg(long, hide = true, global = true)]
    parent: Option<i32>,
}

impl ParentArgs {
    /// Makes the kernel send SIGTERM when the parent ends, however it ends.
    pub(crate) fn follow(&self) -> anyhow::Result<()> {
        let Some(parent) = self.parent else { return Ok(()) };
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the parent")?;
        let orphaned = rustix::process::getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent);
        anyhow::ensure!(!orphaned, "the parent has ended");
        Ok(())
    }
}
