//! `librpc services`: who serves what, who calls it, and how that goes. It joins nothing and creates nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use comfy_table::{CellAlignment, Table, presets};
use librpc::{Histogram, Pattern};
use serde::Serialize;

use crate::about::{self, shows};
use crate::domain::DomainArgs;
use crate::latency::{grouped, readable};
use crate::options::OverArgs;
use crate::outcome::CommandResult;
use crate::report::{Latency, round};
use crate::served::ServiceRow;
use crate::snapshot::{Looker, Snapshot, State};
use crate::topics::{names, or_dash, rate};
use crate::watch::WatchArgs;

/// Lists the services of the domain, with their servers, their clients, and what became of the calls
///
/// Servers and clients count for themselves. Each number is that of the side that has counted more: a server has not seen the
/// calls that never reached it, and clients that have left take their numbers along. Latencies are those of the clients, if any call of
/// theirs was measured. Nodes are asked from outside, twice: the rate is that of the time in between. A node that does not answer
/// within 1 s is shown as stalled. If there is no domain, nothing is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc services
  librpc services 'camera/*' --watch 1s
  librpc services --json | jq -r 'select(.servers == []) | .service'")]
pub(crate) struct Args {
    /// Show only services that match one of these patterns
    pattern: Vec<Pattern>,
    #[command(flatten)]
    over: OverArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Write one object per line: service, types, servers, clients, calls, answered, in_flight, failed, failures, calls_per_s,
    /// failed_per_s, latency_by, latency_{samples,mean_ns,p50_ns,p90_ns,p99_ns,p999_ns,max_ns}, stalled
    #[arg(long)]
    json: bool,
}

/// What one side of a service has counted.
#[derive(Debug, Default)]
struct Side {
    calls: u64,
    answered: u64,
    in_flight: u64,
    failures: BTreeMap<&'static str, u64>,
    latency: Histogram,
    /// Per second: calls, and those that have failed. `None`: unknown.
    recent: Option<[f64; 2]>,
}

#[derive(Debug, Default)]
struct Row {
    types: BTreeSet<String>,
    servers: BTreeSet<String>,
    clients: BTreeSet<String>,
    by_servers: Side,
    by_clients: Side,
    /// Those of its nodes that do not answer.
    silent: BTreeSet<String>,
}

#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    /// Of its requests and its replies. Null: bytes without a type.
    types: Option<String>,
    servers: &'a BTreeSet<String>,
    clients: &'a BTreeSet<String>,
    calls: u64,
    answered: u64,
    in_flight: u64,
    failed: u64,
    /// By kind, those that have happened.
    failures: BTreeMap<&'static str, u64>,
    calls_per_s: Option<f64>,
    failed_per_s: Option<f64>,
    latency_by: &'static str,
    #[serde(flatten)]
    latency: Latency,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    stalled: &'a BTreeSet<String>,
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    args.watch.run(&mut looker, args.over.over, args.json, |snapshot| show(args, snapshot))
}

