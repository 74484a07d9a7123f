//! `librpc metrics`: a page that Prometheus reads, and that no client can block.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;

use rustix::process::Signal;

use crate::common::{Place, place, until};
use crate::{sender, stops};

/// A metrics server and its address.
pub(crate) fn metrics(place: &Place) -> (std::process::Child, String) {
    start(&mut place.librpc(&["metrics", "--listen", "127.0.0.1:0"]))
}

/// The same with other options.
pub(crate) fn start(command: &mut std::process::Command) -> (std::process::Child, String) {
    let mut server = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut line = String::new();
    BufReader::new(server.stderr.take().expect("it is a pipe")).read_line(&mut line).expect("it says where");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    (server, address.to_owned())
}

pub(crate) fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("it listens");
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("it answers with text");
    answer
}

#[test]
fn prometheus_can_read_the_metrics_page() {
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
fn no_client_blocks_the_metrics_page() {
    let place = place("scrapes");
    let sink = place.receiver("sink", &[]);
    let (mut server, address) = metrics(&place);
    let connect = || TcpStream::connect(&address).expect("it listens");
    let silent: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    let halves: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
    for mut half in &halves {
        half.write_all(b"GET /metrics HTT").expect("it listens");
    }
    // These ask, and do not read.
    let deaf: Vec<TcpStream> = (0..3).map(|_| connect()).collect();
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
        connection.read_to_string(&mut answer).expect("it is answered before it is hung up on");
        answer
    };
    assert!(ask(b"POST /metrics HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 405"));
    assert!(ask(b"\xff\0nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert!(ask(b"GET /metrics?x=1 HTTP/1.0\r\n\r\n").starts_with("HTTP/1.1 200"));
    drop((silent, halves, deaf));
    // More than are served at the same time: the others are refused, and it goes on.
    let mut many = Vec::new();
    until(|| {
        many.push(connect());
        ask(b"GET / HTTP/1.1\r\n\r\n").starts_with("HTTP/1.1 503")
    });
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

/// The value of a counter on the page, by the beginning of its line.
fn counter(address: &str, line: &str) -> Option<u64> {
    let page = get(address, "/metrics");
    page.lines().find_map(|found| found.strip_prefix(line)?.trim().parse().ok())
}

#[test]
fn counters_of_a_stopped_receiver_and_of_ended_channels_do_not_fall() {
    let place = place("monotone");
    let (mut server, address) = metrics(&place);
    let sink = place.receiver("sink", &[]);
    let node = librpc::Node::builder("camera").domain(librpc::Domain::at(place.path())).open().expect("it opens");
    let mut senders = [node.connect("sink").expect("it is there"), node.connect("sink").expect("it is there")];
    for (sender, messages) in senders.iter_mut().zip([30, 12]) {
        (0..messages).for_each(|_| sender.send(b"x").expect("it goes"));
        sender.flush(std::time::Duration::from_secs(10)).expect("it is processed");
    }
    let of_way = |name: &str| counter(&address, &format!("{name}{{from=\"camera\",to=\"sink\",address=\"sink\"}}"));
    let of_inbox = |name: &str| counter(&address, &format!("{name}{{node=\"sink\",address=\"sink\"}}"));
    let all = || {
        let of_ways = ["sent", "received", "processed"].map(|what| of_way(&format!("librpc_messages_{what}_total")));
        let of_inboxes = ["received", "processed"].map(|what| of_inbox(&format!("librpc_inbox_messages_{what}_total")));
        (of_ways, of_inboxes)
    };
    let counted = ([Some(42); 3], [Some(42); 2]);
    assert_eq!(all(), counted);
    sink.signal(Signal::STOP);
    until(|| place.nodes().iter().any(|node| node["state"] == "stalled"));
    assert_eq!(all(), counted, "while it is stopped");
    sink.signal(Signal::CONT);
    until(|| place.nodes().iter().all(|node| node["state"] == "alive"));
    let [first, second] = senders;
    drop(second);
    until(|| node.stats().outgoing.len() == 1 && of_way("librpc_channels") == Some(1));
    assert_eq!(all(), counted, "after one of two channels has ended");
    drop((first, node));
    rustix::process::kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).expect("it runs");
    assert_eq!(server.wait().expect("it ends").code(), Some(0));
    stops(sink);
}
