//! Whom a node admits, and what asking costs.

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use librpc::{Admission, ConnectError, Limits, Node, ObserveError, Observer, Reason, Rule};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain, is_root};

const LIMIT: Duration = Duration::from_secs(20);

/// Whether a node that admits so lets a node of this process in.
fn lets_in(admission: Admission) -> bool {
    let domain = TestDomain::new();
    let open = |id: &str| Node::builder(id).domain(domain.domain());
    let (receiver, source) = (open("receiver").admit(admission).open().unwrap(), open("source").open().unwrap());
    let _inbox = receiver.inbox().unwrap();
    match source.connect("receiver") {
        Ok(_) => true,
        Err(ConnectError::Refused { reason: Reason::NotAdmitted, .. }) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn rules_of_one_list_must_all_match() {
    let uid = rustix::process::geteuid().as_raw();
    let program = std::env::current_exe().expect("a test has a path");
    let runs = |path: &std::path::Path| Rule::Executable(path.to_owned());
    assert!(lets_in(Admission::nobody().all_of([Rule::Uid(uid), runs(&program)])));
    assert!(!lets_in(Admission::nobody().all_of([Rule::Uid(uid + 1), runs(&program)])));
    assert!(!lets_in(Admission::nobody().all_of([Rule::Uid(uid), runs("/usr/bin/other".as_ref())])));
    assert!(!lets_in(Admission::nobody().all_of([])));
    assert!(lets_in(Admission::nobody().all_of([Rule::Uid(uid + 1)]).all_of([Rule::SameUser, runs(&program)])));
}

#[test]
fn the_refusal_says_that_a_program_cannot_be_read_and_where_it_can() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let group = 4_242;
    let mut sink = domain.puppet_of(1_234, group);
    sink.does(open("sink").group(group).admitting_executable("/usr/bin/other"));
    sink.does(inbox());
    let source = Node::builder("source").domain(domain.domain().shared_with_group(group)).open().unwrap();
    let why = source.connect("sink").unwrap_err().to_string();
    for part in ["does not admit uid 0", "cannot be read (Permission denied", "the same user", "run by root"] {
        assert!(why.contains(part), "{part} in {why}");
    }
    source.close(LIMIT).unwrap();
    sink.does(leave());
}

/// How many calls there are of a function that does not return until it may.
#[derive(Default)]
struct Calls {
    running: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Calls {
    fn enter(&self) {
        self.running.lock().unwrap().0 += 1;
        self.changed.notify_all();
        let may_return = self.changed.wait_while(self.running.lock().unwrap(), |(_, may_return)| !*may_return);
        may_return.unwrap().0 -= 1;
    }

    fn wait_for(&self, calls: usize) {
        drop(self.changed.wait_while(self.running.lock().unwrap(), |(running, _)| *running < calls).unwrap());
    }
}

/// Who asks and hangs up has its function called all the same: that call stays on its user's account until it returns.
#[test]
fn calls_of_an_admission_function_are_bounded_whatever_becomes_of_their_peers() {
    let domain = TestDomain::new();
    let calls = Arc::new(Calls::default());
    let asked = calls.clone();
    let admission = Admission::nobody().function(move |_| {
        asked.enter();
        true
    });
    let limits = Limits::default().decisions_per_user(3);
    let node = Node::builder("thoughtful").domain(domain.domain()).admit(admission).limits(limits).open().unwrap();
    let ask = |limit: Duration| {
        let nodes = domain.domain().observe(limit).unwrap();
        nodes.into_iter().find(|observed| observed.node.id == "thoughtful").expect("it is listed").stats
    };
    for number in 1..=3 {
        let mut observer = Observer::new(domain.domain());
        assert!(matches!(observer.look(Duration::ZERO).unwrap()[0].stats, Err(ObserveError::Stalled { .. })));
        calls.wait_for(number);
    } // which hangs up
    for _ in 0..50 {
        let refused = ask(LIMIT);
        assert!(matches!(refused, Err(ObserveError::Refused { reason: Reason::Busy, .. })), "{refused:?}");
    }
    assert_eq!(calls.running.lock().unwrap().0, 3);
    // A sender tries again by itself.
    let _inbox = node.inbox().unwrap();
    let source = Node::builder("source").domain(domain.domain()).open().unwrap();
    let mut sender = source.try_connect("thoughtful").unwrap();
    calls.running.lock().unwrap().1 = true;
    calls.changed.notify_all();
    sender.send(b"hello").unwrap();
    let begun = Instant::now();
    while ask(LIMIT).is_err() {
        assert!(begun.elapsed() < LIMIT, "the calls have returned");
    }
}
