//! What is seen from outside: `stat`, `top`, `nodes`, `doctor`, `metrics`, `graph`, `check`, whatever the domain's state.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use common::{Place, Running, place, until};
use rustix::process::Signal;
use serde_json::Value;

/// The lines of JSON that a command writes.
fn lines(place: &Place, arguments: &[&str]) -> Vec<Value> {
    let ended = place.run(arguments, b"");
    assert_eq!((ended.code, &*ended.stderr), (0, ""), "{arguments:?}");
    ended.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn channel(place: &Place, from: &str) -> Option<Value> {
    lines(place, &["stat", "--json"]).into_iter().find(|line| line["kind"] == "channel" && line["from"] == from)
}

fn find<'a>(lines: &'a [Value], key: &str, value: &str) -> &'a Value {
    lines.iter().find(|line| line[key] == value).unwrap_or_else(|| panic!("no {value} in {lines:?}"))
}

/// A sender that has sent this many messages, all of them processed, and is still there.
fn sender(place: &Place, id: &str, to: &str, messages: u64) -> Running {
    let mut sender = place.start(&["send", to, "--id", id]);
    (0..messages).for_each(|number| sender.write(format!("{number}\n").as_bytes()));
    until(|| channel(place, id).is_some_and(|channel| channel["processed"] == messages));
    sender
}

/// A stopped node whose inbox its sender has filled.
fn stopped_and_full(place: &Place) -> (Running, Running) {
    let stuck = place.receiver("stuck", &["--capacity", "4096"]);
    stuck.signal(Signal::STOP);
    let mut feeder = place.start(&["send", "stuck", "--id", "feeder"]);
    feeder.write_until_full(b"a message of some length\n");
    (stuck, feeder)
}

fn let_go((stuck, feeder): (Running, Running)) {
    feeder.signal(Signal::KILL);
    feeder.ends();
    stuck.signal(Signal::CONT);
    stuck.signal(Signal::TERM);
    stuck.ends();
}

fn stops(running: Running) {
    running.signal(Signal::TERM);
    assert_eq!(running.ends().code, 0);
}

#[test]
fn every_counter_of_a_channel_has_a_name() {
    let place = place("counters");
    let sink = place.receiver("sink", &[]);
    let mut camera = sender(&place, "camera", "sink", 100);
    let channel = channel(&place, "camera").expect("it is there");
    for (name, expected) in
        [("sent", 100), ("received", 100), ("processed", 100), ("queued", 0), ("sent_bytes", 190), ("dropped", 0)]
    {
        assert_eq!(channel[name], expected, "{name}");
    }
    for name in ["missed", "returned", "blocked_ns", "depth_bytes", "depth_max_bytes", "received_bytes", "inbox"] {
        assert!(channel[name].is_u64(), "{name}");
    }
    assert_eq!(
        (&channel["to"], &channel["policy"], &channel["state"]),
        (&"sink".into(), &"block".into(), &"open".into())
    );
    assert!(channel["latency_samples"].as_u64() >= Some(2), "the first one and one in 64");
    assert!(
        channel["latency_p50_ns"].as_u64() > Some(0)
            && channel["latency_p50_ns"].as_u64() <= channel["latency_max_ns"].as_u64()
    );
    let all = lines(&place, &["stat", "--json"]);
    assert_eq!(find(&all, "kind", "inbox")["ended_channels"], 1, "the one that waited for the receiver");
    assert!(lines(&place, &["stat", "--json", "nobody"]).is_empty(), "only what was asked for");
    assert_eq!(lines(&place, &["stat", "camera", "--json"]).len(), 2, "a node and its channel");
    let watched = place.run(&["stat", "--json", "--watch", "10ms", "--count", "2"], b"");
    assert!(watched.stdout().lines().any(|line| line.contains("\"sent_per_s\":0.0")), "{}", watched.stdout());
    let text = place.run(&["stat"], b"");
    assert!(text.stdout().contains("camera") && text.stdout().contains("P99.9"), "{}", text.stdout());
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(sink);
}

