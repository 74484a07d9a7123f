//! Types on the command line: messages of a type as JSON, and those of another type.

mod common;

use std::time::Duration;

use common::{Place, Running, place, until};
use librpc::{Describe, Json, Node, Postcard, Typed};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Serialize, Deserialize, Describe)]
struct Goal {
    name: String,
    at: (f64, f64),
}

fn goal() -> Goal {
    Goal { name: "dock".into(), at: (1.5, -2.0) }
}

fn open(place: &Place, id: &str) -> Node {
    Node::builder(id).domain(librpc::Domain::at(place.path())).open().expect(id)
}

fn subscriber(place: &Place, id: &str, arguments: &[&str]) -> Running {
    let running = place.start(&[&["sub", "--id", id], arguments].concat());
    place.await_inbox(id);
    running
}

#[test]
fn messages_of_a_type_are_shown_as_json() {
    let place = place("values");
    let values = subscriber(&place, "values", &["**", "--values", "--topic", "--count", "2"]);
    let lines = subscriber(&place, "lines", &["**", "--json", "--count", "2"]);
    let source = open(&place, "source");
    // Of one outbox, so they stay in order.
    let mut outbox = source.outbox();
    let typed = outbox.typed_topic("goal", Postcard::<Goal>::schema().unwrap()).unwrap();
    let bytes = outbox.topic("bytes").unwrap();
    let mut buffer = Vec::new();
    let encoded = Postcard::<Goal>::encode(&goal(), &mut buffer).unwrap().to_vec();
    assert_eq!(outbox.publish(typed, &encoded).unwrap().inboxes(), 2);
    assert_eq!(outbox.publish(bytes, b"no type").unwrap().inboxes(), 2);
    assert_eq!(values.ends().stdout(), "goal {\"at\":[1.5,-2.0],\"name\":\"dock\"}\nbytes no type\n");
    let lines = lines.ends();
    let lines: Vec<Value> = lines.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], Postcard::<Goal>::schema().unwrap().to_string());
    assert_eq!(lines[0]["value"], json!({"name": "dock", "at": [1.5, -2.0]}));
    assert!(lines[0]["payload"].is_string() || lines[0]["payload_base64"].is_string(), "{}", lines[0]);
    assert!(lines[1].get("type").is_none() && lines[1].get("value").is_none(), "{}", lines[1]);
}

#[test]
fn what_is_published_may_be_of_a_type() {
    let place = place("pub_type");
    let node = open(&place, "sink");
    let mut goals = node.subscriber_of::<Json<Goal>>("goal").unwrap();
    let line = br#"{"name":"dock","at":[1.5,-2.0]}"#;
    let wrong = place.run(&["pub", "goal", "--id", "source"], line);
    assert_eq!(wrong.code, 0, "{}", wrong.stderr);
    let text = format!(
        "\"goal\" is bytes without a type here, and of type {} at node \"sink\"",
        Json::<Goal>::schema().unwrap()
    );
    assert!(wrong.stderr.contains(&text) && wrong.stderr.contains("0 inboxes"), "{}", wrong.stderr);
    assert!(goals.recv_timeout(Duration::from_secs(30)).is_err(), "it is told, too");
    let mut source = place.start(&["pub", "goal", "--id", "source", "--schema", "Goal/json"]);
    source.write(line);
    source.close_stdin();
    let received = goals.recv().unwrap().unwrap().value().unwrap();
    assert_eq!(received.name, "dock");
    assert!(goals.try_recv().unwrap().is_none()); // it is processed
    let source = source.ends();
    assert_eq!(source.code, 0, "{}", source.stderr);
}

#[test]
fn a_subscriber_may_take_one_type_only() {
    let place = place("sub_type");
    let mut sink = subscriber(&place, "sink", &["**", "--schema", "Goal/json", "--count", "1"]);
    let wrong = place.run(&["pub", "a", "--schema", "Pose/json"], b"{}");
    assert!(wrong.stderr.contains("0 inboxes"), "{}", wrong.stderr);
    let told = sink.read_stderr_line();
    assert!(told.contains("\"a\" is of type Goal/json here, and of type Pose/json at node"), "{told}");
    let right = place.run(&["pub", "b", "--schema", "Goal/json"], b"{}");
    assert_eq!(right.code, 0, "{}", right.stderr);
    let sink = sink.ends();
    assert_eq!((sink.code, sink.stdout()), (0, "{}\n"));
    for bad in ["Goal", "Goal/xml", "", "Goal/json/12"] {
        let usage = place.run(&["pub", "a", "--schema", bad], b"");
        assert_eq!(usage.code, 2, "{bad:?}: {}", usage.stderr);
    }
}

