//! `send --file` and `pub --file`: each file is one message, of any size.

mod common;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use common::{Place, Running, place, until};
use rustix::process::Signal;

/// Files that are removed at the end.
struct Files(PathBuf);

impl Files {
    fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}_{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.join(name);
        std::fs::write(&path, bytes).expect("it can be written");
        path.to_str().expect("text").to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("it can be removed");
    }
}

/// Bytes with lines in them, different for each number.
fn content(number: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u8).wrapping_mul(31) ^ (at >> 8) as u8 ^ number).collect()
}

/// A subscriber, once it is there.
fn subscriber(place: &Place, command: &str, options: &[&str]) -> Running {
    let running = place.start(&[&[command, "t"], options].concat());
    until(|| {
        place.nodes().iter().any(|node| node["pid"] == running.pid() && node["inboxes"] == serde_json::json!(["t"]))
    });
    running
}

const SIZES: [usize; 6] = [5, 0, 65_472, 65_473, 3_000_000, 20_000_000];

#[test]
fn each_file_is_one_message_to_a_node() {
    let (place, files) = (place("files_send"), Files::new("send"));
    let contents: Vec<Vec<u8>> = (0..).zip(SIZES).map(|(number, bytes)| content(number, bytes)).collect();
    let paths: Vec<String> =
        contents.iter().enumerate().map(|(number, bytes)| files.write(&number.to_string(), bytes)).collect();
    let receiver = place.receiver("sink", &["--raw", "--count", "6"]);
    std::thread::scope(|scope| {
        let received = scope.spawn(|| receiver.ends());
        let mut arguments = vec!["send", "sink", "--file"];
        arguments.extend(paths.iter().map(String::as_str));
        let sent = place.run(&arguments, b"stdin is not read");
        assert_eq!((sent.code, &*sent.stderr), (0, ""));
        let received = received.join().expect("no panic");
        assert!(received.code == 0 && received.stdout == contents.concat(), "what came out is not what went in");
    });
}

#[test]
fn each_file_is_one_message_to_every_subscriber() {
    let (place, files) = (place("files_pub"), Files::new("pub"));
    let paths: Vec<String> =
        (0..).zip(SIZES).map(|(number, bytes)| files.write(&number.to_string(), &content(number, bytes))).collect();
    let mut hz = subscriber(&place, "hz", &["--json", "--every", "10ms"]);
    let subscribers = [&["--json"][..], &["--raw"]].map(|options| {
        let options = [options, &["--count", "6"]].concat();
        subscriber(&place, "sub", &options)
    });
    std::thread::scope(|scope| {
        let [json, raw] = subscribers.map(|subscriber| scope.spawn(|| subscriber.ends()));
        let mut arguments = vec!["pub", "t"];
        arguments.extend(paths.iter().flat_map(|path| ["--file", path]));
        let published = place.run(&arguments, b"");
        assert_eq!(published.code, 0, "{}", published.stderr);
        assert!(published.stderr.contains("6 messages to 3 inboxes"), "{}", published.stderr);
        let (json, raw) = (json.join().expect("no panic"), raw.join().expect("no panic"));
        let all: Vec<u8> = (0..).zip(SIZES).flat_map(|(number, bytes)| content(number, bytes)).collect();
        assert!(raw.code == 0 && raw.stdout == all);
        let lines: Vec<serde_json::Value> =
            json.stdout().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(lines.len(), 6);
        for (line, bytes) in lines.iter().zip(SIZES) {
            let encoded = line["payload_base64"].as_str().map(|text| text.len().div_ceil(4) * 3);
            let found = encoded.or_else(|| line["payload"].as_str().map(str::len)).expect("a payload");
            assert!((bytes..bytes + 3).contains(&found), "{found} of {bytes} bytes");
        }
    });
    let mut seen = (0, 0);
    while seen.0 < 6 {
        let line: serde_json::Value = serde_json::from_str(&hz.read_line()).expect("JSON");
        seen.0 += line["messages"].as_u64().expect("a number");
        seen.1 += line["too_large"].as_u64().expect("a number");
    }
    assert_eq!(seen, (6, 0));
    hz.signal(Signal::TERM);
    assert_eq!(hz.ends().code, 0);
}

#[test]
fn a_long_line_passes_through_pub_to_sub_and_hz_at_their_defaults() {
    let place = place("files_line");
    let line = [vec![b'x'; 3_000_000], b"\n".to_vec()].concat();
    let mut hz = subscriber(&place, "hz", &["--json", "--every", "10ms"]);
    let lines = subscriber(&place, "sub", &["--count", "2", "--topic"]);
    std::thread::scope(|scope| {
        let lines = scope.spawn(|| lines.ends());
        let published = place.run(&["pub", "t"], &[&line[..], b"end\n"].concat());
        assert_eq!(published.code, 0, "{}", published.stderr);
        let received = lines.join().expect("no panic");
        assert!(received.code == 0 && received.stdout == [b"t ", &line[..], b"t end\n"].concat());
    });
    let mut bytes = 0.0;
    while bytes < 3_000_000.0 {
        let line: serde_json::Value = serde_json::from_str(&hz.read_line()).expect("JSON");
        assert_eq!(line["too_large"], 0);
        bytes += line["bytes_per_s"].as_f64().expect("a number");
    }
    hz.signal(Signal::TERM);
    assert_eq!(hz.ends().code, 0);
}