#[test]
fn a_stopped_node_and_a_full_inbox_are_shown_by_all() {
    let place = place("stopped");
    let both = stopped_and_full(&place);
    let nodes = place.nodes();
    let stuck = find(&nodes, "id", "stuck");
    assert_eq!((&stuck["alive"], &stuck["state"]), (&true.into(), &"stalled".into()));
    assert_eq!(find(&nodes, "id", "feeder")["state"], "alive");
    let top = lines(&place, &["top", "--once", "--json"]);
    assert_eq!(find(&top, "name", "stalled-node")["node"], "stuck");
    assert_eq!(find(&top, "name", "queue-full")["from"], "feeder");
    let channel = channel(&place, "feeder").expect("its sender sees it");
    assert_eq!((&channel["seen_by"], &channel["state"]), (&"sender".into(), &"pending".into()));
    assert!(channel["depth_bytes"].as_u64() > Some(3000), "{channel}");
    let doctor = lines(&place, &["doctor", "--json"]);
    for check in ["stalled-nodes", "traffic"] {
        assert_eq!(find(&doctor, "check", check)["verdict"], "WARN", "{check}");
    }
    assert_eq!(place.run(&["doctor", "--strict"], b"").code, 1);
    let check = place.run(&["check", "--over", "1ms"], b"");
    assert_eq!(check.code, 1);
    assert!(check.stdout().contains("stalled: stuck") && check.stdout().contains("% full"), "{}", check.stdout());
    let text = place.run(&["top", "--once"], b"");
    assert!(text.stdout().contains("queue-full: feeder → stuck"), "{}", text.stdout());
    let_go(both);
    assert_eq!(place.run(&["clean"], b"").code, 0, "the feeder was killed");
}

#[test]
fn a_full_inbox_of_a_node_that_lives_is_shown_by_all() {
    let place = place("slow");
    let mut slow = place.receiver("slow", &["--capacity", "4096"]); // nobody reads what it writes
    let mut feeder = place.start(&["send", "slow", "--id", "feeder"]);
    feeder.write_until_full(b"a message of some length\n");
    let top = lines(&place, &["top", "--once", "--json"]);
    for warning in ["queue-full", "slow-consumer"] {
        assert_eq!(find(&top, "name", warning)["from"], "feeder", "{warning}");
    }
    assert!(!top.iter().any(|line| line["name"] == "stalled-node"), "{top:?}");
    assert_eq!(find(&place.nodes(), "id", "slow")["state"], "alive");
    let doctor = lines(&place, &["doctor", "--json"]);
    let traffic = find(&doctor, "check", "traffic");
    assert_eq!(traffic["verdict"], "WARN");
    assert!(traffic["found"].as_str().is_some_and(|text| text.contains("queue-full: feeder → slow")), "{traffic}");
    assert!(traffic["todo"].as_str().is_some_and(|text| text.contains("librpc top")), "{traffic}");
    assert_eq!(find(&doctor, "check", "stalled-nodes")["verdict"], "PASS");
    slow.close_stdout();
    assert_eq!(slow.ends().code, 0);
    assert_eq!(feeder.ends().code, 3);
}

#[test]
fn a_dead_node_is_shown_until_it_is_swept() {
    let place = place("dead");
    let sink = place.receiver("sink", &[]);
    let other = place.receiver("other", &[]);
    sink.signal(Signal::KILL);
    sink.ends();
    assert_eq!(find(&place.nodes(), "id", "sink")["state"], "dead");
    assert_eq!(find(&lines(&place, &["top", "--once", "--json"]), "name", "dead-node")["node"], "sink");
    let doctor = lines(&place, &["doctor", "--json"]);
    assert_eq!(find(&doctor, "check", "dead-nodes")["verdict"], "WARN");
    assert_eq!(place.run(&["check", "--over", "1ms"], b"").code, 0, "nothing waits for it");
    assert_eq!(place.run(&["check", "--over", "1ms", "--max-dead", "0"], b"").code, 1);
    assert_eq!(place.run(&["check", "--over", "1ms", "--node", "sink"], b"").code, 1);
    assert_eq!(place.run(&["clean"], b"").code, 0);
    assert_eq!(find(&lines(&place, &["doctor", "--json"]), "check", "dead-nodes")["verdict"], "PASS");
    stops(other);
}

#[test]
fn observers_make_no_domain_and_show_nothing() {
    let place = place("nothing");
    let commands: [&[&str]; 6] = [
        &["nodes", "--json"],
        &["stat"],
        &["stat", "--json"],
        &["top", "--once"],
        &["top", "--once", "--json"],
        &["graph", "--over", "1ms"],
    ];
    for command in commands {
        let ended = place.run(command, b"");
        assert_eq!((ended.code, ended.stdout(), &*ended.stderr), (0, "", ""), "{command:?}");
    }
    assert_eq!(place.run(&["doctor"], b"").code, 0);
    assert_eq!(place.run(&["check", "--over", "1ms"], b"").code, 0);
    assert!(!place.path().exists());
}

