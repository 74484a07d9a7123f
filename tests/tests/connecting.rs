//! Connecting under attack: deaths and stops at every step of the handshake, admission, floods, exhaustion.

use std::os::unix::net::UnixStream;

use librpc_system_tests::{Puppet, TestDomain, is_root, skip};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

#[test]
fn a_sender_that_dies_at_any_step_of_connecting_costs_nobody_anything() {
    for step in [
        "connect.connected",
        "connect.hello-sent",
        "connect.attached",
        "commit.payload-written",
        "commit.zero-written",
        "commit.committed",
        "send.must-ring",
        "wait.announced",
    ] {
        let domain = TestDomain::new();
        let mut sink = domain.receiver("sink");
        let mut doomed = domain.doomed(step);
        doomed.begins(&format!("open doomed {}", domain.path().display()));
        doomed.begins("sender sink");
        if step == "send.must-ring" {
            assert_eq!(doomed.answer().as_deref(), Some("ok"));
            assert_eq!(doomed.answer().as_deref(), Some("ok"));
            sink.says("event");
            sink.begins("event"); // asleep, sooner or later
            for _ in 0..1_000_000 {
                doomed.begins("send sink 1");
                if doomed.answer().is_none() {
                    break;
                }
                sink.answer();
                sink.begins("event");
            }
        } else {
            doomed.begins("count sink 1 1");
            doomed.begins("flush sink 10000");
        }
        doomed.dies();
        let mut source = domain.node("source");
        source.does("sender sink");
        source.does("send sink hello");
        loop {
            let event = if step == "send.must-ring" { sink.answer().unwrap() } else { sink.says("event") };
            if event == "message source hello" {
                break;
            }
            let expected = ["joined doomed", "joined source", "message doomed 1", "left doomed Died"];
            assert!(expected.contains(&&*event), "{step}: {event}");
            if step == "send.must-ring" {
                sink.begins("event");
            }
        }
    }
}

#[test]
fn a_receiver_that_dies_at_any_step_of_connecting_is_told_from_a_slow_one() {
    for step in [
        "accept.accepted",
        "accept.mapped",
        "accept.attached",
        "consume.taken",
        "consume.consumed",
        "arm.armed",
        "wake.woken",
    ] {
        let domain = TestDomain::new();
        let mut doomed = domain.doomed(step);
        doomed.begins(&format!("open sink {}", domain.path().display()));
        doomed.begins("inbox");
        doomed.begins("recv");
        doomed.begins("try-recv");
        let mut source = domain.node("source");
        source.begins("sender sink 30000");
        if !step.starts_with("accept.") {
            // These steps are reached with the first message; the sender may be told before or behind it.
            source.begins("send sink 1");
        }
        doomed.dies();
        let mut sink = domain.receiver("sink");
        assert_eq!(source.answer().as_deref(), Some("ok"), "{step}: the sender finds the next incarnation");
        if !step.starts_with("accept.") {
            source.answer();
            while source.says("send sink 2") != "ok" {}
            while sink.says("recv") != "2" {}
        } else {
            source.does("send sink 2");
            assert_eq!(sink.says("recv"), "2", "{step}");
        }
    }
}

#[test]
fn a_receiver_stopped_at_any_step_of_connecting_gets_everything_when_it_goes_on() {
    for step in ["accept.accepted", "accept.mapped", "accept.attached", "arm.armed"] {
        let domain = TestDomain::new();
        let mut stopped = domain.doomed(&format!("{step}:stop"));
        stopped.begins(&format!("open sink {}", domain.path().display()));
        stopped.begins("inbox");
        stopped.begins("expect 1 100");
        let mut source = domain.node("source");
        while source.says("try-sender sink") != "ok" {}
        source.does("count sink 1 100");
        stopped.wait_until_stopped();
        let mut other = domain.receiver("other");
        source.does("sender other");
        source.does("send other hello");
        assert_eq!(other.says("recv"), "hello", "{step}");
        stopped.go_on();
        for _ in 0..3 {
            assert_eq!(stopped.answer().as_deref(), Some("ok"), "{step}");
        }
    }
}

#[test]
fn a_sender_stopped_in_its_handshake_connects_when_it_goes_on() {
    for step in ["connect.connected", "connect.hello-sent"] {
        let domain = TestDomain::new();
        let mut sink = domain.puppet();
        assert_eq!(sink.opens("sink", "patience=50"), "ok");
        sink.does("inbox");
        let mut stopped = domain.doomed(&format!("{step}:stop"));
        stopped.begins(&format!("open stopped {}", domain.path().display()));
        stopped.begins("sender sink 30000");
        stopped.begins("send sink late");
        stopped.wait_until_stopped();
        let mut source = domain.node("source");
        source.does("sender sink");
        source.does("send sink hello");
        let mut heard = vec![sink.says("recv")];
        if heard == ["late"] && step == "connect.hello-sent" {
            heard.push(sink.says("recv")); // the ring was there, and its message was committed before the stop
            heard.reverse();
        }
        stopped.go_on();
        if heard.len() < 2 {
            heard.push(sink.says("recv"));
        }
        assert_eq!(heard, ["hello", "late"], "{step}");
    }
}

