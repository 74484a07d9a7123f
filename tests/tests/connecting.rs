//! Connecting: deaths and stops at every step of the handshake, admission, floods, exhaustion.

use std::os::unix::net::UnixStream;

use librpc_system_tests::orders::*;
use librpc_system_tests::proc::cpu_ticks;
use librpc_system_tests::{Puppet, Puppets, TestDomain, is_root, skip, wait_until};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

#[test]
fn a_sender_that_dies_at_any_step_of_connecting_disturbs_nobody_else() {
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
        let opened = doomed.begins(open("doomed"));
        let connected = doomed.begins(connect("sink"));
        let mut waiting = None;
        if step == "send.must-ring" {
            doomed.completes(opened);
            doomed.completes(connected);
            sink.does(next_event());
            let mut event = sink.begins(next_event()); // it falls asleep sooner or later
            for _ in 0..1_000_000 {
                let sent = doomed.begins(send("sink", "1"));
                if doomed.reply_unless_dead(sent).is_none() {
                    break;
                }
                sink.completes(event);
                event = sink.begins(next_event());
            }
            waiting = Some(event);
        } else {
            doomed.begins(send_numbers("sink", 1..=1));
            doomed.begins(flush("sink", LONG));
        }
        doomed.dies();
        let mut source = domain.node("source");
        source.does(connect("sink"));
        source.does(send("sink", "hello"));
        loop {
            let event = match waiting.take() {
                Some(event) => sink.completes(event),
                None => sink.does(next_event()),
            };
            if event == message("source", "hello") {
                break;
            }
            let expected = [joined("doomed"), joined("source"), message("doomed", "1"), died("doomed")];
            assert!(expected.contains(&event), "{step}: {event:?}");
        }
    }
}

#[test]
fn a_receiver_that_dies_at_any_step_of_connecting_is_not_mistaken_for_a_slow_one() {
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
        doomed.begins(open("sink"));
        doomed.begins(inbox());
        doomed.begins(receive());
        doomed.begins(try_receive());
        let mut source = domain.node("source");
        let connected = source.begins(connect_within("sink", LONG));
        // Other steps are reached with the first message. The sender may learn of the death before or after that send.
        let first = (!step.starts_with("accept.")).then(|| source.begins(send("sink", "1")));
        doomed.dies();
        let mut sink = domain.receiver("sink");
        source.completes(connected); // to the next incarnation, if necessary
        match first {
            Some(first) => {
                let _ = source.reply(first);
                // Messages that are accepted before the source learns of the death are lost with the receiver.
                wait_until(|| {
                    let _ = source.tries(send("sink", "2"));
                    sink.does(try_receive()).is_some_and(|message| message.text == "2")
                });
            }
            None => {
                source.does(send("sink", "2"));
                assert_eq!(sink.does(receive()).text, "2", "{step}");
            }
        }
    }
}

#[test]
fn a_receiver_stopped_at_any_step_of_connecting_gets_everything_when_it_goes_on() {
    for step in ["accept.accepted", "accept.mapped", "accept.attached", "arm.armed"] {
        let domain = TestDomain::new();
        let mut stopped = domain.doomed(&format!("{step}:stop"));
        let opened = stopped.begins(open("sink"));
        let opened_inbox = stopped.begins(inbox());
        let received = stopped.begins(receive_numbers(1..=100));
        let mut source = domain.node("source");
        wait_until(|| source.tries(try_connect("sink")).is_ok());
        source.does(send_numbers("sink", 1..=100));
        stopped.wait_until_stopped();
        let mut other = domain.receiver("other");
        source.does(connect("other"));
        source.does(send("other", "hello"));
        assert_eq!(other.does(receive()).text, "hello", "{step}");
        stopped.go_on();
        for begun in [opened, opened_inbox, received] {
            stopped.completes(begun);
        }
    }
}

#[test]
fn a_sender_stopped_in_its_handshake_connects_when_it_goes_on() {
    for step in ["connect.connected", "connect.hello-sent"] {
        let domain = TestDomain::new();
        let mut sink = domain.puppet();
        sink.does(open("sink").handshake_timeout(ms(50)));
        sink.does(inbox());
        let mut stopped = domain.doomed(&format!("{step}:stop"));
        stopped.begins(open("stopped"));
        stopped.begins(connect_within("sink", LONG));
        stopped.begins(send("sink", "late"));
        stopped.wait_until_stopped();
        let mut source = domain.node("source");
        source.does(connect("sink"));
        source.does(send("sink", "hello"));
        let mut received = vec![sink.does(receive()).text];
        if received == ["late"] && step == "connect.hello-sent" {
            received.push(sink.does(receive()).text); // the ring was there, and the message was committed before the stop
            received.reverse();
        }
        stopped.go_on();
        if received.len() < 2 {
            received.push(sink.does(receive()).text);
        }
        assert_eq!(received, ["hello", "late"], "{step}");
    }
}

