//! What members of a domain can put in others' way: planted files, and inboxes without number.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use librpc_system_tests::{TestDomain, is_root, skip};

/// Files that bear a node's name, but cannot be opened, or are no files.
#[test]
fn planted_files_are_passed_over_by_publishers_and_lists() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("subscribe s a/*");
    let plant = |name: &str| domain.path().join(format!("{name}.node"));
    symlink("/etc/passwd", plant("link")).unwrap();
    symlink("loop.node", plant("loop")).unwrap();
    drop(UnixListener::bind(plant("socket")).unwrap());
    std::fs::create_dir(plant("directory")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, plant("fifo"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::fs::write(plant("empty"), []).unwrap();
    std::fs::write(plant("garbage"), [0xff; 8192]).unwrap();
    std::fs::write(plant("locked"), []).unwrap();
    std::fs::set_permissions(plant("locked"), std::fs::Permissions::from_mode(0o000)).unwrap();

    let mut source = domain.node("source");
    assert_eq!(source.says("publish a/b hello"), "1");
    assert_eq!(sink.says("hear s"), "source a/b hello 0");
    let nodes: Vec<String> = domain.domain().nodes().unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(nodes, ["sink", "source"]);
    for name in ["link", "loop", "socket", "fifo", "empty", "garbage", "locked"] {
        let _ = std::fs::remove_file(plant(name)); // one that looks like a dead node's was swept
    }
    std::fs::remove_dir(plant("directory")).unwrap();
}

/// A file that its owner lets nobody read, as root's rights do not show.
#[test]
fn a_file_that_may_not_be_read_is_passed_over() {
    if !is_root() {
        return;
    }
    const GROUP: u32 = 54_320;
    let domain = TestDomain::new();
    let group = format!("group={GROUP}");
    let mut other = domain.puppet_of(54_321, GROUP);
    assert_eq!(other.opens("other", &group), "ok");
    let mut source = domain.puppet_of(54_322, GROUP);
    assert_eq!(source.opens("source", &group), "ok");
    std::fs::set_permissions(domain.path().join("other.node"), std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(source.says("publish a/b hello"), "0");
    drop((other, source));
    if librpc::Domain::at(domain.path()).shared_with_group(GROUP).clean().is_err() {
        skip("root may not clean up");
    }
}

#[test]
fn whoever_is_published_to_costs_a_publisher_no_more_than_its_limits() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    for name in ["a", "b", "c", "d"] {
        sink.does(&format!("subscribe {name} **"));
    }
    let mut source = domain.puppet();
    assert_eq!(source.opens("source", "channels=2"), "ok");
    let receipt = source.says("publish t hello");
    assert!(receipt.starts_with("2; ") && receipt.matches("(TooMuch)").count() == 2, "{receipt}");
    sink.does("unsubscribe a");
    sink.does("unsubscribe b");
    sink.does("unsubscribe c");
    sink.does("unsubscribe d");
    sink.does("subscribe e **");
    // What has ended is off the account.
    loop {
        let receipt = source.says("publish t again");
        if receipt.contains("(TooMuch)") {
            continue; // it has not noticed yet that they have ended
        }
        assert!(sink.says("hear e").starts_with("source t again"), "{receipt}"); // or its ring would fill up
        if receipt == "1" {
            break;
        }
    }
}
