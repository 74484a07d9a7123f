//! Calls without descriptors, without room in `/dev/shm`, and without the files of their domain: each ends once, with a right answer or
//! a true error, and calls work again once the cause is gone.

use std::fs::{File, remove_dir_all, remove_file};
use std::io::Write;

use librpc_system_tests::{proc, skip};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use testkit::{can_unshare, unshare};

use super::*;

/// Fewer descriptors than a process has that has joined a domain.
const NONE: u64 = 8;
/// How many descriptors more a process gets, one after the other. A first call takes fewer.
const MORE: u64 = 10;

/// A client process.
struct Caller(Process);

impl Caller {
    fn start(domain: &TestDomain, id: &str) -> Self {
        let mut command = program("caller");
        command.arg(domain.path()).arg(id);
        Self::ready(Process::start(&mut command).expect("the program is built with the tests"))
    }

    fn ready(process: Process) -> Self {
        let mut caller = Self(process);
        assert_eq!(caller.says(), "ready");
        caller
    }

    fn says(&mut self) -> String {
        self.0.says(LONG).expect("it answers").expect("it lives")
    }

    /// Begins a call. `Some`: it has failed at once.
    fn begins(&mut self, limit: Duration, text: &str) -> Option<String> {
        self.0.tell(&format!("call {} {text}", limit.as_millis()));
        Some(self.says()).filter(|said| said != "begun")
    }

    fn calls(&mut self, limit: Duration, text: &str) -> String {
        self.begins(limit, text).unwrap_or_else(|| self.says())
    }

    fn does(&mut self, order: &str) -> String {
        self.0.tell(order);
        self.says()
    }
}

/// A process that may have only this many descriptors, until this is dropped.
struct Limited {
    pid: Pid,
    before: Rlimit,
}

impl Limited {
    fn new(process: &Process, descriptors: u64) -> Self {
        let pid = Pid::from_raw(process.pid() as i32).unwrap();
        let limit =
            Rlimit { current: Some(descriptors), maximum: rustix::process::getrlimit(Resource::Nofile).maximum };
        Self { pid, before: prlimit(Some(pid), Resource::Nofile, limit).expect("the process lives") }
    }
}

impl Drop for Limited {
    fn drop(&mut self) {
        prlimit(Some(self.pid), Resource::Nofile, self.before).expect("the process lives");
    }
}

/// Whether a call has ended with an error that is true when there are no descriptors.
fn is_true(error: &str) -> bool {
    error.contains("Too many open files") || error.contains("has not answered within")
}

#[test]
fn the_first_call_of_a_client_without_descriptors() {
    let domain = TestDomain::new();
    let _server = ServerProcess::start(&domain, "server");
    let mut outcomes = Vec::new();
    for more in 0..=MORE {
        let mut caller = Caller::start(&domain, &format!("caller-{more}"));
        let used = proc::descriptors(caller.0.pid()).unwrap();
        let limited = Limited::new(&caller.0, if more == 0 { NONE } else { used + more });
        let ended = caller.calls(4 * SHORT, "echo x");
        assert!(ended == "ok x" || is_true(&ended), "{more} more: {ended}");
        drop(limited);
        assert_eq!(caller.calls(LONG, "echo y"), "ok y", "after {more} more: {ended}");
        outcomes.push(ended);
    }
    assert!(outcomes[0].contains("Too many open files"), "{outcomes:?}");
    assert_eq!(outcomes[MORE as usize], "ok x", "{outcomes:?}");
}

#[test]
fn the_first_call_to_a_server_without_descriptors() {
    let domain = TestDomain::new();
    let mut outcomes = Vec::new();
    for more in 0..=MORE {
        let server = ServerProcess::start(&domain, "server");
        let here = open(&domain, "client");
        let client = here.client("work").unwrap();
        let used = proc::descriptors(server.process.pid()).unwrap();
        let limited = Limited::new(&server.process, if more == 0 { NONE } else { used + more });
        let waiting = client.start(b"echo later", LONG).unwrap();
        let ended = client.call(b"echo x", 4 * SHORT).map(|reply| reply.to_vec()).map_err(|error| error.to_string());
        assert!(ended.as_ref().map_or_else(|error| is_true(error), |reply| reply == b"x"), "{more} more: {ended:?}");
        drop(limited);
        assert_eq!(*waiting.wait().unwrap(), *b"later", "after {more} more: {ended:?}");
        assert_eq!(*client.call(b"echo y", LONG).unwrap(), *b"y", "after {more} more: {ended:?}");
        outcomes.push(ended);
    }
    assert!(outcomes[0].is_err() && outcomes[MORE as usize].is_ok(), "{outcomes:?}");
}