#[test]
fn admission_by_function_refuses_with_a_reason() {
    let domain = TestDomain::new();
    let mut sink = domain.puppet();
    assert_eq!(sink.opens("sink", "only=friend"), "ok");
    sink.does("inbox");
    let error = domain.node("stranger").fails("sender sink");
    assert!(error.starts_with("node \"sink\" refuses (NotAdmitted): node \"sink\" does not admit uid"), "{error}");
    let mut friend = domain.node("friend");
    friend.does("sender sink");
    friend.does("send sink hello");
    assert_eq!(sink.says("recv"), "hello");
}

#[test]
fn channels_over_the_limit_are_refused_and_free_again_when_one_goes() {
    let domain = TestDomain::new();
    let mut sink = domain.puppet();
    assert_eq!(sink.opens("sink", "channels=2"), "ok");
    sink.does("inbox");
    let mut sources: Vec<Puppet> = (0..3).map(|n| domain.node(&format!("source-{n}"))).collect();
    sources[0].does("sender sink");
    sources[1].does("sender sink");
    let error = sources[2].fails("sender sink");
    assert!(error.contains("(TooMuch)"), "{error}");
    sources[0].kill();
    loop {
        match sink.says("event") {
            event if event.starts_with("left") => break,
            event => assert!(event.starts_with("joined"), "{event}"),
        }
    }
    sources[2].does("sender sink");
}

/// A connection to a node's socket that says nothing, or what it likes.
fn raw(domain: &TestDomain, id: &str) -> std::io::Result<UnixStream> {
    // Not for the puppets that other tests start at this moment.
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(domain.socket_of(id))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

#[test]
fn silent_broken_and_flooding_peers_cost_nobody_else_anything() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let before: u32 = sink.says("descriptors").parse().unwrap();
    let silent: Vec<UnixStream> = (0..300).map_while(|_| raw(&domain, "sink").ok()).collect();
    for garbage in [&b"garbage"[..], &[0xff; 4096], &[0xa0], &[0; 5000]] {
        let peer = raw(&domain, "sink").unwrap();
        let _ = rustix::net::send(&peer, garbage, SendFlags::NOSIGNAL);
    }
    // Over the bound on handshakes a sender is put off, and gets in when the silent ones have run out of time.
    let mut source = domain.node("source");
    source.does("sender sink 30000");
    source.does("send sink hello");
    assert_eq!(sink.says("recv"), "hello");
    drop(silent);
    source.does("drop-sender sink");
    assert_eq!(sink.says("event"), "left source Closed");
    // The connection's end comes behind the ring's, and is seen by whoever looks at the inbox.
    while sink.says("descriptors").parse::<u32>().unwrap() > before {
        assert_eq!(sink.says("try-recv"), "nothing");
    }
}

#[test]
fn without_descriptors_a_node_says_so_leaks_nothing_and_works_again() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let before = sink.says("descriptors");
    sink.does("limit-descriptors 2");
    let mut sources: Vec<Puppet> = (0..4).map(|n| domain.node(&format!("source-{n}"))).collect();
    for source in &mut sources {
        source.does("sender sink 30000"); // some stay pending
        source.does("send sink hello");
    }
    let ticks = |pid| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let used = ticks(sink.pid());
    sink.does("free-descriptors");
    for _ in 0..4 {
        assert_eq!(sink.says("recv"), "hello");
    }
    assert!(ticks(sink.pid()) - used < 100, "the listener does not spin");
    drop(sources);
    for _ in 0..4 {
        while !sink.says("event").starts_with("left") {}
    }
    while sink.says("descriptors") != before {
        assert_eq!(sink.says("try-recv"), "nothing");
    }

    let mut poor = domain.puppet();
    poor.does("limit-descriptors 3");
    let error = poor.opens("poor", "");
    assert!(error.contains("raise `ulimit -n`"), "{error}");
    poor.does("free-descriptors");
    assert_eq!(poor.opens("poor", ""), "ok");
}

#[test]
fn a_full_tmpfs_is_a_clear_error() {
    if !is_root() {
        return;
    }
    let mount = TestDomain::new();
    std::fs::create_dir(mount.path()).unwrap();
    let options = c"size=12k";
    let mounted =
        rustix::mount::mount("librpc-test", mount.path(), "tmpfs", rustix::mount::MountFlags::empty(), options);
    if mounted.is_err() {
        std::fs::remove_dir(mount.path()).unwrap();
        return skip("it may not mount");
    }
    {
        let domain = TestDomain::at(mount.path().join("domain"));
        let mut first = domain.receiver("first"); // generation and one node: 8 KiB
        let _second = domain.receiver("second");
        let error = domain.puppet().opens("third", "");
        assert!(error.contains("No space left") && error.contains("free some space"), "{error}");
        let mut second = domain.puppet();
        let error = second.opens("third", "");
        assert!(error.contains("No space left"), "{error}");
        first.kill();
        assert_eq!(second.opens("first", ""), "ok", "a swept node makes room");
    }
    // A puppet that another test is just starting may hold a copy of a descriptor until its exec.
    while rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::empty()) == Err(rustix::io::Errno::BUSY) {}
    std::fs::remove_dir(mount.path()).unwrap();
}