#[test]
fn an_admission_function_refuses_with_a_reason() {
    let domain = TestDomain::new();
    let mut sink = domain.puppet();
    sink.does(open("sink").admitting_only("friend"));
    sink.does(inbox());
    let error = domain.node("stranger").fails(connect("sink"));
    assert!(error.starts_with("node \"sink\" refuses (NotAdmitted): node \"sink\" does not admit uid"), "{error}");
    let mut friend = domain.node("friend");
    friend.does(connect("sink"));
    friend.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
}

#[test]
fn channels_over_the_limit_are_refused_until_one_ends() {
    let domain = TestDomain::new();
    let mut sink = domain.puppet();
    sink.does(open("sink").channels_per_user(2));
    sink.does(inbox());
    let mut sources: Vec<Puppet> = (0..3).map(|n| domain.node(&format!("source-{n}"))).collect();
    sources[0].does(connect("sink"));
    sources[1].does(connect("sink"));
    let error = sources[2].fails(connect("sink"));
    assert!(error.contains("(TooMuch)"), "{error}");
    sources[0].kill();
    loop {
        match sink.does(next_event()) {
            Event::Left(..) => break,
            Event::Joined(_) => {}
            Event::Other(refused) => assert!(refused.contains("TooMuch"), "{refused}"),
            event => panic!("{event:?}"),
        }
    }
    sources[2].does(connect("sink"));
}

/// A connection to a node's socket, on which a test can send anything or nothing.
fn raw(domain: &TestDomain, id: &str) -> std::io::Result<UnixStream> {
    // Closed on exec: other tests start puppets at this moment.
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(domain.socket_of(id))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket.into())
}

#[test]
fn silent_broken_and_flooding_peers_disturb_nobody_else() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let before = sink.does(descriptors());
    let silent: Vec<UnixStream> = (0..300).map_while(|_| raw(&domain, "sink").ok()).collect();
    for garbage in [&b"garbage"[..], &[0xff; 4096], &[0xa0], &[0; 5000]] {
        let peer = raw(&domain, "sink").unwrap();
        let _ = rustix::net::send(&peer, garbage, SendFlags::NOSIGNAL);
    }
    // There are too many handshakes, so a sender waits, and connects when the time of the silent ones is up.
    let mut source = domain.node("source");
    source.does(connect_within("sink", LONG));
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
    drop(silent);
    source.does(drop_sender("sink"));
    assert_eq!(sink.does(next_event()), closed("source"));
    sink.gets_down_to(before);
}

#[test]
fn a_node_without_descriptors_reports_that_leaks_nothing_and_recovers() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let before = sink.does(descriptors());
    sink.does(limit_descriptors(2));
    let mut sources: Vec<Puppet> = (0..4).map(|n| domain.node(&format!("source-{n}"))).collect();
    for source in &mut sources {
        source.does(connect_within("sink", LONG)); // some stay pending
        source.does(send("sink", "hello"));
    }
    let used = cpu_ticks(sink.pid()).unwrap();
    sink.does(unlimit_descriptors());
    for _ in 0..4 {
        assert_eq!(sink.does(receive()).text, "hello");
    }
    assert!(cpu_ticks(sink.pid()).unwrap() - used < 100, "the listener must not spin");
    drop(sources);
    for _ in 0..4 {
        while !matches!(sink.does(next_event()), Event::Left(..)) {}
    }
    sink.gets_down_to(before);

    let mut poor = domain.puppet();
    poor.does(limit_descriptors(3));
    let error = poor.fails(open("poor"));
    assert!(error.contains("raise `ulimit -n`"), "{error}");
    poor.does(unlimit_descriptors());
    poor.does(open("poor"));
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
        return skip("this user may not mount");
    }
    {
        let domain = TestDomain::at(mount.path().join("domain"));
        let mut first = domain.receiver("first"); // generation and one node: 8 KiB
        let _second = domain.receiver("second");
        let error = domain.puppet().fails(open("third"));
        assert!(error.contains("No space left") && error.contains("free some space"), "{error}");
        let mut second = domain.puppet();
        let error = second.fails(open("third"));
        assert!(error.contains("No space left"), "{error}");
        first.kill();
        second.does(open("first")); // the dead node was swept, which made room
    }
    // A puppet that another test is starting may hold a copy of a descriptor until its exec.
    let unmount = || rustix::mount::unmount(mount.path(), rustix::mount::UnmountFlags::empty());
    wait_until(|| unmount() != Err(rustix::io::Errno::BUSY));
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
    let error = domain.puppet_of(OTHER_UID, OTHER_UID).fails(open("other"));
    assert!(error.contains("Permission denied") || error.contains("belongs to uid 0"), "{error}");
}

