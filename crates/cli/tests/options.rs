//! Every option of every command, with 0, 1, its largest value and nonsense. Wrong usage is 2, never a panic, and a limit
//! that is too long to be a point in time does not end at once.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::{Place, Running, place, until};
use rustix::process::Signal;

/// What a value leads to.
#[derive(Clone, Copy, Debug)]
enum Leads {
    /// Wrong usage.
    Usage,
    /// It ends by itself, with this code.
    To(i32),
    /// It goes on until SIGTERM, and then ends with this code.
    On(i32),
}

use Leads::{On, To, Usage};

/// An option of a command, and what each of its values leads to.
struct Row {
    command: &'static [&'static str],
    option: &'static str,
    values: Vec<(&'static str, Leads)>,
}

const MAX: &str = "18446744073709551615";
const MAX_TIME: &str = "18446744073709551615s";
const OVER_U64: &str = "18446744073709551616";
const OVER_U32: &str = "4294967296";

fn row(command: &'static [&'static str], option: &'static str, values: &[(&'static str, Leads)]) -> Row {
    Row { command, option, values: values.to_vec() }
}

/// A switch takes no value.
fn switch(command: &'static [&'static str], option: &'static str) -> Row {
    row(command, option, &[("=", Usage), ("=0", Usage), ("=nonsense", Usage)])
}

/// A count of at least 1.
fn count(command: &'static [&'static str], option: &'static str, one: Leads, most: Leads) -> Row {
    row(command, option, &[("0", Usage), ("1", one), (MAX, most), (OVER_U64, Usage), ("-1", Usage), ("many", Usage)])
}

/// A time with a unit.
fn time(command: &'static [&'static str], option: &'static str, zero: Leads, longest: Leads) -> Row {
    let values = [("0s", zero), ("1", Usage), (MAX_TIME, longest), ("1e99s", Usage), ("-1s", Usage), ("soon", Usage)];
    row(command, option, &values)
}

/// A number of seconds.
fn seconds(command: &'static [&'static str], shortest: Leads, longest: Leads) -> Row {
    let values = [("0", Usage), ("0.001", shortest), ("999999999", longest), ("1e9", Usage), ("inf", Usage)];
    let mut row = row(command, "seconds", &values);
    row.values.extend([("nan", Usage), ("-1", Usage), ("soon", Usage)]);
    row
}

/// The options of the node that sends: `send`, `chat` and `pub`.
fn source(command: &'static [&'static str]) -> Vec<Row> {
    let paced: &[&str] = match command[0] {
        "send" => &["send", "sink", "--rate", "1000"],
        "chat" => &["chat", "sink", "--rate", "1000"],
        _ => &["pub", "t", "--rate", "9"],
    };
    vec![
        row(command, "id", &[("0", To(0)), ("1", To(0)), ("", Usage), ("a/b", Usage), (".hidden", Usage)]),
        time(command, "redeliver", To(0), To(0)),
        row(command, "rate", &[("0", Usage), ("1", To(0)), ("4294967295", To(0)), (OVER_U32, Usage), ("fast", Usage)]),
        row(paced, "burst", &[("0", Usage), ("1", To(0)), ("4294967295", To(0)), (OVER_U32, Usage), ("x", Usage)]),
    ]
}

/// What is sent instead of the lines of stdin: `send` and `pub`.
fn file(command: &'static [&'static str]) -> Row {
    row(command, "file", &[("/proc/version", To(0)), ("/dev/null", To(0)), ("/no/such/file", To(1)), ("/", To(1))])
}

/// An option that takes rules of admission; what a command does with a valid one.
fn rules(command: &'static [&'static str], option: &'static str, taken: Leads) -> Row {
    let valid = ["uid:0", "gid:1", "pid:4294967295", "exe:/bin/true"].map(|rule| (rule, taken));
    let invalid = ["uid:4294967296", "uid:-1", "exe:true", "everybody", ""].map(|rule| (rule, Usage));
    row(command, option, &[&valid[..], &invalid].concat())
}