const OTHER_UID: u32 = 54_321;
const THIRD_UID: u32 = 54_322;
const GROUP: u32 = 54_320;

#[test]
fn another_user_does_not_get_into_a_private_domain() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let _sink = domain.receiver("sink");
    let error = domain.puppet_of(OTHER_UID, OTHER_UID).opens("other", "");
    assert!(error.contains("Permission denied") || error.contains("belongs to uid 0"), "{error}");
}

#[test]
fn in_a_shared_domain_each_node_admits_whom_it_wants() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let group = format!("group={GROUP}");
    let mut open = domain.puppet_of(OTHER_UID, GROUP);
    assert_eq!(open.opens("open", &format!("{group} uid={THIRD_UID}")), "ok");
    open.does("inbox");
    let mut own = domain.puppet_of(OTHER_UID, GROUP);
    assert_eq!(own.opens("own", &group), "ok");
    own.does("inbox");

    let mut third = domain.puppet_of(THIRD_UID, GROUP);
    assert_eq!(third.opens("third", &group), "ok");
    third.does("sender open");
    third.does("send open hello");
    assert_eq!(open.says("event"), "joined third");
    assert_eq!(open.says("event"), "message third hello");
    let error = third.fails("sender own");
    assert!(error.contains("refuses (NotAdmitted)"), "{error}");

    // An outsider of the group gets nothing but a refusal, by the kernel; the mode is as it should be.
    let error = domain.puppet_of(THIRD_UID, THIRD_UID).opens("outsider", &group);
    assert!(error.contains("Permission denied"), "{error}");
    let metadata = std::fs::metadata(domain.path()).unwrap();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (0o3770, GROUP));
    // Whoever takes it for a private one, or for another group's, is told.
    let error = domain.puppet_of(OTHER_UID, GROUP).opens("private", "");
    assert!(error.contains("it is a shared one"), "{error}");

    // Another user's dead node waits for its owner, and its id with it.
    third.kill();
    let mut own_again = domain.puppet_of(OTHER_UID, GROUP);
    let error = own_again.opens("third", &group);
    assert!(error.contains("was left behind by uid 54322"), "{error}");
    let mut back = domain.puppet_of(THIRD_UID, GROUP);
    assert_eq!(back.opens("third", &group), "ok");
    back.does("leave");
    drop((open, own, own_again));
    let clean = librpc::Domain::at(domain.path()).shared_with_group(GROUP).clean();
    clean.expect("root may clean up");
    domain.assert_gone();
}

#[test]
fn a_death_while_making_a_shared_domain_is_cleared() {
    let domain = TestDomain::new();
    let gid = rustix::process::getegid().as_raw();
    for step in ["domain.unfinished", "domain.made"] {
        let mut doomed = domain.doomed(step);
        doomed.begins(&format!("open doomed {} group={gid}", domain.path().display()));
        doomed.dies();
        let mut next = domain.puppet();
        assert_eq!(next.opens("next", &format!("group={gid}")), "ok", "{step}");
        next.finishes();
        domain.assert_gone();
        let name = domain.path().file_name().unwrap().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/dev/shm").unwrap() {
            let entry = entry.unwrap().file_name().to_string_lossy().into_owned();
            assert!(!entry.starts_with(&format!("{name}.new")), "{entry} is left");
        }
    }
}

#[test]
fn a_side_that_is_stopped_for_longer_than_a_handshake_may_take_connects_all_the_same() {
    for step in ["connect.connected", "connect.hello-sent"] {
        let domain = TestDomain::new();
        let mut sink = domain.puppet();
        assert_eq!(sink.opens("sink", "patience=20"), "ok");
        sink.does("inbox");
        let mut source = domain.doomed(&format!("{step}:stop"));
        assert_eq!(source.opens("source", ""), "ok");
        source.begins("sender sink");
        source.wait_until_stopped();
        std::thread::sleep(std::time::Duration::from_millis(100)); // time itself is what passes here
        source.go_on();
        assert_eq!(source.answer().as_deref(), Some("ok"), "{step}");
        source.does("send sink hello");
        assert_eq!(sink.says("recv"), "hello", "{step}");
    }
    for step in ["accept.accepted", "accept.mapped"] {
        let domain = TestDomain::new();
        let mut sink = domain.doomed(&format!("{step}:stop"));
        assert_eq!(sink.opens("sink", "patience=20"), "ok");
        sink.does("inbox");
        let mut source = domain.node("source");
        source.begins("sender sink");
        sink.wait_until_stopped();
        std::thread::sleep(std::time::Duration::from_millis(100));
        sink.go_on();
        assert_eq!(source.answer().as_deref(), Some("ok"), "{step}");
        source.does("send sink hello");
        assert_eq!(sink.says("recv"), "hello", "{step}");
    }
}
