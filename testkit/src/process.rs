//! A supervised child process. Dropping it kills it, so it does not outlive its test.
//!
//! Every request to it has a time limit. When the limit is over, the process counts as hanging, and the error shows
//! what its threads are doing.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::proc;
use crate::wait::{HANG, wait_for};

/// A command that runs this program without librpc's environment variables.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("LIBRPC_DOMAIN").env_remove("LIBRPC_FAULT");
    command
}

/// For the `main` of a child: the kernel kills it when the thread that started it ends.
pub fn die_with_parent() -> anyhow::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).context("cannot follow the parent")?;
    // The first process of a pid namespace sees no parent; `unshare` kills it.
    let is_orphan = rustix::process::getppid().is_some_and(Pid::is_init);
    anyhow::ensure!(!is_orphan, "the parent has ended");
    Ok(())
}

/// A child process with pipes to talk through. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    is_wrapper: bool,
    stdin: Option<ChildStdin>,
    stdout: Option<Lines<ChildStdout>>,
    stderr: Option<Lines<ChildStderr>>,
}

/// How a process has ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// The exit code as a shell reports it: 128 and the signal's number for a process that a signal ended.
    pub code: i32,
    /// What it wrote to stdout and was not read yet.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr and was not read yet, if that is a pipe.
    pub stderr: String,
}

impl Ended {
    /// What it wrote to stdout, as text.
    #[track_caller]
    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("stdout is UTF-8")
    }
}

impl Process {
    /// Starts a program with pipes for stdin and stdout.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Self::supervise(command.spawn().with_context(|| format!("cannot start {command:?}"))?)
    }

    /// Supervises a child that was started with other pipes.
    pub fn supervise(mut child: Child) -> anyhow::Result<Self> {
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = (stdout.map(Lines::new), stderr.map(Lines::new));
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).context("cannot watch a child")?;
        Ok(Self { child, pidfd, is_wrapper: false, stdin, stdout, stderr })
    }

    /// Starts a program that runs another one, such as [`crate::unshare()`]'s. The other one gets the signals.
    pub fn start_wrapper(command: &mut Command) -> anyhow::Result<Self> {
        let mut process = Self::start(command)?;
        process.is_wrapper = true;
        Ok(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.wrapped().map_or_else(|| self.child.id(), |pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// The process that a wrapper has started.
    fn wrapped(&self) -> Option<Pid> {
        if self.is_wrapper { proc::children_of(self.child.id()).first().copied() } else { None }
    }

    /// Sends a signal. An error if the process has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let sent = match self.wrapped() {
            Some(pid) => pidfd_open(pid, PidfdFlags::empty()).and_then(|pidfd| pidfd_send_signal(pidfd, signal)),
            None => pidfd_send_signal(&self.pidfd, signal),
        };
        sent.with_context(|| format!("cannot signal pid {}", self.pid()))
    }

    /// Kills it with SIGKILL, and waits for its end.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let _ = self.signal(Signal::KILL); // it may have ended by itself
        self.ends(HANG).map(drop)
    }

    /// Stops it with SIGSTOP, and waits until it is stopped.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)?;
        self.wait_until_stopped()
    }

    /// Waits until it is stopped by a signal, from any process.
    pub fn wait_until_stopped(&self) -> anyhow::Result<()> {
        let pid = self.pid();
        wait_for(HANG, || proc::is_stopped(pid)).with_context(|| format!("stopping\n{}", proc::what_it_does(pid)))
    }

    /// Lets it continue after a stop.
    pub fn go_on(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its stdin, until that is closed.
    pub fn stdin(&mut self) -> Option<&mut ChildStdin> {
        self.stdin.as_mut()
    }

    /// Closes its stdin.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Closes our end of its stdout.
    pub fn close_stdout(&mut self) {
        self.stdout = None;
    }

    /// Writes a line to its stdin. A dying process does not read it; its missing answer shows that.
    pub fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes());
        }
    }

    /// The next line of its stdout, without the newline; `None` if it has closed it.
    pub fn says(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        let next = self.stdout.as_mut().map_or(Ok(Next::Closed), |stdout| stdout.next(limit))?;
        self.in_time(next, limit)
    }

    /// The next line of its stderr, without the newline; `None` if it has closed it, or if it is not a pipe.
    pub fn complains(&mut self, limit: Duration) -> anyhow::Result<Option<String>> {
        let next = self.stderr.as_mut().map_or(Ok(Next::Closed), |stderr| stderr.next(limit))?;
        self.in_time(next, limit)
    }

    fn in_time(&self, next: Next, limit: Duration) -> anyhow::Result<Option<String>> {
        match next {
            Next::Line(line) => Ok(Some(line)),
            Next::Closed => Ok(None),
            Next::Late => anyhow::bail!("a process says nothing for {limit:?}\n{}", proc::what_it_does(self.pid())),
        }
    }

    /// The lines that are there already.
    pub fn has_said(&mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        while let Some(Next::Line(line)) = self.stdout.as_mut().map(|stdout| stdout.next(Duration::ZERO)).transpose()? {
            lines.push(line);
        }
        Ok(lines)
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    pub fn ends(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        if !is_readable(&self.pidfd, limit)? {
            anyhow::bail!("a process does not end within {limit:?}\n{}", proc::what_it_does(self.pid()));
        }
        Ok(self.child.wait()?)
    }

    /// Waits until it has been killed with SIGKILL: by a planned fault, for example.
    pub fn is_killed(&mut self) -> anyhow::Result<()> {
        let status = self.ends(HANG)?;
        anyhow::ensure!(status.signal() == Some(9), "a process should have been killed: {status}");
        Ok(())
    }

    /// Writes this to its stdin, closes it, and waits for the end of the process, which need not read everything.
    pub fn finishes_with(&mut self, input: &[u8], limit: Duration) -> anyhow::Result<Ended> {
        let (stdin, stdout, stderr) = (self.stdin.take(), self.stdout.take(), self.stderr.take());
        std::thread::scope(|scope| {
            scope.spawn(|| stdin.map(|mut pipe| pipe.write_all(input)));
            let stdout = scope.spawn(|| stdout.map_or(Ok(Vec::new()), Lines::rest));
            let stderr = scope.spawn(|| stderr.map_or(Ok(Vec::new()), Lines::rest));
            let status = self.ends(limit);
            if status.is_err() {
                let _ = self.kill(); // or its pipes would stay open
            }
            let status = status?;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().expect("a code or a signal"));
            let stderr = String::from_utf8(joined(stderr)?).context("stderr that is not UTF-8")?;
            Ok(Ended { code, stdout: joined(stdout)?, stderr })
        })
    }
}

