//! Nodes that are observed from outside, and files with false content.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use librpc::{NodeStats, ObserveError, Observed};
use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain};

const LIMIT: Duration = Duration::from_secs(20);
/// Where these are in a node's file: see `layout.rs` of the registry.
const INCARNATION: u64 = 16;
const PID: u64 = 32;

fn of<'o>(observed: &'o [Observed], id: &str) -> &'o Result<NodeStats, ObserveError> {
    &observed.iter().find(|observed| observed.node.id == id).expect("it is listed").stats
}

/// The pid in the file of a node from another pid namespace belongs to another process here. What counts is which
/// process the kernel shows as the holder of the file's lock.
#[test]
fn a_node_is_not_judged_by_the_number_in_its_file() {
    let domain = TestDomain::new();
    let (lively, stopped) = (domain.receiver("lively"), domain.receiver("stopped"));
    let elsewhere = domain.puppet();
    elsewhere.stop();
    stopped.stop();
    for (id, pid) in [("lively", elsewhere.pid()), ("stopped", std::process::id())] {
        let file = std::fs::File::options().write(true).open(domain.path().join(format!("{id}.node"))).unwrap();
        file.write_all_at(&pid.to_le_bytes(), PID).unwrap();
    }
    let observed = domain.domain().observe(LIMIT).unwrap();
    assert_eq!(observed.iter().find(|observed| observed.node.id == "lively").unwrap().node.pid, elsewhere.pid());
    assert!(of(&observed, "lively").is_ok(), "{:?}", of(&observed, "lively"));
    assert_eq!(of(&observed, "stopped").as_ref().unwrap_err(), &ObserveError::Stopped);
    stopped.go_on();
    assert!(of(&domain.domain().observe(LIMIT).unwrap(), "stopped").is_ok());
    drop((lively, elsewhere));
}

/// Otherwise the observers would fill its queue, and no process could connect to it.
#[test]
fn looking_at_a_stopped_node_takes_no_place_in_its_queue() {
    let domain = TestDomain::new();
    let (mut sink, mut source) = (domain.receiver("sink"), domain.node("source"));
    sink.stop();
    for _ in 0..5_000 {
        let observed = domain.domain().observe(LIMIT).unwrap();
        assert_eq!(of(&observed, "sink").as_ref().unwrap_err(), &ObserveError::Stopped);
    }
    source.does(try_connect("sink"));
    source.does(send("sink", "hello"));
    sink.go_on();
    assert_eq!(sink.does(receive()).text, "hello");
}

/// The answer of one node is never shown under another node's name, although every process can read and copy an
/// incarnation.
#[test]
fn a_copied_incarnation_shows_nobody_elses_statistics() {
    let domain = TestDomain::new();
    let (_victim, _evil) = (domain.receiver("victim"), domain.node("evil"));
    let open =
        |id: &str| std::fs::File::options().read(true).write(true).open(domain.path().join(format!("{id}.node")));
    let mut incarnation = [0; 16];
    open("victim").unwrap().read_exact_at(&mut incarnation, INCARNATION).unwrap();
    open("evil").unwrap().write_all_at(&incarnation, INCARNATION).unwrap();
    let nodes = domain.domain().nodes().unwrap();
    assert_eq!(nodes[0].incarnation, nodes[1].incarnation, "it is copied");
    let observed = domain.domain().observe(LIMIT).unwrap();
    let said = of(&observed, "victim").as_ref().expect("it answers for itself");
    assert_eq!((&*said.node, said.inboxes.len()), ("victim", 1));
    assert!(of(&observed, "evil").is_err(), "{:?}", of(&observed, "evil"));
}
