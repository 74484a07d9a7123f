//! `librpc stat`: every counter by its name, and only what was asked for.

use serde_json::Value;

use crate::common::{Place, Running, place, until};
use crate::{channel, find, lines, sender, stops};

#[test]
fn every_counter_of_a_channel_has_a_name() {
    let place = place("counters");
    let sink = place.receiver("sink", &[]);
    let mut camera = sender(&place, "camera", "sink", 100);
    let channel = channel(&place, "camera").expect("it is there");
    for (name, expected) in
        [("sent", 100), ("received", 100), ("processed", 100), ("queued", 0), ("sent_bytes", 190), ("dropped", 0)]
    {
        assert_eq!(channel[name], expected, "{name}");
    }
    for name in ["missed", "returned", "blocked_ns", "depth_bytes", "depth_max_bytes", "received_bytes", "inbox"] {
        assert!(channel[name].is_u64(), "{name}");
    }
    assert_eq!(
        (&channel["to"], &channel["policy"], &channel["state"]),
        (&"sink".into(), &"block".into(), &"open".into())
    );
    assert!(channel["latency_samples"].as_u64() >= Some(2), "the first one and one in 64");
    assert!(
        channel["latency_p50_ns"].as_u64() > Some(0)
            && channel["latency_p50_ns"].as_u64() <= channel["latency_max_ns"].as_u64()
    );
    let all = lines(&place, &["stat", "--json"]);
    assert_eq!(find(&all, "kind", "inbox")["ended_channels"], 1, "the one that waited for the receiver");
    assert_eq!(place.run(&["stat", "--json", "nobody"], b"").stdout(), "", "only what was asked for");
    assert_eq!(lines(&place, &["stat", "camera", "--json"]).len(), 4, "both nodes, an inbox and a channel");
    let watched = place.run(&["stat", "--json", "--watch", "10ms", "--count", "2"], b"");
    assert!(watched.stdout().lines().any(|line| line.contains("\"sent_per_s\":0.0")), "{}", watched.stdout());
    let text = place.run(&["stat"], b"");
    assert!(text.stdout().contains("camera") && text.stdout().contains("P99.9"), "{}", text.stdout());
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(sink);
}

#[test]
fn large_payloads_are_shown_with_who_holds_them() {
    const MIB: u64 = 1 << 20;
    let place = place("lent");
    let domain = || librpc::Domain::at(place.path());
    let open = |id: &str| librpc::Node::builder(id).domain(domain()).open().expect("it opens");
    let (viewer, idle, camera) = (open("viewer"), open("idle"), open("camera"));
    let mut frames = viewer.subscribe("camera/front").expect("it opens");
    let mut others = idle.subscribe("camera/front").expect("it opens");
    let mut publisher = camera.publisher("camera/front").expect("a topic");
    publisher.set_timeout(std::time::Duration::from_secs(60));
    for _ in 0..3 {
        let loan = publisher.loan(MIB as usize).expect("there is memory");
        assert_eq!(publisher.publish_loan(loan).expect("it goes").inboxes(), 2);
    }
    let mut held: Vec<_> = (0..2).map(|_| frames.recv_sample().expect("it receives").expect("a frame")).collect();
    while let Some(sample) = others.try_recv_sample().expect("it receives") {
        drop(sample);
    }
    publisher.flush(std::time::Duration::ZERO).expect_err("the viewer has not taken one of them"); // looks at what was released
    let to = |lines: &[Value], node: &str| lines.iter().find(|line| line["to"] == node).cloned().expect("a channel");
    for command in [&["stat", "--json"][..], &["top", "--once", "--json"]] {
        let all = lines(&place, command);
        let shown = to(&all, "viewer");
        assert_eq!([&shown["lent"], &shown["lent_bytes"], &shown["held"]], [3, 3 * MIB, 2], "{shown}");
        let shown = to(&all, "idle");
        assert_eq!([&shown["lent"], &shown["lent_bytes"], &shown["held"]], [0, 0, 0], "{shown}");
        let node = find(&all, "node", "camera");
        assert!(node["payload_bytes"].as_u64() >= Some(3 * MIB), "{node}");
        assert!(node["payload_limit_bytes"].as_u64() >= node["payload_bytes"].as_u64(), "{node}");
        assert_eq!(find(&all, "node", "viewer")["payload_bytes"], 0);
    }
    let table = place.run(&["stat"], b"");
    for text in ["LENT", "HELD", "3072 KiB", "for large payloads"] {
        assert!(table.stdout().contains(text), "{text}: {}", table.stdout());
    }
    let checks = lines(&place, &["doctor", "--json"]);
    let found = find(&checks, "check", "payloads")["found"].as_str().expect("text").to_owned();
    assert!(found.contains("for large payloads"), "{found}");
    let (mut server, address) = crate::metrics::metrics(&place);
    let page = crate::metrics::get(&address, "/metrics");
    for line in [
        "librpc_lent_payloads{from=\"camera\",to=\"viewer\",address=\"camera/front\"} 3".to_owned(),
        format!("librpc_lent_bytes{{from=\"camera\",to=\"viewer\",address=\"camera/front\"}} {}", 3 * MIB),
        "librpc_held_payloads{from=\"camera\",to=\"viewer\",address=\"camera/front\"} 2".to_owned(),
        "librpc_payload_memory_bytes{node=\"viewer\"} 0".to_owned(),
        format!("librpc_payload_memory_limit_bytes{{node=\"camera\"}} {}", camera.stats().payload_limit),
    ] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), rustix::process::Signal::TERM)
        .expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
    // What is released is shown as free as soon as the sender has looked.
    held.clear();
    drop(frames.recv_sample().expect("it receives"));
    frames.ack();
    publisher.flush(std::time::Duration::from_secs(60)).expect("everything is processed");
    let shown = to(&lines(&place, &["stat", "--json"]), "viewer");
    assert_eq!([&shown["lent"], &shown["held"]], [0, 0], "{shown}");
    assert!(!place.run(&["stat"], b"").stdout().contains("HELD"), "only where something is lent");
}