#[test]
fn types_and_mismatches_are_seen_from_outside() {
    let place = place("seen_types");
    let node = open(&place, "sink");
    let _goals = node.subscriber_of::<Json<Goal>>("goal").unwrap();
    let _server = node.serve_of::<Json<Goal>, Postcard<Goal>>("plan").unwrap();
    let (json, postcard) = (Json::<Goal>::schema().unwrap(), Postcard::<Goal>::schema().unwrap());
    let types = json!({"goal": json.to_string(), "plan": format!("{json} -> {postcard}")});
    assert_eq!(sink(&place)["types"], types);
    let table = place.run(&["nodes"], b"");
    assert!(table.stdout().contains(&format!("goal:{json}")), "{}", table.stdout());
    let graph = place.run(&["graph", "--format", "dot", "--over", "10ms"], b"");
    assert!(graph.stdout().contains(&format!("goal : {json}")), "{}", graph.stdout());
    assert!(
        place.run(&["doctor"], b"").stdout().contains("both sides of each topic, service and inbox mean the same type")
    );

    let source = open(&place, "source");
    let mut publisher = source.publisher("goal").unwrap();
    assert_eq!(publisher.publish(b"x").unwrap().inboxes(), 0);
    until(|| sink(&place)["mismatches"].is_array());
    let doctor = place.run(&["doctor"], b"");
    let text = format!("\"goal\" is of type {json} here, and bytes without a type at node \"source\"");
    assert!(doctor.stdout().contains(&text), "{}", doctor.stdout());
    let checked = place.run(&["check", "--over", "10ms"], b"");
    assert!(checked.stdout().contains(&format!("mismatch at node sink: {text}")), "{}", checked.stdout());
    assert_eq!(checked.code, 1);
    drop((publisher, source));
    assert_eq!(place.run(&["check", "--over", "10ms"], b"").code, 0, "the other side is gone");
}

fn sink(place: &Place) -> Value {
    place.nodes().into_iter().find(|node| node["id"] == "sink").unwrap()
}

fn receiver(place: &Place, arguments: &[&str]) -> Running {
    let running = place.start(&[&["recv", "sink"], arguments].concat());
    place.await_inbox("sink");
    running
}

#[test]
fn messages_to_a_node_are_shown_as_json_too() {
    let place = place("recv_values");
    let source = open(&place, "source");
    for (arguments, is_json) in [(["--values", "--count", "2"], false), (["--json", "--count", "2"], true)] {
        let sink = receiver(&place, &arguments);
        let mut typed = source.connect_of::<Postcard<Goal>>("sink").unwrap();
        typed.send(&goal()).unwrap();
        typed.flush(Duration::from_secs(30)).unwrap();
        source.connect("sink").unwrap().send(b"no type").unwrap();
        let sink = sink.ends();
        assert_eq!(sink.code, 0, "{}", sink.stderr);
        if !is_json {
            assert_eq!(sink.stdout(), "{\"at\":[1.5,-2.0],\"name\":\"dock\"}\nno type\n");
            continue;
        }
        let lines: Vec<Value> = sink.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["type"], Postcard::<Goal>::schema().unwrap().to_string());
        assert_eq!(lines[0]["value"], json!({"name": "dock", "at": [1.5, -2.0]}));
        assert!(lines[0].get("topic").is_none() && lines[1].get("type").is_none(), "{lines:?}");
        assert!(lines[1].get("value").is_none(), "{}", lines[1]);
    }
}

