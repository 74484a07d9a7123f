//! `librpc check`: limits, and losses.

use rustix::process::Signal;

use crate::common::{place, until};
use crate::{channel, sender, stops};

#[test]
fn strange_times_and_limits_are_accepted_or_refused() {
    let place = place("times");
    let silent = place.run(&["hz", "nobody/publishes", "--every", "1ms", "--count", "2"], b"");
    assert_eq!(silent.code, 0);
    assert!(silent.stdout().lines().all(|line| line.starts_with("0.0 Hz") && line.contains("interval - to -")));
    let json = place.run(&["hz", "nobody/publishes", "--every", "0s", "--count", "2", "--json"], b"");
    assert_eq!((json.code, json.stdout().lines().count()), (0, 2));
    assert!(json.stdout().contains("\"interval_min_ns\":null"), "{}", json.stdout());
    // Longer than the machine's clock can count.
    for command in [&["hz", "t", "--every", "500000000000y"][..], &["stat", "--watch", "500000000000y"]] {
        let mut running = place.start(command);
        match command[0] {
            "hz" => until(|| place.nodes().len() == 1),
            _ => drop(running.read_line()), // it has looked once
        }
        running.signal(Signal::TERM);
        let ended = running.ends();
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    for limit in ["-1", "101", "NaN", "much"] {
        assert_eq!(place.run(&["check", &format!("--max-depth={limit}")], b"").code, 2, "{limit}");
    }
    assert_eq!(place.run(&["check", "--over", "1ms", "--node", "nobody"], b"").code, 1);
    let json = place.run(&["check", "--over", "1ms", "--json"], b"");
    assert_eq!(
        (json.code, json.stdout()),
        (0, "{\"ok\":true,\"failures\":[],\"lost\":0,\"nodes\":0,\"channels\":0}\n")
    );
}

#[test]
fn check_reports_losses_and_latencies() {
    let place = place("check");
    let sink = place.receiver("sink", &[]);
    let mut camera = sender(&place, "camera", "sink", 100);
    assert_eq!(place.run(&["check", "--over", "1ms", "--max-p99", "1h", "--node", "sink"], b"").code, 0);
    let slow = place.run(&["check", "--over", "1ms", "--max-p99", "1ns"], b"");
    assert!(slow.code == 1 && slow.stdout().contains("camera → sink: p99"), "{slow:?}");
    // A subscriber that is stopped and drops.
    let lossy = place.start(&["sub", "t", "--id", "lossy", "--policy", "drop-newest", "--capacity", "4096"]);
    place.await_node("lossy");
    let mut publisher = place.start(&["pub", "t", "--id", "source", "--wait", "10s"]);
    publisher.write(b"first\n");
    until(|| channel(&place, "source").is_some());
    lossy.signal(Signal::STOP);
    let mut check = place.start(&["check", "--over", "300ms", "--max-stalled", "1", "--max-depth", "100"]);
    while !check.has_ended() {
        publisher.write(&b"and so on\n".repeat(100));
    }
    let check = check.ends();
    assert!(check.code == 3 && check.stdout().starts_with("LOSS: "), "{check:?}");
    lossy.signal(Signal::CONT);
    publisher.close_stdin();
    assert_eq!(publisher.ends().code, 3);
    stops(lossy);
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(sink);
}
