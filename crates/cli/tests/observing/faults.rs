//! Ten faults, each planted on purpose: `check` and `doctor` name it, and both ends where it has two.

use librpc::{Admission, Domain, Node};
use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Place, Running, place, until};
use crate::{channel, find, lines, skip, stops};

/// What `check` writes, and its exit code.
fn check(place: &Place, options: &[&str]) -> (i32, String) {
    let ended = place.run(&[&["check", "--over", "300ms"], options].concat(), b"");
    (ended.code, ended.stdout().to_owned())
}

/// What `check` writes while lines are published all the time.
fn check_while(place: &Place, source: &mut Running, line: &[u8], options: &[&str]) -> (i32, String) {
    let mut check = place.start(&[&["check", "--over", "300ms"], options].concat());
    while !check.has_ended() {
        source.write(line);
    }
    let ended = check.ends();
    (ended.code, ended.stdout().to_owned())
}

/// One line of the doctor's.
fn doctor(place: &Place, name: &str) -> (String, String) {
    let all = lines(place, &["doctor", "--json"]);
    let line: &Value = find(&all, "check", name);
    let text = |key: &str| line[key].as_str().expect("text").to_owned();
    (text("verdict"), text("found"))
}

#[track_caller]
fn names((is, text): (impl PartialEq<i32> + std::fmt::Debug, String), code: i32, words: &[&str]) {
    assert!(is == code && words.iter().all(|word| text.contains(word)), "{is:?}: {text}");
}

#[track_caller]
fn warns((verdict, text): (String, String), words: &[&str]) {
    assert!(verdict == "WARN" && words.iter().all(|word| text.contains(word)), "{verdict}: {text}");
}

/// A publisher that is connected to a subscription. It has much to say of what was not delivered, which nobody reads.
fn publisher(place: &Place) -> Running {
    let options = ["pub", "camera/front", "--id", "camera", "--wait", "10s", "--limit", "0s"];
    let mut publisher = place.start_in_shell("exec \"$@\" 2>/dev/null", &options);
    publisher.write(b"1\n");
    until(|| channel(place, "camera").is_some());
    publisher
}

#[test]
fn messages_that_are_too_large() {
    let place = place("too_large");
    let viewer = place.start(&["sub", "camera/front", "--id", "viewer", "--max-message", "100"]);
    place.await_inbox("viewer");
    let mut camera = publisher(&place);
    let words = ["camera → viewer", "camera/front", "too large"];
    names(check_while(&place, &mut camera, &[&[b'x'; 200][..], b"\n"].concat(), &[]), 3, &words);
    warns(doctor(&place, "traffic"), &words);
    camera.close_stdin();
    camera.ends();
    stops(viewer);
}

#[test]
fn a_subscriber_that_is_stuck() {
    let place = place("stuck");
    // Nobody reads what it writes.
    let mut viewer = place.start(&["sub", "camera/front", "--id", "viewer", "--capacity", "4096"]);
    place.await_inbox("viewer");
    let mut camera = publisher(&place);
    let (mut code, mut text) = (0, String::new());
    until(|| {
        (code, text) = check_while(&place, &mut camera, &[&[b'x'; 900][..], b"\n"].concat(), &[]);
        code == 1
    });
    let words = ["camera → viewer", "camera/front", "% full"];
    names((code, text), 1, &words);
    warns(doctor(&place, "traffic"), &words);
    viewer.close_stdout();
    camera.close_stdin();
    camera.ends();
    viewer.ends();
}

#[test]
fn types_that_differ() {
    let place = place("types");
    let viewer = place.start(&["sub", "camera/front", "--id", "viewer", "--schema", "Frame/json"]);
    place.await_inbox("viewer");
    let mut camera = place.start(&["pub", "camera/front", "--id", "camera", "--schema", "Picture/json"]);
    camera.write(b"1\n");
    let words = ["viewer", "camera", "Frame/json", "Picture/json"];
    until(|| check(&place, &[]).0 == 1);
    names(check(&place, &[]), 1, &words);
    warns(doctor(&place, "types"), &words);
    camera.close_stdin();
    camera.ends();
    stops(viewer);
}

#[test]
fn a_sender_that_is_refused() {
    let place = place("refused");
    let admit = Admission::nobody().function(|peer| &*peer.node != "stranger");
    let sink = Node::builder("sink").domain(Domain::at(place.path())).admit(admit).open().unwrap();
    let inbox = sink.inbox().unwrap();
    let mut checking = place.start(&["check", "--over", "2s"]);
    while !checking.has_ended() {
        assert_ne!(place.run(&["send", "sink", "--id", "stranger", "--wait", "1s"], b"x\n").code, 0);
    }
    let checked = checking.ends();
    let words = ["node sink", "refused", "NotAdmitted", "does not admit"];
    names((checked.code, checked.stdout().to_owned()), 1, &words);
    warns(doctor(&place, "senders"), &words);
    assert!(find(&lines(&place, &["top", "--once", "--json"]), "name", "refused-sender")["node"] == "sink");
    drop((inbox, sink));
}

