//! Messages between real processes: order, backpressure, acknowledgement, events, death of either side.

use librpc_system_tests::orders::*;
use librpc_system_tests::{Begun, ForkedChild, Puppets, TestDomain};

#[test]
fn a_message_arrives_and_nothing_is_left() {
    let domain = TestDomain::new();
    let mut display = domain.receiver("display");
    let mut camera = domain.node("camera");
    camera.does(connect("display"));
    camera.does(send("display", "hello"));
    assert_eq!(display.does(next_event()), joined("camera"));
    assert_eq!(display.does(next_event()), message("camera", "hello"));
    assert_eq!(camera.does(progress("display")), (1, 0));
    let left = display.begins(next_event()); // acknowledges, then waits
    camera.does(flush("display", LONG));
    assert_eq!(camera.does(progress("display")), (1, 1));
    camera.does(drop_sender("display"));
    assert_eq!(display.completes(left), closed("camera"));
    camera.does(close(ms(1000)));
    display.does(close(ms(1000)));
    domain.assert_gone();
}

#[test]
fn a_hundred_thousand_messages_arrive_in_order_through_a_small_ring() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096));
    let mut source = domain.node("source");
    source.does(connect("sink"));
    let sent = source.begins(send_numbers("sink", 1..=100_000));
    sink.does(receive_numbers(1..=100_000));
    source.completes(sent);
    sink.does(try_receive()); // acknowledges the last one
    source.does(flush("sink", LONG));
}

#[test]
fn a_full_inbox_holds_its_sender_back_until_there_is_room() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().capacity(4096).explicit());
    let mut source = domain.node("source");
    source.does(connect("sink"));
    // 100 bytes take 120 in the ring, and 8 are always free: (4096 - 8) / 120 = 34.
    assert_eq!(source.does(fill("sink", 100)), 34);
    source.does(set_timeout("sink", ms(50)));
    assert_eq!(source.fails(send("sink", "1")), "the inbox of node \"sink\" has stayed full for 50ms");
    assert_eq!(source.fails(flush("sink", ms(10))), "34 messages are not processed yet");
    sink.does(receive());
    sink.does(receive());
    assert!(source.fails(send("sink", "1")).contains("full"), "what was handed out is not processed yet");
    source.does(set_timeout("sink", LONG));
    let sent = source.begins(send("sink", "1"));
    sink.does(acknowledge());
    source.completes(sent);
    assert_eq!(source.does(progress("sink")), (35, 2));
}

#[test]
fn messages_over_the_limit_are_refused_with_the_limit() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().max_message(100_000));
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(send("sink", "x".repeat(100_000)));
    let error = source.fails(send("sink", "x".repeat(100_001)));
    assert_eq!(error, "a message of 100001 bytes exceeds the limit of node \"sink\", 100000 bytes");
}

#[test]
fn what_a_killed_sender_has_committed_is_delivered() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(send_numbers("sink", 1..=1000));
    source.kill();
    sink.does(receive_numbers(1..=1000));
    assert_eq!(sink.does(next_event()), died("source"));
    assert!(!domain.entries().contains(&"source.node".to_owned()), "the dead node was swept");
}

#[test]
fn a_sender_that_dies_is_never_reported_as_disconnected() {
    // A dying process hangs up before the kernel frees its lock. The sink looks at once: its orders were given before.
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    for round in 0..50 {
        let mut source = domain.doomed("commit.committed:kill:10");
        source.does(open("source"));
        let events: Vec<Begun<Event>> = (0..12).map(|_| sink.begins(next_event())).collect();
        source.begins(connect("sink"));
        source.begins(send_numbers("sink", 1..=10));
        let events: Vec<Event> = events.into_iter().map(|event| sink.completes(event)).collect();
        assert_eq!(events[0], joined("source"), "{round}");
        assert_eq!(events[11], died("source"), "{round}: {events:?}");
        source.dies();
        assert!(!domain.entries().contains(&"source.node".to_owned()), "the dead node was swept");
    }
}

