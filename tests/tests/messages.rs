//! Messages between real processes: order, backpressure, acknowledgement, events, death on either side.

use librpc_system_tests::{Forked, TestDomain};

#[test]
fn a_message_crosses_and_nothing_is_left() {
    let domain = TestDomain::new();
    let mut display = domain.receiver("display");
    let mut camera = domain.node("camera");
    camera.does("sender display");
    camera.does("send display hello");
    assert_eq!(display.says("event"), "joined camera");
    assert_eq!(display.says("event"), "message camera hello");
    assert_eq!(camera.says("progress display"), "1 0");
    display.begins("event"); // acknowledges, then waits
    camera.does("flush display 10000");
    assert_eq!(camera.says("progress display"), "1 1");
    camera.does("drop-sender display");
    assert_eq!(display.answer().as_deref(), Some("left camera Closed"));
    camera.does("close 1000");
    display.does("close 1000");
    domain.assert_gone();
}

#[test]
fn a_million_bytes_of_numbers_arrive_in_order_through_a_small_ring() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.begins("count sink 1 100000");
    sink.does("expect 1 100000");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    sink.begins("try-recv");
    source.does("flush sink 10000");
}

#[test]
fn a_full_inbox_pushes_back_and_goes_on_when_there_is_room() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("inbox capacity=4096 explicit");
    let mut source = domain.node("source");
    source.does("sender sink");
    // 100 bytes take 120 in the ring, and 8 stay free: (4096 - 8) / 120 = 34.
    assert_eq!(source.says("fill sink 100"), "34");
    source.does("limit sink 50");
    assert_eq!(source.fails("send sink 1"), "node \"sink\" has made no room within 50ms: its inbox is full");
    assert_eq!(source.fails("flush sink 10"), "34 messages are not processed yet");
    sink.says("recv");
    sink.says("recv");
    assert!(source.fails("send sink 1").contains("full"), "handed out is not processed");
    source.does("limit sink 30000");
    source.begins("send sink 1");
    sink.does("ack");
    assert_eq!(source.answer().as_deref(), Some("ok"));
    assert_eq!(source.says("progress sink"), "35 2");
}

#[test]
fn messages_over_the_limit_are_refused_with_the_limit() {
    let domain = TestDomain::new();
    let _sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.does(&format!("send sink {}", "x".repeat(65_472)));
    let error = source.fails(&format!("send sink {}", "x".repeat(65_473)));
    assert_eq!(error, "a message of 65473 bytes is over the limit of 65472 bytes of node \"sink\"");
}

#[test]
fn what_a_killed_sender_has_committed_is_delivered() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.does("count sink 1 1000");
    source.kill();
    sink.does("expect 1 1000");
    assert_eq!(sink.says("event"), "left source Died");
    assert!(!domain.entries().contains(&"source.node".to_owned()), "the dead node was swept");
}

#[test]
fn a_sender_that_dies_is_never_said_to_have_disconnected() {
    // A dying process hangs up before the kernel frees its lock. The sink is at it at once: it was told what to do before.
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    for round in 0..50 {
        let mut source = domain.doomed("commit.committed:kill:10");
        assert_eq!(source.opens("source", ""), "ok", "{round}");
        (0..12).for_each(|_| sink.begins("event"));
        source.begins("sender sink");
        source.begins("count sink 1 10");
        let events: Vec<String> = (0..12).map(|_| sink.answer().expect("the sink lives")).collect();
        assert_eq!(events[0], "joined source", "{round}");
        assert_eq!(events[11], "left source Died", "{round}: {events:?}");
        source.dies();
        assert!(!domain.entries().contains(&"source.node".to_owned()), "the dead node was swept");
    }
}

#[test]
fn a_sender_learns_that_its_receiver_was_killed_and_reconnects_when_it_is_back() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.does("count sink 1 10");
    sink.does("expect 1 4"); // the fourth is not acknowledged
    sink.kill();
    let error = source.fails("flush sink 10000");
    assert!(error.starts_with("7 messages were not processed: node \"sink\" is gone"), "{error}");
    let error = source.fails("send sink lost");
    assert_eq!(error, "node \"sink\" is gone; 0 messages sent before were not processed");
    let mut sink = domain.receiver("sink");
    source.does("send sink again");
    assert_eq!(sink.says("recv"), "again");
}

#[test]
fn a_waiting_sender_is_woken_by_its_receivers_death() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.says("fill sink 100");
    source.says("fill sink 1");
    source.does("limit sink 1000000");
    source.begins("send sink more");
    sink.kill();
    let answer = source.answer().expect("the source lives");
    assert!(answer.starts_with("error: node \"sink\" is gone;"), "{answer}");
}

#[test]
fn a_stopped_receiver_holds_up_nobody_else_and_goes_on_later() {
    let domain = TestDomain::new();
    let stopped = domain.receiver("stopped");
    let mut sink = domain.receiver("sink");
    stopped.stop();
    let mut source = domain.node("source");
    source.does("sender sink 10000");
    source.does("sender stopped 10000"); // pending: its process cannot answer
    source.does("count stopped 1 1000");
    source.does("count sink 1 1000");
    sink.does("expect 1 1000");
    assert_eq!(source.says("progress stopped"), "1000 0");
    let mut stopped = stopped;
    stopped.go_on();
    stopped.does("expect 1 1000");
}

#[test]
fn several_senders_of_one_process_share_a_connection() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.node("source");
    source.does("sender sink");
    assert_eq!(sink.says("event"), "joined source");
    let before: u32 = sink.says("descriptors").parse().unwrap();
    // A sender replaced by another one: which of the two is noticed first is open.
    for _ in 0..10 {
        source.does("sender sink");
        let mut events = [sink.says("event"), sink.says("event")];
        events.sort();
        assert_eq!(events, ["joined source", "left source Closed"]);
    }
    // A handshake that is just ending may hold one or two for a moment; ten connections would hold ten.
    assert!(sink.says("descriptors").parse::<u32>().unwrap() <= before + 2);
    source.does("send sink hello");
    assert_eq!(sink.says("recv"), "hello");
}

#[test]
fn a_forked_child_can_use_nothing_and_keeps_nobody_alive() {
    let domain = TestDomain::new();
    let mut sink = domain.receiver("sink");
    let mut source = domain.receiver("source");
    source.does("sender sink");
    source.does("send sink before");
    let answer = source.says("fork sink");
    let (_child, what) = Forked::of(&answer);
    assert_eq!(what.matches("belongs to the process that forked this one").count(), 2, "{what}");
    source.does("send sink behind");
    assert_eq!(sink.says("recv"), "before");
    assert_eq!(sink.says("recv"), "behind");
    source.kill();
    assert_eq!(sink.says("event"), "left source Died");
    drop(domain.receiver("source")); // the id is free, although the child lives on
}

#[test]
fn closing_a_node_waits_for_what_it_has_sent() {
    let domain = TestDomain::new();
    let mut sink = domain.node("sink");
    sink.does("inbox explicit");
    let mut source = domain.node("source");
    source.does("sender sink");
    source.does("count sink 1 3");
    sink.does("expect 1 3");
    let error = source.fails("close-under 20");
    assert_eq!(error, "node \"source\" was closed with 3 messages sent that were not processed");
    assert_eq!(source.fails("send sink 4"), "the sending node \"source\" is closed");
}
