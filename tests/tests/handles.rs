//! Handles of one process in every order: senders that come while others go, inboxes that are stopped, dropped or polled by
//! another event loop, limits that no clock can reach.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use librpc::{Acknowledge, Admission, CallbackError, Domain, Event, Limits, Node, SendError, Wait};
use librpc_system_tests::orders::{self, *};
use librpc_system_tests::{Puppet, Puppets, TestDomain, wait_until};
use rustix::event::{PollFd, PollFlags, Timespec};

fn open(domain: &TestDomain, id: &str) -> Node {
    Node::builder(id).domain(domain.domain()).open().expect(id)
}

fn is_readable(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn a_message_sent_while_the_receiver_accepts_is_received() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    for _ in 0..2000 {
        let mut inbox = receiver.inbox_builder().wait(Wait::Block).open().unwrap();
        let mut sender = source.try_connect("receiver").unwrap();
        let sending = std::thread::spawn(move || sender.send(b"hello").map(|()| sender));
        assert!(inbox.recv_timeout(LONG).unwrap().is_some());
        drop(sending.join().unwrap());
    }
}

#[test]
fn a_sender_can_come_while_the_last_other_one_goes() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    for _ in 0..500 {
        let first = source.connect("receiver").unwrap();
        let mut second = source.try_connect("receiver").unwrap();
        drop(first);
        second.send(b"hello").unwrap();
        assert!(inbox.recv_timeout(LONG).unwrap().is_some());
        assert!(inbox.try_recv().unwrap().is_none());
        second.flush(LONG).unwrap();
    }
}