fn joined<T>(thread: std::thread::ScopedJoinHandle<'_, std::io::Result<T>>) -> std::io::Result<T> {
    thread.join().expect("reading does not panic")
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal(Signal::KILL);
        let _ = self.child.kill(); // the wrapper, too
        let _ = self.child.wait();
    }
}

enum Next {
    Line(String),
    Closed,
    Late,
}

/// What a child writes, line by line.
#[derive(Debug)]
struct Lines<Pipe> {
    pipe: Pipe,
    unread: Vec<u8>,
}

impl<Pipe: Read + AsFd> Lines<Pipe> {
    fn new(pipe: Pipe) -> Self {
        Self { pipe, unread: Vec::new() }
    }

    fn next(&mut self, limit: Duration) -> anyhow::Result<Next> {
        let deadline = Instant::now() + limit;
        let mut searched = 0;
        loop {
            if let Some(end) = self.unread[searched..].iter().position(|&byte| byte == b'\n') {
                let mut line: Vec<u8> = self.unread.drain(..=searched + end).collect();
                line.pop();
                return Ok(Next::Line(String::from_utf8(line).context("a line that is not UTF-8")?));
            }
            searched = self.unread.len();
            if !is_readable(&self.pipe, deadline.saturating_duration_since(Instant::now()))? {
                return Ok(Next::Late);
            }
            let mut bytes = [0; 4096];
            match self.pipe.read(&mut bytes)? {
                0 => return Ok(Next::Closed),
                read => self.unread.extend_from_slice(&bytes[..read]),
            }
        }
    }

    fn rest(mut self) -> std::io::Result<Vec<u8>> {
        self.pipe.read_to_end(&mut self.unread)?;
        Ok(self.unread)
    }
}

/// Waits until there is something to read, at most for `limit`.
fn is_readable(fd: &impl AsFd, limit: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now()))?;
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(10);

    fn shell(script: &str) -> Process {
        Process::start(command("sh").args(["-c", script]).stderr(Stdio::piped())).unwrap()
    }

    #[test]
    fn a_process_is_killed_when_it_is_dropped() {
        let process = shell("echo ready; exec sleep 1000");
        let pid = process.pid();
        drop(process);
        assert!(proc::is_stopped(pid).is_err(), "it has ended");
    }

    #[test]
    fn what_a_process_says_is_read_line_by_line() {
        let mut process = shell("read a; echo one $a; echo two; read b; echo three; printf rest");
        assert!(process.says(SOON).is_err());
        process.tell("x");
        assert_eq!(process.says(HANG).unwrap().as_deref(), Some("one x"));
        assert_eq!(process.says(HANG).unwrap().as_deref(), Some("two"));
        assert!(process.has_said().unwrap().is_empty());
        process.close_stdin();
        assert_eq!(process.says(HANG).unwrap().as_deref(), Some("three"));
        assert_eq!(process.finishes_with(b"", HANG).unwrap().stdout(), "rest");
    }

    #[test]
    fn the_end_of_a_process_is_reported_as_a_shell_does() {
        let mut process = shell("cat; echo bad >&2; echo worse >&2; exit 3");
        process.tell("in");
        process.close_stdin();
        assert_eq!(process.complains(HANG).unwrap().as_deref(), Some("bad"));
        let ended = process.finishes_with(b"", HANG).unwrap();
        assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (3, "in\n", "worse\n"));
        let mut killed = shell("kill -9 $$");
        killed.is_killed().unwrap();
        assert!(killed.has_ended().unwrap());
        assert_eq!(killed.finishes_with(b"", HANG).unwrap().code, 137);
        assert!(shell("exit 0").is_killed().is_err());
    }

    #[test]
    fn a_process_that_does_not_end_is_an_error_that_says_what_it_does() {
        let mut process = shell("exec sleep 1000");
        let error = process.ends(SOON).unwrap_err().to_string();
        assert!(error.contains("does not end") && error.contains("system call"), "{error}");
        assert!(process.finishes_with(b"", SOON).is_err());
        assert!(process.has_ended().unwrap(), "it was killed then");
    }

    #[test]
    fn a_process_is_stopped_and_goes_on() {
        let mut process = shell("read a; echo on");
        process.stop().unwrap();
        process.tell("x");
        assert!(process.says(SOON).is_err());
        process.go_on().unwrap();
        assert_eq!(process.says(HANG).unwrap().as_deref(), Some("on"));
        process.ends(HANG).unwrap();
        assert!(process.wait_until_stopped().is_err() && process.signal(Signal::TERM).is_err());
    }
}