#[test]
fn each_node_of_a_shared_domain_chooses_whom_it_admits() {
    if !is_root() {
        return;
    }
    let domain = TestDomain::new();
    let mut public = domain.puppet_of(OTHER_UID, GROUP);
    public.does(open("public").group(GROUP).admitting_uid(THIRD_UID));
    public.does(inbox());
    let mut own = domain.puppet_of(OTHER_UID, GROUP);
    own.does(open("own").group(GROUP));
    own.does(inbox());

    let mut third = domain.puppet_of(THIRD_UID, GROUP);
    third.does(open("third").group(GROUP));
    third.does(connect("public"));
    third.does(send("public", "hello"));
    assert_eq!(public.does(next_event()), joined("third"));
    assert_eq!(public.does(next_event()), message("third", "hello"));
    let error = third.fails(connect("own"));
    assert!(error.contains("refuses (NotAdmitted)"), "{error}");

    // The kernel refuses every process outside the group.
    let error = domain.puppet_of(THIRD_UID, THIRD_UID).fails(open("outsider").group(GROUP));
    assert!(error.contains("Permission denied"), "{error}");
    let metadata = std::fs::metadata(domain.path()).unwrap();
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (0o3770, GROUP));
    // Opening it as a private domain is an error that says what it is.
    let error = domain.puppet_of(OTHER_UID, GROUP).fails(open("private"));
    assert!(error.contains("it is a shared one"), "{error}");

    // Only its own user, or the owner of the domain, can take over a dead node's id.
    third.kill();
    let error = domain.puppet_of(THIRD_UID + 1, GROUP).fails(open("third").group(GROUP));
    assert!(error.contains("was left behind by uid 54322"), "{error}");
    let mut own_again = domain.puppet_of(OTHER_UID, GROUP);
    own_again.does(open("third").group(GROUP));
    own_again.does(leave());
    let mut back = domain.puppet_of(THIRD_UID, GROUP);
    back.does(open("third").group(GROUP));
    back.does(leave());
    drop((public, own, own_again));
    domain.domain().shared_with_group(GROUP).clean().expect("root may clean up");
    domain.assert_gone();
}

#[test]
fn what_a_death_while_making_a_shared_domain_leaves_is_cleaned_up() {
    let domain = TestDomain::new();
    let gid = rustix::process::getegid().as_raw();
    for step in ["domain.unfinished", "domain.made"] {
        let mut doomed = domain.doomed(step);
        doomed.begins(open("doomed").group(gid));
        doomed.dies();
        let mut next = domain.puppet();
        next.does(open("next").group(gid));
        next.exits();
        domain.assert_gone(); // nor is there an unfinished directory beside it
    }
}

#[test]
fn a_side_that_is_stopped_for_longer_than_the_handshake_limit_still_connects() {
    for step in ["connect.connected", "connect.hello-sent"] {
        let domain = TestDomain::new();
        let mut sink = domain.puppet();
        sink.does(open("sink").handshake_timeout(ms(20)));
        sink.does(inbox());
        let mut source = domain.doomed(&format!("{step}:stop"));
        source.does(open("source"));
        let connected = source.begins(connect("sink"));
        source.wait_until_stopped();
        std::thread::sleep(ms(100)); // no state to wait for: the limit has to pass
        source.go_on();
        source.completes(connected);
        source.does(send("sink", "hello"));
        assert_eq!(sink.does(receive()).text, "hello", "{step}");
    }
    for step in ["accept.accepted", "accept.mapped"] {
        let domain = TestDomain::new();
        let mut sink = domain.doomed(&format!("{step}:stop"));
        sink.does(open("sink").handshake_timeout(ms(20)));
        sink.does(inbox());
        let mut source = domain.node("source");
        let connected = source.begins(connect("sink"));
        sink.wait_until_stopped();
        std::thread::sleep(ms(100)); // no state to wait for: the limit has to pass
        sink.go_on();
        source.completes(connected);
        source.does(send("sink", "hello"));
        assert_eq!(sink.does(receive()).text, "hello", "{step}");
    }
}
