//! `librpc graph`: pictures, in which names mean nothing.

use rustix::process::Signal;

use crate::common::{place, until};
use crate::metrics::{get, metrics};
use crate::{channel, find, lines, sender, stops};

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
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("([\"sensor/kitchen\"])"), "{mermaid}");
    assert!(!mermaid.contains("sensor/**"), "the pattern has a topic: {mermaid}");
    assert!(mermaid.matches("/s\"|").count() == 2, "kitchen to the topic, and the topic to watcher: {mermaid}");
    let dot = draw("dot");
    assert!(dot.starts_with("digraph librpc {") && dot.contains("label=\"watcher\", shape=box"), "{dot}");
    let html = draw("html");
    assert!(html.contains("<svg") && html.contains("kitchen") && !html.contains("src="), "{html}");
    kitchen.close_stdin();
    assert_eq!(kitchen.ends().code, 0);
    stops(watcher);
}

/// A node whose id would mean something in every language that it is written into.
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
fn the_graph_shows_topics_and_patterns_with_one_end_and_few_of_many_topics() {
    let place = place("graph_topics");
    let open = |id: &str| librpc::Node::builder(id).domain(librpc::Domain::at(place.path())).open().expect("it opens");
    let (camera, display) = (open("camera"), open("display"));
    let quiet = camera.publisher("quiet").expect("a topic");
    let handle = display.subscriber_builder(["both/*", "nobody/here"]).callback(|_| {}).expect("it opens");
    let mut outbox = camera.outbox();
    let both = ["both/x", "both/y"].map(|topic| outbox.topic(topic).expect("a topic"));
    let draw = || place.run(&["graph", "--over", "20ms", "--format", "dot"], b"").stdout().to_owned();
    // Of what an outbox with several topics sends, only the sum is known.
    let mut dot = String::new();
    until(|| {
        let graph = std::thread::scope(|scope| {
            let drawn = scope.spawn(draw);
            while !drawn.is_finished() {
                for topic in both {
                    assert_eq!(outbox.publish(topic, b"1").expect("it goes").inboxes(), 1);
                }
            }
            drawn.join().expect("it is drawn")
        });
        dot = graph;
        dot.contains("at most ")
    });
    for topic in ["quiet", "nobody/here", "both/x", "both/y"] {
        assert!(dot.contains(&format!("label=\"{topic}\", shape=ellipse")), "{topic}: {dot}");
    }
    assert!(!dot.contains("both/*"), "it has topics: {dot}");
    drop((quiet, outbox));
    // The last ones of many topics are drawn as one.
    let mut many = camera.outbox();
    (0..40).for_each(|number| _ = many.topic(&format!("many/{number:02}")).expect("a topic"));
    let dot = draw();
    assert!(dot.contains("8 more topics of camera") && dot.contains("many/31"), "{dot}");
    assert!(!dot.contains("many/32"), "{dot}");
    drop(many);
    handle.stop().expect("it ends");
}