#[test]
fn what_is_sent_may_be_of_a_type() {
    let place = place("send_type");
    let node = open(&place, "sink");
    let mut goals = node.inbox_of::<Json<Goal>>().unwrap();
    let line = br#"{"name":"dock","at":[1.5,-2.0]}"#;
    let bytes = place.run(&["send", "sink", "--id", "source"], line);
    let text = format!(
        "messages to a node are bytes without a type here, and of type {} at node \"sink\"",
        Json::<Goal>::schema().unwrap()
    );
    assert_eq!(bytes.code, 1, "{}", bytes.stderr);
    assert!(bytes.stderr.contains(&text), "{}", bytes.stderr);
    assert!(goals.recv_timeout(Duration::from_secs(30)).is_err(), "it is told, too");
    let mut source = place.start(&["send", "sink", "--id", "source", "--schema", "Goal/json", "--redeliver", "1m"]);
    source.write(line);
    source.write(b"\n");
    let received = goals.recv().unwrap().unwrap().value().unwrap();
    assert_eq!(received.name, "dock");
    assert!(goals.try_recv().unwrap().is_none()); // it is processed
    // The node returns with an inbox of another type: what is sent then comes back.
    drop(goals);
    let _points = node.inbox_builder().schema("Point/json".parse().unwrap()).open().unwrap();
    source.write(line);
    source.write(b"\n");
    source.close_stdin();
    let source = source.ends();
    assert_eq!(source.code, 3, "{}", source.stderr);
    let text = "messages to a node are of type Goal/json here, and of type Point/json at node \"sink\"";
    assert!(source.stderr.contains(text) && source.stderr.contains("sent "), "{}", source.stderr);
}

#[test]
fn a_receiver_may_take_one_type_only() {
    let place = place("recv_type");
    let mut sink = receiver(&place, &["--schema", "Goal/json", "--count", "1"]);
    let wrong = place.run(&["send", "sink", "--schema", "Pose/json"], b"{}");
    assert_eq!(wrong.code, 1, "{}", wrong.stderr);
    let told = sink.read_stderr_line();
    assert!(told.contains("messages to a node are of type Goal/json here, and of type Pose/json at node"), "{told}");
    let right = place.run(&["send", "sink", "--schema", "Goal/json"], b"{}");
    assert_eq!(right.code, 0, "{}", right.stderr);
    let sink = sink.ends();
    assert_eq!((sink.code, sink.stdout()), (0, "{}\n"));
}

#[test]
fn types_and_mismatches_of_a_nodes_inbox_are_seen_from_outside() {
    let place = place("seen_direct");
    let node = open(&place, "sink");
    let _goals = node.inbox_of::<Json<Goal>>().unwrap();
    let json = Json::<Goal>::schema().unwrap();
    assert_eq!(sink(&place)["types"], json!({"sink": json.to_string()}));
    let table = place.run(&["nodes"], b"");
    assert!(table.stdout().contains(&format!("sink:{json}")), "{}", table.stdout());
    let graph = place.run(&["graph", "--format", "dot", "--over", "10ms"], b"");
    assert!(graph.stdout().contains(&format!("label=\"sink : {json}\", shape=box")), "{}", graph.stdout());

    let source = open(&place, "source");
    assert!(source.connect("sink").is_err());
    until(|| sink(&place)["mismatches"].is_array());
    let text = format!("messages to a node are of type {json} here, and bytes without a type at node \"source\"");
    let doctor = place.run(&["doctor"], b"");
    assert!(doctor.stdout().contains(&text), "{}", doctor.stdout());
    let checked = place.run(&["check", "--over", "10ms"], b"");
    assert!(checked.stdout().contains(&format!("mismatch at node sink: {text}")), "{}", checked.stdout());
    assert_eq!(checked.code, 1);
    drop(source);
    assert_eq!(place.run(&["check", "--over", "10ms"], b"").code, 0, "the other side is gone");
}

#[test]
fn services_of_a_type_are_called_with_bytes() {
    let place = place("call_types");
    let server = place.start(&["serve", "plan", "--echo", "--types", "Goal/json", "Goal/json", "--id", "server"]);
    place.await_inbox("server");
    let called = place.run(&["call", "plan", "{}"], b"");
    assert_eq!((called.code, called.stdout()), (0, "{}\n"), "{}", called.stderr);
    let client = open(&place, "client").client("plan").unwrap();
    let error = client.call(b"{}", std::time::Duration::from_secs(10)).unwrap_err().to_string();
    assert!(error.contains("bytes without a type here, and of type Goal/json"), "{error}");
    drop(client);
    server.signal(rustix::process::Signal::TERM);
    assert_eq!(server.ends().code, 0);
}