/// A type; what a command does with a valid one.
fn schemas(taken: Leads) -> Vec<(&'static str, Leads)> {
    let valid = ["a/json", "a/b/cdr/0123456789abcdef"].map(|text| (text, taken));
    let invalid = ["", "a", "/json", "a/xml", "a/json/1"].map(|text| (text, Usage));
    [&valid[..], &invalid].concat()
}

/// The largest message that is taken: any number of bytes.
fn max_message(command: &'static [&'static str], taken: Leads) -> Row {
    let values = [("0", taken), ("1", taken), (MAX, taken), (OVER_U64, Usage), ("-1", Usage), ("large", Usage)];
    row(command, "max-message", &values)
}

/// The options of what writes messages: `recv`, `sub` and `chat`. What a command does with a valid value.
fn output(command: &'static [&'static str], taken: Leads) -> Vec<Row> {
    vec![
        count(command, "count", taken, taken),
        switch(command, "json"),
        switch(command, "raw"),
        switch(command, "values"),
        row(
            command,
            "capacity",
            &[("0", Usage), ("1", Usage), ("4096", taken), ("1073741824", taken), (MAX, Usage), ("large", Usage)],
        ),
        max_message(command, taken),
        row(
            command,
            "policy",
            &[("block", taken), ("drop-oldest", taken), ("latest", taken), ("0", Usage), ("oldest", Usage)],
        ),
        count(command, "keep-last", taken, taken),
        rules(command, "admit", taken),
        rules(command, "admit-only", taken),
    ]
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(output(&["recv", "node"], On(0)));
    rows.extend(output(&["sub", "t"], On(0)));
    rows.extend(output(&["chat", "sink"], To(0)));
    rows.push(row(&["recv", "node", "--policy", "block"], "keep-last", &[("1", Usage)]));
    rows.extend(source(&["chat", "sink"]));
    rows.push(time(&["chat", "nobody"], "wait", To(124), On(0)));
    rows.push(time(&["chat", "sink"], "linger", To(0), On(0)));
    rows.push(row(&["sub", "t"], "id", &[("0", On(0)), ("", Usage), ("a/b", Usage)]));
    rows.push(row(&["sub", "t", "--id", "x"], "durable", &[("0", On(0)), ("", Usage), ("a/b", Usage)]));
    rows.push(row(
        &["sub", "t"],
        "history",
        &[("0", On(0)), ("1", On(0)), (MAX, On(0)), ("-1", Usage), ("all", Usage)],
    ));
    rows.push(row(&["recv", "node"], "schema", &schemas(On(0))));
    rows.push(row(&["sub", "t"], "schema", &schemas(On(0))));
    rows.push(switch(&["sub", "t"], "topic"));
    rows.extend(source(&["send", "sink"]));
    rows.push(file(&["send", "sink"]));
    rows.push(time(&["send", "nobody"], "wait", To(124), On(143)));
    rows.push(row(&["send", "sink"], "schema", &schemas(To(0))));
    rows.extend(source(&["pub", "t"]));
    rows.push(file(&["pub", "t"]));
    rows.push(time(&["pub", "t"], "wait", To(124), On(143)));
    rows.push(time(&["pub", "t"], "limit", To(0), To(0)));
    rows.push(row(&["pub", "t"], "schema", &schemas(To(0))));
    rows.push(rules(&["pub", "t"], "readers", To(0)));
    rows.push(row(
        &["pub", "t"],
        "history",
        &[("0", To(0)), ("1", To(0)), (MAX, To(0)), ("-1", Usage), ("all", Usage)],
    ));
    rows.push(time(&["pub", "t", "--history", "1", "--file", "Cargo.toml"], "stay", To(0), On(0)));
    rows.push(switch(&["pub", "t"], "events"));
    rows.push(time(&["call", "work"], "timeout", To(124), On(143)));
    rows.push(switch(&["call", "work"], "time"));
    rows.push(switch(&["call", "work"], "stream"));
    rows.push(switch(&["call", "work"], "json"));
    rows.push(row(&["call", "work", "--timeout", "0s"], "to", &[("nobody", To(124)), ("", To(124))]));
    rows.push(row(&["call", "work", "--timeout", "0s"], "id", &[("0", To(124)), ("", Usage), ("a/b", Usage)]));
    rows.push(switch(&["serve", "work"], "echo"));
    rows.push(switch(&["serve", "work"], "stream"));
    rows.push(row(&["serve", "work", "--echo"], "types", &[("a/json b/json", Usage), ("a/json", Usage), ("", Usage)]));
    rows.push(row(
        &["serve", "work", "--echo"],
        "concurrency",
        &[("0", Usage), ("1", On(0)), ("1024", On(0)), ("1025", Usage), (MAX, Usage), ("many", Usage)],
    ));
    rows.push(row(&["serve", "work", "--echo"], "id", &[("0", On(0)), ("", Usage), ("a/b", Usage)]));
    rows.push(rules(&["serve", "work", "--echo"], "admit", On(0)));
    rows.push(rules(&["serve", "work", "--echo"], "admit-only", On(0)));
    rows.push(seconds(&["duplex", "a", "b", "--wait", "0s"], To(124), To(124)));
    rows.push(row(
        &["duplex", "a", "b", "--wait", "0s"],
        "size",
        &[
            ("0", Usage),
            ("1", Usage),
            ("16", To(124)),
            ("1073741824", To(124)),
            ("1073741825", Usage),
            (MAX, Usage),
            ("large", Usage),
        ],
    ));
    rows.push(row(
        &["duplex", "--seconds", "0.001"],
        "rate",
        &[("0", To(0)), ("1", To(0)), (MAX, To(0)), (OVER_U64, Usage), ("fast", Usage)],
    ));
    rows.push(time(&["duplex", "a", "b"], "wait", To(124), On(143)));
    rows.push(switch(&["duplex"], "json"));
    rows.push(switch(&["nodes"], "json"));
    rows.push(time(&["stat", "--count", "1"], "watch", To(0), To(0)));
    rows.push(count(&["stat", "--watch", "1ms"], "count", To(0), On(0)));
    rows.push(switch(&["stat"], "json"));
    rows.push(time(&["topics", "--count", "1"], "watch", To(0), To(0)));
    rows.push(count(&["topics", "--watch", "1ms"], "count", To(0), On(0)));
    rows.push(time(&["topics"], "over", To(0), On(143)));
    rows.push(switch(&["topics"], "json"));
    rows.push(time(&["services", "--count", "1"], "watch", To(0), To(0)));
    rows.push(count(&["services", "--watch", "1ms"], "count", To(0), On(0)));
    rows.push(time(&["services"], "over", To(0), On(143)));
    rows.push(switch(&["services"], "json"));
    rows.push(switch(&["top"], "once"));
    rows.push(switch(&["top", "--once"], "json"));
    rows.push(time(&["top", "--once"], "interval", To(0), To(0)));
    rows.push(time(&["hz", "t", "--count", "1"], "every", To(0), On(0)));
    rows.push(count(&["hz", "t", "--every", "1ms"], "count", To(0), On(0)));
    rows.push(row(
        &["hz", "t"],
        "capacity",
        &[("0", Usage), ("1", Usage), ("4096", On(0)), ("1073741824", On(0)), (MAX, Usage), ("large", Usage)],
    ));
    rows.push(max_message(&["hz", "t"], On(0)));
    rows.push(switch(&["hz", "t"], "json"));
    rows.push(row(&["graph", "--over", "0s"], "format", &[("dot", To(0)), ("0", Usage), ("svg", Usage)]));
    rows.push(time(&["graph"], "over", To(0), On(143)));
    rows.push(row(
        &["metrics"],
        "listen",
        &[("0", Usage), ("1", Usage), ("127.0.0.1:0", On(0)), ("127.0.0.1:65536", Usage), ("nowhere", Usage)],
    ));
    let topics = [("0", On(0)), ("1", On(0)), (MAX, On(0)), (OVER_U64, Usage), ("-1", Usage), ("many", Usage)];
    rows.push(row(&["metrics", "--listen", "127.0.0.1:0"], "topics", &topics));
    rows.push(row(&["check", "--over", "0s"], "node", &[("sink", To(0)), ("0", To(1)), ("", To(1))]));
    let mut depths = vec![("0", To(0)), ("1", To(0)), ("100", To(0)), ("100.1", Usage), ("-1", Usage)];
    depths.extend([("1e308", Usage), ("NaN", Usage), ("much", Usage)]);
    rows.push(row(&["check", "--over", "0s"], "max-depth", &depths));
    rows.push(time(&["check", "--over", "0s"], "max-p99", To(0), To(0)));
    for option in ["max-stalled", "max-dead", "max-lost"] {
        let values = [("0", To(0)), ("1", To(0)), (MAX, To(0)), (OVER_U64, Usage), ("-1", Usage), ("x", Usage)];
        rows.push(row(&["check", "--over", "0s"], option, &values));
    }
    rows.push(time(&["check"], "over", To(0), On(143)));
    rows.push(switch(&["check"], "json"));
    rows.push(switch(&["doctor"], "strict"));
    rows.push(switch(&["doctor"], "json"));
    rows.push(switch(&["clean"], "dry-run"));
    rows.push(switch(&["clean"], "json"));
    rows.push(seconds(&["demo"], To(0), On(143)));
    rows.push(row(&["man"], "dir", &[("/proc/version", To(1)), ("/proc/self/no/such", To(1))]));
    rows.extend(measurements());
    // These belong to every command.
    rows.push(row(&["nodes"], "domain", &[("0", To(0)), ("1", To(0)), ("/", To(0)), ("", Usage)]));
    let groups = [("0", To(0)), ("1", To(0)), ("4294967294", To(0)), ("4294967295", Usage), (OVER_U32, Usage)];
    rows.push(row(&["nodes"], "group", &groups));
    rows.push(row(&["nodes"], "group", &[("", Usage), ("no such group", Usage)]));
    rows.push(row(&["nodes"], "log", &[("0", To(0)), ("1", To(0)), ("off", To(0)), ("no=such=filter", Usage)]));
    rows
}

