//! Calls, as `stat`, `top`, `graph`, `metrics` and `doctor` show them.

use rustix::process::Signal;
use serde_json::Value;

use crate::common::{Place, Running, place, until};
use crate::metrics::{get, metrics};
use crate::{lines, stops};

fn services(place: &Place) -> Vec<Value> {
    lines(place, &["stat", "--json"]).into_iter().filter(|line| line["kind"] == "service").collect()
}

fn doctor(place: &Place) -> Value {
    lines(place, &["doctor", "--json"]).into_iter().find(|line| line["check"] == "services").expect("it is checked")
}

/// A server whose command waits for as long as its request says.
fn server(place: &Place) -> Running {
    let arguments = ["serve", "work/slow", "--id", "worker", "--", "sh", "-c", "read time; exec sleep \"$time\""];
    let server = place.start(&arguments);
    place.await_inbox("worker");
    server
}

#[test]
fn what_clients_and_servers_have_counted_is_shown_everywhere() {
    let place = place("calls_shown");
    let server = server(&place);
    for (request, code) in [("0", 0), ("0", 0), ("no number", 1)] {
        assert_eq!(place.run(&["call", "work/slow", request], b"").code, code);
    }
    until(|| services(&place).iter().any(|row| row["calls"] == 3 && row["in_flight"] == 0));
    let rows = services(&place);
    let [row] = &rows[..] else { panic!("the callers are gone: {rows:?}") };
    assert_eq!(
        (&row["service"], &row["side"], &row["node"]),
        (&"work/slow".into(), &"server".into(), &"worker".into())
    );
    assert_eq!((&row["open"], &row["answered"], &row["failed"]), (&1.into(), &2.into(), &1.into()));
    assert_eq!(row["failures"]["failed"], 1);
    assert!(row["latency_samples"] == 2 && row["latency_p99_ns"].as_u64().is_some_and(|ns| ns > 0), "{row}");

    // While a call is under way, both sides are shown.
    let caller = place.start(&["call", "work/slow", "1000", "--timeout", "100s"]);
    until(|| services(&place).iter().filter(|row| row["in_flight"] == 1).count() == 2);
    let stat = place.run(&["stat"], b"");
    assert!(stat.stdout().contains("IN FLIGHT") && stat.stdout().contains("1 failed"), "{}", stat.stdout());
    let top = place.run(&["top", "--once"], b"");
    assert_eq!(top.code, 0);

    let graph = place.run(&["graph", "--format", "dot", "--over", "10ms"], b"");
    assert!(graph.stdout().contains("label=\"work/slow\", shape=component"), "{}", graph.stdout());
    assert!(!graph.stdout().contains("replies"), "replies are no topic: {}", graph.stdout());
    assert!(graph.stdout().contains("1 failed"));

    let (mut exporter, address) = metrics(&place);
    let page = get(&address, "/metrics");
    for line in [
        "librpc_calls_total{node=\"worker\",service=\"work/slow\",side=\"server\"} 4",
        "librpc_calls_answered_total{node=\"worker\",service=\"work/slow\",side=\"server\"} 2",
        "librpc_calls_failed_total{node=\"worker\",service=\"work/slow\",side=\"server\",failure=\"failed\"} 1",
        "librpc_calls_in_flight{node=\"worker\",service=\"work/slow\",side=\"server\"} 1",
        "librpc_call_latency_seconds_count{node=\"worker\",service=\"work/slow\",side=\"server\"} 2",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
    exporter.kill().expect("it runs");
    exporter.wait().expect("it ends");

    // The doctor waits a second, and sees that nothing has ended.
    let check = doctor(&place);
    assert_eq!(check["verdict"], "WARN");
    let found = check["found"].as_str().expect("a text");
    assert!(found.contains("node worker serves work/slow, has 1 request in flight, and answers none"), "{found}");
    caller.signal(Signal::INT);
    assert_eq!(caller.ends().code, 130);
    until(|| services(&place).iter().any(|row| row["failures"]["cancelled"] == 1));
    assert_eq!(doctor(&place)["verdict"], "PASS");
    stops(server);
}

#[test]
fn the_doctor_names_a_service_that_is_called_and_has_no_server() {
    let place = place("calls_unserved");
    let caller = place.start(&["call", "work/none", "x", "--timeout", "100s"]);
    until(|| !services(&place).is_empty());
    let check = doctor(&place);
    assert_eq!(check["verdict"], "WARN");
    let found = check["found"].as_str().expect("a text");
    assert!(found.ends_with(" calls work/none, which nobody serves"), "{found}");
    let server = place.start(&["serve", "work/none", "--echo"]);
    assert_eq!(caller.ends().code, 0);
    assert_eq!(doctor(&place)["verdict"], "PASS");
    stops(server);
}
