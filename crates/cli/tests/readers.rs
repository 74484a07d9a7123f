//! Who may read what `pub` publishes, and what the others are told.

mod common;

use common::place;
use rustix::process::Signal;

#[test]
fn a_subscriber_that_may_not_read_is_told_and_costs_the_publisher_nothing() {
    let place = place("readers");
    let me = rustix::process::geteuid().as_raw();
    let mut denied = place.start(&["sub", "door/**", "--id", "denied"]);
    place.await_inbox("denied");
    let other = format!("uid:{}", me + 1);
    let mut publisher = place.start(&["pub", "door/code", "--id", "door", "--readers", &other]);
    publisher.write(b"1234\n");
    // What it is told, everybody else can see, too.
    let text = format!("topic \"door/code\" of node \"door\" may not be read by uid {me}, pid {}", denied.pid());
    let told = denied.read_stderr_line();
    assert!(told.contains(&format!("denied by node door: {text}")), "{told}");
    let line = format!("subscription door/** is denied by node door: {text}");
    let nodes = place.nodes();
    let its = nodes.iter().find(|node| node["id"] == "denied").expect("it is listed");
    assert_eq!(its["denials"], serde_json::json!([line]));
    for arguments in [&["nodes"][..], &["stat"], &["doctor"], &["stat", "--json"]] {
        let shown = place.run(arguments, b"");
        let shown = shown.stdout().replace("\\\"", "\"");
        assert!(shown.contains(&line), "{arguments:?}: {shown}");
    }
    let published = publisher.ends();
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert!(published.stderr.contains("1 message to 0 inboxes: sent 0"), "{}", published.stderr);
    denied.signal(Signal::TERM);
    let ended = denied.ends();
    assert_eq!((ended.code, ended.stdout()), (0, ""));
}

#[test]
fn a_subscriber_that_any_rule_admits_reads() {
    let place = place("readers_admit");
    let me = rustix::process::geteuid().as_raw();
    let subscriber = place.start(&["sub", "door/*", "--count", "1"]);
    let (other, own) = (format!("uid:{}", me + 1), format!("uid:{me}"));
    let published =
        place.run(&["pub", "door/code", "--wait", "20s", "--readers", &other, "--readers", &own], b"1234\n");
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert_eq!(subscriber.ends().stdout(), "1234\n");
    assert_eq!(place.run(&["pub", "door/code", "--readers", "everybody"], b"").code, 2, "no rule");
    assert_eq!(place.run(&["pub", "door/*", "--readers", &own], b"").code, 2, "no topic");
    // One that may not read is not waited for.
    let denied = place.start(&["sub", "door/*", "--id", "denied"]);
    place.await_inbox("denied");
    assert_eq!(place.run(&["pub", "door/code", "--wait", "50ms", "--readers", &other], b"").code, 124);
    denied.signal(Signal::TERM);
    denied.ends();
}