/// The options of `bench`.
fn measurements() -> Vec<Row> {
    let mut rows = Vec::new();
    const ALL: [&[&str]; 6] = [
        &["bench", "latency"],
        &["bench", "throughput"],
        &["bench", "duplex"],
        &["bench", "fanout"],
        &["bench", "wake"],
        &["bench", "connect"],
    ];
    for command in ALL {
        let is_timed = ["wake", "connect"].contains(&command[1]);
        let smallest = if is_timed { ("8", To(0)) } else { ("0", To(0)) };
        let mut sizes = vec![(MAX, Usage), ("65473", Usage), (OVER_U64, Usage), ("-1", Usage), ("large", Usage)];
        sizes.extend(is_timed.then_some(("7", Usage)));
        rows.push(row(command, "size", &sizes));
        rows.push(row(command, "sizes", &[("", Usage), ("64,", Usage), ("64;64", Usage), (MAX, Usage)]));
        rows.push(row(short(command), "size", &[smallest, ("65472", To(0))]));
        rows.push(seconds(quick(command), To(0), On(143)));
        rows.push(count(quick(command), "count", To(0), On(143)));
        rows.push(row(command, "pin", &[("0", Usage), ("1,", Usage), ("0,99999", Usage), (MAX, Usage), ("x", Usage)]));
        rows.push(switch(command, "json"));
        if !is_timed || command[1] == "wake" {
            let rounds = [("0", Usage), ("10001", Usage), (OVER_U32, Usage), ("-1", Usage), ("many", Usage)];
            rows.push(row(command, "rounds", &rounds));
        }
        if ["latency", "throughput", "duplex", "connect"].contains(&command[1]) {
            rows.push(row(command, "via", &[("0", Usage), ("post", Usage)]));
        }
        if ["latency", "wake", "connect"].contains(&command[1]) {
            rows.push(row(short(command), "hgrm", &[("/no/such/directory/file", To(1)), ("", Usage)]));
        }
    }
    rows.push(row(
        &["bench", "duplex", "--count", "1", "--rounds", "1", "--pin", "none"],
        "rate",
        &[("0", To(0)), ("1000", To(0)), (MAX, To(0)), (OVER_U64, Usage), ("fast", Usage)],
    ));
    rows.push(row(
        &["bench", "call", "--count", "1", "--rounds", "1", "--pin", "none"],
        "what",
        &[("round-trip", To(0)), ("cancel", To(0)), ("unread-stream", To(0)), ("reply", Usage)],
    ));
    rows.push(switch(&["bench", "call"], "json"));
    rows.extend(large());
    for (option, smallest) in [("channels", "0"), ("nodes", "1"), ("topics", "1"), ("count", "0")] {
        let values = [(smallest, Usage), (OVER_U32, Usage), ("-1", Usage), ("many", Usage)];
        rows.push(row(&["bench", "scale"], option, &values));
    }
    rows.push(row(&["bench", "scale"], "channels", &[("100001", Usage)]));
    rows.push(row(&["bench", "scale"], "nodes", &[("100001", Usage)]));
    rows.push(row(&["bench", "scale"], "topics", &[("65537", Usage)]));
    rows.push(row(&["bench", "scale"], "pin", &[("0,99999", Usage), ("x", Usage)]));
    rows.push(row(&["bench", "scale"], "of", &[("0", Usage), ("everything", Usage)]));
    rows.push(switch(&["bench", "scale"], "json"));
    let channels = [("0", To(0)), ("1", To(0)), ("100001", Usage), (OVER_U32, Usage), ("-1", Usage), ("many", Usage)];
    rows.push(row(&["bench", "idle", "--seconds", "0.01"], "channels", &channels));
    rows.push(seconds(&["bench", "idle", "--channels", "1"], To(0), On(143)));
    rows.push(switch(&["bench", "idle"], "json"));
    rows.push(switch(&["bench", "idle", "--channels", "1", "--seconds", "0.01"], "clients"));
    rows
}

