//! `librpc call` and `librpc serve`.

mod common;

use common::{Place, Running, place, until};
use rustix::process::Signal;

fn serve(place: &Place, arguments: &[&str]) -> Running {
    let running = place.start(&[&["serve", "work", "--id", "server"], arguments].concat());
    place.await_inbox("server");
    running
}

#[track_caller]
fn ends_cleanly(server: Running) {
    server.signal(Signal::TERM);
    let ended = server.ends();
    assert_eq!((ended.code, &*ended.stderr), (0, ""));
}

#[test]
fn an_echo_answers_with_the_request() {
    let place = place("call_echo");
    let server = serve(&place, &["--echo"]);
    for (arguments, stdin, reply) in [
        (&["hello"][..], &b""[..], &b"hello\n"[..]),
        (&[], b"ignored", b"\n"),
        (&["-"], b"two\nlines\n", b"two\nlines\n\n"),
        (&["-"], b"\xff\0", b"\xff\0\n"),
        (&["--stream", "one part"], b"", b"one part\n"),
    ] {
        let called = place.run(&[&["call", "work"], arguments].concat(), stdin);
        assert_eq!((called.code, &*called.stdout, &*called.stderr), (0, reply, ""), "{arguments:?}");
    }
    let large = vec![b'x'; 3_000_000];
    let called = place.run(&["call", "work", "-"], &large);
    assert!(called.code == 0 && called.stdout[..3_000_000] == large && called.stdout.len() == 3_000_001);
    let called = place.run(&["call", "work", "hi", "--json", "--time", "--to", "server"], b"");
    let line: serde_json::Value = serde_json::from_str(called.stdout()).expect("JSON");
    assert_eq!((&line["service"], &line["server"], &line["payload"]), (&"work".into(), &"server".into(), &"hi".into()));
    assert!(line["time_ns"].as_u64().is_some_and(|ns| ns > 0));
    let called = place.run(&["call", "work", "-", "--json"], b"\xff");
    assert_eq!(called.stdout(), "{\"service\":\"work\",\"server\":\"server\",\"payload_base64\":\"/w==\"}\n");
    let called = place.run(&["call", "work", "--time"], b"");
    assert!(called.stderr.starts_with("librpc: work took "), "{}", called.stderr);
    ends_cleanly(server);
}

#[test]
fn a_command_answers_with_its_output_and_its_failure_is_the_callers() {
    let place = place("call_command");
    let server = serve(
        &place,
        &[
            "--",
            "sh",
            "-c",
            "read line; case $line in die*) echo \"no: $line\" >&2; exit 7;; *) echo \"got $line\";; esac",
        ],
    );
    let called = place.run(&["call", "work", "-"], b"a line\n");
    assert_eq!((called.code, called.stdout()), (0, "got a line\n\n"));
    let called = place.run(&["call", "work", "-"], b"die now\n");
    let error = "service \"work\" of node \"server\" has failed (7): no: die now";
    assert_eq!((called.code, called.stdout(), &*called.stderr), (1, "", &*format!("librpc: Failed: {error}\n")));
    let called = place.run(&["call", "work", "-", "--json"], b"die now\n");
    let line: serde_json::Value = serde_json::from_str(called.stdout()).expect("JSON");
    assert_eq!((called.code, &line["kind"], &line["error"]), (1, &"Failed".into(), &error.into()));
    ends_cleanly(server);
    let server = place.start(&["serve", "work", "--id", "server", "--", "/no/such/program"]);
    place.await_inbox("server");
    let called = place.run(&["call", "work"], b"");
    assert!(called.code == 1 && called.stderr.contains("cannot run \"/no/such/program\""), "{}", called.stderr);
    server.signal(Signal::TERM);
    assert_eq!(server.ends().code, 0);
}