#[test]
fn a_full_file_system_fails_the_doctor() {
    let place = place("full");
    let at = format!("{}.mount", place.path().display());
    std::fs::create_dir(&at).expect("a directory to mount on");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none", &at]).output();
    if !mounted.is_ok_and(|mounted| mounted.status.success()) {
        std::fs::remove_dir(&at).expect("it is empty");
        return skip("mounting needs root");
    }
    let doctor = |domain: &str| {
        let librpc = Command::new(env!("CARGO_BIN_EXE_librpc")).args(["doctor", "--json", "--domain", domain]).output();
        let ended = librpc.expect("it runs");
        let text = String::from_utf8(ended.stdout).expect("text");
        let checks: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        (ended.status.code(), find(&checks, "check", "shm").clone())
    };
    let domain = format!("{at}/domain");
    let (code, before) = doctor(&domain);
    let run = |arguments: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_librpc")).args(arguments).args(["--domain", &domain]).output();
        let ended = ended.expect("it runs");
        (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let node = librpc::Node::builder("inside").domain(librpc::Domain::at(&domain)).open().expect("there is room");
    let inbox = node.inbox().expect("there is room");
    let mut filling = std::fs::File::create(format!("{at}/filling")).expect("there is room");
    while filling.write(&[0; 4096]).is_ok() {}
    let (full_code, full) = doctor(&domain);
    // Who looks needs no room; who joins does.
    let looks = [&["nodes"][..], &["top", "--once"], &["stat"]].map(run);
    let (joins, why) = run(&["recv", "late"]);
    drop((inbox, node, filling));
    let unmounted = Command::new("umount").arg(&at).status().expect("umount runs");
    std::fs::remove_dir(&at).expect("it is empty");
    assert!(unmounted.success());
    assert_eq!((code, &before["verdict"]), (Some(0), &"PASS".into()));
    assert_eq!((full_code, &full["verdict"]), (Some(1), &"FAIL".into()));
    let [nodes, top, stat] = looks;
    assert!(nodes.0 == Some(0) && nodes.1.contains("inside") && nodes.1.contains("alive"), "{nodes:?}");
    assert!(top.0 == Some(0) && top.1.starts_with("1 nodes, 1 inboxes"), "{top:?}");
    assert_eq!(stat, (Some(0), String::new()));
    assert!(joins == Some(1) && why.contains("free some space on that tmpfs"), "{joins:?} {why}");
    assert!(full["todo"].as_str().expect("what to do").contains("remount"), "{full}");
}

/// Says that a test is skipped: past the test runner, which swallows what passing tests print.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {:?}: {why}", std::thread::current().name());
}

#[test]
fn another_users_domain_is_named_as_such() {
    if !rustix::process::geteuid().is_root() {
        return skip("taking another uid needs root");
    }
    let place = place("others");
    let sink = place.receiver("sink", &[]);
    let as_other = |arguments: &[&str]| {
        let ended = place.librpc(arguments).uid(12_345).gid(12_345).output().expect("it runs");
        (ended.status.code(), String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned())
    };
    let (code, text) = as_other(&["doctor"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("FAIL  domain") && text.contains("another user's; this is uid 12345"), "{text}");
    assert!(text.contains("share one by group"), "{text}");
    for command in [&["nodes"][..], &["stat"], &["top", "--once"]] {
        let (code, text) = as_other(command);
        assert_eq!(code, Some(1), "{command:?}");
        assert!(text.contains("Permission denied"), "{command:?}: {text}");
    }
    stops(sink);
}

/// A metrics server, and where it listens.
fn metrics(place: &Place) -> (std::process::Child, String) {
    let mut command = place.librpc(&["metrics", "--listen", "127.0.0.1:0"]);
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stderr.take().expect("it is a pipe")).read_line(&mut line).expect("it says where");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    (server, address.to_owned())
}

fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers with text");
    answer
}