/// The options of `bench large`.
fn large() -> Vec<Row> {
    const QUICK: &[&str] = &["bench", "large", "--size", "65536", "--rounds", "1", "--pin", "none"];
    const SHORT: &[&str] = &["bench", "large", "--count", "1", "--pin", "none"];
    const COMMAND: &[&str] = &["bench", "large"];
    let sizes = [("4097", To(0)), ("1000001", To(0)), ("4096", Usage), ("1073741825", Usage), ("large", Usage)];
    let subscribers = [("0", Usage), ("1", To(0)), ("65", Usage), (OVER_U32, Usage), ("-1", Usage), ("many", Usage)];
    const ONE_SIZE: &[&str] = &["bench", "large", "--count", "1", "--pin", "none", "--size", "65536"];
    vec![
        row(SHORT, "size", &sizes),
        row(COMMAND, "sizes", &[("", Usage), ("65536,", Usage), ("65536;65536", Usage), (MAX, Usage)]),
        row(ONE_SIZE, "subscribers", &subscribers),
        seconds(QUICK, To(0), On(143)),
        count(QUICK, "count", To(0), On(143)),
        row(COMMAND, "pin", &[("0", Usage), ("0,99999", Usage), ("x", Usage)]),
        row(COMMAND, "rounds", &[("0", Usage), ("10001", Usage), ("many", Usage)]),
        switch(COMMAND, "json"),
    ]
}