#[test]
fn each_line_is_a_part_of_the_reply() {
    let place = place("call_parts");
    let server = serve(&place, &["--stream", "--", "sh", "-c", "seq 1000; printf last; exit $(cat)"]);
    let called = place.run(&["call", "work", "0", "--stream"], b"");
    let lines: String = (1..=1000).map(|number| format!("{number}\n")).chain(["last\n".to_owned()]).collect();
    assert_eq!((called.code, called.stdout(), &*called.stderr), (0, &*lines, ""));
    let called = place.run(&["call", "work", "3", "--stream"], b"");
    assert_eq!((called.code, called.stdout()), (1, &*lines), "what came before the failure is written");
    assert!(called.stderr.contains("has failed (3)"), "{}", called.stderr);
    let called = place.run(&["call", "work", "0"], b"");
    assert!(called.code == 1 && called.stderr.starts_with("librpc: Mismatch: "), "{}", called.stderr);
    ends_cleanly(server);
}

#[test]
fn a_call_waits_for_its_service_and_for_the_reply_within_one_limit() {
    let place = place("call_waits");
    let called = place.run(&["call", "work", "--timeout", "50ms"], b"");
    assert_eq!((called.code, &*called.stderr), (124, "librpc: NoServer: nobody serves \"work\"\n"));
    let caller = place.start(&["call", "work", "waited"]);
    let server = serve(&place, &["--echo"]);
    let called = caller.ends();
    assert_eq!((called.code, called.stdout()), (0, "waited\n"));
    ends_cleanly(server);
    let server = serve(&place, &["--", "sleep", "1000"]);
    let called = place.run(&["call", "work", "--timeout", "100ms"], b"");
    assert!(called.code == 124 && called.stderr.starts_with("librpc: Deadline: "), "{}", called.stderr);
    let caller = place.start(&["call", "work", "--timeout", "1000s", "--id", "caller"]);
    place.await_node("caller");
    caller.signal(Signal::INT);
    assert_eq!(caller.ends().code, 130);
    ends_cleanly(server); // the commands are killed, because nobody waits for them
}

#[test]
fn a_server_that_is_killed_with_a_request_in_work_is_a_loss() {
    let place = place("call_killed");
    let marker = std::env::temp_dir().join(format!("librpc_call_killed_{}", std::process::id()));
    let script = format!("echo $$ > {}; exec sleep 1000", marker.display());
    let server = serve(&place, &["--", "sh", "-c", &script]);
    let caller = place.start(&["call", "work", "--timeout", "1000s"]);
    until(|| std::fs::read_to_string(&marker).is_ok_and(|pid| pid.ends_with('\n')));
    let pid: i32 = std::fs::read_to_string(&marker).unwrap().trim().parse().unwrap();
    server.signal(Signal::KILL);
    let called = caller.ends();
    assert!(called.code == 3 && called.stderr.starts_with("librpc: ServerDied: "), "{}", called.stderr);
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    std::fs::remove_file(&marker).unwrap();
    drop(server);
    assert_eq!(place.run(&["clean"], b"").code, 0);
}

#[test]
fn a_server_answers_what_is_in_work_before_it_leaves() {
    let place = place("call_leaves");
    let marker = std::env::temp_dir().join(format!("librpc_call_leaves_{}", std::process::id()));
    let script = format!("touch {0}; while test -e {0}; do sleep 0.01; done; echo done", marker.display());
    let server = serve(&place, &["--", "sh", "-c", &script]);
    let caller = place.start(&["call", "work", "--timeout", "1000s"]);
    until(|| marker.exists());
    server.signal(Signal::TERM);
    std::fs::remove_file(&marker).unwrap();
    let called = caller.ends();
    assert_eq!((called.code, called.stdout()), (0, "done\n\n"));
    assert_eq!(server.ends().code, 0);
}

#[test]
fn wrong_usage_is_said() {
    let place = place("call_usage");
    for arguments in [
        &["call"][..],
        &["call", "a/*"],
        &["call", ""],
        &["serve", "a/*", "--echo"],
        &["serve", "work"],
        &["serve", "work", "--echo", "--", "cat"],
        &["serve", "work", "--concurrency", "0", "--", "cat"],
    ] {
        assert_eq!(place.run(arguments, b"").code, 2, "{arguments:?}");
    }
}
