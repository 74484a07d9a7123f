//! `duplex`, `demo` and `bench`: what they report, and what they leave behind.

mod common;

use common::{Ended, place, until};
use rustix::process::Signal;
use serde_json::Value;

fn objects(ended: &Ended) -> Vec<Value> {
    assert_eq!((ended.code, &*ended.stderr), (0, ""), "{}", ended.stdout());
    ended.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn keys(object: &Value) -> Vec<&str> {
    object.as_object().expect("an object").keys().map(String::as_str).collect()
}

const SIDE: [&str; 9] = ["lost", "node", "peer", "receive_rate", "received", "seconds", "send_rate", "sent", "size"];

#[test]
fn both_sides_lose_nothing() {
    for (test, size, rate) in [("paced", "256", "20000"), ("smallest", "16", "0"), ("largest", "100001", "0")] {
        let place = place(&format!("duplex_{test}"));
        let ended = place.run(&["duplex", "--seconds", "0.3", "--size", size, "--rate", rate, "--json"], b"");
        let sides = objects(&ended);
        assert_eq!(sides.len(), 2);
        for (side, other) in [(&sides[0], &sides[1]), (&sides[1], &sides[0])] {
            assert_eq!(keys(side), SIDE);
            assert_eq!((&side["received"], &side["peer"], &side["lost"]), (&other["sent"], &other["node"], &0.into()));
            assert!(side["sent"].as_u64().expect("a number") > 0 && side["send_rate"].as_f64().expect("a rate") > 0.0);
        }
        if test == "paced" {
            // On a busy machine it sends less, but never more.
            assert!(sides[0]["sent"].as_u64().expect("a number") <= 6000);
        }
    }
}

#[test]
fn two_named_sides_find_each_other() {
    let place = place("duplex_named");
    let sides = ["a", "b"].map(|node| {
        let peer = if node == "a" { "b" } else { "a" };
        place.start(&["duplex", node, peer, "--seconds", "0.2", "--rate", "1000", "--json"])
    });
    for (side, node) in sides.into_iter().zip(["a", "b"]) {
        let reports = objects(&side.ends());
        assert_eq!((reports.len(), &reports[0]["node"]), (1, &node.into()));
        assert!((1..=200).contains(&reports[0]["sent"].as_u64().expect("a number")));
    }
}

#[test]
fn a_side_whose_peer_dies_fails() {
    let place = place("duplex_dies");
    let dies = place.start(&["duplex", "dies", "stays", "--seconds", "60"]);
    let stays = place.start(&["duplex", "stays", "dies", "--seconds", "60"]);
    place.await_node("dies");
    place.await_node("stays");
    until(|| place.nodes().iter().all(|node| node["inboxes"] != Value::Array(Vec::new())));
    dies.signal(Signal::KILL);
    dies.ends();
    // It may not have found its peer yet. Then it waits in vain.
    let ended = stays.ends();
    assert!(ended.code == 1 || ended.code == 124, "{ended:?}");
    assert!(ended.stderr.contains("dies"), "{}", ended.stderr);
    assert_eq!(place.run(&["clean"], b"").code, 0);
}

#[test]
fn a_side_waits_for_its_peer_up_to_a_limit() {
    let place = place("duplex_wait");
    assert_eq!(place.run(&["duplex", "a", "b", "--wait", "50ms"], b"").code, 124);
}

#[test]
fn an_interrupted_exchange_leaves_nothing() {
    for command in [&["duplex", "--seconds", "60"][..], &["demo", "--seconds", "60"]] {
        let place = place(&format!("interrupted_{}", command[0]));
        let running = place.start(command);
        until(|| place.nodes().len() == 2);
        running.signal(Signal::INT);
        assert_eq!(running.ends().code, 130, "{command:?}");
    }
}

#[test]
fn children_end_with_a_parent_that_is_killed() {
    let place = place("orphans");
    let running = place.start(&["duplex", "--seconds", "60"]);
    until(|| place.nodes().len() == 2);
    running.signal(Signal::KILL);
    running.ends();
    until(|| !place.path().exists());
}

#[test]
fn the_demo_shows_a_table_and_leaves_nothing() {
    let place = place("demo");
    let ended = place.run(&["demo", "--seconds", "0.5"], b"");
    assert_eq!((ended.code, &*ended.stderr), (0, "")); // no progress where there is no terminal
    for shown in ["earth → moon", "lost", "latency p50", "Left under /dev/shm: nothing"] {
        assert!(ended.stdout().contains(shown), "{shown}: {}", ended.stdout());
    }
}

const LATENCY: [&str; 10] =
    ["size", "count", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns", "limit_ns", "ratio", "machine"];
const RATES: [&str; 7] = ["size", "msgs_per_s", "bytes_per_s", "limit_bytes_per_s", "ratio", "lost", "machine"];

/// Each measurement in its shortest form, how many objects it prints, and the keys of each.
#[test]
fn every_measurement_reports_its_keys() {
    // On a busy machine the kernel finds a free CPU sooner than a pinned process gets its own. (fanout is pinned.)
    let short = ["--rounds", "1", "--pin", "none"];
    let with = |arguments: &[&'static str]| [arguments, &short].concat();
    let fanout = ["size", "inboxes", "publish_ns", "inbox_ns", "send_ns", "ratio", "limit_ns", "lost", "machine"];
    let idle = ["channels", "context_switches", "cpu_ns", "sender_context_switches", "sender_cpu_ns", "machine"];
    let cases: [(Vec<&str>, usize, &[&str]); 11] = [
        (with(&["latency", "--count", "20", "--size", "256"]), 1, &LATENCY),
        (with(&["latency", "--count", "20", "--sizes", "0,8,65472", "--via", "send"]), 3, &LATENCY),
        (with(&["throughput", "--count", "10000", "--size", "256"]), 1, &RATES),
        (with(&["throughput", "--seconds", "0.01", "--sizes", "1,64", "--via", "send"]), 2, &RATES),
        (with(&["duplex", "--count", "1000", "--size", "256", "--rate", "0"]), 1, &RATES),
        (with(&["duplex", "--seconds", "0.01", "--via", "send"]), 1, &RATES),
        (vec!["fanout", "--count", "1"], 5, &fanout),
        (vec!["wake", "--count", "1", "--pin", "none"], 2, &LATENCY),
        (vec!["connect", "--count", "3", "--pin", "none"], 1, &LATENCY),
        (vec!["connect", "--seconds", "0.05", "--pin", "none"], 1, &LATENCY),
        (vec!["idle", "--channels", "20", "--seconds", "0.2"], 1, &idle),
    ];
    for (number, (arguments, lines, expected)) in cases.into_iter().enumerate() {
        let place = place(&format!("bench_{}_{number}", arguments[0]));
        let measured = objects(&place.run(&[&["bench"], &arguments[..], &["--json"]].concat(), b""));
        assert_eq!(measured.len(), lines, "{arguments:?}");
        for object in &measured {
            assert_eq!(object["bench"], arguments[0]);
            for key in expected {
                assert!(keys(object).contains(key), "{arguments:?}: {key}: {object}");
            }
            assert!(object["machine"]["cores"].as_u64().expect("a number") > 0, "{object}");
            assert!(object.get("lost").is_none_or(|lost| *lost == 0), "{object}");
        }
        if arguments[0] == "idle" {
            assert_eq!(measured[0]["context_switches"], 0, "{measured:?}");
        }
    }
}

#[test]
fn large_messages_are_measured_in_place_and_in_full() {
    let in_place = ["how", "subscribers", "publish_ns", "short_ns", "short_publish_ns", "lost"];
    let in_full = ["how", "subscribers", "count"];
    let place = place("bench_large");
    for (subscribers, sizes) in [("1", &["65536", "8388608"][..]), ("4", &["1000001"])] {
        let (joined, short) = (sizes.join(","), ["--count", "2", "--rounds", "1", "--pin", "none", "--json"]);
        let options = ["bench", "large", "--subscribers", subscribers, "--sizes", &joined];
        let measured = objects(&place.run(&[&options[..], &short].concat(), b""));
        let ways = sizes.iter().flat_map(|size| [(size, "in-place"), (size, "in-full")]);
        assert_eq!(measured.len(), ways.clone().count());
        for (object, (size, how)) in measured.iter().zip(ways) {
            let expected = match how {
                "in-place" => [&LATENCY[..], &in_place].concat(),
                _ => [&RATES[..], &in_full].concat(),
            };
            expected.iter().for_each(|key| assert!(keys(object).contains(key), "{key}: {object}"));
            let (shown, lost) = (object["size"].to_string(), &object["lost"]);
            assert_eq!(
                (&*shown, &object["how"], &object["bench"], lost),
                (*size, &how.into(), &"large".into(), &0.into())
            );
            assert_eq!((object["subscribers"].to_string(), &object["count"]), (subscribers.to_owned(), &2.into()));
        }
    }
}

#[test]
fn percentiles_are_ordered_and_written() {
    let place = place("bench_hgrm");
    let file = std::env::temp_dir().join(format!("librpc_test_{}.hgrm", std::process::id()));
    let path = file.to_str().expect("a path of text");
    let arguments = ["bench", "latency", "--count", "500", "--rounds", "2", "--pin", "none", "--hgrm", path, "--json"];
    let measured = objects(&place.run(&arguments, b""));
    let times: Vec<_> = ["p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"].map(|key| measured[0][key].as_u64()).into();
    assert!(times.is_sorted() && measured[0]["count"] == 500, "{measured:?}");
    let written = std::fs::read_to_string(&file).expect("it was written");
    std::fs::remove_file(&file).expect("it was written");
    let mut lines = written.lines();
    assert_eq!(
        lines.next().map(|line| line.split_whitespace().collect()),
        Some(vec!["Value", "Percentile", "TotalCount", "1/(1-Percentile)"])
    );
    assert!(lines.any(|line| line.contains(" 1.000000000000 ") && line.ends_with(" 500")), "{written}");
}

#[test]
fn a_measurement_that_is_impossible_is_wrong_usage() {
    for (test, arguments) in [
        ("size", &["latency", "--size", "1000000", "--count", "1"][..]),
        ("time", &["wake", "--size", "4", "--count", "1"]),
        ("seconds", &["throughput", "--seconds", "0"]),
    ] {
        let place = place(&format!("bench_usage_{test}"));
        assert_eq!(place.run(&[&["bench"], arguments].concat(), b"").code, 2, "{arguments:?}");
    }
}

#[test]
fn an_interrupted_measurement_leaves_nothing() {
    for what in ["latency", "throughput", "duplex", "wake", "fanout", "large"] {
        let place = place(&format!("bench_interrupted_{what}"));
        let running = place.start(&["bench", what, "--seconds", "60", "--rounds", "1", "--pin", "none"]);
        let domain = place.path().with_extension(what);
        until(|| domain.exists());
        running.signal(Signal::INT);
        assert_eq!(running.ends().code, 130, "{what}");
    }
}

#[test]
fn scale_reports_cost_and_memory() {
    let place = place("bench_scale");
    let arguments = ["--channels", "50", "--nodes", "20", "--topics", "20", "--count", "3", "--pin", "none", "--json"];
    let measured = objects(&place.run(&[&["bench", "scale"], &arguments[..]].concat(), b""));
    let of: Vec<_> = measured.iter().map(|object| object["of"].as_str().expect("text")).collect();
    assert_eq!(of, ["send", "join", "news", "news", "news", "news", "topics", "patterns", "memory"]);
    let news: Vec<_> = measured[2..6].iter().map(|object| object["what"].as_str().expect("text")).collect();
    assert_eq!(news, ["join", "subscribe", "unsubscribe", "leave"]);
    assert_eq!(measured[1]["context_switches"], 0, "joining wakes nobody");
    for object in &measured[..8] {
        assert!(object["one_ns"].as_u64() > Some(0) && object["many_ns"].as_u64() > Some(0), "{object}");
    }
    let kib = |key: &str| measured[8][key].as_u64().expect("a number") / 1024;
    assert!(kib("domain_bytes") <= 64 && kib("node_bytes") <= 32 && kib("channel_bytes") <= 24, "{measured:?}");
}

#[test]
fn connecting_ends_when_its_time_is_over() {
    let place = place("bench_connect");
    let count = |seconds: &str| {
        let measured = objects(&place.run(&["bench", "connect", "--seconds", seconds, "--pin", "none", "--json"], b""));
        measured[0]["count"].as_u64().expect("a number")
    };
    // A moment is enough for one, and a longer time for more.
    assert_eq!(count("0.000000001"), 1);
    assert!(count("0.5") > 1);
}
