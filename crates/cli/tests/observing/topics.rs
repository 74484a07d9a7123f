//! `librpc topics` and `librpc services`: both ends of each, and those that have only one.

use librpc::{Domain, Node, Publisher, Schema};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::common::{Place, place, until};
use crate::metrics::{get, metrics};
use crate::{find, lines, stops};

fn open(place: &Place, id: &str) -> Node {
    Node::builder(id).domain(Domain::at(place.path())).open().expect("it opens")
}

fn publish(publisher: &mut Publisher, messages: usize) {
    for _ in 0..messages {
        assert!(publisher.publish(b"12345").expect("it goes").undelivered().is_empty());
    }
}

/// One look, so without rates.
fn topics(place: &Place, patterns: &[&str]) -> Vec<Value> {
    lines(place, &[&["topics", "--over", "0s", "--json"], patterns].concat())
}

fn services(place: &Place) -> Vec<Value> {
    lines(place, &["services", "--over", "0s", "--json"])
}

#[test]
fn topics_are_listed_with_both_ends_or_one() {
    let place = place("topics_listed");
    let (camera, display) = (open(&place, "camera"), open(&place, "display"));
    let schema: Schema = "Frame/cdr".parse().expect("a type");
    let mut front = camera.publisher_builder("camera/front").schema(schema).open().expect("a topic");
    let mut quiet = camera.publisher("quiet").expect("a topic");
    let all = display.subscriber_builder(["camera/*", "light/on"]).callback(|_| {}).expect("it opens");
    let other = display.subscriber_builder(["camera/front"]).callback(|_| {}).expect("it opens");
    publish(&mut front, 3);
    publish(&mut quiet, 2);
    let listed = topics(&place, &[]);
    let names: Vec<&str> = listed.iter().filter_map(|row| row["topic"].as_str()).collect();
    assert_eq!(names, ["camera/front", "quiet", "light/on"], "those that are published, then what nobody publishes");
    let [front_row, quiet_row, light] = &listed[..] else { unreachable!("there are three") };
    assert_eq!((&front_row["type"], &front_row["publishers"]), (&json!("Frame/cdr"), &json!(["camera"])));
    assert_eq!(front_row["subscribers"], json!(["camera/*", "camera/front"]));
    assert_eq!(front_row["subscriber_nodes"], json!(["display"]));
    assert_eq!(
        (&front_row["bytes_per_message"], &front_row["rate"]),
        (&json!(5.0), &Value::Null),
        "one look has no rates"
    );
    assert!(front_row["last_activity_ago_ns"].as_u64() > Some(0), "{front_row}");
    assert_eq!((&quiet_row["type"], &quiet_row["subscribers"]), (&Value::Null, &json!([])));
    assert_eq!(quiet_row["bytes_per_message"], 5.0, "what nobody has heard counts");
    assert!(quiet_row["last_activity_ago_ns"].is_u64(), "{quiet_row}");
    assert_eq!((&light["publishers"], &light["subscribers"]), (&json!([]), &json!(["light/on"])));
    let names = |patterns: &[&str]| {
        topics(&place, patterns).iter().map(|row| row["topic"].as_str().map(str::to_owned)).collect::<Vec<_>>()
    };
    assert_eq!(names(&["camera/**"]), [Some("camera/front".to_owned())]);
    assert_eq!(names(&["*", "light/*"]), [Some("quiet".to_owned()), Some("light/on".to_owned())]);
    let table = place.run(&["topics", "--over", "1ms"], b"");
    for text in ["TOPIC", "Frame/cdr", "display camera/*", "5 B", "ago"] {
        assert!(table.stdout().contains(text), "{text}: {}", table.stdout());
    }
    assert_eq!(place.run(&["topics", "a//b"], b"").code, 2, "no pattern");
    drop(quiet);
    assert_eq!(names(&[]).len(), 2, "its publisher is gone");
    drop(front);
    all.stop().expect("it ends");
    other.stop().expect("it ends");
}

