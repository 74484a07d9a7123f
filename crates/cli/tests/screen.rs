//! `librpc top` in a real terminal, at several sizes. Needs tmux.

mod common;

use std::io::Write;
use std::process::Command;

use common::{Place, place, until};
use rustix::process::Signal;

/// Longer than the screen should ever take.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

/// A terminal of its own.
struct Tmux(String);

impl Tmux {
    /// Starts `top` in a terminal of this size; `None`: there is no tmux.
    fn top(place: &Place, columns: u32, rows: u32) -> Option<Self> {
        let tmux = Self(format!("{}.tmux", place.path().display()));
        let program = format!(
            "{} --domain {} top --interval 100ms; echo ended with $?; sleep 60",
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
    let Some(tmux) = Tmux::top(&place, 160, 40) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: top in a terminal: there is no tmux");
        return end(kitchen, watcher, sink);
    };
    let wide = tmux.shows(&["3 nodes", "[1 channels]", "kitchen", "sensor/**", "P99.9", "q quit"]);
    assert!(wide.lines().count() <= 40);
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
    end(kitchen, watcher, sink);
}

fn end(mut kitchen: common::Running, watcher: common::Running, sink: common::Running) {
    kitchen.close_stdin();
    assert_eq!(kitchen.ends().code, 0);
    for receiver in [watcher, sink] {
        receiver.signal(Signal::TERM);
        assert_eq!(receiver.ends().code, 0);
    }
}
