//! What the tests of the command line share. Each test has a domain of its own, and nothing of it may be left at the end.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
pub(crate) use testkit::{Ended, wait_until as until};
use testkit::{Process, TestDomain, can_unshare, proc, unshare};

/// Longer than any command of these tests takes, also on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// The domain of a test. Dropping it asserts that everybody has left it properly.
pub(crate) struct Place(TestDomain);

/// The domain of the test of this name.
pub(crate) fn place(test: &str) -> Place {
    Place(TestDomain::named(test).without_cleaning())
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// A command in this domain.
    pub(crate) fn librpc(&self, arguments: &[&str]) -> Command {
        let mut command = testkit::command(env!("CARGO_BIN_EXE_librpc"));
        command.arg("--domain").arg(self.path()).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a command with pipes.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.librpc(arguments))
    }

    /// Starts a command in a shell, which does something first. The script ends with `exec "$@"` or the like.
    pub(crate) fn start_in_shell(&self, script: &str, arguments: &[&str]) -> Running {
        let librpc = self.librpc(arguments);
        let mut shell = testkit::command("sh");
        Running::start(shell.args(["-c", script, "sh"]).arg(librpc.get_program()).args(librpc.get_args()))
    }

    /// Starts a command in namespaces of its own, which `unshare` makes with these options. `None`: that is not allowed.
    pub(crate) fn start_unshared(&self, options: &[&str], arguments: &[&str]) -> Option<Running> {
        can_unshare(options).ok()?;
        let mut command = unshare(options, &self.librpc(arguments));
        Some(Running(Process::start_wrapper(command.stderr(Stdio::piped())).expect("unshare starts")))
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str], stdin: &[u8]) -> Ended {
        self.start(arguments).ends_with(stdin)
    }

    /// Starts a receiver, and waits until it is there.
    pub(crate) fn receiver(&self, node: &str, options: &[&str]) -> Running {
        let running = self.start(&[&["recv", node], options].concat());
        assert_eq!(self.run(&["send", node], b"").code, 0, "{node} comes");
        running
    }

    pub(crate) fn nodes(&self) -> Vec<serde_json::Value> {
        let listed = self.run(&["nodes", "--json"], b"");
        assert_eq!((listed.code, &*listed.stderr), (0, ""));
        listed.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    /// Waits until a node is listed with an inbox.
    pub(crate) fn await_inbox(&self, id: &str) {
        let has_inbox = |node: &serde_json::Value| node["id"] == id && node["inboxes"] != serde_json::json!([]);
        until(|| self.nodes().iter().any(has_inbox));
    }

    /// Waits until a node is listed.
    pub(crate) fn await_node(&self, id: &str) {
        until(|| self.nodes().iter().any(|node| node["id"] == id));
    }
}

/// A command that runs. Killed when dropped.
pub(crate) struct Running(Process);

impl Running {
    /// Starts a command with pipes.
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(Process::start(command.stderr(Stdio::piped())).expect("the program starts"))
    }

    pub(crate) fn new(child: Child) -> Self {
        Self(Process::supervise(child).expect("it runs"))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.pid()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.0.signal(signal).expect("it runs");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.0.stdin().expect("stdin is open").write_all(bytes).expect("it reads");
    }

    /// Writes until nothing more has been taken for a while.
    pub(crate) fn write_until_full(&mut self, line: &[u8]) {
        let stdin = self.0.stdin().expect("stdin is open");
        let flags = rustix::fs::fcntl_getfl(&*stdin).expect("a pipe");
        rustix::fs::fcntl_setfl(&*stdin, flags | rustix::fs::OFlags::NONBLOCK).expect("a pipe");
        let lines = line.repeat(10_000);
        let mut written = Instant::now();
        while written.elapsed() < Duration::from_millis(300) {
            match stdin.write(&lines) {
                Ok(_) => written = Instant::now(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next line of stdout, with its newline; empty at the end.
    pub(crate) fn read_line(&mut self) -> String {
        let line = self.0.says(LIMIT).expect("it writes text");
        line.map(|line| line + "\n").unwrap_or_default()
    }

    /// The next line of stderr, with its newline; empty at the end.
    pub(crate) fn read_stderr_line(&mut self) -> String {
        let line = self.0.complains(LIMIT).expect("it writes text");
        line.map(|line| line + "\n").unwrap_or_default()
    }

    pub(crate) fn close_stdin(&mut self) {
        self.0.close_stdin();
    }

    pub(crate) fn close_stdout(&mut self) {
        self.0.close_stdout();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.0.has_ended().expect("it can be waited for")
    }

    /// Writes this to its stdin, and waits for its end.
    pub(crate) fn ends_with(mut self, stdin: &[u8]) -> Ended {
        self.0.finishes_with(stdin, LIMIT).expect("it ends")
    }

    /// Waits for its end.
    pub(crate) fn ends(self) -> Ended {
        self.ends_with(b"")
    }

    /// Waits until its main thread has slept this often, or it has ended.
    pub(crate) fn sleeps_times(&self, times: u64) {
        let status = format!("/proc/{}/status", self.pid());
        let slept = || {
            let text = std::fs::read_to_string(&status).ok()?;
            text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok())
        };
        let Some(before) = slept() else { return };
        until(|| slept().is_none_or(|now| now >= before + times));
    }

    /// Waits until it sleeps, or has ended.
    pub(crate) fn sleeps(&self) {
        until(|| !matches!(proc::state(self.pid()), Ok('R' | 'D' | 'T')));
    }
}