#[test]
fn messages_that_are_dropped() {
    let place = place("dropped");
    let options = ["--id", "viewer", "--policy", "drop-newest", "--capacity", "4096"];
    let mut viewer = place.start(&[&["sub", "camera/front"][..], &options].concat());
    place.await_inbox("viewer");
    let mut camera = publisher(&place);
    let (mut code, mut text) = (0, String::new());
    until(|| {
        let line = [&[b'x'; 900][..], b"\n"].concat();
        (code, text) = check_while(&place, &mut camera, &line, &["--max-depth", "100"]);
        code == 3
    });
    names((code, text), 3, &["camera → viewer", "camera/front", "dropped"]);
    warns(doctor(&place, "traffic"), &["drops: camera → viewer"]);
    viewer.close_stdout();
    camera.close_stdin();
    camera.ends();
    viewer.ends();
}

#[test]
fn a_node_that_is_dead_and_one_that_is_stalled() {
    let place = place("dead");
    let dead = place.receiver("dead", &[]);
    let stalled = place.receiver("stalled", &[]);
    dead.signal(Signal::KILL);
    dead.ends();
    stalled.signal(Signal::STOP);
    names(check(&place, &["--max-dead", "0"]), 1, &["dead: dead", "stalled: stalled"]);
    names(check(&place, &["--node", "dead"]), 1, &["node dead is dead"]);
    warns(doctor(&place, "dead-nodes"), &["dead"]);
    warns(doctor(&place, "stalled-nodes"), &["stalled"]);
    stalled.signal(Signal::CONT);
    assert_eq!(place.run(&["clean"], b"").code, 0);
    stops(stalled);
}

#[test]
fn a_node_of_another_version() {
    let place = place("version");
    let sink = place.receiver("sink", &[]);
    let strange = place.path().join("other.node");
    std::fs::write(&strange, [b"LRPCNODE".as_slice(), &99u64.to_le_bytes(), &[0; 4080]].concat()).unwrap();
    names(check(&place, &[]), 1, &["other.node", "version"]);
    warns(doctor(&place, "layouts"), &["other.node", "version"]);
    std::fs::remove_file(strange).unwrap();
    assert_eq!(check(&place, &[]).0, 0);
    stops(sink);
}

#[test]
fn a_file_system_that_is_full() {
    let place = place("no_space");
    if !rustix::process::geteuid().is_root() {
        return skip("mounting needs root");
    }
    std::fs::create_dir(place.path()).unwrap();
    // In a mount namespace of its own, so that nothing is left, whatever happens.
    let script = "mount -t tmpfs -o size=64k none \"$LIBRPC_DOMAIN\" && chmod 700 \"$LIBRPC_DOMAIN\" && \
                  { \"$1\" recv sink & sink=$!; until \"$1\" check --over 1ms --node sink; do sleep 0.05; done; \
                  head -c 1M /dev/zero > \"$LIBRPC_DOMAIN.filling\"; cat \"$LIBRPC_DOMAIN.filling\" > \"$LIBRPC_DOMAIN/generation.x\"; \
                  \"$1\" check --over 1ms; echo \"check $?\"; \"$1\" doctor; echo \"doctor $?\"; kill $sink; wait $sink; }";
    let mut shell = testkit::command("unshare");
    shell.args(["--mount", "sh", "-c", script, "sh", env!("CARGO_BIN_EXE_librpc")]);
    let ended = Running::start(shell.env("LIBRPC_DOMAIN", place.path())).ends();
    let _ = std::fs::remove_file(format!("{}.filling", place.path().display()));
    std::fs::remove_dir(place.path()).unwrap();
    let text = ended.stdout();
    if ended.stderr.contains("unshare") {
        return skip("namespaces are not allowed");
    }
    let failed = text.lines().rfind(|line| line.starts_with("FAILED")).unwrap_or_else(|| panic!("{ended:?}"));
    assert!(failed.contains("no node can join"), "{failed}");
    assert!(text.contains("check 1") && text.contains("doctor 1") && text.contains("FAIL  shm"), "{ended:?}");
}

#[test]
fn a_domain_that_was_removed() {
    let place = place("removed");
    let sink = place.receiver("sink", &[]);
    sink.signal(Signal::STOP); // otherwise it joins again by itself
    std::fs::remove_dir_all(place.path()).unwrap();
    let words = [&*sink.pid().to_string(), "removed"];
    names(check(&place, &[]), 1, &words);
    warns(doctor(&place, "elsewhere"), &words);
    sink.signal(Signal::CONT);
    until(|| check(&place, &["--node", "sink"]).0 == 0);
    stops(sink);
}

/// The tests leave nothing that a later `check` would complain of.
#[test]
fn a_healthy_domain_passes() {
    let place = place("healthy");
    let viewer = place.start(&["sub", "camera/front", "--id", "viewer"]);
    place.await_inbox("viewer");
    let mut camera = publisher(&place);
    names(check(&place, &[]), 0, &["OK: 2 nodes, 1 channel"]);
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(viewer);
}