/// A measurement without anything that takes long, but for its count or time.
fn quick(command: &'static [&'static str]) -> &'static [&'static str] {
    match command[1] {
        "latency" => &["bench", "latency", "--rounds", "1", "--pin", "none"],
        "throughput" => &["bench", "throughput", "--rounds", "1", "--pin", "none"],
        "duplex" => &["bench", "duplex", "--rounds", "1", "--pin", "none", "--rate", "0"],
        "fanout" => &["bench", "fanout", "--rounds", "1", "--pin", "none"],
        "wake" => &["bench", "wake", "--rounds", "1", "--pin", "none"],
        _ => &["bench", "connect", "--pin", "none"],
    }
}

/// A measurement in its shortest form.
fn short(command: &'static [&'static str]) -> &'static [&'static str] {
    match command[1] {
        "latency" => &["bench", "latency", "--count", "1", "--pin", "none"],
        "throughput" => &["bench", "throughput", "--count", "1", "--pin", "none"],
        "duplex" => &["bench", "duplex", "--count", "1", "--pin", "none", "--rate", "0"],
        "fanout" => &["bench", "fanout", "--count", "1", "--pin", "none"],
        "wake" => &["bench", "wake", "--count", "1", "--rounds", "1", "--pin", "none"],
        _ => &["bench", "connect", "--count", "1", "--pin", "none"],
    }
}

