//! Processes that enter a sandbox while they run, which forbids what the kernel allowed before.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain};

/// The program `sandboxed`, which Cargo puts beside these tests. Killed when dropped.
struct Sandboxed {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Sandboxed {
    fn start(domain: &TestDomain, role: &str) -> Self {
        let test = std::env::current_exe().expect("a test has a path");
        let target = test.parent().and_then(Path::parent).expect("a test lies in target/<profile>/deps");
        let mut command = Command::new(target.join("sandboxed"));
        command.arg(role).env("LIBRPC_DOMAIN", domain.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the program was built");
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, stdin, stdout }
    }

    fn begins(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").expect("it listens");
    }

    fn answers(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).expect("what it says is text");
        line.trim_end().to_owned()
    }

    fn says(&mut self, line: &str) -> String {
        self.begins(line);
        self.answers()
    }

    /// Waits until its main thread sleeps.
    fn sleeps(&self) {
        let stat = format!("/proc/{0}/task/{0}/stat", self.child.id());
        let is_asleep = || {
            let text = std::fs::read_to_string(&stat).expect("it is there");
            text.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
        };
        while !is_asleep() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Sandboxed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Registering takes milliseconds in a process of several threads, so it is done when the node is opened.
#[test]
fn connecting_registers_for_no_barrier() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = Sandboxed::start(&domain, "connects");
    assert_eq!(sink.does(receive()).text, "hello");
    let next = sink.begins(try_receive()); // the first one is processed then
    assert_eq!(source.answers(), "processed");
    assert_eq!(sink.completes(next), None);
}

#[test]
fn a_receiver_that_may_have_no_barriers_any_more_looks_by_itself() {
    let domain = TestDomain::new();
    let mut sink = Sandboxed::start(&domain, "receives");
    assert_eq!(sink.answers(), "ready");
    let mut source = Sandboxed::start(&domain, "sends");
    assert_eq!(source.answers(), "ready");
    assert_eq!(sink.says("receive"), "receiving");
    assert_eq!(source.says("with a bell"), "sent");
    assert_eq!(sink.answers(), "with a bell");
    assert_eq!((sink.says("sandbox"), source.says("sandbox")), ("entered".into(), "entered".into()));
    for number in 0..20 {
        let text = format!("{number} without a bell");
        assert_eq!(sink.says("receive"), "receiving");
        sink.sleeps();
        assert_eq!(source.says(&text), "sent");
        assert_eq!(sink.answers(), text);
    }
}
