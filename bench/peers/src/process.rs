//! The processes of a measurement, which run this program. They end with their parent, however it ends.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::Signal;

/// Whether a signal asked this program to stop.
pub(crate) type Interrupt = Arc<AtomicBool>;

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A running process. Dropping it kills it and waits for its end.
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    what: String,
}

impl Process {
    pub(crate) fn start(arguments: &[String], what: String) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(arguments).arg("--parent").arg(std::process::id().to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (tell, lines) = channel();
        let output = child.stdout.take().expect("it is a pipe");
        std::thread::spawn(move || {
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| tell.send(line))
        });
        Ok(Self { input: child.stdin.take(), child, lines, what })
    }

    /// Its next line.
    pub(crate) fn line(&mut self, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<String> {
        let begun = Instant::now();
        loop {
            match self.lines.recv_timeout(BETWEEN_LOOKS) {
                Ok(line) => return Ok(line),
                Err(_) if interrupt.load(Ordering::Relaxed) => bail!("interrupted"),
                Err(RecvTimeoutError::Timeout) if begun.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => bail!("{} says nothing for {limit:?}", self.what),
                Err(RecvTimeoutError::Disconnected) => bail!("{} has ended: {}", self.what, self.child.wait()?),
            }
        }
    }

    pub(crate) fn expect(&mut self, line: &str, limit: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        let said = self.line(limit, interrupt)?;
        anyhow::ensure!(said == line, "{} says {said:?}, not {line:?}", self.what);
        Ok(())
    }

    pub(crate) fn go(&mut self) -> anyhow::Result<()> {
        self.input.as_mut().expect("it is not told twice").write_all(b"go\n").context("it has ended")
    }

    /// Ends its input.
    pub(crate) fn over(&mut self) {
        self.input = None;
    }

    /// Waits until it has ended by itself, because it removes its files then.
    pub(crate) fn leave(mut self, limit: Duration) {
        self.over();
        let begun = Instant::now();
        while begun.elapsed() < limit && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Makes the kernel kill this process when its parent ends.
pub(crate) fn follow(parent: Option<i32>) -> anyhow::Result<()> {
    let Some(parent) = parent else { return Ok(()) };
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let orphaned = rustix::process::getppid().is_none_or(|pid| pid.as_raw_nonzero().get() != parent);
    anyhow::ensure!(!orphaned, "the parent has ended");
    Ok(())
}