#[test]
fn topics_have_rates_whether_anybody_subscribes_or_not() {
    let place = place("topics_rates");
    let (camera, display) = (open(&place, "camera"), open(&place, "display"));
    let mut heard = camera.publisher("heard").expect("a topic");
    let mut unheard = camera.publisher("unheard").expect("a topic");
    let mut outbox = camera.outbox();
    let several = ["x", "y"].map(|topic| outbox.topic(topic).expect("a topic"));
    let handle = display.subscriber_builder(["heard", "x", "y"]).callback(|_| {}).expect("it opens");
    let mut running = place.start(&["topics", "--json", "--watch", "20ms"]);
    // Each of these lines compares two looks, and something was published in between.
    let mut last: [Option<f64>; 2] = [None; 2];
    while !last.iter().all(|rate| rate.is_some_and(|rate| rate > 0.0)) {
        publish(&mut heard, 5);
        publish(&mut unheard, 5);
        for topic in several {
            assert_eq!(outbox.publish(topic, b"1").expect("it goes").inboxes(), 1);
        }
        let row: Value = serde_json::from_str(&running.read_line()).expect("JSON");
        match row["topic"].as_str() {
            Some("heard") => last[0] = row["rate"].as_f64(),
            Some("unheard") => last[1] = row["rate"].as_f64(),
            Some("x" | "y") if row["last_activity_ago_ns"].is_null() => {
                assert_eq!(row["bytes_per_message"], Value::Null)
            }
            _ => {}
        }
    }
    stops(running);
    // Nobody can tell the topics of one outbox apart.
    let rows = lines(&place, &["topics", "--over", "1ms", "--json", "x"]);
    assert_eq!((&find(&rows, "topic", "x")["rate"], &rows[0]["publishers"]), (&Value::Null, &json!(["camera"])));
    handle.stop().expect("it ends");
}

#[test]
fn a_stopped_node_is_shown_with_what_others_know_of_it() {
    let place = place("topics_stopped");
    let display = open(&place, "display");
    let handle = display.subscriber_builder(["heard", "other"]).callback(|_| {}).expect("it opens");
    let mut camera = place.start(&["pub", "heard", "--id", "camera", "--schema", "Frame/cdr"]);
    camera.write(b"1\n");
    until(|| topics(&place, &["heard"])[0]["bytes_per_message"] == 1.0);
    let sleeper = place.start(&["sub", "other", "--id", "sleeper"]);
    let server = place.start(&["serve", "work", "--echo", "--id", "worker"]);
    ["sleeper", "worker"].iter().for_each(|id| place.await_inbox(id));
    for running in [&camera, &sleeper, &server] {
        running.signal(Signal::STOP);
    }
    let ended = place.run(&["topics", "--over", "0s", "--json"], b"");
    let rows: Vec<Value> = ended.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let heard = find(&rows, "topic", "heard");
    assert_eq!(
        (&heard["publishers"], &heard["stalled"]),
        (&json!(["camera"]), &json!(["camera"])),
        "its subscriber knows it"
    );
    assert_eq!(heard["type"], "Frame/cdr");
    let other = find(&rows, "topic", "other");
    assert_eq!((&other["subscriber_nodes"], &other["stalled"]), (&json!(["display", "sleeper"]), &json!(["sleeper"])));
    assert!(!rows.iter().any(|row| row["topic"] == "work"), "a service is no topic: {rows:?}");
    assert!(ended.stderr.contains("camera: stalled: its process is stopped"), "{}", ended.stderr);
    let ended = place.run(&["services", "--over", "0s", "--json"], b"");
    let work: Value = serde_json::from_str(ended.stdout().trim()).expect("one line");
    assert_eq!((&work["servers"], &work["stalled"]), (&json!(["worker"]), &json!(["worker"])));
    for running in [&camera, &sleeper, &server] {
        running.signal(Signal::CONT);
    }
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(sleeper);
    stops(server);
    handle.stop().expect("it ends");
}