#[test]
fn senders_of_two_threads_come_and_go() {
    let domain = TestDomain::new();
    let receiver = open(&domain, "receiver");
    let handle = receiver.inbox_builder().callback(|_| {}).unwrap();
    let threads: Vec<_> = (0..2)
        .map(|n| {
            let source = open(&domain, &format!("source-{n}"));
            std::thread::spawn(move || {
                for _ in 0..500 {
                    let mut sender = source.connect("receiver").unwrap();
                    sender.send(b"hello").unwrap();
                    sender.flush(LONG).unwrap();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    handle.stop().unwrap();
}

#[test]
fn nodes_of_two_threads_come_and_go() {
    let domain = TestDomain::new();
    let receiver = open(&domain, "receiver");
    let handle = receiver.inbox_builder().callback(|_| {}).unwrap();
    std::thread::scope(|scope| {
        for n in 0..2 {
            let domain = &domain;
            scope.spawn(move || {
                for _ in 0..300 {
                    let source = open(domain, &format!("source-{n}"));
                    let mut sender = source.connect("receiver").unwrap();
                    sender.send(b"hello").unwrap();
                    sender.flush(LONG).unwrap();
                }
            });
        }
    });
    handle.stop().unwrap();
}

#[test]
fn a_node_that_closes_before_its_sender_breaks_no_other_connection() {
    let domain = TestDomain::new();
    let receiver = open(&domain, "receiver");
    let mut inbox = receiver.inbox().unwrap();
    let (closing, other) = (open(&domain, "closing"), open(&domain, "other"));
    let (closed, mut lasting) = (closing.connect("receiver").unwrap(), other.connect("receiver").unwrap());
    closing.close(LONG).unwrap();
    drop(closed);
    // The receiver has not looked since, so it gets all bells at once.
    assert!(inbox.recv_timeout(Duration::from_millis(20)).unwrap().is_none());
    lasting.send(b"hello").unwrap();
    assert!(inbox.recv_timeout(LONG).unwrap().is_some());
    inbox.ack();
    lasting.flush(LONG).unwrap();
}

#[test]
fn ten_thousand_short_lived_senders_do_not_break_the_connection_of_a_lasting_one() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let handle = receiver.inbox_builder().callback(|_| {}).unwrap();
    let mut lasting = source.connect("receiver").unwrap();
    for _ in 0..10_000 {
        drop(source.connect("receiver").unwrap());
    }
    lasting.send(b"hello").unwrap();
    lasting.flush(LONG).unwrap();
    handle.stop().unwrap();
}

#[test]
fn hundreds_of_pending_senders_end_when_their_receiver_is_killed() {
    let domain = TestDomain::new();
    let mut stopped = domain.receiver("stopped");
    let source = open(&domain, "source");
    stopped.stop();
    let mut senders: Vec<_> = (0..300).map(|_| source.try_connect("stopped").unwrap()).collect();
    stopped.kill();
    for sender in &mut senders {
        while sender.is_connected() {
            std::thread::yield_now();
        }
        assert!(matches!(sender.send(b"hello"), Err(SendError::ReceiverGone { undelivered: 0, .. })));
    }
}

#[test]
fn closing_a_node_with_pending_senders_leaks_nothing() {
    let domain = TestDomain::new();
    let mut stopped = domain.receiver("stopped");
    stopped.stop();
    let mappings = || std::fs::read_to_string("/proc/self/maps").unwrap().matches("memfd:librpc").count();
    // Other tests of this process map memory, too. What matters is that a hundred rounds do not add up.
    for _ in 0..100 {
        let source = open(&domain, "source");
        let senders: Vec<_> = (0..10).map(|_| source.try_connect("stopped").unwrap()).collect();
        assert!(source.close(Duration::ZERO).is_ok());
        drop(senders);
    }
    let deadline = Instant::now() + LONG;
    while mappings() > 500 {
        assert!(Instant::now() < deadline, "{} mappings", mappings());
    }
    stopped.kill();
}

#[test]
fn a_receive_without_waiting_still_receives() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    source.connect("receiver").unwrap().send(b"hello").unwrap();
    let deadline = Instant::now() + LONG;
    while inbox.recv_timeout(Duration::ZERO).unwrap().is_none() {
        assert!(Instant::now() < deadline);
    }
}

#[test]
fn polling_receives_everything_that_is_there() {
    let domain = TestDomain::new();
    let receiver = open(&domain, "receiver");
    let mut inbox = receiver.inbox().unwrap();
    let nodes: Vec<_> = (0..3).map(|n| open(&domain, &format!("source-{n}"))).collect();
    let mut senders: Vec<_> = nodes.iter().map(|node| node.connect("receiver").unwrap()).collect();
    for _ in 0..3 {
        assert!(matches!(inbox.recv_event().unwrap(), Some(Event::SenderJoined(_))));
    }
    for (sender, messages) in senders.iter_mut().zip([1000, 300, 0]) {
        (0..messages).for_each(|_| sender.send(b"hello").unwrap());
    }
    let mut received = 0;
    while inbox.try_recv().unwrap().is_some() {
        received += 1;
    }
    assert_eq!(received, 1300, "in one run, without an empty poll between");
}

#[test]
fn a_stop_handle_keeps_no_dropped_inbox_alive() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let inbox = receiver.inbox().unwrap();
    let stop = inbox.stop_handle();
    let mut sender = source.connect("receiver").unwrap();
    sender.send(b"hello").unwrap();
    drop(inbox);
    assert!(sender.flush(LONG).unwrap_err().to_string().starts_with("1 message was not processed"));
    stop.stop();
}

#[test]
fn a_closed_node_hangs_up_although_its_inbox_still_exists() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    let mut sender = source.connect("receiver").unwrap();
    sender.send(b"hello").unwrap();
    receiver.close(LONG).unwrap();
    assert!(sender.flush(LONG).is_err());
    assert!(inbox.recv().unwrap_err().to_string().contains("is closed"));
}

#[test]
fn a_stop_handle_ends_a_receive_in_another_thread() {
    let domain = TestDomain::new();
    let receiver = open(&domain, "receiver");
    let mut inbox = receiver.inbox().unwrap();
    let stop = inbox.stop_handle();
    let receiving = std::thread::spawn(move || inbox.recv().unwrap().is_none());
    stop.stop();
    assert!(receiving.join().unwrap());
}

#[test]
fn limits_that_no_clock_can_reach_are_no_limits() {
    let domain = TestDomain::new();
    let limits = Limits::default().handshake_timeout(Duration::MAX);
    let receiver = Node::builder("receiver").domain(domain.domain()).limits(limits).open().unwrap();
    let mut inbox = receiver.inbox().unwrap();
    let source = open(&domain, "source");
    let mut sender = source.connect_timeout("receiver", Duration::MAX).unwrap();
    sender.set_timeout(Duration::MAX);
    sender.send(b"hello").unwrap();
    assert!(inbox.recv_timeout(Duration::MAX).unwrap().is_some());
    inbox.ack();
    sender.flush(Duration::MAX).unwrap();
    drop(sender);
    source.close(Duration::MAX).unwrap();
}

#[test]
fn another_event_loop_can_wait_for_an_inbox() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    let mut sender = source.connect("receiver").unwrap();
    let wait = |inbox: &librpc::Inbox| {
        let mut fds = [PollFd::new(inbox, PollFlags::IN)];
        assert_eq!(rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 30, tv_nsec: 0 })), Ok(1));
    };
    sender.send(b"0").unwrap();
    let mut number = 0;
    loop {
        wait(&inbox);
        let mut received = 0;
        while let Some(message) = inbox.try_recv().unwrap() {
            assert_eq!(message.payload(), number.to_string().as_bytes());
            received += 1;
        }
        if received == 0 {
            continue; // a sender has joined, for example
        }
        assert_eq!(received, 1);
        // A try_recv that returns None has drained everything. Only the bell of the connection itself can come late.
        while is_readable(&inbox) {
            assert!(inbox.try_recv().unwrap().is_none());
        }
        if number == 500 {
            inbox.stop_handle().stop();
            assert!(inbox.try_recv().unwrap().is_none());
            assert!(!is_readable(&inbox), "a stopped inbox keeps no loop busy");
            return;
        }
        number += 1;
        sender.send(number.to_string().as_bytes()).unwrap();
    }
}

