//! Nodes that are stopped, full, slow or dead, as every command shows them.

use rustix::process::Signal;

use crate::common::{Place, Running, place, until};
use crate::{channel, find, lines, stops};

/// A stopped node whose inbox its sender has filled.
fn stopped_and_full(place: &Place) -> (Running, Running) {
    let stuck = place.receiver("stuck", &["--capacity", "4096"]);
    stuck.signal(Signal::STOP);
    let mut feeder = place.start(&["send", "stuck", "--id", "feeder"]);
    feeder.write_until_full(b"a message of some length\n");
    // It waits for an answer for a while before it reads anything.
    until(|| channel(place, "feeder").is_some_and(|channel| channel["depth_bytes"].as_u64() > Some(3000)));
    (stuck, feeder)
}

fn let_go((stuck, feeder): (Running, Running)) {
    feeder.signal(Signal::KILL);
    feeder.ends();
    stuck.signal(Signal::CONT);
    stuck.signal(Signal::TERM);
    stuck.ends();
}

#[test]
fn a_stopped_node_and_a_full_inbox_are_shown_by_all() {
    let place = place("stopped");
    let both = stopped_and_full(&place);
    let nodes = place.nodes();
    let stuck = find(&nodes, "id", "stuck");
    assert_eq!((&stuck["alive"], &stuck["state"]), (&true.into(), &"stalled".into()));
    assert_eq!(find(&nodes, "id", "feeder")["state"], "alive");
    let top = lines(&place, &["top", "--once", "--json"]);
    assert_eq!(find(&top, "name", "stalled-node")["node"], "stuck");
    assert_eq!(find(&top, "name", "queue-full")["from"], "feeder");
    let channel = channel(&place, "feeder").expect("its sender sees it");
    assert_eq!((&channel["seen_by"], &channel["state"]), (&"sender".into(), &"pending".into()));
    assert!(channel["depth_bytes"].as_u64() > Some(3000), "{channel}");
    let doctor = lines(&place, &["doctor", "--json"]);
    for check in ["stalled-nodes", "traffic"] {
        assert_eq!(find(&doctor, "check", check)["verdict"], "WARN", "{check}");
    }
    assert_eq!(place.run(&["doctor", "--strict"], b"").code, 1);
    let check = place.run(&["check", "--over", "1ms"], b"");
    assert_eq!(check.code, 1);
    assert!(check.stdout().contains("stalled: stuck") && check.stdout().contains("% full"), "{}", check.stdout());
    let text = place.run(&["top", "--once"], b"");
    assert!(text.stdout().contains("queue-full: feeder → stuck"), "{}", text.stdout());
    let_go(both);
    assert_eq!(place.run(&["clean"], b"").code, 0, "the feeder was killed");
}

#[test]
fn a_full_inbox_of_a_living_node_is_shown_by_all() {
    let place = place("slow");
    let mut slow = place.receiver("slow", &["--capacity", "4096"]); // nobody reads what it writes
    let mut feeder = place.start(&["send", "slow", "--id", "feeder"]);
    feeder.write_until_full(b"a message of some length\n");
    let top = lines(&place, &["top", "--once", "--json"]);
    for warning in ["queue-full", "slow-consumer"] {
        assert_eq!(find(&top, "name", warning)["from"], "feeder", "{warning}");
    }
    assert!(!top.iter().any(|line| line["name"] == "stalled-node"), "{top:?}");
    assert_eq!(find(&place.nodes(), "id", "slow")["state"], "alive");
    let doctor = lines(&place, &["doctor", "--json"]);
    let traffic = find(&doctor, "check", "traffic");
    assert_eq!(traffic["verdict"], "WARN");
    assert!(traffic["found"].as_str().is_some_and(|text| text.contains("queue-full: feeder → slow")), "{traffic}");
    assert!(traffic["todo"].as_str().is_some_and(|text| text.contains("librpc top")), "{traffic}");
    assert_eq!(find(&doctor, "check", "stalled-nodes")["verdict"], "PASS");
    slow.close_stdout();
    assert_eq!(slow.ends().code, 0);
    assert_eq!(feeder.ends().code, 3);
}

#[test]
fn a_dead_node_is_shown_until_it_is_swept() {
    let place = place("dead");
    let sink = place.receiver("sink", &[]);
    let other = place.receiver("other", &[]);
    sink.signal(Signal::KILL);
    sink.ends();
    assert_eq!(find(&place.nodes(), "id", "sink")["state"], "dead");
    assert_eq!(find(&lines(&place, &["top", "--once", "--json"]), "name", "dead-node")["node"], "sink");
    let doctor = lines(&place, &["doctor", "--json"]);
    assert_eq!(find(&doctor, "check", "dead-nodes")["verdict"], "WARN");
    assert_eq!(place.run(&["check", "--over", "1ms"], b"").code, 0, "nothing waits for it");
    assert_eq!(place.run(&["check", "--over", "1ms", "--max-dead", "0"], b"").code, 1);
    assert_eq!(place.run(&["check", "--over", "1ms", "--node", "sink"], b"").code, 1);
    assert_eq!(place.run(&["clean"], b"").code, 0);
    assert_eq!(find(&lines(&place, &["doctor", "--json"]), "check", "dead-nodes")["verdict"], "PASS");
    stops(other);
}

#[test]
fn observers_create_no_domain_and_show_nothing() {
    let place = place("nothing");
    let commands: [&[&str]; 11] = [
        &["topics"],
        &["topics", "--json", "a/*"],
        &["services"],
        &["services", "--json", "a"],
        &["names", "all"],
        &["nodes", "--json"],
        &["stat"],
        &["stat", "--json"],
        &["top", "--once"],
        &["top", "--once", "--json"],
        &["graph", "--over", "1ms"],
    ];
    for command in commands {
        let ended = place.run(command, b"");
        assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (0, "", ""), "{command:?}");
    }
    assert_eq!(place.run(&["doctor"], b"").code, 0);
    assert_eq!(place.run(&["check", "--over", "1ms"], b"").code, 0);
    // What a probe asks for by its name is missing if everything is.
    let missing = place.run(&["check", "--over", "1ms", "sensor/**"], b"");
    assert_eq!(missing.code, 1);
    assert!(missing.stdout().starts_with("FAILED: nothing matches sensor/**"), "{missing:?}");
    assert!(!place.path().exists());
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let place = place("closed");
    let sink = place.receiver("sink", &[]);
    let commands: [&[&str]; 11] = [
        &["topics", "--over", "1ms"],
        &["services", "--over", "1ms", "--json"],
        &["nodes"],
        &["stat"],
        &["stat", "--watch", "10ms", "--json"],
        &["top", "--once"],
        &["graph", "--over", "1ms"],
        &["check", "--over", "1ms"],
        &["hz", "t", "--every", "1ms"],
        &["doctor"],
        &["man", "top"],
    ];
    for command in commands {
        let mut running = place.start(command);
        running.close_stdout();
        let ended = running.ends();
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    // One that was closed from the start takes no writes that fail.
    let again: [&[&str]; 4] = [
        &["topics", "--watch", "1ms"],
        &["services", "--watch", "1ms", "--json"],
        &["stat", "--watch", "1ms"],
        &["hz", "t", "--every", "1ms"],
    ];
    for command in again {
        let ended = place.start_in_shell("exec \"$@\" >&-", command).ends();
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    stops(sink);
}
