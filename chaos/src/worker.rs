//! A worker: this program in a hidden role, as a process of its own. It reports lines.

use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::time::Instant;

use anyhow::Context;
use testkit::{HANG, Process, command, unshare};

use crate::limit::Limit;
use crate::roles::Role;
use crate::undo;

/// How a worker is started.
#[derive(Clone, Debug, Default)]
pub(crate) struct Start {
    /// `LIBRPC_FAULT`: the step at which it is killed or stopped.
    fault: Option<String>,
    /// In namespaces of its own, as `unshare` makes them with these options.
    unshared: Option<Vec<String>>,
    /// As this user, in the group of the battery.
    uid: Option<u32>,
}

impl Start {
    /// Killed when it reaches a step for the `nth` time.
    pub(crate) fn killed_at(step: &str, nth: u32) -> Self {
        Self { fault: Some(format!("{step}:kill:{nth}")), ..Self::default() }
    }

    /// Stopped when it reaches a step for the `nth` time.
    pub(crate) fn stopped_at(step: &str, nth: u32) -> Self {
        Self { fault: Some(format!("{step}:stop:{nth}")), ..Self::default() }
    }

    /// As this user; `None` for the user of the battery.
    pub(crate) fn by(self, uid: Option<u32>) -> Self {
        Self { uid, ..self }
    }

    /// Run by `unshare` with these options.
    pub(crate) fn unshared(options: &[&str]) -> Self {
        Self { unshared: Some(options.iter().map(|&option| option.to_owned()).collect()), ..Self::default() }
    }
}

/// A process in a role. Killed when dropped.
pub(crate) struct Worker(Process);

impl Deref for Worker {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl DerefMut for Worker {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.0
    }
}

impl Worker {
    pub(crate) fn start(role: &Role) -> anyhow::Result<Self> {
        Self::start_as(role, &Start::default())
    }

    pub(crate) fn start_as(role: &Role, start: &Start) -> anyhow::Result<Self> {
        let mut program = command(std::env::current_exe().context("cannot find this program's own file")?);
        program.arg("role").arg(serde_json::to_string(role)?);
        if let Some(fault) = &start.fault {
            program.env("LIBRPC_FAULT", fault);
        }
        if let Some(uid) = start.uid {
            program.uid(uid);
        }
        let _gate = undo::gate();
        let process = match &start.unshared {
            None => Process::start(&mut program),
            Some(options) => Process::start_wrapper(&mut unshare(options, &program)),
        };
        Ok(Self(process?))
    }

    /// Its next line; `None` if it has ended.
    pub(crate) fn says(&mut self, limit: impl Into<Limit>) -> anyhow::Result<Option<String>> {
        let limit = limit.into();
        let said = self.0.says(limit.hang())?;
        limit.check()?;
        Ok(said)
    }

    /// Waits until it says this, and ignores what it says before.
    pub(crate) fn waits_for(&mut self, wanted: &str, limit: impl Into<Limit>) -> anyhow::Result<()> {
        let limit = limit.into();
        let deadline = Instant::now() + limit.hang();
        let mut before = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.0.says(left).with_context(|| format!("waiting for {wanted:?}, after {before:?}"))? {
                Some(line) if line == wanted => {
                    return limit.check().with_context(|| format!("until it said {wanted:?}"));
                }
                Some(line) if line.starts_with("error:") => anyhow::bail!("instead of {wanted:?}: {line}"),
                Some(line) => before.push(line),
                None => anyhow::bail!("a worker ended before {wanted:?}: {}", self.ends(HANG)?),
            }
        }
    }

    /// Waits until it has been killed by its fault, and returns what it said.
    pub(crate) fn dies(&mut self) -> anyhow::Result<Vec<String>> {
        let killed = self.is_killed();
        let said = self.has_said()?;
        killed.with_context(|| format!("it said {said:?}"))?;
        Ok(said)
    }

    /// Asks it to end, waits for its end, and returns what it said meanwhile.
    pub(crate) fn finish(&mut self) -> anyhow::Result<Vec<String>> {
        self.close_stdin();
        let mut lines = Vec::new();
        while let Some(line) = self.0.says(HANG).context("asked to end")? {
            lines.push(line);
        }
        let status = self.ends(HANG)?;
        anyhow::ensure!(status.success(), "a worker failed: {status}; it said {lines:?}");
        Ok(lines)
    }
}