#[test]
fn a_panicking_callback_leaves_its_message_unprocessed_and_is_reported() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let callback = |message: librpc::Message<'_>| assert!(message.payload() != b"2", "no twos");
    let handle = receiver.inbox_builder().callback(callback).unwrap();
    let mut sender = source.connect("receiver").unwrap();
    for number in ["1", "2", "3"] {
        sender.send(number.as_bytes()).unwrap();
    }
    assert!(sender.flush(LONG).unwrap_err().to_string().starts_with("2 messages were not processed"));
    assert!(matches!(handle.stop(), Err(CallbackError::Panicked { text }) if text == "no twos"));
}

#[test]
fn owned_messages_come_from_an_iterator() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    let mut sender = source.connect("receiver").unwrap();
    for number in 0..10u8 {
        sender.send(&[number]).unwrap();
    }
    let messages: Vec<_> = inbox.iter().take(10).map(Result::unwrap).collect();
    assert!(
        messages.iter().enumerate().all(|(n, message)| *message.payload == [n as u8] && message.sequence == n as u64)
    );
}

#[test]
fn one_outbox_reaches_many_nodes_in_order() {
    let domain = TestDomain::new();
    let nodes: Vec<_> = (0..5).map(|n| open(&domain, &format!("receiver-{n}"))).collect();
    let mut inboxes: Vec<_> =
        nodes.iter().map(|node| node.inbox_builder().acknowledge(Acknowledge::Explicit).open().unwrap()).collect();
    let source = open(&domain, "source");
    let mut outbox = source.outbox();
    let all: Vec<_> = (0..5).map(|n| outbox.connect(&format!("receiver-{n}")).unwrap()).collect();
    assert_eq!(outbox.connect("receiver-3").unwrap(), all[3], "known already");
    for number in 0..100u8 {
        all.iter().for_each(|&to| outbox.send(to, &[number]).unwrap());
    }
    for inbox in &mut inboxes {
        for number in 0..100u8 {
            assert_eq!(inbox.recv().unwrap().unwrap().payload(), [number]);
        }
        inbox.ack();
    }
    outbox.flush(LONG).unwrap();
    assert_eq!(outbox.account(all[0]).processed, 100);
}

#[test]
fn the_id_of_a_dead_node_is_free_while_others_sweep() {
    let domain = TestDomain::new();
    let _keeper = domain.node("keeper");
    let (stop, stopped) = mpsc::channel::<()>();
    let path = domain.path().to_owned();
    let sweeping = std::thread::spawn(move || {
        while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
            Domain::at(&path).clean().unwrap();
        }
    });
    for _ in 0..200 {
        let mut puppet = domain.puppet();
        puppet.does(orders::open("phoenix"));
        puppet.kill();
    }
    drop(stop);
    sweeping.join().unwrap();
}

#[test]
fn a_socket_in_place_of_a_node_file_stops_no_sweep() {
    let domain = TestDomain::new();
    let mut dead: Vec<Puppet> = ["a", "z"].into_iter().map(|id| domain.receiver(id)).collect();
    let planted = domain.path().join("!.node");
    let socket = std::os::unix::net::UnixListener::bind(&planted).unwrap();
    dead.iter_mut().for_each(Puppet::kill);
    assert_eq!(domain.domain().clean().unwrap(), ["a", "z"]);
    drop(socket);
    std::fs::remove_file(planted).unwrap();
}

