//! `librpc top` in a real terminal, at several sizes. Needs tmux.

mod common;

use std::io::Write;
use std::process::Command;

use common::{Place, place, until};
use rustix::process::Signal;

/// Longer than the screen should take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A terminal of its own.
struct Tmux(String);

impl Tmux {
    /// Starts `top` in a terminal of this size; `None`: there is no tmux.
    fn top(place: &Place, columns: u32, rows: u32) -> Option<Self> {
        Self::top_with(place, columns, rows, "")
    }

    /// The same, with this before the command.
    fn top_with(place: &Place, columns: u32, rows: u32, before: &str) -> Option<Self> {
        let tmux = Self(format!("{}.tmux", place.path().display()));
        let program = format!(
            "{before} {} --domain {} top --interval 100ms; echo ended with $?; sleep 60",
            env!("CARGO_BIN_EXE_librpc"),
            place.path().display()
        );
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let started = Command::new("tmux")
            .args(["-S", &tmux.0, "-f", "/dev/null", "new-session", "-d", "-x", &columns, "-y", &rows, &program])
            .env("LC_ALL", "C.UTF-8")
            .status();
        started.is_ok_and(|status| status.success()).then_some(tmux)
    }

    fn does(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux").args(["-S", &self.0]).args(arguments).output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, key: &str) {
        self.does(&["send-keys", key]);
    }

    /// Waits until the screen shows all of this.
    fn shows(&self, words: &[&str]) -> String {
        let begun = std::time::Instant::now();
        loop {
            let screen = self.does(&["capture-pane", "-p"]);
            if words.iter().all(|word| screen.contains(word)) {
                return screen;
            }
            assert!(begun.elapsed() < LIMIT, "{words:?} never came:\n{screen}");
        }
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.does(&["kill-server"]);
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn top_shows_the_domain_at_every_size_and_obeys_its_keys() {
    let place = place("screen");
    let sink = place.receiver("sink", &[]);
    let watcher = place.start(&["sub", "sensor/**", "--id", "watcher"]);
    place.await_node("watcher");
    let mut kitchen = place.start(&["pub", "sensor/kitchen", "--id", "kitchen", "--wait", "10s"]);
    kitchen.write(b"21\n");
    place.await_node("kitchen"); // it might sweep the next file while it joins
    let planted = place.path().join("planted.node"); // each look warns about it
    std::fs::write(&planted, "no node's file").expect("there is room");
    // The library's log does not appear on the screen.
    let Some(tmux) = Tmux::top_with(&place, 160, 40, "LIBRPC_LOG=trace") else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: top in a terminal: there is no tmux");
        std::fs::remove_file(planted).expect("it is there");
        return end(kitchen, watcher, sink);
    };
    let wide = tmux.shows(&["3 nodes", "[1 channels]", "kitchen", "sensor/**", "P99.9", "q quit"]);
    assert!(wide.lines().count() <= 40 && !wide.contains("TRACE") && !wide.contains("WARN"), "{wide}");
    tmux.press("Enter");
    tmux.shows(&["kitchen → watcher", "processed", "latency"]);
    tmux.press("Escape");
    tmux.press("2");
    tmux.shows(&["[2 nodes]", "sink", "alive", "PID"]);
    sink.signal(Signal::STOP);
    tmux.shows(&["! stalled-node: node sink", "stalled"]);
    sink.signal(Signal::CONT);
    for (columns, rows) in [("80", "24"), ("40", "10"), ("24", "8"), ("220", "60")] {
        tmux.does(&["resize-window", "-x", columns, "-y", rows]);
        let narrow = tmux.shows(&["NODE", "sink", "quit"]);
        assert!(narrow.lines().all(|line| line.chars().count() <= columns.parse().expect("a number")), "{narrow}");
    }
    tmux.press("3");
    tmux.shows(&["[3 inboxes]", "POLICY", "sensor/**"]);
    tmux.press("/");
    for letter in ["s", "i", "n", "k"] {
        tmux.press(letter);
    }
    tmux.shows(&["filter: sink"]);
    tmux.press("Enter");
    until(|| !tmux.does(&["capture-pane", "-p"]).contains("sensor/**"));
    tmux.press("?");
    tmux.shows(&["keys and words", "slow-consumer"]);
    tmux.press("x");
    tmux.press("q");
    tmux.shows(&["ended with 0"]);
    drop(tmux);
    std::fs::remove_file(planted).expect("it is there");
    end(kitchen, watcher, sink);
}

/// 63 bytes, of characters that are two columns wide.
const WIDE: &str = "温度センサー温度センサー温度センサー温度セ";

#[test]
fn top_copes_with_small_terminals_long_names_deaths_and_a_domain_that_goes() {
    let place = place("hardships");
    assert_eq!(WIDE.len(), 63);
    let wide = place.receiver(WIDE, &[]);
    let mut sender = place.start(&["send", WIDE, "--id", "sender-1"]);
    let other = place.receiver("sender-12", &[]);
    let mut to_other = place.start(&["send", "sender-12", "--id", "feeder"]);
    for sender in [&mut sender, &mut to_other] {
        sender.write(b"hello\n");
    }
    let Some(tmux) = Tmux::top(&place, 20, 5) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: top in a terminal: there is no tmux");
        return;
    };
    tmux.shows(&["4 nodes", "q quit", "FROM"]);
    for key in ["?", "x", "Enter", "Escape", "Tab", "Tab", "Tab", "G", "g", "PageDown", "s", "r", "p", "p"] {
        tmux.press(key);
    }
    for (columns, rows) in [("1", "1"), ("3", "2"), ("200", "2"), ("10", "50"), ("300", "80"), ("120", "30")] {
        tmux.does(&["resize-window", "-x", columns, "-y", rows]);
        for key in ["?", "x", "Enter", "Escape"] {
            tmux.press(key);
        }
    }
    tmux.press("1");
    tmux.shows(&["[1 channels]", "温度", "sender-1", "sender-12"]);
    // A node's channels are not those of a node whose name begins with its name.
    tmux.press("2");
    tmux.shows(&["[2 nodes]", "PID"]);
    tmux.press("/");
    tmux.does(&["send-keys", "-l", "sender-1"]);
    tmux.press("Enter");
    tmux.shows(&["filter: sender-1", "sender-12"]);
    tmux.press("g");
    tmux.press("Enter");
    tmux.shows(&["[1 channels]", "filter: sender-1", "温度"]);
    until(|| !tmux.does(&["capture-pane", "-p"]).contains("feeder"));
    // The channel that is shown ends with its receiver.
    tmux.press("Enter");
    tmux.shows(&["latency", "history"]);
    wide.signal(Signal::KILL);
    wide.ends();
    tmux.shows(&["1 dead"]);
    tmux.press("Escape");
    until(|| !tmux.does(&["capture-pane", "-p"]).contains("history"));
    tmux.press("Escape");
    until(|| !tmux.does(&["capture-pane", "-p"]).contains("filter: "));
    tmux.shows(&["dead-node: node 温度"]);
    sender.close_stdin();
    assert!(matches!(sender.ends().code, 0 | 3), "what it has sent is processed, or was lost");
    // The domain is removed, and then there again.
    to_other.close_stdin();
    to_other.ends();
    other.signal(Signal::TERM);
    assert_eq!(other.ends().code, 0);
    assert_eq!(place.run(&["clean"], b"").code, 0);
    tmux.shows(&["no nodes"]);
    let again = place.receiver("again", &[]);
    tmux.press("2");
    tmux.shows(&["1 node,", "again"]);
    tmux.press("q");
    tmux.shows(&["ended with 0"]);
    again.signal(Signal::TERM);
    assert_eq!(again.ends().code, 0);
}