#[test]
fn a_pipe_and_a_file_of_the_kernel_are_messages_too() {
    let place = place("files_pipe");
    let receiver = place.receiver("sink", &["--raw", "--count", "2"]);
    let bytes = content(7, 30_000);
    let mut sender = place.start(&["send", "sink", "--file", "/dev/stdin", "/proc/sys/kernel/ostype"]);
    // It waits for the end of the pipe.
    sender.write(&bytes[..10_000]);
    sender.sleeps();
    sender.write(&bytes[10_000..]);
    assert_eq!(sender.ends().code, 0);
    let os = std::fs::read("/proc/sys/kernel/ostype").expect("it is readable");
    assert!(receiver.ends().stdout == [bytes, os].concat());
    // A signal ends the wait.
    let sink = place.receiver("sink", &[]);
    let mut sender = place.start(&["send", "sink", "--file", "/dev/stdin"]);
    until(|| place.nodes().len() == 2);
    sender.signal(Signal::TERM);
    until(|| sender.has_ended());
    assert_eq!(sender.ends().code, 143);
    sink.signal(Signal::TERM);
    assert_eq!(sink.ends().code, 0);
}

#[test]
fn an_error_names_the_file() {
    let (place, files) = (place("files_errors"), Files::new("errors"));
    let (short, long) = (files.write("short", b"short"), files.write("long", &[b'x'; 200_000]));
    let missing = format!("{short}.missing");
    let directory = files.0.to_str().expect("text").to_owned();
    let sink = place.receiver("sink", &["--max-message", "199999", "--count", "2"]);
    for command in [&["send", "sink"][..], &["pub", "t"]] {
        // Nothing is sent before each of them could be opened.
        for (bad, why) in [(&missing, "No such file or directory"), (&directory, "it is a directory")] {
            let ended = place.run(&[command, &["--file", &short, bad]].concat(), b"");
            assert_eq!(ended.code, 1, "{}", ended.stderr);
            assert!(ended.stderr.starts_with(&format!("librpc: cannot read {bad}: {why}")), "{}", ended.stderr);
        }
    }
    let sent = place.run(&["send", "sink", "--file", &short, &long, &short], b"");
    assert_eq!(sent.code, 3);
    assert_eq!(sent.stderr, format!("librpc: {long} was not sent: it has 200000 bytes, the limit is 199999\n"));
    assert_eq!(sink.ends().stdout(), "short\nshort\n");

    let subscriber = subscriber(&place, "sub", &["--id", "small", "--max-message", "199999", "--count", "1"]);
    let published = place.run(&["pub", "t", "--file", &long, &short], b"");
    assert_eq!(published.code, 3);
    let expected = format!("librpc: {long} was not sent to node \"small\": it has 200000 bytes, the limit is 199999\n");
    assert!(published.stderr.starts_with(&expected), "{}", published.stderr);
    assert_eq!(subscriber.ends().stdout(), "short\n");
    let sparse = files.0.join("sparse");
    std::fs::File::create(&sparse).and_then(|file| file.set_len((1 << 30) + 1)).expect("a sparse file");
    let published = place.run(&["pub", "t", "--file", sparse.to_str().expect("text")], b"");
    assert_eq!(published.code, 3);
    assert!(published.stderr.contains("it has 1073741825 bytes, the limit is 1073741824"), "{}", published.stderr);
}

#[test]
fn a_paced_publisher_publishes_every_file() {
    let (place, files) = (place("files_rate"), Files::new("rate"));
    let path = files.write("frame", &content(3, 4000));
    let subscriber = subscriber(&place, "sub", &["--raw", "--count", "4"]);
    let published =
        place.run(&["pub", "t", "--rate", "20", "--limit", "0s", "--file", &path, &path, &path, &path], b"");
    assert_eq!(published.code, 0, "{}", published.stderr);
    assert!(published.stderr.contains("4 messages to 1 inbox:"), "{}", published.stderr);
    assert!(subscriber.ends().stdout == content(3, 4000).repeat(4));
}

#[test]
fn a_files_name_need_not_be_utf_8() {
    use std::os::unix::ffi::OsStrExt;
    let (place, files) = (place("files_name"), Files::new("name"));
    let path = files.0.join(OsStr::from_bytes(b"\xff"));
    std::fs::write(&path, b"content").expect("it can be written");
    let receiver = place.receiver("sink", &["--count", "1"]);
    let sent = Running::start(place.librpc(&["send", "sink", "--file"]).arg(&path)).ends();
    assert_eq!((sent.code, &*sent.stderr), (0, ""));
    assert_eq!(receiver.ends().stdout(), "content\n");
}
