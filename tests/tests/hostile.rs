//! What members of a domain can do to others: planted files, and any number of inboxes.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;

use librpc_system_tests::orders::*;
use librpc_system_tests::{Puppets, TestDomain, is_root, skip};

/// Files that have a node's name but cannot be opened, or are not even files.
#[test]
fn publishers_and_lists_skip_planted_files() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(subscribe("s", "a/*"));
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
    assert_eq!(source.does(publish("a/b", "hello")), reached(1));
    assert_eq!(sink.does(receive_from("s")).in_full(), "source a/b hello 0");
    let nodes: Vec<String> = domain.domain().nodes().unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(nodes, ["sink", "source"]);
    for name in ["link", "loop", "socket", "fifo", "empty", "garbage", "locked"] {
        let _ = std::fs::remove_file(plant(name)); // a plant that looks like the file of a dead node was swept
    }
    std::fs::remove_dir(plant("directory")).unwrap();
}

/// Run by other users, because root can read every file.
#[test]
fn publishers_skip_a_file_that_they_may_not_read() {
    if !is_root() {
        return;
    }
    const GROUP: u32 = 54_320;
    let domain = TestDomain::new();
    let mut other = domain.puppet_of(54_321, GROUP);
    other.does(open("other").group(GROUP));
    let mut source = domain.puppet_of(54_322, GROUP);
    source.does(open("source").group(GROUP));
    std::fs::set_permissions(domain.path().join("other.node"), std::fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(source.does(publish("a/b", "hello")), reached(0));
    drop((other, source));
    if librpc::Domain::at(domain.path()).shared_with_group(GROUP).clean().is_err() {
        skip("root may not clean up");
    }
}

#[test]
fn subscribers_cost_a_publisher_no_more_than_its_limits() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    for name in ["a", "b", "c", "d"] {
        sink.does(subscribe(name, "**"));
    }
    let mut source = domain.puppet();
    source.does(open("source").channels_per_user(2));
    let published = source.does(publish("t", "hello"));
    assert_eq!((published.inboxes, published.undelivered.len()), (2, 2), "{published:?}");
    assert!(published.undelivered.iter().all(|error| error.contains("(TooMuch)")), "{published:?}");
    sink.does(unsubscribe("a"));
    sink.does(unsubscribe("b"));
    sink.does(unsubscribe("c"));
    sink.does(unsubscribe("d"));
    sink.does(subscribe("e", "**"));
    // Channels that have ended no longer count.
    loop {
        let published = source.does(publish("t", "again"));
        if published.undelivered.iter().any(|error| error.contains("(TooMuch)")) {
            continue; // it has not noticed yet that they have ended
        }
        let message = sink.does(receive_from("e")); // or its ring would fill up
        assert_eq!((&*message.from, &*message.topic, &*message.text), ("source", "t", "again"), "{published:?}");
        if published == reached(1) {
            break;
        }
    }
}
