//! What `librpc send` reads, `librpc recv` writes, byte for byte.

mod common;

use std::process::Stdio;

use common::{Running, place};
use rustix::process::Signal;

/// The longest message that is copied into a ring of the default capacity.
const RING: usize = 65_472;

/// Sends stdin to a receiver, ends the receiver, and returns what it wrote.
fn through(test: &str, options: &[&str], stdin: &[u8]) -> Vec<u8> {
    let place = place(test);
    let receiver = place.start(&[&["recv", "sink"], options].concat());
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receiver.ends());
        let sent = place.run(&["send", "sink"], stdin);
        assert_eq!((sent.code, &*sent.stderr, sent.stdout()), (0, "", ""));
        // Everything is acknowledged, so everything is written.
        let node = &place.nodes()[0];
        let pid = node["pid"].as_i64().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)).expect("a pid");
        rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
        let received = receiver.join().expect("no panic");
        assert_eq!((received.code, &*received.stderr), (0, ""));
        received.stdout
    })
}

fn assert_round_trip(test: &str, lines: &[u8]) {
    assert!(through(test, &[], lines) == lines, "{test}: what came out is not what went in");
}

#[test]
fn numbers_come_out_as_they_went_in() {
    let lines: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    assert_round_trip("seq", lines.as_bytes());
}

#[test]
fn messages_of_any_size_come_out_as_they_went_in() {
    assert_round_trip("one_byte", &b"x\n".repeat(100_000));
    assert_round_trip("empty", &b"\n".repeat(100_000));
    assert_round_trip("2000_bytes", &[&[b'y'; 2000][..], b"\n"].concat().repeat(5_000));
    for bytes in [RING, RING + 1, 3_000_000] {
        assert_round_trip("large", &[&vec![b'z'; bytes][..], b"\n"].concat().repeat(20));
    }
}

#[test]
fn only_the_newline_is_taken_off() {
    assert_round_trip("bytes", b" a\t\r\n\0\n\xff\xfe\n\nb\n");
}

#[test]
fn a_last_line_without_newline_counts() {
    assert_eq!(through("last_line", &[], b"a\nlast"), b"a\nlast\n");
    assert_eq!(through("one_newline", &[], b"\n"), b"\n");
    assert_eq!(through("no_line", &[], b""), b"");
}

#[test]
fn raw_adds_nothing() {
    assert_eq!(through("raw", &["--raw"], b"a\n\nb\n\xff"), b"ab\xff");
}

#[test]
fn each_message_is_one_write() {
    use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
    // Each write to such a socket is a packet of its own.
    let (inside, outside) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    for (option, newline) in [(&[][..], "\n"), (&["--raw"], "")] {
        let place = place("one_write");
        let mut command = place.librpc(&[&["recv", "sink", "--count", "3"], option].concat());
        command.stdout(inside.try_clone().expect("a descriptor"));
        let receiver = Running::new(command.stderr(Stdio::piped()).spawn().expect("it starts"));
        place.await_inbox("sink");
        assert_eq!(place.run(&["send", "sink"], b"one\ntwo\nthree\n").code, 0);
        for message in ["one", "two", "three"] {
            let mut bytes = [0; 100];
            let (length, _) = recv(&outside, &mut bytes[..], RecvFlags::empty()).expect("a write");
            assert_eq!(std::str::from_utf8(&bytes[..length]), Ok(&*format!("{message}{newline}")));
        }
        assert_eq!(receiver.ends().code, 0);
    }
}

#[test]
fn json_is_one_object_a_line() {
    let place = place("json");
    let receiver = place.receiver("sink", &["--json", "--count", "3"]);
    assert_eq!(place.run(&["send", "sink", "--id", "me"], b"say \"hi\"\n\n\xff\x00\n").code, 0);
    let received = receiver.ends();
    assert_eq!(
        received.stdout(),
        "{\"from\":\"me\",\"sequence\":0,\"payload\":\"say \\\"hi\\\"\",\"missed\":0,\"redelivered\":false}\n\
         {\"from\":\"me\",\"sequence\":1,\"payload\":\"\",\"missed\":0,\"redelivered\":false}\n\
         {\"from\":\"me\",\"sequence\":2,\"payload_base64\":\"/wA=\",\"missed\":0,\"redelivered\":false}\n"
    );
}

#[test]
fn a_line_over_the_limit_is_reported_and_the_rest_arrives() {
    for (limit, bytes) in [(RING, RING + 1), (RING, 30_000_000), (1_000_000, 1_000_001)] {
        let place = place("too_long");
        let receiver = place.receiver("sink", &["--count", "3", "--max-message", &limit.to_string()]);
        let receiver = std::thread::spawn(|| receiver.ends());
        let lines = [&b"one\n"[..], &vec![b'x'; bytes], b"\ntwo\n", &vec![b'y'; limit], b"\n"].concat();
        let sent = place.run(&["send", "sink"], &lines);
        assert_eq!(sent.code, 3);
        assert_eq!(sent.stderr, format!("librpc: line 2 was not sent: it has {bytes} bytes, the limit is {limit}\n"));
        let expected = [&b"one\ntwo\n"[..], &vec![b'y'; limit], b"\n"].concat();
        let received = receiver.join().expect("no panic");
        assert!(received.code == 0 && received.stdout == expected, "{bytes} bytes, where {limit} are allowed");
    }
}

#[test]
fn max_message_sets_the_limit_and_the_capacity_does_not() {
    let place = place("capacity");
    let options = ["--count", "2", "--capacity", "4096", "--max-message", "960"];
    let receiver = place.receiver("sink", &options);
    let sent = place.run(&["send", "sink"], &[&[b'x'; 960][..], b"\n", &[b'x'; 961], b"\nend"].concat());
    assert_eq!((sent.code, &*sent.stderr), (3, "librpc: line 2 was not sent: it has 961 bytes, the limit is 960\n"));
    assert_eq!(receiver.ends().stdout.len(), 961 + 4);
    let receiver = place.receiver("sink", &options[..4]);
    let receiver = std::thread::spawn(|| receiver.ends());
    let lines = [&[b'x'; 961][..], b"\n", &[b'y'; 100_000], b"\n"].concat();
    assert_eq!(place.run(&["send", "sink"], &lines).code, 0);
    assert!(receiver.join().expect("no panic").stdout == lines);
}

#[test]
fn count_leaves_after_the_nth_and_acknowledges_it() {
    let place = place("count");
    let receiver = place.receiver("sink", &["--count", "2"]);
    let sent = place.run(&["send", "sink"], b"a\nb\n");
    assert_eq!((sent.code, &*sent.stderr), (0, ""));
    let received = receiver.ends();
    assert_eq!((received.code, received.stdout()), (0, "a\nb\n"));
}

#[test]
fn several_senders_keep_their_order() {
    let place = place("several");
    let mut receiver = place.receiver("sink", &["--json", "--count", "3000"]);
    std::thread::scope(|scope| {
        for id in ["a", "b", "c"] {
            let place = &place;
            scope.spawn(move || {
                let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
                assert_eq!(place.run(&["send", "sink", "--id", id], lines.as_bytes()).code, 0);
            });
        }
        let mut next = std::collections::HashMap::new();
        for _ in 0..3000 {
            let line: serde_json::Value = serde_json::from_str(&receiver.read_line()).expect("JSON");
            let next = next.entry(line["from"].as_str().expect("text").to_owned()).or_insert(0);
            assert_eq!((line["sequence"].as_u64(), line["payload"].as_str()), (Some(*next), Some(&*next.to_string())));
            *next += 1;
        }
    });
    assert_eq!(receiver.ends().code, 0);
}
