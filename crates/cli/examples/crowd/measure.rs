//! Rounds with and without `top`, in turn: what `top` uses, and how the traffic changes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use librpc::{ChannelStats, Domain, Histogram};

use crate::{Args, usage};

const LIMIT: Duration = Duration::from_secs(5);
/// How long a terminal, and the traffic after one, has to settle.
const SETTLE: Duration = Duration::from_secs(2);

/// Every channel as its receiver sees it.
pub(crate) fn channels(domain: &Domain) -> anyhow::Result<Vec<ChannelStats>> {
    let nodes = domain.observe(LIMIT)?.into_iter().filter_map(|node| node.stats.ok());
    Ok(nodes.flat_map(|node| node.inboxes).flat_map(|inbox| inbox.channels).collect())
}

/// What all channels have counted, and the CPU time so far.
struct Look {
    at: Instant,
    received: u64,
    latency: Histogram,
    all_ns: u64,
    background_ns: u64,
    top_ns: u64,
}

/// What has happened in a round.
struct Round {
    per_s: f64,
    latency: Histogram,
    /// Fractions of one core.
    all: f64,
    background: f64,
    top: f64,
}

fn look(domain: &Domain, pids: &[u32], top: Option<u32>) -> anyhow::Result<Look> {
    let (mut received, mut latency) = (0, Histogram::default());
    for channel in channels(domain)? {
        received += channel.received;
        latency += &channel.latency;
    }
    let (all_ns, background_ns) = (usage::of_all_threads(pids), usage::of_background_threads(pids));
    let top_ns = top.map_or(0, |top| usage::of(top, |_| true));
    Ok(Look { at: Instant::now(), received, latency, all_ns, background_ns, top_ns })
}

fn round(args: &Args, domain: &Domain, pids: &[u32], top: Option<u32>) -> anyhow::Result<Round> {
    std::thread::sleep(SETTLE);
    let before = look(domain, pids, top)?;
    std::thread::sleep(Duration::from_secs_f64(args.seconds));
    let after = look(domain, pids, top)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let part = |before: u64, after: u64| after.saturating_sub(before) as f64 / 1e9 / seconds;
    Ok(Round {
        per_s: (after.received - before.received) as f64 / seconds,
        latency: after.latency.since(&before.latency),
        all: part(before.all_ns, after.all_ns),
        background: part(before.background_ns, after.background_ns),
        top: part(before.top_ns, after.top_ns),
    })
}

/// `top` in a terminal of its own.
struct Tmux {
    socket: String,
    pid: u32,
}

impl Tmux {
    fn top(command: &Path, domain: &Domain, terminal: &str) -> anyhow::Result<Self> {
        let (columns, lines) = terminal.split_once('x').context("a terminal is as large as 120x40")?;
        let socket = format!("/tmp/librpc-crowd-{}.tmux", std::process::id());
        let program = format!("exec {} --domain {} top", command.display(), domain.path().display());
        let started = Command::new("tmux")
            .args(["-S", &socket, "-f", "/dev/null", "new-session", "-d", "-x", columns, "-y", lines, &program])
            .env("LC_ALL", "C.UTF-8")
            .status()?;
        ensure!(started.success(), "tmux: {started}");
        let mut tmux = Self { socket, pid: 0 };
        tmux.pid = tmux.does(&["list-panes", "-F", "#{pane_pid}"])?.trim().parse()?;
        Ok(tmux)
    }

    fn does(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = Command::new("tmux").args(["-S", &self.socket]).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.does(&["kill-server"]);
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn say(what: &str, round: &Round) {
    let time = |part| round.latency.quantile(part).unwrap_or(0) as f64 / 1e3;
    println!(
        "{what:>12}  {:>9.0} messages/s  p50 {:>7.1} µs  p99 {:>8.1} µs  p99.9 {:>8.1} µs  nodes {:>6.2} %  their background threads {:>5.2} %  top {:>5.2} %",
        round.per_s,
        time(0.5),
        time(0.99),
        time(0.999),
        round.all * 100.0,
        round.background * 100.0,
        round.top * 100.0,
    );
}

/// The median of each figure, and the latencies of all rounds together.
fn medians(rounds: &[Round]) -> Round {
    let median = |of: fn(&Round) -> f64| {
        let mut all: Vec<f64> = rounds.iter().map(of).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(0.0)
    };
    let mut latency = Histogram::default();
    rounds.iter().for_each(|round| latency += &round.latency);
    Round {
        per_s: median(|round| round.per_s),
        latency,
        all: median(|round| round.all),
        background: median(|round| round.background),
        top: median(|round| round.top),
    }
}

/// Runs all rounds, then shows the medians.
pub(crate) fn rounds(args: &Args, domain: &Domain, pids: &[u32], command: &Path) -> anyhow::Result<()> {
    let mut without = Vec::new();
    let mut with: Vec<Vec<Round>> = args.terminals.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.rounds {
        let next = round(args, domain, pids, None)?;
        say("without", &next);
        without.push(next);
        for (terminal, with) in args.terminals.iter().zip(&mut with) {
            let tmux = Tmux::top(command, domain, terminal)?;
            let next = round(args, domain, pids, Some(tmux.pid))?;
            say(terminal, &next);
            with.push(next);
        }
    }
    println!("\nMedians; percent of one core:");
    say("without", &medians(&without));
    args.terminals.iter().zip(&with).for_each(|(terminal, with)| say(terminal, &medians(with)));
    let begun = Instant::now();
    let once = Command::new(command).args(["top", "--once", "--json", "--domain"]).arg(domain.path()).output()?;
    let lines = String::from_utf8_lossy(&once.stdout).lines().filter(|line| line.contains("\"channel\"")).count();
    println!(
        "top --once --json: {lines} channels after {:.0} ms, of which 250 between its two looks",
        begun.elapsed().as_secs_f64() * 1e3
    );
    Ok(())
}