#[test]
fn a_sender_learns_that_its_receiver_was_killed_and_reconnects_when_it_is_back() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(send_numbers("sink", 1..=10));
    sink.does(receive_numbers(1..=4)); // the fourth is not acknowledged
    sink.kill();
    let error = source.fails(flush("sink", LONG));
    assert!(error.starts_with("7 messages were not processed: node \"sink\" is gone"), "{error}");
    let error = source.fails(send("sink", "lost"));
    assert_eq!(error, "node \"sink\" is gone");
    let mut sink = domain.receiver("sink");
    source.does(send("sink", "again"));
    assert_eq!(sink.does(receive()).text, "again");
}

#[test]
fn a_waiting_sender_is_woken_by_its_receivers_death() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(fill("sink", 100));
    source.does(fill("sink", 1));
    source.does(set_timeout("sink", LONG));
    let sent = source.begins(send("sink", "more"));
    sink.kill();
    let error = source.reply(sent).expect_err("nobody makes room");
    assert!(error.starts_with("node \"sink\" is gone;"), "{error}");
}

#[test]
fn a_stopped_receiver_delays_nobody_else_and_continues_later() {
    let domain = TestDomain::new();
    let stopped = domain.receiver("stopped");
    let mut sink = domain.receiver("sink");
    stopped.stop();
    let mut source = domain.node("source");
    source.does(connect_within("sink", LONG));
    source.does(connect_within("stopped", LONG)); // pending: its process cannot answer
    source.does(send_numbers("stopped", 1..=1000));
    source.does(send_numbers("sink", 1..=1000));
    sink.does(receive_numbers(1..=1000));
    assert_eq!(source.does(progress("stopped")), (1000, 0));
    let mut stopped = stopped;
    stopped.go_on();
    stopped.does(receive_numbers(1..=1000));
}

#[test]
fn several_senders_of_one_process_share_a_connection() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does(connect("sink"));
    assert_eq!(sink.does(next_event()), joined("source"));
    let before = sink.does(descriptors());
    // Each new sender replaces the one before. Either of the two changes may be noticed first.
    for _ in 0..10 {
        source.does(connect("sink"));
        let events = [sink.does(next_event()), sink.does(next_event())];
        assert!(events.contains(&joined("source")) && events.contains(&closed("source")), "{events:?}");
    }
    // A handshake that is ending may hold one or two for a moment; ten connections would hold ten.
    assert!(sink.does(descriptors()) <= before + 2);
    source.does(send("sink", "hello"));
    assert_eq!(sink.does(receive()).text, "hello");
}

#[test]
fn a_forked_child_can_use_nothing_and_keeps_nobody_alive() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.receiver("source");
    source.does(connect("sink"));
    source.does(send("sink", "before"));
    let in_child = source.does(fork("sink"));
    let _child = ForkedChild::of(&in_child);
    for error in [in_child.sent.unwrap_err(), in_child.received.unwrap_err()] {
        assert!(error.contains("belongs to the process that forked this one"), "{error}");
    }
    source.does(send("sink", "after"));
    assert_eq!(sink.does(receive()).text, "before");
    assert_eq!(sink.does(receive()).text, "after");
    source.kill();
    assert_eq!(sink.does(next_event()), died("source"));
    drop(domain.receiver("source")); // the id is free, although the child lives on
}

#[test]
fn closing_a_node_waits_for_what_it_has_sent() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does(inbox().explicit());
    let mut source = domain.node("source");
    source.does(connect("sink"));
    source.does(send_numbers("sink", 1..=3));
    sink.does(receive_numbers(1..=3));
    let error = source.fails(close_alone(ms(20)));
    assert_eq!(error, "node \"source\" was closed before 3 of its messages were processed");
    assert_eq!(source.fails(send("sink", "4")), "the sending node \"source\" is closed");
}