#[test]
fn a_channel_of_a_thousand_topics_is_shown() {
    let place = place("thousand");
    let watcher = place.start(&["sub", "t/*", "--id", "watcher"]);
    place.await_node("watcher");
    let node = librpc::Node::builder("many").domain(librpc::Domain::at(place.path())).open().expect("it opens");
    let mut outbox = node.outbox();
    for number in 0..1000 {
        let topic = outbox.topic(&format!("t/{number}")).expect("a topic");
        assert_eq!(
            outbox.publish_timeout(topic, b"x", std::time::Duration::from_secs(10)).expect("it goes").inboxes(),
            1
        );
    }
    until(|| channel(&place, "many").is_some_and(|channel| channel["processed"] == 1000));
    let shown = channel(&place, "many").expect("it is there");
    let topics = shown["topics"].as_array().expect("a list");
    assert_eq!((topics.len(), &topics[0]), (32, &"t/0".into()), "the first few of them");
    assert_eq!(find(&lines(&place, &["stat", "t/999", "--json"]), "kind", "channel")["sent"], 1000);
    assert!(place.run(&["stat", "t/999"], b"").stdout().contains("t/*"));
    drop((outbox, node));
    stops(watcher);
}

/// The kinds and names of what `stat WHAT` shows, in order.
fn shown(place: &Place, what: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |line: &Value| match line["kind"].as_str() {
        Some("channel") => format!("channel {} → {}", text(&line["from"]), text(&line["to"])),
        kind => format!("{} {}", kind.unwrap_or_default(), text(&line["node"])),
    };
    lines(place, &["stat", what, "--json"]).iter().map(name).collect()
}

#[test]
fn stat_shows_a_channel_with_its_inbox_and_nodes_and_no_others() {
    let place = place("about");
    let sink = place.receiver("sink", &[]);
    let camera = sender(&place, "camera", "sink", 1);
    let domain = librpc::Domain::at(place.path());
    let watcher = librpc::Node::builder("watcher").domain(domain.clone()).open().expect("it opens");
    // These patterns match the name of every node.
    let mut everything = watcher.subscriber_builder(["*", "**"]).open().expect("it opens");
    let kitchen = librpc::Node::builder("kitchen").domain(domain.clone()).open().expect("it opens");
    let garden = librpc::Node::builder("garden").domain(domain).open().expect("it opens");
    let mut publishers = Vec::new(); // their channels stay
    for (node, topic) in [(&kitchen, "sensor/kitchen"), (&garden, "sensor/garden")] {
        let mut publisher = node.publisher(topic).expect("a topic");
        assert_eq!(publisher.publish(b"21").expect("it goes").inboxes(), 1);
        assert!(everything.recv().expect("it receives").is_some());
        publishers.push(publisher);
    }
    let camera_and_sink = ["node camera", "node sink", "inbox sink", "channel camera → sink"];
    assert_eq!(shown(&place, "camera"), camera_and_sink);
    assert_eq!(shown(&place, "sink"), camera_and_sink);
    let kitchen_and_watcher = ["node kitchen", "node watcher", "inbox watcher", "channel kitchen → watcher"];
    assert_eq!(shown(&place, "kitchen"), kitchen_and_watcher);
    assert_eq!(shown(&place, "sensor/kitchen"), kitchen_and_watcher, "and not the garden's channel");
    let of_all = ["node garden", "node kitchen", "node watcher", "inbox watcher"];
    let of_all = [&of_all[..], &["channel garden → watcher", "channel kitchen → watcher"]].concat();
    assert_eq!(shown(&place, "sensor/*"), of_all);
    assert_eq!(shown(&place, "sensor/attic"), ["node watcher", "inbox watcher"], "the inbox that would receive it");
    assert_eq!(place.run(&["stat", "no//topic", "--json"], b"").stdout(), "");
    let table = place.run(&["stat", "camera"], b"");
    assert!(table.stdout().contains("sink") && !table.stdout().contains("kitchen"), "{}", table.stdout());
    let top = lines(&place, &["top", "camera", "--once", "--json"]);
    assert!(top.iter().all(|line| line["node"] != "watcher" && line["to"] != "watcher"), "{top:?}");
    drop((publishers, everything, watcher, kitchen, garden));
    stops_sender(camera);
    stops(sink);
}

fn stops_sender(mut sender: Running) {
    sender.close_stdin();
    assert_eq!(sender.ends().code, 0);
}
