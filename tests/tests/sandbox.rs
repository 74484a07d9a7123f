//! Processes that enter a sandbox while they run, which then forbids what the kernel allowed before.

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain, proc, program, wait_until};
use testkit::{HANG, Process};

/// The program `sandboxed`.
struct Sandboxed(Process);

impl Sandboxed {
    fn start(domain: &TestDomain, role: &str) -> Self {
        let mut command = program("sandboxed");
        command.arg(role).env("LIBRPC_DOMAIN", domain.path());
        Self(Process::start(&mut command).expect("the program is built with the tests"))
    }

    fn answers(&mut self) -> String {
        self.0.says(HANG).expect("it answers").expect("it runs")
    }

    fn says(&mut self, line: &str) -> String {
        self.0.tell(line);
        self.answers()
    }

    /// Waits until its main thread sleeps.
    fn sleeps(&self) {
        wait_until(|| proc::state(self.0.pid()).expect("it runs") == 'S');
    }
}

/// Registering takes milliseconds in a process of several threads, so it is done when the node is opened.
#[test]
fn connecting_does_not_register_for_barriers() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = Sandboxed::start(&domain, "connects");
    assert_eq!(sink.does(receive()).text, "hello");
    let next = sink.begins(try_receive()); // the first one is processed then
    assert_eq!(source.answers(), "processed");
    assert_eq!(sink.completes(next), None);
}

#[test]
fn a_receiver_without_barriers_looks_by_itself() {
    receives_without_bells("receives", Sandboxed::sleeps);
}

/// In a foreign event loop, it comes again at once.
#[test]
fn tasks_and_wait_sets_without_barriers_look_again() {
    for role in ["receives in a task", "receives with a set"] {
        receives_without_bells(role, |_| {});
    }
}

fn receives_without_bells(role: &str, sleeps: impl Fn(&Sandboxed)) {
    let domain = TestDomain::new();
    let mut sink = Sandboxed::start(&domain, role);
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
        sleeps(&sink);
        assert_eq!(source.says(&text), "sent");
        assert_eq!(sink.answers(), text);
    }
}