impl Row {
    /// Runs the command with each value, in a place where node `sink` receives.
    fn check(&self, place: &Place) {
        for (value, leads) in &self.values {
            let option = match value.strip_prefix('=') {
                Some(_) => format!("--{}{value}", self.option),
                None => format!("--{}={value}", self.option),
            };
            let arguments = [self.command, &[&option]].concat();
            let running = place.start(&arguments);
            let (code, ended) = match leads {
                Usage => (2, running.ends()),
                To(code) => (*code, running.ends_with(b"a line\n")),
                On(code) => (*code, stopped(place, self.command, running)),
            };
            assert_eq!(ended.code, code, "{arguments:?} leads to {leads:?}: {ended:?}");
            assert!(!ended.stderr.contains("panicked"), "{arguments:?}: {}", ended.stderr);
            if let Usage = leads {
                assert!(ended.stdout().is_empty() && !ended.stderr.is_empty(), "{arguments:?}: {ended:?}");
            }
        }
    }
}

/// Ends a command that goes on by itself, once it has begun.
fn stopped(place: &Place, command: &[&str], mut running: Running) -> common::Ended {
    match command {
        ["stat", ..] => drop(running.read_line()),
        ["metrics", ..] => drop(running.read_stderr_line()),
        ["topics" | "services", "--watch", ..] => drop(running.read_line()),
        ["check" | "graph" | "topics" | "services", ..] => running.sleeps(),
        ["bench", what, ..] => until(|| place.path().with_extension(what).exists()),
        _ => until(|| place.nodes().len() > 1),
    }
    if let ["send" | "pub" | "duplex" | "chat", ..] = command {
        running.sleeps(); // a limit that ends at once would have ended it
    }
    running.signal(Signal::TERM);
    running.ends()
}

fn check(commands: &[&str]) {
    let place = place(&format!("options_{}", commands[0]));
    let sink = place.receiver("sink", &[]);
    let wanted = |row: &Row| commands.contains(&row.command[0]) || commands.contains(row.command.get(1).unwrap_or(&""));
    rows().iter().filter(|row| wanted(row)).for_each(|row| row.check(&place));
    sink.signal(Signal::TERM);
    assert_eq!(sink.ends().code, 0);
}

#[test]
fn options_of_recv_and_sub() {
    check(&["recv", "sub"]);
}

#[test]
fn options_of_send_and_pub() {
    check(&["send", "pub"]);
}

#[test]
fn options_of_chat() {
    check(&["chat"]);
}

#[test]
fn options_of_duplex_and_demo() {
    check(&["duplex", "demo"]);
}

#[test]
fn options_of_observers_and_clean() {
    check(&["stat", "topics", "services", "nodes", "top", "hz", "graph", "metrics", "check", "doctor", "clean", "man"]);
}

#[test]
fn options_of_bench_latency_and_throughput() {
    check(&["latency", "throughput"]);
}

#[test]
fn options_of_bench_fanout_large_scale_and_idle() {
    check(&["fanout", "large", "scale", "idle"]);
}

#[test]
fn options_of_bench_wake_and_connect() {
    check(&["wake", "connect"]);
}

/// The options that the help of a command names.
fn options(place: &Place, command: &[&str]) -> BTreeSet<String> {
    let help = place.run(&[command, &["--help"]].concat(), b"");
    assert_eq!(help.code, 0, "{command:?}");
    let names = help.stdout().lines().filter_map(|line| {
        let line = line.strip_prefix(' ')?.trim_start(); // a text above them may mention one
        let option = line.strip_prefix("--").or_else(|| line.split_once(", --").map(|(_, option)| option))?;
        Some(option.split([' ', '=', '[']).next()?.to_owned())
    });
    names.filter(|name| !["help", "version"].contains(&name.as_str())).collect()
}