#[test]
fn many_nodes_can_make_a_shared_domain_at_once() {
    let domain = TestDomain::new();
    let gid = rustix::process::getegid().as_raw();
    let threads: Vec<_> = (0..4)
        .map(|n| {
            let shared = domain.domain().shared_with_group(gid);
            std::thread::spawn(move || {
                for _ in 0..500 {
                    Node::builder(&format!("node-{n}")).domain(shared.clone()).open().expect("a shared domain");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    domain.assert_gone();
}

#[test]
fn a_domain_can_be_made_in_a_set_group_id_directory() {
    let parent = TestDomain::new();
    std::fs::create_dir(parent.path()).unwrap();
    std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o2700)).unwrap();
    drop(Node::builder("node").domain(Domain::at(parent.path().join("domain"))).open().unwrap());
    std::fs::remove_dir(parent.path()).unwrap();
}

#[test]
fn a_sender_that_ran_out_of_descriptors_recovers_when_it_has_some() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    for spare in 1..4 {
        source.does(limit_descriptors(spare));
        let first = source.tries(try_connect("sink"));
        source.does(unlimit_descriptors());
        if let Err(error) = first {
            assert!(error.contains("raise `ulimit -n`"), "{error}");
            source.does(connect("sink"));
        }
        source.does(send("sink", "hello"));
        assert_eq!(sink.does(receive()).text, "hello");
    }
}

#[test]
fn an_admission_function_decides_and_one_that_panics_refuses() {
    let domain = TestDomain::new();
    let admission = Admission::nobody().function(|peer| {
        assert!(&*peer.node != "bomb", "no bombs");
        &*peer.node == "friend"
    });
    let receiver = Node::builder("receiver").domain(domain.domain()).admit(admission).open().unwrap();
    let _inbox = receiver.inbox().unwrap();
    for (id, admitted) in [("friend", true), ("stranger", false), ("bomb", false)] {
        assert_eq!(open(&domain, id).connect("receiver").is_ok(), admitted, "{id}");
    }
}

#[test]
fn living_nodes_join_again_when_their_domain_was_removed() {
    let domain = TestDomain::new();
    let (receiver, source) = (open(&domain, "receiver"), open(&domain, "source"));
    let mut inbox = receiver.inbox().unwrap();
    let mut sender = source.connect("receiver").unwrap();
    std::fs::remove_dir_all(domain.path()).unwrap();
    sender.send(b"what is connected goes on").unwrap();
    assert!(inbox.recv().unwrap().is_some());
    // Each node notices when it next uses the registry.
    assert!(receiver.try_connect("nobody").is_err());
    assert_eq!(domain.domain().nodes().unwrap()[0].inboxes, ["receiver"]);
    let third = open(&domain, "third");
    third.connect("receiver").unwrap().send(b"found again").unwrap();
    assert_eq!(inbox.recv().unwrap().unwrap().payload(), b"found again");
    source.connect("receiver").unwrap();
    assert_eq!(domain.domain().nodes().unwrap().len(), 3);
    drop((sender, inbox, third, source, receiver));
    domain.assert_gone();
}

#[test]
fn waiting_for_a_node_survives_the_removal_of_the_domain() {
    let domain = TestDomain::new();
    let mut source = domain.node("source");
    let connected = source.begins(connect_within("sink", LONG));
    let descriptors = format!("/proc/{}/fdinfo", source.pid());
    let is_watching = || {
        let read = |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(entry.ok()?.path()).ok();
        std::fs::read_dir(&descriptors).unwrap().filter_map(read).any(|info| info.contains("inotify wd"))
    };
    wait_until(is_watching);
    // Renamed first, so that no process ever finds half of it.
    let away = domain.path().with_extension("away");
    std::fs::rename(domain.path(), &away).unwrap();
    // A node that was just joining may still write into it.
    wait_until(|| std::fs::remove_dir_all(&away).is_ok() || !away.exists());
    wait_until(|| domain.path().join("source.node").exists()); // it joins again
    let begun = Instant::now();
    let mut sink = domain.receiver("sink");
    source.completes(connected);
    assert!(begun.elapsed() < LONG / 2, "it slept until its time was over");
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
}
