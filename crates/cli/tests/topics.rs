//! `librpc pub` and `librpc sub`: what is published on a topic arrives at every subscriber.

mod common;

use common::{Place, Running, place, until};
use rustix::process::Signal;

/// Starts a subscriber, and waits until it has its inbox.
fn subscriber(place: &Place, id: &str, arguments: &[&str]) -> Running {
    let running = place.start(&[&["sub", "--id", id], arguments].concat());
    place.await_inbox(id);
    running
}

#[test]
fn every_subscriber_gets_what_is_published() {
    let place = place("pubsub");
    let one = subscriber(&place, "one", &["a/*", "--count", "3", "--topic"]);
    let two = subscriber(&place, "two", &["**", "--count", "3", "--json"]);
    let published = place.run(&["pub", "a/b", "--id", "me"], b"x\n\nlast");
    assert_eq!(published.code, 0, "{}", published.stderr);
    let numbers = "3 messages to 2 inboxes: sent 6, processed 6, queued 0, dropped 0, returned 0";
    assert!(published.stderr.contains(numbers), "{}", published.stderr);
    let one = one.ends();
    assert_eq!((one.code, one.stdout()), (0, "a/b x\na/b \na/b last\n"));
    assert!(one.stderr.contains("received 3, missed 0"), "{}", one.stderr);
    let two = two.ends();
    let line =
        "{\"from\":\"me\",\"topic\":\"a/b\",\"sequence\":0,\"payload\":\"x\",\"missed\":0,\"redelivered\":false}";
    assert_eq!((two.code, two.stdout().lines().next()), (0, Some(line)));
}

#[test]
fn those_who_come_later_get_what_was_kept_and_what_follows() {
    let place = place("history");
    let mut source = place.start(&["pub", "t", "--id", "source", "--history", "3"]);
    source.write(&(0..10).map(|n| format!("{n}\n")).collect::<String>().into_bytes());
    place.await_node("source");
    // The publisher has read everything once one who asks for nothing gets the next line only.
    let none = subscriber(&place, "none", &["t", "--history", "0", "--count", "1"]);
    let all = place.run(&["sub", "t", "--count", "3", "--json"], b"");
    let kept: Vec<serde_json::Value> = all.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(all.code, 0, "{}", all.stderr);
    assert!(
        kept.iter().map(|line| &line["payload"]).eq(["7", "8", "9"]) && kept.iter().all(|line| line["past"] == true)
    );
    let two = place.run(&["sub", "*", "--count", "2", "--history", "2"], b"");
    assert_eq!((two.code, two.stdout()), (0, "8\n9\n"));
    let mut late = place.start(&["sub", "t", "--count", "4", "--id", "late"]);
    let past: Vec<_> = (0..3).map(|_| late.read_line()).collect();
    assert_eq!(past.concat(), "7\n8\n9\n");
    let source = source.ends_with(b"10\n");
    assert_eq!(source.code, 0, "{}", source.stderr);
    let (late, none) = (late.ends(), none.ends());
    assert_eq!((late.code, none.code, none.stdout()), (0, 0, "10\n"));
}

#[test]
fn a_publisher_says_who_comes_and_goes_if_it_is_asked_to() {
    let place = place("events");
    let mut source = place.start(&["pub", "a/b", "--events"]);
    for round in 0..2 {
        let late = subscriber(&place, "late", &["a/*", "x"]);
        assert_eq!(source.read_stderr_line(), "librpc: the subscription of node \"late\" to a/*, x has come\n");
        match round {
            0 => late.signal(Signal::KILL),
            _ => late.signal(Signal::TERM),
        }
        let gone = source.read_stderr_line();
        let expected = "librpc: the subscription of node \"late\" to a/*, x is gone: it";
        assert!(gone.starts_with(expected), "{gone}");
        assert_eq!(gone.contains("its process has died"), round == 0, "{gone}");
        late.ends();
    }
    let source = source.ends_with(b"x\n");
    assert_eq!(source.code, 0, "{}", source.stderr);
    assert!(source.stderr.contains("1 message to 0 inboxes"), "{}", source.stderr);
}

#[test]
fn a_publisher_stays_for_those_who_come_later_until_it_is_stopped() {
    let place = place("history_stay");
    let file = place.path().with_extension("map");
    std::fs::write(&file, "a map").unwrap();
    let arguments = ["pub", "map", "--id", "maps", "--history", "1", "--stay", "1h", "--file", file.to_str().unwrap()];
    let source = place.start(&arguments);
    place.await_node("maps");
    for _ in 0..2 {
        let late = place.run(&["sub", "map", "--count", "1"], b"");
        assert_eq!((late.code, late.stdout()), (0, "a map\n"));
    }
    source.signal(Signal::TERM);
    assert_eq!(source.ends().code, 0);
    std::fs::remove_file(file).unwrap();
    let usage = place.run(&["pub", "map", "--stay", "1s"], b"");
    assert_eq!(usage.code, 2);
}

#[test]
fn a_subscription_is_listed_by_its_patterns() {
    let place = place("patterns");
    let running = subscriber(&place, "sink", &["a/*", "b/**"]);
    assert_eq!(place.nodes()[0]["inboxes"], serde_json::json!(["a/*", "b/**"]));
    running.signal(Signal::TERM);
    assert_eq!(running.ends().code, 0);
}

#[test]
fn a_subscriber_whose_reader_is_gone_leaves_and_does_not_acknowledge() {
    let place = place("sub_epipe");
    let mut running = subscriber(&place, "sink", &["a"]);
    running.close_stdout();
    let published = place.run(&["pub", "a"], b"x\n");
    assert_eq!(published.code, 3);
    assert!(published.stderr.contains("sent 1, processed 0"), "{}", published.stderr);
    assert_eq!(running.ends().code, 0);
}

