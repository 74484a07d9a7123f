//! Helpers of the whole-system tests: domains of their own, and puppets, which are real processes.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// Whether the tests run as root, and may take other uids and mount. What needs it says so where it is skipped.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skip("this test needs root");
    }
    root
}

/// Says that a test is skipped, and why: past the test runner, which swallows what passing tests print.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {name}: {why}");
}

/// A domain of one test's own. Dropping it checks that nothing is left.
#[derive(Debug)]
pub struct TestDomain {
    path: PathBuf,
}

impl TestDomain {
    /// A domain that does not exist yet.
    #[expect(clippy::new_without_default, reason = "every one is another")]
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self { path: format!("/dev/shm/librpc_test_{}_{number}", std::process::id()).into() }
    }

    /// A domain at a path of the test's choice.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The domain for the library.
    pub fn domain(&self) -> librpc::Domain {
        librpc::Domain::at(&self.path)
    }

    /// The names of what is in the directory, sorted; empty if there is none.
    pub fn entries(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return Vec::new() };
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The rendezvous socket of a node: its name carries the inode number of the node's file.
    pub fn socket_of(&self, id: &str) -> PathBuf {
        let file = std::fs::metadata(self.path.join(format!("{id}.node"))).expect("the node is there");
        self.path.join(format!("{id}.{:x}.sock", file.ino()))
    }

    /// The names that are in the directory if just these nodes are there, sorted.
    pub fn entries_with(&self, ids: &[&str]) -> Vec<String> {
        let mut names = vec!["generation".to_owned()];
        for id in ids {
            let socket = self.socket_of(id);
            names.extend([format!("{id}.node"), socket.file_name().expect("a name").to_string_lossy().into_owned()]);
        }
        names.sort();
        names
    }

    /// Cleans up and asserts that nothing is left.
    pub fn assert_cleanable(&self) {
        self.domain().clean().expect("the domain can be cleaned");
        self.assert_gone();
    }

    /// Asserts that nothing is left, without any cleaning.
    pub fn assert_gone(&self) {
        assert_eq!(self.entries(), [""; 0], "left in {}", self.path.display());
        assert!(!self.path.exists(), "{} is left", self.path.display());
    }

    /// A process that does what the test tells it.
    pub fn puppet(&self) -> Puppet {
        Puppet::start(self, |_| {})
    }

    /// A puppet that has opened a node.
    pub fn node(&self, id: &str) -> Puppet {
        let mut puppet = self.puppet();
        puppet.does(&format!("open {id} {}", self.path.display()));
        puppet
    }

    /// A puppet that has opened a node and its inbox.
    pub fn receiver(&self, id: &str) -> Puppet {
        let mut puppet = self.node(id);
        puppet.does("inbox");
        puppet
    }

    /// A puppet that dies, or stops, when it reaches a step: `step`, `step:stop`, `step:kill:3`.
    pub fn doomed(&self, plan: &str) -> Puppet {
        Puppet::start(self, |command| {
            command.env("LIBRPC_FAULT", plan);
        })
    }

    /// A puppet of another user and group.
    pub fn puppet_of(&self, uid: u32, gid: u32) -> Puppet {
        Puppet::start(self, |command| {
            command.uid(uid).gid(gid);
        })
    }
}

impl Drop for TestDomain {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.assert_cleanable();
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// The program of the puppets, which Cargo puts beside the tests.
fn puppet_program() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let target = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
    target.join("puppet")
}

/// A process that does what the test tells it. Killed when dropped.
#[derive(Debug)]
pub struct Puppet {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    domain: PathBuf,
}

impl Puppet {
    fn start(domain: &TestDomain, set_up: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(puppet_program());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env_remove("LIBRPC_DOMAIN");
        set_up(&mut command);
        let mut child = command.spawn().expect("the puppet's program was built");
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Self { child, stdin, stdout, domain: domain.path.clone() }
    }

    /// Gives a command without waiting for the answer.
    pub fn begins(&mut self, command: &str) {
        let stdin = self.stdin.as_mut().expect("the puppet listens");
        // A puppet that is dying does not take it: that shows in the answer.
        let _ = writeln!(stdin, "{command}").and_then(|()| stdin.flush());
    }

    /// The answer to the oldest command that has none; `None`: the puppet is dead.
    pub fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches('\n').to_owned()),
        }
    }

    /// Gives a command and returns the answer.
    pub fn says(&mut self, command: &str) -> String {
        self.begins(command);
        self.answer().unwrap_or_else(|| panic!("the puppet died of {command:?}: {:?}", self.child.wait()))
    }

    /// Gives a command that must succeed.
    #[track_caller]
    pub fn does(&mut self, command: &str) {
        assert_eq!(self.says(command), "ok", "{command}");
    }

    /// Gives a command that must fail, and returns the error.
    #[track_caller]
    pub fn fails(&mut self, command: &str) -> String {
        let answer = self.says(command);
        answer.strip_prefix("error: ").unwrap_or_else(|| panic!("{command:?} should fail: {answer}")).to_owned()
    }

    /// Opens a node in the puppet's domain.
    pub fn opens(&mut self, id: &str, options: &str) -> String {
        let command = format!("open {id} {} {options}", self.domain.display());
        self.says(command.trim_end())
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the puppet is there");
    }

    /// Kills the puppet with SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the puppet can be waited for");
    }

    /// Waits until the puppet has died of a planned fault.
    pub fn dies(&mut self) {
        let status = self.child.wait().expect("the puppet can be waited for");
        assert_eq!(status.signal(), Some(9), "{status}");
    }

    /// Stops the puppet with SIGSTOP, and waits until it is stopped.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
        self.wait_until_stopped();
    }

    /// Waits until the puppet is stopped, by whomever.
    pub fn wait_until_stopped(&self) {
        let stat = format!("/proc/{}/stat", self.pid());
        loop {
            let text = std::fs::read_to_string(&stat).expect("the puppet is there");
            if text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')) {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Lets a stopped puppet go on.
    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    /// Ends the puppet's stdin: it drops everything and exits. Waits for that.
    pub fn finishes(mut self) {
        self.stdin = None;
        let status = self.child.wait().expect("the puppet can be waited for");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A puppet's forked child, which outlives the puppet; it does not outlive this.
pub struct Forked(Pid);

impl Forked {
    /// The child that a puppet's answer to `fork` names, and what it said.
    pub fn of(answer: &str) -> (Self, &str) {
        let (pid, said) = answer.split_once(' ').expect("a pid and what the child says");
        let pid = Pid::from_raw(pid.parse().expect("a pid"));
        (Self(pid.expect("a child's pid is not 0")), said)
    }
}

impl Drop for Forked {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::KILL); // it may have ended
    }
}
