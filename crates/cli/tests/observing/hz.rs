//! `librpc hz`, and what spectators say of messages that they do not get.

use rustix::process::Signal;
use serde_json::Value;

use crate::channel;
use crate::common::{Place, Running, place, until};

#[test]
fn hz_counts_what_is_published() {
    let place = place("hz");
    let hz = place.start(&["hz", "beat", "--count", "1", "--every", "300ms", "--json"]);
    until(|| place.nodes().iter().any(|node| node["inboxes"] == serde_json::json!(["beat"])));
    let mut publisher = place.start(&["pub", "beat", "--wait", "10s"]);
    let mut hz = hz;
    while !hz.has_ended() {
        publisher.write(b"x\n");
    }
    let ended = hz.ends();
    let line: Value = serde_json::from_str(ended.stdout()).expect("one line");
    assert!(line["messages"].as_u64() > Some(0) && line["rate"].as_f64() > Some(0.0), "{line}");
    publisher.close_stdin();
    publisher.ends();
}

/// An inbox for this pattern is there.
fn await_subscription(place: &Place, pattern: &str) {
    until(|| place.nodes().iter().any(|node| node["inboxes"] == serde_json::json!([pattern])));
}

/// The lines that `hz --json` writes from now on, until it has counted a message.
fn line_with_messages(hz: &mut Running) -> Value {
    loop {
        let line: Value = serde_json::from_str(&hz.read_line()).expect("JSON");
        if line["messages"].as_u64() > Some(0) {
            return line;
        }
    }
}

#[test]
fn what_hz_missed_counts_in_bytes_and_in_intervals() {
    let place = place("hz_missed");
    let mut hz = place.start(&["hz", "beat", "--every", "1s", "--capacity", "4096", "--json"]);
    await_subscription(&place, "beat");
    hz.signal(Signal::STOP);
    let mut publisher = place.start(&["pub", "beat", "--id", "source"]);
    publisher.write(&[&[b'x'; 100][..], b"\n"].concat().repeat(1000));
    until(|| channel(&place, "source").is_some_and(|channel| channel["sent"] == 1000));
    hz.signal(Signal::CONT);
    let line = line_with_messages(&mut hz);
    let number = |key: &str| line[key].as_f64().unwrap_or_else(|| panic!("no {key} in {line}"));
    assert!(number("messages") == 1000.0 && number("missed") > 900.0, "{line}");
    let bytes_each = number("bytes_per_s") / number("rate");
    assert!((99.0..101.0).contains(&bytes_each), "{bytes_each}: {line}");
    hz.signal(Signal::TERM);
    assert_eq!(hz.ends().code, 0);
    publisher.close_stdin();
    publisher.ends();
}

#[test]
fn hz_takes_large_messages_and_names_those_that_are_too_large() {
    let place = place("hz_large");
    let message = [&vec![b'x'; 3_000_000][..], b"\n"].concat();
    for (options, too_large) in [(&[][..], 0), (&["--capacity", "4096"], 0), (&["--max-message", "2999999"], 1)] {
        let arguments = [&["hz", "beat", "--every", "10ms", "--json"], options].concat();
        let mut hz = place.start(&arguments);
        await_subscription(&place, "beat");
        let published = place.run(&["pub", "beat"], &message);
        assert_eq!(published.code, 0, "a spectator is no loss: {}", published.stderr);
        let line = line_with_messages(&mut hz);
        assert_eq!((&line["messages"], &line["too_large"]), (&1.into(), &too_large.into()), "{line}");
        assert!(line["rate"].as_f64() > Some(0.0), "{line}");
        hz.signal(Signal::TERM);
        assert_eq!(hz.ends().code, 0);
    }
    let mut hz = place.start(&["hz", "beat", "--every", "10ms", "--max-message", "960"]);
    await_subscription(&place, "beat");
    assert_eq!(place.run(&["pub", "beat"], &message).code, 0);
    until(|| hz.read_line().contains("1 too large for hz (see --max-message)"));
    hz.signal(Signal::TERM);
    assert_eq!(hz.ends().code, 0);
}

#[test]
fn sub_says_what_it_did_not_get() {
    let place = place("sub_large");
    let message = [&[b'x'; 2000][..], b"\n"].concat();
    for (policy, code) in [("block", 3), ("drop-newest", 0), ("drop-oldest", 0)] {
        let subscriber = place.start(&["sub", "beat", "--max-message", "1000", "--policy", policy]);
        await_subscription(&place, "beat");
        let published = place.run(&["pub", "beat"], &message);
        assert_eq!(published.code, code, "{policy}: {}", published.stderr);
        subscriber.signal(Signal::TERM);
        let ended = subscriber.ends();
        assert!(ended.stderr.contains("1 message returned to the publisher: too large"), "{policy}: {}", ended.stderr);
        assert!(ended.stderr.contains("received 0, missed 0"), "{policy}: {}", ended.stderr);
    }
}

#[test]
fn sub_says_at_once_that_messages_are_too_large() {
    let place = place("sub_at_once");
    let mut subscriber = place.start(&["sub", "beat", "--max-message", "1000"]);
    await_subscription(&place, "beat");
    let mut publisher = place.start(&["pub", "beat", "--id", "source"]);
    publisher.write(&[&[b'x'; 2000][..], b"\n"].concat());
    // Its publisher is still there, and nothing else comes.
    assert!(subscriber.read_stderr_line().contains("1 message returned to the publisher: too large"));
    subscriber.signal(Signal::TERM);
    subscriber.ends();
    publisher.close_stdin();
    assert_eq!(publisher.ends().code, 3);
}

#[test]
fn a_line_that_is_too_large_for_a_spectator_still_reaches_the_others() {
    let place = place("hz_beside");
    let hz = place.start(&["hz", "beat", "--max-message", "1000"]);
    await_subscription(&place, "beat");
    let subscriber = place.start(&["sub", "beat", "--id", "large", "--count", "2"]);
    until(|| place.nodes().iter().any(|node| node["id"] == "large" && node["inboxes"] == serde_json::json!(["beat"])));
    let lines = [&[b'x'; 600_000][..], b"\nsmall\n"].concat();
    std::thread::scope(|scope| {
        let subscriber = scope.spawn(|| subscriber.ends());
        let published = place.run(&["pub", "beat"], &lines);
        assert_eq!(published.code, 0, "{}", published.stderr);
        assert!(subscriber.join().expect("no panic").stdout == lines);
    });
    hz.signal(Signal::TERM);
    assert_eq!(hz.ends().code, 0);
}