#[test]
fn a_full_inbox_costs_a_publisher_its_limit_once() {
    let place = place("pub_limit");
    let running = subscriber(&place, "slow", &["a", "--capacity", "4096"]);
    running.signal(Signal::STOP);
    let mut source = place.start(&["pub", "a", "--id", "source", "--limit", "2s"]);
    // 2 s for each line that finds the inbox full would be hours.
    source.write(&b"x\n".repeat(10_000));
    source.close_stdin();
    let is_tried = || {
        let stat = place.run(&["stat", "source", "--json"], b"");
        let mut lines = stat.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let channel = lines.find(|line: &serde_json::Value| line["kind"] == "channel");
        channel.is_some_and(|channel| {
            ["sent", "returned"].iter().filter_map(|key| channel[key].as_u64()).sum::<u64>() == 10_000
        })
    };
    until(is_tried);
    running.signal(Signal::CONT);
    let published = source.ends();
    running.signal(Signal::INT);
    let received = running.ends().stdout().lines().count();
    assert_eq!(published.code, 3, "{}", published.stderr);
    let sums = format!("sent 10000, processed {received}, queued 0, dropped 0, returned {}", 10_000 - received);
    assert!(received > 0 && published.stderr.contains(&sums), "{received}: {}", published.stderr);
}

#[test]
fn having_no_subscriber_is_a_failure_only_with_wait() {
    let place = place("pub_alone");
    let published = place.run(&["pub", "a"], b"x\n");
    assert_eq!(published.code, 0);
    assert!(published.stderr.contains("0 inboxes"), "{}", published.stderr);
    assert_eq!(place.run(&["pub", "a", "--wait", "50ms"], b"x\n").code, 124);
    let waiting = place.start(&["pub", "a", "--wait", "20s", "--id", "waiting"]);
    place.await_node("waiting");
    let subscriber = place.start(&["sub", "a", "--count", "1"]);
    assert_eq!(waiting.ends_with(b"x\n").code, 0);
    assert_eq!(subscriber.ends().stdout(), "x\n");
}

#[test]
fn bad_topics_are_wrong_usage() {
    let place = place("bad_topics");
    for arguments in [&["pub", "a/*"][..], &["pub", ""], &["sub", "a*"], &["sub", "a//b"], &["sub"]] {
        assert_eq!(place.run(arguments, b"").code, 2, "{arguments:?}");
    }
    for (pattern, spelling) in [("sensor/+/t", "sensor/*/t"), ("a/#", "a/**"), ("a/>", "a/**")] {
        let refused = place.run(&["sub", pattern], b"");
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("write {spelling:?}")), "{}", refused.stderr);
        assert_eq!(place.run(&["pub", pattern], b"x").code, 0, "a topic may have such a level");
    }
}

/// More lines than a command reads ahead. Once they are written, most of them are on their way.
fn many_lines() -> String {
    (1..=500_000).map(|number| format!("{number}\n")).collect()
}

#[test]
fn a_latest_subscriber_says_what_it_has_missed() {
    missed("latest", &["--policy", "drop-oldest", "--capacity", "4096"]);
    missed("keep_last", &["--keep-last", "1", "--capacity", "4096"]);
}

fn missed(test: &str, options: &[&str]) {
    let place = place(test);
    let subscriber = subscriber(&place, "slow", &[&["a"], options].concat());
    subscriber.signal(Signal::STOP);
    let mut source = place.start(&["pub", "a"]);
    source.write(many_lines().as_bytes()); // not held back by the one that is stopped
    subscriber.signal(Signal::CONT);
    let published = source.ends();
    subscriber.signal(Signal::INT);
    let received = subscriber.ends();
    assert_eq!((published.code, received.code), (3, 3), "{}", published.stderr);
    let numbers = received.stderr.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
    let numbers: Vec<usize> = numbers.collect();
    assert_eq!((numbers[0], numbers[0] + numbers[1]), (received.stdout().lines().count(), 500_000));
    assert!(numbers[1] > 0 && received.stdout().ends_with("500000\n"));
    if options[0] == "--policy" {
        // What is passed over was there, and counts as processed for its publisher.
        let sums = format!("sent 500000, processed {}, queued 0, dropped {}, returned 0", numbers[0], numbers[1]);
        assert!(published.stderr.contains(&sums), "{}", published.stderr);
    }
}

#[test]
fn a_rate_is_kept() {
    let place = place("rate");
    let subscriber = subscriber(&place, "sink", &["a", "--count", "200"]);
    let begun = std::time::Instant::now();
    let published = place.run(&["pub", "a", "--rate", "1000", "--burst", "10"], &b"x\n".repeat(200));
    assert_eq!(published.code, 0);
    // Never faster than it says: 190 of them wait, 1 ms each.
    assert!(begun.elapsed() >= std::time::Duration::from_millis(190));
    assert_eq!(subscriber.ends().code, 0);
}

#[test]
fn a_node_that_drops_is_a_loss_for_its_sender() {
    let place = place("drop_newest");
    let receiver = place.receiver("sink", &["--policy", "drop-newest", "--capacity", "4096"]);
    receiver.signal(Signal::STOP); // its output fits into a pipe: it goes on by itself afterwards
    let mut sender = place.start(&["send", "sink"]);
    sender.write(many_lines().as_bytes());
    receiver.signal(Signal::CONT);
    let sent = sender.ends();
    assert_eq!(sent.code, 3);
    receiver.signal(Signal::TERM);
    let received = receiver.ends();
    assert_eq!(received.code, 0);
    let received = received.stdout().lines().count();
    assert!(received < 500_000 && sent.stderr.contains(&format!("dropped by policy {}", 500_000 - received)));
}