#[test]
fn a_request_whose_server_dies_while_its_client_has_no_descriptors() {
    let domain = TestDomain::new();
    let (mut caller, mut server) = (Caller::start(&domain, "caller"), ServerProcess::start(&domain, "server-1"));
    assert_eq!(caller.calls(LONG, "echo warm"), "ok warm");
    server.process.stop().unwrap();
    let limited = Limited::new(&caller.0, NONE);
    let sleeps = proc::sleeps(caller.0.pid()).unwrap();
    assert_eq!(caller.begins(Duration::from_secs(1), "echo x"), None);
    server.process.kill().unwrap();
    let ended = caller.says();
    assert!(ended.starts_with("error the servers of \"work\" could not be looked up: "), "{ended}");
    assert!(ended.contains("Too many open files"), "{ended}");
    // It looks less and less often: about 16 times in a second.
    let sleeps = proc::sleeps(caller.0.pid()).unwrap() - sleeps;
    assert!(sleeps < 200, "it sleeps {sleeps} times");
    drop((limited, server));
    let mut server = ServerProcess::start(&domain, "server-1");
    assert_eq!(caller.calls(LONG, "echo warm"), "ok warm");
    server.process.stop().unwrap();
    assert_eq!(caller.begins(LONG, "echo x"), None);
    let limited = Limited::new(&caller.0, NONE);
    server.process.kill().unwrap();
    let other = ServerProcess::start(&domain, "server-2");
    drop(limited);
    assert_eq!(caller.says(), "ok x", "another server carries it out");
    drop(other);
}

#[test]
fn a_full_dev_shm_ends_no_call() {
    const ALONE: [&str; 2] = ["--mount", "--propagation=private"];
    let domain = TestDomain::new();
    if can_unshare(&ALONE).is_err() {
        return skip("mounting needs root");
    }
    let mut shell = std::process::Command::new("sh");
    let caller = program("caller");
    shell.args(["-c", "mount -t tmpfs -o size=1048576 none /dev/shm && exec \"$@\"", "sh"]);
    shell.arg(caller.get_program()).arg(domain.path()).arg("caller");
    let mut caller = Caller::ready(Process::start_wrapper(&mut unshare(&ALONE, &shell)).expect("`unshare` works"));
    assert_eq!(caller.does("serve work"), "done");
    assert_eq!(caller.calls(LONG, "warm"), "ok warm");
    let path = format!("/proc/{}/root/dev/shm/filling", caller.0.pid());
    let mut filling = File::create(&path).expect("there is room");
    while filling.write(&[0; 4096]).is_ok() {}
    assert_eq!(caller.calls(LONG, "over what is there"), "ok over what is there");
    assert_eq!(caller.does("client"), "done", "a client has no file");
    assert_eq!(caller.calls(LONG, "over new channels"), "ok over new channels");
    let long = "x".repeat(MIB);
    assert_eq!(caller.calls(LONG, &long), format!("ok {long}"));
    // Each service is a line in the node's file, which has room for many.
    let refused = (0..1000)
        .map(|number| caller.does(&format!("serve {}{number}", "long/".repeat(40))))
        .find(|said| said != "done");
    let refused = refused.expect("there is no room for a thousand");
    assert!(refused.contains("No space left"), "{refused}");
    assert_eq!(caller.calls(LONG, "afterwards"), "ok afterwards");
    remove_file(&path).unwrap();
    assert_eq!(caller.does("serve another"), "done");
    assert_eq!(caller.does("client"), "done");
    assert_eq!(caller.calls(LONG, "with room again"), "ok with room again");
}

#[test]
fn the_files_of_the_domain_are_removed_while_calls_are_under_way() {
    for with_directory in [false, true] {
        let domain = TestDomain::new();
        let _server = ServerProcess::start(&domain, "server");
        let mut caller = Caller::start(&domain, "caller");
        let here = open(&domain, "client");
        let client = here.client("work").unwrap();
        assert_eq!(caller.calls(LONG, "echo warm"), "ok warm");
        assert_eq!(*client.call(b"echo warm", LONG).unwrap(), *b"warm");
        for round in 0..3 {
            let mut held = client.start(b"hold", LONG).unwrap();
            let parts = client.call_stream(b"parts 1000 8", LONG).unwrap();
            match with_directory {
                true => while remove_dir_all(domain.path()).is_err() {},
                false => domain.entries().iter().for_each(|name| {
                    let _ = remove_file(domain.path().join(name)); // its owner may be faster
                }),
            }
            // What is connected goes on.
            assert_eq!(caller.calls(LONG, "echo at once"), "ok at once", "round {round}");
            let parts: Vec<_> = parts.collect();
            assert!(parts.len() == 1000 && parts.iter().all(Result::is_ok), "round {round}: {parts:?}");
            assert!(held.try_wait().is_none(), "round {round}");
            // What is not yet connected may find nobody.
            match here.client("work").unwrap().call(b"echo between", LONG) {
                Ok(reply) => assert_eq!(*reply, *b"between"),
                Err(CallError::NoServer { .. } | CallError::ServerDied { taken: false, .. }) => {}
                Err(error) => panic!("round {round}: {error}"),
            }
            // Its server restores its files by itself.
            let newcomer = open(&domain, &format!("newcomer-{round}"));
            let new = newcomer.client("work").unwrap();
            assert!(new.wait_for_server(LONG).unwrap());
            assert_eq!(*new.call(b"echo new", LONG).unwrap(), *b"new", "round {round}");
            // A client that was there finds servers that come now.
            let other = ServerProcess::start(&domain, "other");
            let to_other = CallOptions::new(LONG).to("other");
            wait_until(|| client.servers().unwrap().contains(&"other".into()));
            assert_eq!(*client.call(b"echo other", to_other).unwrap(), *b"other", "round {round}");
            drop(other);
        }
    }
}