#[test]
fn the_metrics_page_is_one_that_prometheus_reads() {
    use prometheus_parse::{Scrape, Value as Sample};
    let place = place("metrics");
    let (mut server, address) = metrics(&place);
    let empty = get(&address, "/metrics");
    assert!(empty.starts_with("HTTP/1.1 200") && empty.contains("application/openmetrics-text"), "{empty}");
    assert!(!place.path().exists(), "a scrape makes no domain");
    let sink = place.receiver("sink", &[]);
    let mut camera = sender(&place, "camera", "sink", 500);
    let answer = get(&address, "/metrics");
    let (_, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(page.ends_with("# EOF\n"), "whole");
    let scrape = Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).expect("it can be parsed");
    let sample = |name: &str| {
        let found = scrape.samples.iter().find(|sample| {
            sample.metric == name
                && sample.labels.get("from") == Some("camera")
                && sample.labels.get("to") == Some("sink")
        });
        found.unwrap_or_else(|| panic!("no {name} in {page}")).value.clone()
    };
    let number = |name: &str| match sample(name) {
        Sample::Counter(number) | Sample::Gauge(number) | Sample::Untyped(number) => number,
        other => panic!("{name}: {other:?}"),
    };
    for (name, expected) in [
        ("librpc_messages_sent_total", 500.0),
        ("librpc_messages_processed_total", 500.0),
        ("librpc_messages_dropped_total", 0.0),
        ("librpc_sent_bytes_total", 1390.0),
        ("librpc_queue_depth", 0.0),
        ("librpc_queue_capacity_bytes", 262_144.0),
    ] {
        assert_eq!(number(name), expected, "{name}");
    }
    let Sample::Histogram(buckets) = sample("librpc_delivery_latency_seconds") else { panic!("no histogram") };
    let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.count).collect();
    assert!(counts.is_sorted() && counts.last() >= Some(&8.0), "{counts:?}");
    assert_eq!(counts.last().copied(), Some(number("librpc_delivery_latency_seconds_count")), "all of them");
    assert!(get(&address, "/other").starts_with("HTTP/1.1 404"));
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(sink);
}

#[test]
fn the_graph_shows_nodes_topics_and_rates() {
    let place = place("graph");
    let watcher = place.start(&["sub", "sensor/**", "--id", "watcher"]);
    place.await_node("watcher");
    let mut kitchen = place.start(&["pub", "sensor/kitchen", "--id", "kitchen", "--wait", "10s"]);
    kitchen.write(b"21\n");
    until(|| channel(&place, "kitchen").is_some());
    let draw = |format: &str| place.run(&["graph", "--over", "1ms", "--format", format], b"").stdout().to_owned();
    let mermaid = draw("mermaid");
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("([\"sensor/**\"])"), "{mermaid}");
    assert!(mermaid.matches("/s\"|").count() == 2, "kitchen to the topic, and the topic to watcher: {mermaid}");
    let dot = draw("dot");
    assert!(dot.starts_with("digraph librpc {") && dot.contains("label=\"watcher\", shape=box"), "{dot}");
    let html = draw("html");
    assert!(html.contains("<svg") && html.contains("kitchen") && !html.contains("src="), "{html}");
    kitchen.close_stdin();
    assert_eq!(kitchen.ends().code, 0);
    stops(watcher);
}

/// A node whose id means something to whatever it is written into.
const EVIL: &str = r#"a"b\c<script>`#;x"#;

