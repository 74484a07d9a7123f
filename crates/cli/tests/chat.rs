//! `librpc chat`: lines to a node, and what is sent back.

mod common;

use std::io::Seek;

use common::{Place, Running, place, until};
use rustix::process::Signal;

/// A chat that has joined, and has an inbox.
fn chat(place: &Place, to: &str, id: &str, options: &[&str]) -> Running {
    let running = place.start(&[&["chat", to, "--id", id], options].concat());
    place.await_inbox(id);
    running
}

/// Waits until a node has sent this many messages to another one.
fn until_sent(place: &Place, from: &str, to: &str, messages: u64) {
    let has_sent = |line: &str| {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        row["from"] == from && row["to"] == to && row["sent"].as_u64() >= Some(messages)
    };
    until(|| place.run(&["stat", "--json"], b"").stdout().lines().any(has_sent));
}

/// Waits for the end of a command by itself, although its stdin is open.
fn ends_by_itself(mut running: Running) -> common::Ended {
    until(|| running.has_ended());
    running.ends()
}

fn leaves(running: Running, signal: Signal) {
    running.signal(signal);
    let ended = running.ends();
    assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (0, "", ""));
}

#[test]
fn two_that_name_each_other_can_be_started_in_either_order() {
    let place = place("chat_two");
    let mut alice = chat(&place, "bob", "alice", &[]);
    let mut bob = chat(&place, "alice", "bob", &["--json"]);
    alice.write(b"are you there?\n\n");
    let line: serde_json::Value = serde_json::from_str(&bob.read_line()).expect("JSON");
    assert_eq!((&line["from"], &line["payload"]), (&"alice".into(), &"are you there?".into()));
    assert!(bob.read_line().contains(r#""payload":"""#));
    bob.write(b"yes\nlast");
    assert_eq!(alice.read_line(), "yes\n");
    bob.close_stdin();
    assert_eq!(alice.read_line(), "last\n");
    let bob = bob.ends();
    assert_eq!((bob.code, bob.stdout(), &*bob.stderr), (0, "", ""));
    let alice = ends_by_itself(alice);
    assert_eq!(alice.code, 3, "the node that it sends to is gone");
    assert_eq!(alice.stderr, "librpc: node \"bob\" is gone: sent 2, processed 2, not processed 0\n");
}

#[test]
fn anybody_answers_under_its_id() {
    let place = place("chat_id");
    let sink = place.receiver("sink", &[]);
    let mut chat = place.start(&["chat", "sink"]);
    until(|| place.nodes().len() == 2);
    let id = place.nodes().iter().find_map(|node| Some(node["id"].as_str()?.strip_prefix("chat-")?.to_owned()));
    let id = id.expect("its id begins like this");
    assert!(id.len() == 8 && id.chars().all(|digit| digit.is_ascii_hexdigit()), "{id}");
    for answer in ["one", "two"] {
        let sent = place.run(&["send", &format!("chat-{id}")], answer.as_bytes());
        assert_eq!((sent.code, &*sent.stderr), (0, ""));
        assert_eq!(chat.read_line(), format!("{answer}\n"));
    }
    leaves(chat, Signal::TERM);
    leaves(sink, Signal::TERM);
}

#[test]
fn at_the_end_of_stdin_everything_is_processed_and_what_has_come_is_written() {
    let place = place("chat_end");
    let mut sink = place.receiver("sink", &[]);
    let mut chat = chat(&place, "sink", "me", &[]);
    let mut answers = place.start(&["send", "me", "--id", "other"]);
    answers.write(b"first\n");
    assert_eq!(chat.read_line(), "first\n");
    chat.signal(Signal::STOP);
    chat.write(b"question\n");
    chat.close_stdin();
    answers.write(b"second\nthird\n");
    until_sent(&place, "other", "me", 3);
    chat.signal(Signal::CONT);
    let ended = chat.ends();
    assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (0, "second\nthird\n", ""));
    assert_eq!(sink.read_line(), "question\n");
    let answers = ends_by_itself(answers);
    assert!(answers.stderr.contains("sent 3, processed 3, not processed 0"), "{}", answers.stderr);
    leaves(sink, Signal::TERM);
}

#[test]
fn it_lingers_after_the_end_of_stdin_until_there_is_enough_or_a_signal_comes() {
    let place = place("chat_linger");
    let mut sink = place.receiver("sink", &[]);
    for (option, signal) in [(&["--count", "2"][..], None), (&[], Some(Signal::TERM)), (&[], Some(Signal::INT))] {
        let mut chat = chat(&place, "sink", "me", &[&["--linger", "1h"], option].concat());
        chat.write(b"question\n");
        chat.close_stdin();
        assert_eq!(sink.read_line(), "question\n");
        assert_eq!(place.run(&["send", "me"], b"an\nswer\n").code, 0);
        assert_eq!((chat.read_line(), chat.read_line()), ("an\n".into(), "swer\n".into()));
        match signal {
            Some(signal) => leaves(chat, signal),
            None => assert_eq!(chat.ends().code, 0),
        }
    }
    leaves(sink, Signal::TERM);
}

#[test]
fn a_killed_node_ends_it_unless_it_redelivers() {
    let place = place("chat_killed");
    for redeliver in [&[][..], &["--redeliver", "1m"]] {
        let mut sink = place.receiver("sink", &[]);
        let mut chat = chat(&place, "sink", "me", redeliver);
        chat.write(b"one\n");
        assert_eq!(sink.read_line(), "one\n");
        sink.signal(Signal::KILL);
        sink.ends();
        if redeliver.is_empty() {
            let ended = ends_by_itself(chat);
            assert_eq!(ended.code, 3);
            assert!(ended.stderr.starts_with("librpc: node \"sink\" is gone"), "{}", ended.stderr);
            assert!(ended.stderr.contains("sent 1, processed "), "{}", ended.stderr);
        } else {
            chat.write(b"two\n");
            let mut sink = place.start(&["recv", "sink"]);
            // The first one was written, but perhaps not acknowledged.
            let line = sink.read_line();
            let two = if line == "one\n" { sink.read_line() } else { line };
            assert_eq!(two, "two\n");
            assert_eq!(place.run(&["send", "me"], b"an answer\n").code, 0);
            assert_eq!(chat.read_line(), "an answer\n");
            chat.close_stdin();
            let ended = chat.ends();
            assert_eq!((ended.code, &*ended.stderr), (0, ""));
            leaves(sink, Signal::TERM);
        }
    }
    assert_eq!(place.run(&["clean"], b"").code, 0);
}

#[test]
fn one_whose_reader_is_gone_leaves_and_does_not_acknowledge() {
    let place = place("chat_epipe");
    let sink = place.receiver("sink", &[]);
    let mut chat = chat(&place, "sink", "me", &[]);
    chat.close_stdout();
    let sent = place.run(&["send", "me"], b"a\n");
    assert_eq!(sent.code, 3);
    assert!(sent.stderr.contains("sent 1, processed 0, not processed 1"), "{}", sent.stderr);
    let ended = ends_by_itself(chat);
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
    leaves(sink, Signal::TERM);
}

#[test]
fn one_whose_node_does_not_come_has_read_nothing() {
    let place = place("chat_wait");
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, b"a\nb\n").expect("a file");
    file.rewind().expect("a file");
    let mut command = place.librpc(&["chat", "nobody", "--wait", "10ms"]);
    let ended = command.stdin(file.try_clone().expect("a descriptor")).output().expect("it starts");
    assert_eq!(ended.status.code(), Some(124));
    let stderr = String::from_utf8_lossy(&ended.stderr);
    assert!(stderr.contains("\"nobody\" is not there"), "{stderr}");
    assert_eq!(file.stream_position().expect("a file"), 0);
    // A signal ends the wait for it, too.
    leaves(chat(&place, "nobody", "me", &["--wait", "1h"]), Signal::INT);
}

#[test]
fn one_that_missed_messages_ends_with_3() {
    let place = place("chat_missed");
    let sink = place.receiver("sink", &[]);
    let mut chat = chat(&place, "sink", "me", &["--keep-last", "1"]);
    let mut answers = place.start(&["send", "me", "--id", "other"]);
    answers.write(b"0\n");
    assert_eq!(chat.read_line(), "0\n");
    chat.signal(Signal::STOP);
    answers.write((1..=100).map(|number| format!("{number}\n")).collect::<String>().as_bytes());
    until_sent(&place, "other", "me", 101);
    chat.signal(Signal::CONT);
    while chat.read_line() != "100\n" {}
    chat.close_stdin();
    let ended = chat.ends();
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.starts_with("librpc: received "), "{}", ended.stderr);
    let numbers: Vec<u64> =
        ended.stderr.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    assert_eq!(numbers[0] + numbers[1], 101, "{}", ended.stderr);
    assert!(numbers[1] > 0);
    answers.ends();
    leaves(sink, Signal::TERM);
}