#[test]
fn services_are_listed_with_both_sides_and_what_became_of_the_calls() {
    let place = place("services_listed");
    let script = "read time; exec sleep \"$time\"";
    let server = place.start(&["serve", "work/slow", "--id", "worker", "--", "sh", "-c", script]);
    place.await_inbox("worker");
    for (request, code) in [("0", 0), ("0", 0), ("no number", 1)] {
        assert_eq!(place.run(&["call", "work/slow", request], b"").code, code);
    }
    until(|| services(&place).iter().any(|row| row["calls"] == 3 && row["in_flight"] == 0));
    let row = &services(&place)[0];
    assert_eq!(
        (&row["service"], &row["servers"], &row["clients"]),
        (&json!("work/slow"), &json!(["worker"]), &json!([]))
    );
    assert_eq!((&row["answered"], &row["failed"], &row["failures"]), (&json!(2), &json!(1), &json!({"failed": 1})));
    assert_eq!((&row["latency_by"], &row["latency_samples"]), (&json!("server"), &json!(2)));
    assert!(row["latency_p99_ns"].as_u64() > Some(0) && row["types"].is_null(), "{row}");
    // A client shows the calls that its server has not seen, and a service that nobody serves.
    let caller = place.start(&["call", "work/slow", "1000", "--timeout", "100s"]);
    let lonely = place.start(&["call", "work/none", "x", "--timeout", "100s"]);
    until(|| services(&place).len() == 2 && services(&place)[1]["in_flight"] == 1);
    let rows = services(&place);
    let none = find(&rows, "service", "work/none");
    assert_eq!((&none["servers"], none["clients"].as_array().map(Vec::len)), (&json!([]), Some(1)), "{none}");
    assert_eq!(find(&rows, "service", "work/slow")["calls"], 4);
    let table = place.run(&["services", "work/s*", "work/slow", "--over", "1ms"], b"");
    assert_eq!(table.code, 2, "a star is a whole level");
    let table = place.run(&["services", "work/slow", "--over", "1ms"], b"");
    assert!(table.stdout().contains("1 failed") && !table.stdout().contains("work/none"), "{}", table.stdout());
    for running in [caller, lonely] {
        running.signal(Signal::INT);
        assert_eq!(running.ends().code, 130);
    }
    stops(server);
}