#[test]
fn names_mean_nothing_in_pictures_and_pages() {
    use prometheus_parse::Scrape;
    let place = place("evil");
    let sink = place.receiver(EVIL, &[]);
    let watcher = place.start(&["sub", r#"t"\/**"#, "--id", "watcher"]);
    place.await_node("watcher");
    let mut camera = sender(&place, r#"x"} 1"#, EVIL, 2);
    let (mut server, address) = metrics(&place);
    let answer = get(&address, "/metrics");
    let (_, page) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let escaped =
        r#"librpc_messages_sent_total{from="x\"} 1",to="a\"b\\c<script>`#;x",address="a\"b\\c<script>`#;x"} 2"#;
    assert!(page.lines().any(|line| line == escaped), "{page}");
    assert!(page.contains(r#"address="t\"\\/**""#), "{page}");
    let scrape = Scrape::parse(page.lines().map(|line| Ok(line.to_owned()))).expect("it can be parsed");
    assert!(scrape.samples.iter().all(|sample| sample.metric.starts_with("librpc_")), "{page}");
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
    let draw = |format: &str| place.run(&["graph", "--over", "1ms", "--format", format], b"").stdout().to_owned();
    let mermaid = draw("mermaid");
    assert!(mermaid.contains(r#"["a#34;b#92;c#60;script#62;#96;#35;#59;x"]"#), "{mermaid}");
    let dot = draw("dot");
    assert!(dot.contains(r#"label="a\"b\\c<script>`#;x", shape"#), "{dot}");
    let html = draw("html");
    assert!(html.contains("a&quot;b\\c&lt;script&gt;") && !html.contains("<script"), "{html}");
    let stat = lines(&place, &["stat", EVIL, "--json"]);
    assert_eq!(find(&stat, "kind", "channel")["to"], EVIL);
    camera.close_stdin();
    assert_eq!(camera.ends().code, 0);
    stops(watcher);
    stops(sink);
}

#[test]
fn nobody_holds_the_metrics_page_up() {
    let place = place("scrapes");
    let sink = place.receiver("sink", &[]);
    let (mut server, address) = metrics(&place);
    let connect = || TcpStream::connect(&address).expect("it listens");
    let silent: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    let halves: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    for mut half in &halves {
        half.write_all(b"GET /metrics HTT").expect("it listens");
    }
    // Those ask, and do not read.
    let deaf: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    for mut deaf in &deaf {
        deaf.write_all(b"GET /metrics HTTP/1.1\r\n\r\n").expect("it listens");
    }
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3).map(|_| scope.spawn(|| get(&address, "/metrics"))).collect();
        for answer in asking {
            let answer = answer.join().expect("it answers");
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("# EOF\n"), "{answer}");
        }
    });
    let ask = |request: &[u8]| {
        let mut connection = connect();
        connection.write_all(request).expect("it listens");
        let mut answer = String::new();
        let _ = connection.read_to_string(&mut answer); // it may close before it has read everything
        answer
    };
    assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(ask(b"\xff\0nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(ask(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
    drop((silent, halves, deaf));
    // As many as go at the same time: others are told so, and it goes on.
    let many: Vec<TcpStream> = (0..40).map(|_| connect()).collect();
    until(|| ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503"));
    drop(many);
    until(|| ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 200"));
    let second = place.run(&["metrics", "--listen", &address], b"");
    assert_eq!(second.code, 1);
    assert!(second.stderr.contains(&format!("cannot listen on {address}")), "{}", second.stderr);
    assert_eq!(place.run(&["metrics", "--listen", "nowhere"], b"").code, 2);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
    stops(sink);
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let place = place("closed");
    let sink = place.receiver("sink", &[]);
    let commands: [&[&str]; 9] = [
        &["nodes"],
        &["stat"],
        &["stat", "--watch", "10ms", "--json"],
        &["top", "--once"],
        &["graph", "--over", "1ms"],
        &["check", "--over", "1ms"],
        &["hz", "t", "--every", "1ms"],
        &["doctor"],
        &["man", "top"],
    ];
    for command in commands {
        let mut running = place.start(command);
        running.close_stdout();
        let ended = running.ends();
        assert_eq!((ended.code, &*ended.stderr), (0, ""), "{command:?}");
    }
    stops(sink);
}

#[test]
fn strange_times_and_limits_are_borne_or_refused() {
    let place = place("times");
    let silent = place.run(&["hz", "nobody/publishes", "--every", "1ms", "--count", "2"], b"");
    assert_eq!(silent.code, 0);
    assert!(silent.stdout().lines().all(|line| line.starts_with("0.0 Hz") && line.contains("interval - to -")));
    let json = place.run(&["hz", "nobody/publishes", "--every", "0s", "--count", "2", "--json"], b"");
    assert_eq!((json.code, json.stdout().lines().count()), (0, 2));
    assert!(json.stdout().contains("\"interval_min_ns\":null"), "{}", json.stdout());
    // Longer than the machine's clock goes.
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
fn check_tells_losses_and_latencies() {
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

#[test]
fn a_channel_of_a_thousand_topics_is_shown() {
    let place = place("thousand");
    let watcher = place.start(&["sub", "t/*", "--id", "watcher"]);
    place.await_node("watcher");
    let node = librpc::Node::builder("many").domain(librpc::Domain::at(place.path())).open().expect("it opens");
    let mut outbox = node.outbox();
    for number in 0..1000 {
        let topic = outbox.topic(&format!("t/{number}")).expect("a topic");
        assert_eq!(
            outbox.publish_timeout(topic, b"x", std::time::Duration::from_secs(10)).expect("it goes").inboxes(),
            1
        );
    }
    until(|| channel(&place, "many").is_some_and(|channel| channel["processed"] == 1000));
    let shown = channel(&place, "many").expect("it is there");
    let topics = shown["topics"].as_array().expect("a list");
    assert_eq!((topics.len(), &topics[0]), (32, &"t/0".into()), "the first few of them");
    assert_eq!(find(&lines(&place, &["stat", "t/999", "--json"]), "kind", "channel")["sent"], 1000);
    assert!(place.run(&["stat", "t/999"], b"").stdout().contains("t/*"));
    drop((outbox, node));
    stops(watcher);
}

#[test]
fn the_doctor_says_what_the_kernel_has() {
    let place = place("kernel");
    let kernel = librpc::Kernel::probe();
    let doctor = lines(&place, &["doctor", "--json"]);
    for (check, has) in [
        ("membarrier", kernel.has_barriers),
        ("so-passrights", kernel.refuses_descriptors),
        ("noexec-seal", kernel.seals_execution),
    ] {
        let found = find(&doctor, "check", check)["found"].as_str().expect("text");
        assert_eq!(found.starts_with("used: "), has, "{check}: {found}");
    }
}

#[test]
fn the_doctor_finds_other_versions() {
    use std::os::unix::fs::OpenOptionsExt;
    let place = place("versions");
    let sink = place.receiver("sink", &[]);
    let mut bytes = std::fs::read(place.path().join("sink.node")).expect("it is there");
    bytes[8] = 1; // the layout's version
    let foreign = place.path().join("foreign.node");
    let made = std::fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&foreign);
    made.and_then(|mut file| file.write_all(&bytes)).expect("there is room");
    let doctor = lines(&place, &["doctor", "--json"]);
    let layouts = find(&doctor, "check", "layouts");
    let found = layouts["found"].as_str().expect("text");
    assert_eq!(layouts["verdict"], "WARN");
    assert!(found.contains("foreign.node: it has layout version 1; this librpc speaks version 2"), "{found}");
    assert!(layouts["todo"].as_str().is_some_and(|todo| todo.contains("one version of librpc")), "{layouts}");
    assert_eq!(place.nodes().len(), 1, "nobody sees it");
    let top = place.run(&["top", "--once"], b"");
    assert!(top.stdout().starts_with("1 nodes, 1 inboxes"), "{}", top.stdout());
    std::fs::remove_file(foreign).expect("it is there");
    // The domain itself is of another version.
    let own = std::fs::OpenOptions::new().write(true).open(place.path().join("generation")).expect("it is there");
    let set = |version: u8| std::os::unix::fs::FileExt::write_all_at(&own, &[version], 8).expect("it is ours");
    set(7);
    let doctor = place.run(&["doctor", "--json"], b"");
    let joins = place.run(&["recv", "late"], b"");
    set(2);
    let doctor: Vec<Value> = doctor.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let layouts = find(&doctor, "check", "layouts");
    assert!(layouts["found"].as_str().is_some_and(|found| found.contains("generation: it has layout version 7")));
    assert_eq!(layouts["verdict"], "FAIL");
    assert!(joins.code == 1 && joins.stderr.contains("layout version 7"), "{joins:?}");
    stops(sink);
}

#[test]
fn the_doctor_finds_other_namespaces() {
    let place = place("namespaces");
    let sink = place.receiver("sink", &[]);
    let costs = [
        ("--pid", "in another pid namespace", "--pid=host"),
        ("--time", "in another time namespace", "share what is needed"),
    ];
    for (namespace, found, todo) in costs {
        let Some(inside) = place.start_unshared(&[namespace], &["recv", "inside"]) else {
            stops(sink);
            return skip("namespaces need root");
        };
        place.await_node("inside");
        let doctor = lines(&place, &["doctor", "--json"]);
        let containers = find(&doctor, "check", "containers");
        assert_eq!(containers["verdict"], "WARN", "{containers}");
        assert!(containers["found"].as_str().is_some_and(|text| text.contains(found)), "{containers}");
        assert!(containers["todo"].as_str().is_some_and(|text| text.contains(todo)), "{containers}");
        // It works all the same.
        assert_eq!(place.run(&["send", "inside"], b"hello\n").code, 0, "{namespace}");
        inside.signal(Signal::KILL); // and with it its child is told to end
        inside.ends();
        until(|| place.nodes().len() == 1);
    }
    // Another mount namespace that shares /dev/shm is as good; one that has its own is another world.
    let inside = place.start_unshared(&["--mount"], &["recv", "inside"]).expect("as above");
    place.await_node("inside");
    let doctor = lines(&place, &["doctor", "--json"]);
    let containers = find(&doctor, "check", "containers");
    assert_eq!(containers["verdict"], "PASS", "{containers}");
    assert!(containers["found"].as_str().is_some_and(|text| text.contains("in another mount namespace")));
    assert_eq!(find(&doctor, "check", "elsewhere")["verdict"], "PASS");
    inside.signal(Signal::KILL);
    inside.ends();
    until(|| place.nodes().len() == 1);
    let script = "mount -t tmpfs none /dev/shm && exec \"$@\"";
    let librpc = place.librpc(&["recv", "apart"]);
    let mut apart = Command::new("unshare");
    apart.args(["--mount", "--propagation=private", "sh", "-c", script, "sh"]).arg(librpc.get_program());
    let mut apart =
        apart.args(librpc.get_args()).stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("it starts");
    let elsewhere = || find(&lines(&place, &["doctor", "--json"]), "check", "elsewhere").clone();
    until(|| elsewhere()["verdict"] == "WARN");
    let found = elsewhere();
    assert!(found["found"].as_str().is_some_and(|text| text.contains(&format!("pid {}", apart.id()))), "{found}");
    assert!(found["todo"].as_str().is_some_and(|text| text.contains("--ipc=host")), "{found}");
    assert_eq!(place.nodes().len(), 1, "who is elsewhere is not here");
    rustix::process::kill_process(rustix::process::Pid::from_child(&apart), Signal::TERM).expect("it runs");
    assert_eq!(apart.wait().expect("it ends").code(), Some(0));
    stops(sink);
}

#[test]
fn the_doctor_finds_members_of_a_domain_that_was_removed() {
    let place = place("removed");
    let sink = place.receiver("sink", &[]);
    std::fs::remove_dir_all(place.path()).expect("it is there");
    let removed = lines(&place, &["doctor", "--json"]);
    let removed = find(&removed, "check", "elsewhere");
    assert_eq!(removed["verdict"], "WARN");
    let pid = format!("pid {} ", sink.pid());
    assert!(
        removed["found"].as_str().is_some_and(|text| text.contains(&pid) && text.contains("was removed")),
        "{removed}"
    );
    stops(sink);
}

#[test]
fn hz_counts_what_is_published() {
    let place = place("hz");
    let hz = place.start(&["hz", "beat", "--count", "1", "--every", "300ms", "--json"]);
    until(|| place.nodes().iter().any(|node| node["inboxes"] == serde_json::json!(["beat"])));
    let mut publisher = place.start(&["pub", "beat", "--wait", "10s"]);
    let mut hz = hz;
    while !hz.has_ended() {
        publisher.write(b"x\n");
    }
    let ended = hz.ends();
    let line: Value = serde_json::from_str(ended.stdout()).expect("one line");
    assert!(line["messages"].as_u64() > Some(0) && line["rate"].as_f64() > Some(0.0), "{line}");
    publisher.close_stdin();
    publisher.ends();
}

#[test]
fn the_log_tells_of_joins_and_leaves_but_of_no_message() {
    let place = place("log");
    let sink = place.receiver("sink", &[]);
    let lines = (0..10_000).fold(String::new(), |lines, number| lines + &format!("{number}\n"));
    let ended = place.run(&["send", "sink", "--id", "camera", "--log", "trace"], lines.as_bytes());
    assert_eq!(ended.code, 0);
    for word in ["librpc::node: a node has joined", "librpc::outgoing: connected", "librpc::node: a node has left"] {
        assert!(ended.stderr.contains(word), "{word:?} in {}", ended.stderr);
    }
    assert!(ended.stderr.lines().count() < 50, "{}", ended.stderr);
    assert_eq!(place.run(&["send", "sink", "--log", "no=such=filter"], b"").code, 2);
    assert_eq!(place.run(&["send", "sink"], b"").stderr, "", "nothing by default");
    stops(sink);
}

#[test]
fn completions_and_the_manual_know_the_commands() {
    let place = place("manual");
    let script = place.run(&["completions", "bash"], b"");
    for command in ["stat", "top", "hz", "graph", "doctor", "metrics", "check"] {
        assert!(script.stdout().contains(&format!("librpc__subcmd__{command}")), "{command}");
        assert_eq!(place.run(&["man", command], b"").code, 0, "{command}");
    }
}
