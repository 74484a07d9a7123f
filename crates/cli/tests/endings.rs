//! How commands end: exit codes, signals, closed pipes, killed peers. Nothing is ever left behind.

mod common;

use std::io::Seek;
use std::process::Stdio;

use common::{place, until};
use rustix::process::Signal;

/// The numbers in `sent N, processed M, not processed K`.
fn numbers(stderr: &str) -> [u64; 3] {
    let (_, numbers) = stderr.rsplit_once(": sent ").unwrap_or_else(|| panic!("no numbers: {stderr}"));
    let number = |text: &str| text.trim().rsplit(' ').next().and_then(|number| number.parse().ok());
    let numbers: Vec<u64> = numbers.split(',').map(|text| number(text).expect("a number")).collect();
    numbers.try_into().expect("three numbers")
}

#[test]
fn a_receiver_leaves_at_a_signal() {
    for signal in [Signal::TERM, Signal::INT] {
        let place = place(&format!("recv_{}", signal.as_raw()));
        let receiver = place.receiver("sink", &[]);
        receiver.signal(signal);
        let received = receiver.ends();
        assert_eq!((received.code, received.stdout(), &*received.stderr), (0, "", ""));
    }
}

#[test]
fn a_receiver_leaves_at_a_signal_as_soon_as_its_node_can_be_seen() {
    for command in [&["recv", "sink"][..], &["sub", "topic", "--id", "sink"]] {
        for round in 0..10 {
            let place = place(&format!("early_{}_{round}", command[0]));
            let receiver = place.start(command);
            until(|| place.path().join("sink.node").exists());
            receiver.signal(Signal::TERM);
            let ended = receiver.ends();
            assert_eq!((ended.code, ended.stdout()), (0, ""), "{command:?}: {}", ended.stderr);
        }
    }
}

#[test]
fn a_receiver_that_cannot_write_leaves_at_a_signal() {
    let place = place("recv_blocked");
    let mut receiver = place.receiver("sink", &[]);
    let mut sender = place.start(&["send", "sink"]);
    sender.write(&b"x\n".repeat(40_000)); // more than a pipe takes
    assert_eq!(receiver.read_line(), "x\n");
    receiver.signal(Signal::TERM);
    let lost = sender.ends();
    assert_eq!(lost.code, 3);
    let [sent, processed, not_processed] = numbers(&lost.stderr);
    let received = receiver.ends();
    assert_eq!((received.code, &*received.stderr), (0, ""));
    let written = 1 + received.stdout.iter().filter(|&&byte| byte == b'\n').count() as u64;
    // `read_line` reads ahead. What it has read is not in `stdout`.
    assert!(written <= processed, "{written} messages seen, {processed} acknowledged");
    assert_eq!(sent, processed + not_processed);
}

#[test]
fn a_receiver_whose_reader_is_gone_leaves_and_does_not_acknowledge() {
    let place = place("epipe");
    let mut receiver = place.receiver("sink", &[]);
    receiver.close_stdout();
    let sent = place.run(&["send", "sink"], b"a\n");
    assert_eq!((sent.code, numbers(&sent.stderr)), (3, [1, 0, 1]));
    let received = receiver.ends();
    assert_eq!((received.code, &*received.stderr), (0, ""));
}

#[test]
fn a_receiver_without_stdout_leaves_and_does_not_acknowledge() {
    let place = place("no_stdout");
    let receiver = place.start_in_shell("exec \"$@\" >&-", &["recv", "sink", "--count", "1"]);
    let sent = place.run(&["send", "sink"], b"a\n");
    assert_eq!((sent.code, numbers(&sent.stderr)), (3, [1, 0, 1]));
    let received = receiver.ends();
    assert_eq!((received.code, &*received.stderr), (0, ""));
}

/// A terminal: the side that a program writes to, and the side that hangs up when it is dropped.
fn terminal() -> (std::fs::File, std::os::fd::OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let outside = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
    grantpt(&outside).and_then(|()| unlockpt(&outside)).expect("it can be opened");
    let name = ptsname(&outside, Vec::new()).expect("it has a name");
    let options = std::os::unix::fs::OpenOptionsExt::custom_flags(
        std::fs::OpenOptions::new().read(true).write(true),
        rustix::fs::OFlags::NOCTTY.bits() as i32,
    )
    .open(name.to_str().expect("text"));
    (options.expect("it can be opened"), outside)
}

