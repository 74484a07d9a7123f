//! What is seen from outside, whatever the state of the domain: `topics`, `services`, `stat`,
//! `top`, `doctor`, `metrics`, `graph`, `check`, `hz`.

#[path = "../common/mod.rs"]
mod common;

mod calls; //   what clients and servers count
mod check; //   limits
mod doctor; //  the machine and the domain
mod faults; //  ten faults that `check` and `doctor` notice
mod graph; //   pictures
mod hz; //      how often messages are published, and what spectators say
mod log; //     what the library logs
mod metrics; // the page for Prometheus
mod stat; //    counters, and what has to do with what
mod states; //  stopped, full, slow and dead nodes, as all of them show it
mod topics; //  both ends of topics and services

use std::io::Write;

use common::{Place, Running, until};
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

fn stops(running: Running) {
    running.signal(Signal::TERM);
    assert_eq!(running.ends().code, 0);
}

/// Says that a test is skipped. It bypasses the test runner, which swallows what passing tests print.
fn skip(why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED: {:?}: {why}", std::thread::current().name());
}