#[test]
fn every_option_of_every_command_is_in_the_table() {
    let place = place("options_table");
    let global = ["domain", "group", "log"].map(str::to_owned);
    let rows = rows();
    let tested = |command: &[&str], option: &String| {
        let is_it = |row: &Row| row.command.starts_with(command) && row.option == option;
        global.contains(option) || rows.iter().any(is_it)
    };
    let commands = "recv send chat sub pub duplex nodes topics services stat top hz graph metrics check doctor clean demo completions man";
    let measurements = "latency throughput duplex fanout large wake connect scale idle";
    let commands = commands.split(' ').map(|command| vec![command]);
    let commands = commands.chain(measurements.split(' ').map(|what| vec!["bench", what]));
    let mut count = 0;
    for command in commands {
        for option in options(&place, &command) {
            assert!(tested(&command, &option), "no test of {command:?} --{option}");
            count += 1;
        }
    }
    assert!(count > 100, "only {count} options are found in the help");
}

#[test]
fn a_domain_path_need_not_be_utf_8() {
    let path =
        |test: &str| [format!("/dev/shm/librpc_test_{}_{test}_", std::process::id()).as_bytes(), b"\xff"].concat();
    let path = path("bytes");
    let path = OsStr::from_bytes(&path);
    let librpc = |arguments: &[&OsStr]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
        command.env_remove("LIBRPC_DOMAIN").args(arguments);
        command
    };
    let word = OsStr::new;
    let mut receiver = librpc(&[word("recv"), word("sink"), word("--count"), word("1"), word("--domain"), path]);
    let receiver = Running::start(&mut receiver);
    let sent = Running::start(librpc(&[word("send"), word("sink")]).env("LIBRPC_DOMAIN", path)).ends_with(b"a\n");
    assert_eq!((sent.code, &*sent.stderr), (0, ""));
    assert_eq!(receiver.ends().stdout(), "a\n");
    // Both processes of a command find it, too.
    let options = ["duplex", "--seconds", "0.01", "--domain"].map(word);
    let exchanged = Running::start(&mut librpc(&[&options[..], &[path]].concat())).ends();
    assert_eq!((exchanged.code, &*exchanged.stderr), (0, ""));
    let mut slash = path.to_owned();
    slash.push("/");
    let ended = Running::start(&mut librpc(&[word("nodes"), word("--domain"), &slash])).ends();
    assert_eq!((ended.code, ended.stdout()), (0, ""));
    assert!(!std::path::Path::new(path).exists(), "the last node has removed it");
}

#[test]
fn names_that_are_not_utf_8_are_wrong_usage() {
    let bytes = OsStr::from_bytes(b"x\xff");
    let commands: [&[&str]; 6] =
        [&["recv"], &["send"], &["sub"], &["pub"], &["nodes", "--domain"], &["nodes", "--group"]];
    for command in commands {
        let mut librpc = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
        let ended = Running::start(librpc.args(command).arg(bytes)).ends();
        assert_eq!((ended.code, ended.stdout()), (2, ""), "{command:?}");
        assert!(ended.stderr.contains("UTF-8"), "{command:?}: {}", ended.stderr);
    }
    let mut librpc = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
    let ended = Running::start(librpc.arg("nodes").env("LIBRPC_DOMAIN", bytes)).ends();
    assert!(ended.code == 2 && ended.stderr.contains("UTF-8"), "{ended:?}");
}

#[test]
fn a_domain_path_that_ends_in_slashes_can_be_shared_with_a_group() {
    let place = place("slashes");
    let group = rustix::process::getegid().as_raw().to_string();
    let path = format!("{}//", place.path().display());
    let librpc = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_librpc"));
        command.args(["--domain", &path, "--group", &group]).args(arguments);
        Running::start(&mut command)
    };
    let receiver = librpc(&["recv", "sink", "--count", "1"]);
    let sent = librpc(&["send", "sink"]).ends_with(b"a\n");
    assert_eq!((sent.code, &*sent.stderr), (0, ""));
    assert_eq!(receiver.ends().stdout(), "a\n");
}