#[test]
fn a_terminal_that_goes_away_is_a_stdout_that_nobody_reads() {
    let place = place("terminal");
    let (inside, outside) = terminal();
    let mut command = place.librpc(&["recv", "sink"]);
    let receiver = common::Running::new(command.stdout(inside).stderr(Stdio::piped()).spawn().expect("it starts"));
    place.await_inbox("sink");
    drop(outside);
    let sent = place.run(&["send", "sink"], b"a\n");
    assert_eq!((sent.code, numbers(&sent.stderr)), (3, [1, 0, 1]));
    let received = receiver.ends();
    assert_eq!((received.code, &*received.stderr), (0, ""));
    let sink = place.receiver("sink", &[]); // so that there is something to show
    for command in
        [&["stat", "--watch", "1ms", "--json"][..], &["stat", "--watch", "1ms"], &["hz", "a", "--every", "1ms"]]
    {
        let (inside, outside) = terminal();
        let mut librpc = place.librpc(command);
        let running = common::Running::new(librpc.stdout(inside).stderr(Stdio::piped()).spawn().expect("it starts"));
        running.sleeps();
        drop(outside);
        let ended = running.ends();
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    sink.signal(Signal::TERM);
    assert_eq!(sink.ends().code, 0);
}

#[test]
fn a_receiver_that_missed_messages_says_why_it_ends_with_3() {
    missed("missed_oldest", &["--policy", "drop-oldest", "--capacity", "4096"], 3);
    missed("missed_and_passed_over", &["--keep-last", "3", "--capacity", "4096"], 3);
    // Nothing was overwritten: the receiver has passed over what it could have had.
    missed("passed_over", &["--keep-last", "3"], 0);
}

fn missed(test: &str, options: &[&str], sender_code: i32) {
    let place = place(test);
    let receiver = place.receiver("sink", options);
    receiver.signal(Signal::STOP);
    let mut sender = place.start(&["send", "sink"]);
    sender.write(&b"a message of some length\n".repeat(1000)); // far more than the ring holds, and less than a pipe
    sender.close_stdin();
    sender.sleeps();
    receiver.signal(Signal::CONT);
    assert_eq!(sender.ends().code, sender_code);
    receiver.signal(Signal::INT);
    let received = receiver.ends();
    assert_eq!(received.code, 3);
    let written = received.stdout().lines().count();
    let words = format!("librpc: received {written}, missed {}: newer messages had overwritten them\n", 1000 - written);
    assert_eq!(received.stderr, words);
}

#[test]
fn a_sender_gives_up_waiting() {
    let place = place("wait");
    let sent = place.run(&["send", "nobody", "--wait", "50ms"], b"a\n");
    assert_eq!((sent.code, sent.stdout()), (124, ""));
    assert!(sent.stderr.contains("\"nobody\" is not there"), "{}", sent.stderr);
    assert_eq!(place.run(&["send", "nobody", "--wait", "0s"], b"a\n").code, 124);
}

#[test]
fn a_sender_that_gives_up_waiting_has_read_nothing() {
    let place = place("unread");
    let path = std::env::temp_dir().join(format!("librpc_test_unread_{}", std::process::id()));
    std::fs::write(&path, b"a\nb\n").expect("a file");
    for command in [&["send", "nobody", "--wait", "10ms"][..], &["pub", "topic", "--wait", "10ms"]] {
        let mut file = std::fs::File::open(&path).expect("a file");
        let mut librpc = place.librpc(command);
        let ended = librpc.stdin(file.try_clone().expect("a descriptor")).status().expect("it starts");
        assert_eq!(ended.code(), Some(124), "{command:?}");
        assert_eq!(file.stream_position().expect("a file"), 0, "{command:?}");
    }
    std::fs::remove_file(path).expect("a file");
}

#[test]
fn a_sender_waits_for_a_node_that_comes_later() {
    let place = place("later");
    let sender = place.start(&["send", "sink", "--id", "early"]);
    place.await_node("early");
    let receiver = place.start(&["recv", "sink", "--count", "1"]);
    assert_eq!(sender.ends_with(b"hello").code, 0);
    assert_eq!(receiver.ends().stdout(), "hello\n");
}

#[test]
fn an_interrupted_sender_says_how_far_it_got() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let place = place(&format!("send_{code}"));
        let mut receiver = place.receiver("sink", &["--count", "2"]);
        let mut sender = place.start(&["send", "sink"]);
        sender.write(b"a\n");
        assert_eq!(receiver.read_line(), "a\n");
        sender.signal(signal);
        until(|| sender.has_ended());
        let sent = sender.ends();
        assert_eq!(sent.code, code);
        // The acknowledgement comes a moment after the line. The signal may come in between.
        assert!([[1, 1, 0], [1, 0, 1]].contains(&numbers(&sent.stderr)), "{}", sent.stderr);
        assert_eq!(place.run(&["send", "sink"], b"b\n").code, 0);
        assert_eq!(receiver.ends().code, 0);
    }
}