#[test]
fn lists_say_when_nothing_matches() {
    let place = place("nothing_matches");
    let camera = open(&place, "camera");
    let quiet = camera.publisher("quiet/topic").expect("a topic");
    let commands: [&[&str]; 5] = [
        &["topics", "--over", "0s", "other"],
        &["services", "--over", "0s", "quiet/topic"],
        &["stat", "other"],
        &["stat", "--json", "other"],
        &["top", "--once", "other"],
    ];
    for command in commands {
        let ended = place.run(command, b"");
        assert_eq!(ended.code, 0, "{command:?}");
        assert!(ended.stderr.contains("nothing matches"), "{command:?}: {}", ended.stderr);
    }
    let check = place.run(&["check", "other", "--over", "1ms"], b"");
    assert!(check.code == 1 && check.stdout().starts_with("FAILED: nothing matches other"), "{check:?}");
    // A topic that nobody subscribes to is something.
    for command in [&["stat", "quiet/*", "--json"][..], &["check", "quiet/topic", "--over", "1ms"]] {
        let ended = place.run(command, b"");
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    assert_eq!(lines(&place, &["stat", "quiet/topic", "--json"])[0]["node"], "camera");
    drop(quiet);
}

#[test]
fn what_is_asked_for_is_all_that_is_shown_and_checked() {
    let place = place("exactly");
    // The same two nodes, with a full inbox and one that is read.
    let (camera, display) = (open(&place, "camera"), open(&place, "display"));
    let small = |pattern: &str| display.subscriber_builder([pattern]).capacity(4096).open().expect("it opens");
    let (_full, mut read) = (small("a/full"), small("b/read"));
    let mut to_full = camera.publisher("a/full").expect("a topic");
    while to_full.try_publish(&[0; 500]).is_ok_and(|receipt| receipt.undelivered().is_empty()) {}
    let mut to_read = camera.publisher("b/read").expect("a topic");
    assert_eq!(to_read.publish(b"x").expect("it goes").inboxes(), 1);
    assert!(read.recv().expect("it receives").is_some());
    let warned = |what: &[&str]| {
        let all = lines(&place, &[&["top", "--once", "--json"], what].concat());
        all.into_iter().filter(|line| line["kind"] == "warning").collect::<Vec<_>>()
    };
    let warnings = warned(&[]);
    let full = find(&warnings, "name", "queue-full");
    assert!(full["text"].as_str().is_some_and(|text| text.starts_with("camera → display, inbox a/full: ")), "{full}");
    assert_eq!(
        (&full["from"], &full["node"], &full["addresses"]),
        (&json!("camera"), &json!("display"), &json!(["a/full"]))
    );
    assert!(full["inbox"].is_u64(), "{full}");
    assert_eq!(warned(&["a/*"]).len(), warnings.len());
    assert_eq!(warned(&["b/read"]), [] as [Value; 0], "it is not about this channel");
    let check = |what: &[&str]| place.run(&[&["check", "--over", "1ms", "--max-depth", "70"], what].concat(), b"");
    let failed = check(&[]);
    assert!(failed.code == 1 && failed.stdout().contains("camera → display, inbox a/full: "), "{failed:?}");
    assert_eq!(check(&["camera"]).code, 1);
    let passed = check(&["b/read"]);
    assert_eq!((passed.code, passed.stdout()), (0, "OK: 2 nodes, 1 channel, 0 messages lost in 1ms\n"));
    let doctor = lines(&place, &["doctor", "--json"]);
    let traffic = find(&doctor, "check", "traffic")["found"].as_str().expect("a text").to_owned();
    assert!(traffic.contains("camera → display, inbox a/full"), "{traffic}");
}

#[test]
fn a_node_may_subscribe_to_a_topic_that_is_called_like_itself() {
    let place = place("namesake");
    let (camera, display) = (open(&place, "camera"), open(&place, "display"));
    let mut publisher = camera.publisher("display").expect("a topic");
    let handle = display.subscriber_builder(["display"]).callback(|_| {}).expect("it opens");
    publish(&mut publisher, 2);
    publisher.flush(std::time::Duration::from_secs(60)).expect("it is processed");
    let listed = topics(&place, &[]);
    let row = find(&listed, "topic", "display");
    let camera_and_display = (&json!(["camera"]), &json!(["display"]));
    assert_eq!((&row["publishers"], &row["subscriber_nodes"]), camera_and_display, "{row}");
    assert_eq!(row["bytes_per_message"], 5.0, "its channel carries a topic");
    let graph = place.run(&["graph", "--over", "1ms", "--format", "dot"], b"").stdout().to_owned();
    assert!(graph.contains("n2 -> n1") && !graph.contains("n0 -> n1"), "over the topic, not directly: {graph}");
    let (mut server, address) = metrics(&place);
    let page = get(&address, "/metrics");
    for line in ["messages_total{topic=\"display\"} 2", "subscriptions{topic=\"display\"} 1"] {
        assert!(page.lines().any(|found| found == format!("librpc_topic_{line}")), "{line}: {page}");
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    handle.stop().expect("it ends");
}

#[test]
fn the_metrics_page_counts_by_topic_for_a_bounded_number_of_them() {
    let place = place("topic_metrics");
    let (camera, display) = (open(&place, "camera"), open(&place, "display"));
    let mut publishers = ["a", "b", "c", "d"].map(|topic| camera.publisher(topic).expect("a topic"));
    let handle = display.subscriber_builder(["a", "z"]).callback(|_| {}).expect("it opens");
    publishers.iter_mut().for_each(|publisher| publish(publisher, 2));
    publishers[0].flush(std::time::Duration::from_secs(60)).expect("it is processed");
    let (mut server, address) = metrics(&place);
    let page = get(&address, "/metrics");
    for line in [
        "librpc_topic_messages_total{topic=\"a\"} 2",
        "librpc_topic_messages_total{topic=\"b\"} 2",
        "librpc_topic_bytes_total{topic=\"b\"} 10",
        "librpc_topic_publishers{topic=\"a\"} 1",
        "librpc_topic_publishers{topic=\"z\"} 0",
        "librpc_topic_subscriptions{topic=\"a\"} 1",
        "librpc_topic_subscriptions{topic=\"b\"} 0",
        "librpc_topic_subscriptions{topic=\"z\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line}: {page}");
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    let mut command = place.librpc(&["metrics", "--listen", "127.0.0.1:0", "--topics", "2"]);
    let (mut server, address) = crate::metrics::start(&mut command);
    let page = get(&address, "/metrics");
    let of_topics: Vec<&str> = page.lines().filter(|line| line.starts_with("librpc_topic_messages_total")).collect();
    let expected = ["{topic=\"**\"} 4", "{topic=\"a\"} 2", "{topic=\"b\"} 2"];
    assert_eq!(of_topics, expected.map(|rest| format!("librpc_topic_messages_total{rest}")), "{page}");
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    handle.stop().expect("it ends");
}

#[test]
fn completions_know_what_is_there_and_evaluate_nothing() {
    let place = place("names");
    let camera = open(&place, "camera");
    let evil = "a/$(touch evil)`touch evil`'\"; touch evil";
    let _publishers = ["camera/front", evil].map(|topic| camera.publisher(topic).expect("a topic"));
    let server = place.start(&["serve", "work", "--echo", "--id", "worker"]);
    place.await_inbox("worker");
    let names = |of: &str| place.run(&["names", of], b"").stdout().to_owned();
    assert_eq!(names("nodes"), "camera\nworker\n");
    assert_eq!(names("topics"), format!("{evil}\ncamera/front\n"));
    assert_eq!(names("services"), "work\n");
    assert_eq!(names("all"), format!("{evil}\ncamera\ncamera/front\nwork\nworker\n"));
    for shell in ["zsh", "fish"] {
        let script = place.run(&["completions", shell], b"");
        assert!(script.stdout().contains("librpc names topics"), "{shell}");
        assert!(!["_hosts'", "_urls'", "_users'"].iter().any(|mark| script.stdout().contains(mark)), "{shell}");
    }
    let folder = place.path().with_extension("bash");
    std::fs::create_dir_all(&folder).expect("a directory");
    let script = folder.join("librpc.bash");
    std::fs::write(&script, place.run(&["completions", "bash"], b"").stdout()).expect("a file");
    let complete = |words: &[&str]| {
        let last = words.len() - 1;
        let run = "source ./librpc.bash; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); \
                   _librpc_with_names \"$1\" \"${@: -1}\" \"${@: -2:1}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
        let mut bash = std::process::Command::new("bash");
        bash.args(["--norc", "-c", run, "bash", env!("CARGO_BIN_EXE_librpc")]).args(&words[..=last]);
        let said = bash.current_dir(&folder).env("LIBRPC_DOMAIN", place.path()).output().expect("bash runs");
        String::from_utf8(said.stdout).expect("text")
    };
    if std::process::Command::new("bash").arg("--version").output().is_err() {
        return crate::skip("there is no bash");
    }
    assert_eq!(complete(&["sub", "cam"]), "camera/front\n");
    assert_eq!(complete(&["stat", "cam"]), "camera\ncamera/front\n");
    assert_eq!(complete(&["call", ""]), "work\n");
    assert_eq!(complete(&["check", "--node", "w"]), "worker\n");
    assert_eq!(complete(&["--log", "error", "send", "w"]), "worker\n");
    assert!(complete(&["sub", "--id", "cam"]).trim().is_empty(), "the id is a new one");
    assert!(complete(&["sub", "--js"]).contains("--json"));
    let elsewhere = complete(&["--domain", "/dev/shm/librpc_test_nowhere", "sub", "cam"]);
    assert!(!elsewhere.contains("camera/front"), "{elsewhere}");
    assert!(complete(&["pub", "a/"]).starts_with("a/\\$\\(touch"), "it is quoted");
    assert_eq!(std::fs::read_dir(&folder).expect("it is there").count(), 1, "nothing was evaluated");
    std::fs::remove_dir_all(&folder).expect("it is there");
    stops(server);
}