#[test]
fn top_ends_with_its_terminal() {
    let place = place("hangup");
    // Also without the signal that a terminal sends when it goes.
    for before in ["exec", "trap '' HUP; exec"] {
        let Some(tmux) = Tmux::top_with(&place, 80, 24, before) else {
            let _ = writeln!(std::io::stderr(), "SKIPPED: top in a terminal: there is no tmux");
            return;
        };
        tmux.shows(&["no nodes"]);
        let pid: i32 = tmux.does(&["list-panes", "-F", "#{pane_pid}"]).trim().parse().expect("a pid");
        drop(tmux);
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        until(|| rustix::process::test_kill_process(pid).is_err());
    }
}

#[test]
fn top_has_colours_unless_no_color_is_set() {
    let place = place("colours");
    let stuck = place.receiver("stuck", &[]);
    stuck.signal(Signal::STOP);
    let coloured = |before: &str| {
        let tmux = Tmux::top_with(&place, 100, 30, before)?;
        tmux.shows(&["stalled-node"]);
        let screen = tmux.does(&["capture-pane", "-p", "-e"]);
        tmux.press("C-c");
        tmux.shows(&["ended with 0"]);
        Some(screen.contains("[38;5;1m") || screen.contains("[31m"))
    };
    let (with, without) = (coloured("env -u NO_COLOR"), coloured("env NO_COLOR=1"));
    stuck.signal(Signal::CONT);
    stuck.signal(Signal::TERM);
    assert_eq!(stuck.ends().code, 0);
    if with.is_none() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: top in a terminal: there is no tmux");
        return;
    }
    assert_eq!((with, without), (Some(true), Some(false)));
}

fn end(mut kitchen: common::Running, watcher: common::Running, sink: common::Running) {
    kitchen.close_stdin();
    assert_eq!(kitchen.ends().code, 0);
    for receiver in [watcher, sink] {
        receiver.signal(Signal::TERM);
        assert_eq!(receiver.ends().code, 0);
    }
}
