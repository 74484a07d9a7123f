//! A worker: this program in a hidden role, as a process of its own. It reports lines, and dies with the supervisor.
//!
//! Whatever a worker is asked for has a time limit: past it, the worker hangs, and its state becomes the error.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use crate::limit::Limit;
use crate::roles::Role;
use crate::{health, undo};

/// A worker that does not answer for so long hangs.
pub(crate) const HANG: Duration = Duration::from_secs(30);
/// From now on: within this the survivors of a death go on.
pub(crate) fn go_on() -> Limit {
    Limit::new(Duration::from_secs(1))
}

/// How a worker is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// What stands in `LIBRPC_FAULT`: the step at which it is killed or stopped.
    pub(crate) fault: Option<String>,
    /// A program and its arguments that run the worker, such as `unshare`.
    pub(crate) wrapper: Vec<String>,
}

impl Start {
    /// Killed at a step, when it comes there the `nth` time.
    pub(crate) fn killed_at(step: &str, nth: u32) -> Self {
        Self { fault: Some(format!("{step}:kill:{nth}")), ..Self::default() }
    }

    /// Stopped at a step.
    pub(crate) fn stopped_at(step: &str, nth: u32) -> Self {
        Self { fault: Some(format!("{step}:stop:{nth}")), ..Self::default() }
    }

    /// Run by `unshare` with these options.
    pub(crate) fn unshared(options: &[&str]) -> Self {
        let fixed = ["unshare", "--fork", "--kill-child=KILL"];
        Self { wrapper: fixed.iter().chain(options).map(|word| (*word).to_owned()).collect(), ..Self::default() }
    }
}

pub(crate) struct Worker {
    child: Child,
    wrapped: bool,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    buffer: Vec<u8>,
}

impl Worker {
    pub(crate) fn start(role: &Role) -> anyhow::Result<Self> {
        Self::start_as(role, &Start::default())
    }

    pub(crate) fn start_as(role: &Role, start: &Start) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = match start.wrapper.split_first() {
            None => Command::new(program),
            Some((wrapper, options)) => {
                let mut command = Command::new(wrapper);
                command.args(options).arg(program);
                command
            }
        };
        command.arg("role").arg(serde_json::to_string(role)?);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("LIBRPC_FAULT").env_remove("LIBRPC_DOMAIN");
        if let Some(fault) = &start.fault {
            command.env("LIBRPC_FAULT", fault);
        }
        let gate = undo::gate();
        let mut child = command.spawn().context("cannot start a worker")?;
        drop(gate);
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no stdout")?;
        Ok(Self { child, wrapped: !start.wrapper.is_empty(), stdin, stdout, buffer: Vec::new() })
    }

    /// The worker's process, which a wrapper may have started.
    pub(crate) fn pid(&self) -> u32 {
        let outer = self.child.id();
        let inner = if self.wrapped { undo::children_of(outer).first().copied() } else { None };
        inner.map_or(outer, |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    pub(crate) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, signal).context("cannot signal a worker") // not waited for yet: the pid is its own
    }

    /// Kills it with SIGKILL and waits for its end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let _ = self.signal(Signal::KILL); // it may have ended by itself
        self.ends(HANG).map(drop)
    }

    /// Stops it with SIGSTOP, and waits until it is stopped.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.wait_until_stopped()
    }

    pub(crate) fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it is stopped, by whomever.
    pub(crate) fn wait_until_stopped(&self) -> anyhow::Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < HANG {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
            match stat.rsplit(") ").next().and_then(|rest| rest.chars().next()) {
                Some('T') => return Ok(()),
                Some('Z') | None => anyhow::bail!("it has ended instead of being stopped"),
                Some(_) => std::thread::yield_now(),
            }
        }
        anyhow::bail!("it was not stopped within {HANG:?}:\n{}", health::state(self.pid()))
    }

    /// Gives it a line. One that is dying does not take it: that shows in what it says.
    pub(crate) fn tell(&mut self, line: &str) {
        use std::io::Write;
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// Its next line; `None`: it has ended.
    pub(crate) fn says(&mut self, limit: impl Into<Limit>) -> anyhow::Result<Option<String>> {
        let limit = limit.into();
        let said = self.says_within(limit.hang())?;
        limit.check()?;
        Ok(said)
    }

    fn says_within(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        match self.line(limit)? {
            Line::Said(line) => Ok(Some(line)),
            Line::Ended => Ok(None),
            Line::Late => anyhow::bail!("a worker says nothing for {limit:?}:\n{}", health::state(self.pid())),
        }
    }

    /// The lines that are there already.
    pub(crate) fn said(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Line::Said(line) = self.line(Duration::ZERO)? {
            lines.push(line);
        }
        Ok(lines)
    }

    /// Waits until it says this; what it says before is passed over.
    pub(crate) fn waits_for(&mut self, wanted: &str, limit: impl Into<Limit>) -> anyhow::Result<()> {
        let limit = limit.into();
        let deadline = Instant::now() + limit.hang();
        let mut passed = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.says_within(left).with_context(|| format!("waiting for {wanted:?}, behind {passed:?}"))? {
                Some(line) if line == wanted => {
                    return limit.check().with_context(|| format!("until it said {wanted:?}"));
                }
                Some(line) if line.starts_with("error:") => anyhow::bail!("instead of {wanted:?}: {line}"),
                Some(line) => passed.push(line),
                None => anyhow::bail!("a worker has ended before {wanted:?}: {}", self.child.wait()?),
            }
        }
    }

    fn line(&mut self, limit: Duration) -> anyhow::Result<Line> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Ok(Line::Said(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(&self.stdout, PollFlags::IN)], Some(&left)) {
                Ok(0) => return Ok(Line::Late),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let mut bytes = [0; 4096];
            match rustix::io::read(&self.stdout, &mut bytes)? {
                0 => return Ok(Line::Ended),
                read => self.buffer.extend_from_slice(&bytes[..read]),
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn ends(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).context("cannot watch a worker")?;
        let deadline = Instant::now() + limit;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(0) => anyhow::bail!("a worker does not end within {limit:?}:\n{}", health::state(self.pid())),
                Ok(_) => return Ok(self.child.wait()?),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Waits until it has died of SIGKILL, by its plan, and returns what it had said.
    pub(crate) fn dies(&mut self) -> anyhow::Result<Vec<String>> {
        let status = self.ends(HANG)?;
        let said = self.said()?;
        anyhow::ensure!(status.signal() == Some(9), "it should have been killed, but {status}; it said {said:?}");
        Ok(said)
    }

    /// Asks it to end, waits until it has, and returns what it said meanwhile.
    pub(crate) fn finish(&mut self) -> anyhow::Result<Vec<String>> {
        self.stdin = None;
        let mut lines = Vec::new();
        while let Some(line) = self.says(HANG).context("asked to end")? {
            lines.push(line);
        }
        let status = self.ends(HANG)?;
        anyhow::ensure!(status.success(), "a worker failed: {status}; it said {lines:?}");
        Ok(lines)
    }
}

enum Line {
    Said(String),
    Ended,
    Late,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