#[test]
fn a_waiting_sender_can_be_interrupted() {
    let place = place("send_waiting");
    let sender = place.start(&["send", "nobody", "--id", "waiting", "--wait", "1h"]);
    place.await_node("waiting");
    sender.signal(Signal::INT);
    assert_eq!(sender.ends().code, 130);
}

#[test]
fn a_blocked_sender_can_be_interrupted() {
    let place = place("send_full");
    let receiver = place.receiver("sink", &[]);
    let mut sender = place.start(&["send", "sink"]);
    // The ring and both pipes are full, so one of the processes is blocked.
    sender.write_until_full(b"x\n");
    sender.signal(Signal::INT);
    until(|| sender.has_ended());
    let sent = sender.ends();
    assert_eq!(sent.code, 130);
    let [sent, processed, not_processed] = numbers(&sent.stderr);
    assert!(not_processed > 0 && sent == processed + not_processed);
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ends().code, 0);
}

#[test]
fn a_blocked_publisher_can_be_interrupted_whatever_its_limit() {
    let place = place("pub_full");
    let subscriber = place.start(&["sub", "t", "--id", "sub"]);
    place.await_inbox("sub");
    let mut publisher = place.start(&["pub", "t", "--limit", "1h"]);
    // The ring and both pipes are full: nobody reads what the subscriber writes.
    publisher.write_until_full(b"x\n");
    publisher.signal(Signal::INT);
    until(|| publisher.has_ended());
    assert_eq!(publisher.ends().code, 130);
    subscriber.signal(Signal::TERM);
    assert_eq!(subscriber.ends().code, 0);
}

#[test]
fn a_call_that_reads_its_request_can_be_interrupted() {
    let place = place("call_stdin");
    let mut call = place.start(&["call", "work", "-", "--id", "call"]);
    place.await_node("call");
    call.write(b"the beginning of a request");
    call.sleeps();
    call.signal(Signal::INT);
    until(|| call.has_ended()); // although stdin is open
    assert_eq!(call.ends().code, 130);
}

#[test]
fn a_killed_receiver_ends_the_sender_at_once() {
    let place = place("killed");
    let receiver = place.receiver("sink", &[]);
    let mut sender = place.start(&["send", "sink"]);
    sender.write_until_full(b"x\n"); // nobody reads what is received: some of it stays in the ring
    receiver.signal(Signal::KILL);
    until(|| sender.has_ended()); // though its stdin is open
    let sent = sender.ends();
    let [sent, processed, not_processed] = {
        assert_eq!(sent.code, 3);
        assert!(sent.stderr.contains("node \"sink\" is gone"), "{}", sent.stderr);
        numbers(&sent.stderr)
    };
    assert!(not_processed > 0 && sent == processed + not_processed);
    assert_eq!(receiver.ends().code, 137);
    // The sender may have left while the kernel was still taking the dead one apart.
    assert_eq!(place.run(&["clean"], b"").code, 0);
}