fn show(args: &Args, snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut rows = find(snapshot);
    rows.retain(|name, _| shows(&args.pattern, name));
    let lines: Vec<Line<'_>> = rows.iter().map(|(name, row)| row.line(name)).collect();
    let mut text = String::new();
    if args.json {
        for line in &lines {
            text += &(serde_json::to_string(line)? + "\n");
        }
    } else if !lines.is_empty() {
        table(&lines).lines().for_each(|line| text += &format!("{}\n", line.trim_end()));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    about::say_what_is_missing(snapshot, &args.pattern, lines.is_empty());
    Ok(())
}

/// The names of the services that somebody serves or calls.
pub(crate) fn listed(snapshot: &Snapshot) -> Vec<String> {
    find(snapshot).into_keys().collect()
}

fn find(snapshot: &Snapshot) -> BTreeMap<String, Row> {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for inbox in snapshot.inboxes.iter().filter(|inbox| inbox.is_service) {
        for name in &inbox.addresses {
            let row = rows.entry(name.clone()).or_default();
            row.servers.insert(inbox.node.clone());
            row.types.extend(inbox.types.clone());
        }
    }
    for counted in &snapshot.services {
        let row = rows.entry(counted.stats.service.to_string()).or_default();
        let (side, nodes) = match counted.is_server() {
            true => (&mut row.by_servers, &mut row.servers),
            false => (&mut row.by_clients, &mut row.clients),
        };
        side.add(counted);
        if counted.stats.open > 0 {
            nodes.insert(counted.node.clone());
        }
    }
    rows.retain(|_, row| !row.servers.is_empty() || !row.clients.is_empty());
    let is_silent = |id: &str| snapshot.nodes.iter().any(|node| node.id == id && node.state != State::Alive);
    for row in rows.values_mut() {
        row.silent = row.servers.iter().chain(&row.clients).filter(|id| is_silent(id)).cloned().collect();
    }
    rows
}

impl Side {
    fn add(&mut self, row: &ServiceRow) {
        let stats = &row.stats;
        self.calls = self.calls.saturating_add(stats.calls);
        self.answered = self.answered.saturating_add(stats.answered);
        self.in_flight = self.in_flight.saturating_add(stats.in_flight());
        for (kind, count) in stats.failures.iter().filter(|(_, count)| *count > 0) {
            let sum = self.failures.entry(kind.name()).or_default();
            *sum = sum.saturating_add(count);
        }
        self.latency += &stats.latency;
        if let Some(recent) = row.recent {
            let [calls, failed] = self.recent.unwrap_or_default();
            self.recent = Some([calls + recent.calls, failed + recent.failed]);
        }
    }
}

impl Row {
    /// Of each number, the greater of both sides.
    fn line<'a>(&'a self, service: &'a str) -> Line<'a> {
        let (one, other) = (&self.by_clients, &self.by_servers);
        let mut failures = one.failures.clone();
        for (kind, count) in &other.failures {
            let most = failures.entry(kind).or_default();
            *most = (*most).max(*count);
        }
        let recent = |at: usize| {
            let both = [one, other].into_iter().filter_map(|side| side.recent.map(|recent| recent[at]));
            both.reduce(f64::max).map(round)
        };
        let (latency_by, measured) =
            if one.latency.is_empty() { ("server", &other.latency) } else { ("client", &one.latency) };
        let texts: Vec<&str> = self.types.iter().map(String::as_str).collect();
        Line {
            service,
            types: (!texts.is_empty()).then(|| texts.join(", ")),
            servers: &self.servers,
            clients: &self.clients,
            calls: one.calls.max(other.calls),
            answered: one.answered.max(other.answered),
            in_flight: one.in_flight.max(other.in_flight),
            failed: failures.values().fold(0, |sum, count| sum.saturating_add(*count)),
            failures,
            calls_per_s: recent(0),
            failed_per_s: recent(1),
            latency_by,
            latency: measured.into(),
            stalled: &self.silent,
        }
    }
}

fn table(lines: &[Line<'_>]) -> Table {
    let mut table = Table::new();
    let mut header = vec!["SERVICE", "TYPES", "SERVERS", "CLIENTS", "CALLS", "ANSWERED", "IN FLIGHT", "CALLS/S"];
    header.extend(["P50", "P99", "P99.9", "MAX", "FAILURES"]);
    table.load_preset(presets::NOTHING).set_header(header);
    for line in lines {
        let failures = line.failures.iter().map(|(kind, count)| format!("{} {kind}", grouped(*count)));
        let failures = failures.collect::<Vec<_>>().join(", ");
        let latency = &line.latency;
        let times = [latency.latency_p50_ns, latency.latency_p99_ns, latency.latency_p999_ns, latency.latency_max_ns];
        let mut cells = vec![line.service.to_owned(), or_dash(line.types.clone())];
        cells.extend([names(line.servers, line.stalled), names(line.clients, line.stalled)]);
        cells.extend([line.calls, line.answered, line.in_flight].map(grouped));
        cells.push(or_dash(line.calls_per_s.map(rate)));
        cells.extend(times.map(|time| or_dash(time.map(readable))));
        cells.push(or_dash(Some(failures)));
        table.add_row(cells);
    }
    table.column_iter_mut().skip(4).take(8).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
