//! What the tests of the command line share. Each test has a domain of its own, and nothing of it may be left at the end.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// Longer than any of these tests should wait.
const LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Place(PathBuf);

/// The domain of a test.
pub(crate) fn place(test: &str) -> Place {
    Place(PathBuf::from(format!("/dev/shm/librpc_test_{}_{test}", std::process::id())))
}

impl Place {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn librpc(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_librpc"));
        command.env_remove("LIBRPC_DOMAIN").arg("--domain").arg(&self.0).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a command with pipes.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.librpc(arguments))
    }

    /// Starts a command in a shell, which does something first. The script ends with `exec "$@"` or the like.
    pub(crate) fn start_in_shell(&self, script: &str, arguments: &[&str]) -> Running {
        let librpc = self.librpc(arguments);
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).arg(librpc.get_program()).args(librpc.get_args());
        Running::start(shell.env_remove("LIBRPC_DOMAIN"))
    }

    /// Starts a command in namespaces of its own, which `unshare` makes with these options. `None`: that is not allowed.
    pub(crate) fn start_unshared(&self, options: &[&str], arguments: &[&str]) -> Option<Running> {
        let can = Command::new("unshare").args(options).args(["--fork", "true"]).output();
        can.ok().filter(|ended| ended.status.success())?;
        let librpc = self.librpc(arguments);
        let mut command = Command::new("unshare");
        command.args(options).args(["--fork", "--kill-child=TERM"]).arg(librpc.get_program()).args(librpc.get_args());
        Some(Running::start(command.env_remove("LIBRPC_DOMAIN")))
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

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        } else {
            assert_eq!(self.left(), Vec::<String>::new(), "something is left behind");
        }
    }
}

impl Place {
    /// What is left of the domain, and of others whose names begin with its name.
    fn left(&self) -> Vec<String> {
        let name = self.0.file_name().and_then(|name| name.to_str()).expect("a test's name");
        let entries = std::fs::read_dir("/dev/shm").expect("it is there").flatten();
        let entries = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        entries.filter(|entry| entry == name || entry.starts_with(&format!("{name}."))).collect()
    }
}

/// Waits for a state.
pub(crate) fn until(mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LIMIT, "it never came");
        std::thread::yield_now();
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// As a shell shows it.
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ended {
    pub(crate) fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).expect("UTF-8")
    }
}

pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a command with pipes.
    pub(crate) fn start(command: &mut Command) -> Self {
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self::new(started.expect("the program starts"))
    }

    pub(crate) fn new(mut child: Child) -> Self {
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().map(BufReader::new));
        Self { child, stdin, stdout }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("stdin is open").write_all(bytes).expect("it reads");
    }

    /// Writes until nothing more has been taken for a while.
    pub(crate) fn write_until_full(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_ref().expect("stdin is open");
        let flags = rustix::fs::fcntl_getfl(stdin).expect("a pipe");
        rustix::fs::fcntl_setfl(stdin, flags | rustix::fs::OFlags::NONBLOCK).expect("a pipe");
        let lines = line.repeat(10_000);
        let mut written = Instant::now();
        while written.elapsed() < Duration::from_millis(300) {
            match self.stdin.as_mut().expect("stdin is open").write(&lines) {
                Ok(_) => written = Instant::now(),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    pub(crate) fn read_line(&mut self) -> String {
        read_line(self.stdout.as_mut().expect("stdout is open"))
    }

    /// Waits for a line on stderr.
    pub(crate) fn read_stderr_line(&mut self) -> String {
        let stderr = self.child.stderr.take().expect("stderr is a pipe");
        let mut reader = BufReader::with_capacity(1, stderr); // reads no further than the line
        let line = read_line(&mut reader);
        self.child.stderr = Some(reader.into_inner());
        line
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    pub(crate) fn close_stdout(&mut self) {
        self.stdout = None;
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("it can be waited for").is_some()
    }

    /// Writes this to its stdin, and waits for its end.
    pub(crate) fn ends_with(mut self, stdin: &[u8]) -> Ended {
        let mut pipe = self.stdin.take();
        std::thread::scope(|scope| {
            scope.spawn(move || pipe.as_mut().map(|pipe| pipe.write_all(stdin))); // it may not want it all
            self.ends()
        })
    }

    /// Waits for its end.
    pub(crate) fn ends(mut self) -> Ended {
        self.stdin = None;
        let (mut stdout, mut stderr) = (Vec::new(), String::new());
        let (out, mut err) = (self.stdout.take(), self.child.stderr.take().expect("stderr is a pipe"));
        let status = std::thread::scope(|scope| {
            scope.spawn(|| out.map(|mut out| out.read_to_end(&mut stdout).expect("it can be read")));
            scope.spawn(|| err.read_to_string(&mut stderr).expect("it is text"));
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status; // perhaps waited for before
            }
            let pidfd = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("it can be waited for");
            let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
            if poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)) == Ok(0) {
                let _ = self.child.kill();
                panic!("it does not end");
            }
            self.child.wait().expect("it can be waited for")
        });
        Ended { code: code(status), stdout, stderr }
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
        let stat = format!("/proc/{}/stat", self.pid());
        let state = || std::fs::read_to_string(&stat).ok()?.rsplit_once(") ")?.1.chars().next();
        until(|| matches!(state(), Some('S' | 'Z') | None));
    }
}

/// Reads a line, and waits for it up to the limit; at the end of the stream, nothing.
fn read_line<R: Read + AsFd>(reader: &mut BufReader<R>) -> String {
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        if reader.buffer().is_empty() {
            let limit = Timespec { tv_sec: LIMIT.as_secs() as i64, tv_nsec: 0 };
            let ready = poll(&mut [PollFd::new(reader.get_ref(), PollFlags::IN)], Some(&limit));
            assert_ne!(ready, Ok(0), "no line comes after {:?}", String::from_utf8_lossy(&line));
        }
        let bytes = reader.fill_buf().expect("it can be read");
        let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1);
        line.extend_from_slice(&bytes[..end]);
        reader.consume(end);
        if end == 0 {
            break;
        }
    }
    String::from_utf8(line).expect("it writes text")
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.child.kill();
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().expect("code or signal"))
}