#[test]
fn a_killed_receiver_ends_a_sender_whose_stdin_is_silent() {
    // Whether what it leaves is still there, or was swept before the sender looks.
    for is_swept in [false, true] {
        let place = place(&format!("silent_{is_swept}"));
        let mut receiver = place.receiver("sink", &[]);
        let mut sender = place.start(&["send", "sink", "--id", "source"]);
        sender.write(b"a\n");
        assert_eq!(receiver.read_line(), "a\n");
        let stat = || place.run(&["stat", "source", "--json"], b"");
        until(|| stat().stdout().contains("\"processed\":1,"));
        receiver.signal(Signal::KILL);
        assert_eq!(receiver.ends().code, 137);
        if is_swept {
            until(|| place.run(&["clean"], b"").code == 0 && place.nodes().len() <= 1);
        }
        until(|| sender.has_ended()); // though its stdin is open
        let sent = sender.ends();
        let words = "librpc: node \"sink\" is gone: sent 1, processed 1, not processed 0\n";
        assert_eq!((sent.code, &*sent.stderr), (3, words));
        assert_eq!(place.run(&["clean"], b"").code, 0);
    }
}

#[test]
fn a_sender_that_redelivers_outlives_a_killed_receiver() {
    let place = place("outlives");
    let mut receiver = place.receiver("sink", &[]);
    let mut sender = place.start(&["send", "sink", "--redeliver", "20s"]);
    sender.write(b"a\n");
    assert_eq!(receiver.read_line(), "a\n");
    receiver.signal(Signal::KILL);
    receiver.ends();
    let again = place.start(&["recv", "sink"]);
    place.await_inbox("sink");
    sender.write(b"b\n");
    sender.close_stdin();
    assert_eq!(sender.ends().code, 0);
    again.signal(Signal::TERM);
    let received = again.ends();
    // The first message comes again if the acknowledgement was just missing.
    assert!(["b\n", "a\nb\n"].contains(&received.stdout()), "{received:?}");
}

#[test]
fn wrong_usage_is_2() {
    let place = place("usage");
    for wrong in [
        &["recv"][..],
        &["nothing"],
        &["send", "a/b"],
        &["recv", ".hidden"],
        &["recv", "a", "--count", "0"],
        &["recv", "a", "--count", "many"],
        &["recv", "a", "--json", "--raw"],
        &["recv", "a", "--capacity", "1000"],
        &["recv", "a", "--admit", "everybody"],
        &["send", "a", "--wait", "soon"],
        &["duplex", "a"],
        &["duplex", "a", "a"],
        &["duplex", "--size", "8"],
        &["duplex", "--seconds", "0"],
        &["duplex", "--seconds", "inf"],
        &["nodes", "--domain", ""],
        &["nodes", "--group", "no such group"],
    ] {
        let ended = place.run(wrong, b"");
        assert_eq!((ended.code, ended.stdout()), (2, ""), "{wrong:?}");
        assert!(!ended.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn a_taken_id_is_a_failure_that_names_its_holder() {
    let place = place("taken");
    let receiver = place.receiver("sink", &[]);
    let second = place.run(&["recv", "sink"], b"");
    assert_eq!((second.code, second.stdout()), (1, ""));
    assert!(second.stderr.contains("held by pid"), "{}", second.stderr);
    receiver.signal(Signal::TERM);
    assert_eq!(receiver.ends().code, 0);
}

#[test]
fn every_command_has_help_with_examples() {
    let place = place("help");
    let messages = ["recv", "send", "chat", "sub", "pub", "duplex"];
    let observers =
        ["nodes", "topics", "services", "stat", "top", "hz", "graph", "metrics", "check", "doctor", "clean"];
    for command in [&messages[..], &observers, &["demo", "bench", "completions", "man"]].concat() {
        let help = place.run(&[command, "--help"], b"");
        assert_eq!((help.code, &*help.stderr), (0, ""), "{command}");
        assert!(help.stdout().contains("Examples:"), "{command}");
    }
    for what in ["latency", "throughput", "duplex", "fanout", "wake", "connect", "scale", "idle"] {
        assert!(place.run(&["bench", what, "--help"], b"").stdout().contains("Examples:"), "{what}");
    }
    assert_eq!(place.run(&["--help"], b"").code, 0);
    assert_eq!(place.run(&["--version"], b"").code, 0);
    assert_eq!(place.run(&["completions", "bash"], b"").code, 0);
}

#[test]
fn completions_know_the_commands() {
    let place = place("completions");
    let script = place.run(&["completions", "bash"], b"");
    for command in ["topics", "services", "stat", "top", "hz", "graph", "doctor", "metrics", "check"] {
        assert!(script.stdout().contains(&format!("librpc__subcmd__{command}")), "{command}");
    }
}
