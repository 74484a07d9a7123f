//! `librpc stat`: what every channel has counted. It joins nothing and creates nothing.

use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::domain::DomainArgs;
use crate::latency::{grouped, readable, size};
use crate::options::AboutArgs;
use crate::outcome::CommandResult;
use crate::snapshot::{ChannelRow, Looker, Snapshot, State};
use crate::watch::WatchArgs;
use crate::{about, report, served, warnings};

/// Shows what every channel of the domain has counted
///
/// Nodes are asked from outside: traffic is not slowed down, and nothing is joined or created. A node that does not
/// answer within 1 s is shown as stalled, with what its senders know about it. If there is no domain, nothing is shown.
/// LENT is how much memory the large payloads of a channel take that wait or are held by the receiver, and HELD how many
/// it holds as samples. Latencies run from the commit of a message until it is processed; about one message in 64 is measured, and each one
/// after a pause. Calls are shown service by service, as the clients and the servers of each node have counted them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc stat                              # every channel
  librpc stat display                      # to and from a node
  librpc stat 'sensor/**' --watch 1s       # topics, with rates
  librpc stat --json | jq 'select(.kind == \"channel\") | {from, to, queued, latency_p99_ns}'")]
pub(crate) struct Args {
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Write one object per line, with `kind` node, inbox, channel, service or warning, and every counter by its name
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    args.watch.run(&mut looker, Duration::ZERO, args.json, |snapshot| show(args, snapshot))
}

fn show(args: &Args, snapshot: &Snapshot) -> anyhow::Result<()> {
    let part = about::select(snapshot, args.about.what.as_deref());
    let text = if args.json { report::json(&part, &warnings::find_in(&part, snapshot))? } else { table(&part) };
    std::io::stdout().write_all(text.as_bytes())?;
    about::say_if_nothing_matches(&part, snapshot, args.about.what.as_deref());
    Ok(())
}

/// The channels and the services as tables, followed by the nodes that do not answer, the memory for large payloads, and the
/// subscriptions that may not read a topic.
pub(crate) fn table(snapshot: &Snapshot) -> String {
    let has_rates = snapshot.channels.iter().any(|row| row.recent.is_some());
    let mut header = vec!["FROM", "TO", "ADDRESS", "STATE", "SENT", "PROCESSED", "QUEUED", "DROPPED", "MISSED"];
    header.extend(["RETURNED", "BLOCKED", "DEPTH", "MOST", "P50", "P99", "P99.9", "MAX"]);
    let lends = snapshot.channels.iter().any(ChannelRow::lends);
    if lends {
        header.extend(["LENT", "HELD"]);
    }
    if has_rates {
        header.extend(["MSG/S", "BYTES/S"]);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in &snapshot.channels {
        let mut cells = cells(row);
        if lends {
            cells.extend([row.lent.map_or("-".to_owned(), |lent| size(lent.bytes)), grouped(row.stats.held)]);
        }
        if has_rates {
            let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| grouped(rate.round() as u64));
            let rates = row.recent.as_ref().map(|recent| recent.rates);
            cells.extend([rate(rates.map(|rates| rates.sent)), rate(rates.map(|rates| rates.bytes))]);
        }
        table.add_row(cells);
    }
    table.column_iter_mut().skip(4).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut text = String::new();
    if !snapshot.channels.is_empty() {
        table.lines().for_each(|line| text.push_str(&format!("{}\n", line.trim_end())));
    }
    text.push_str(&served::table(&snapshot.services));
    for node in snapshot.nodes.iter().filter(|node| node.state != State::Alive) {
        let (state, why) = (node.state.name(), node.why.as_deref().unwrap_or_default());
        text.push_str(&format!("{}: {state}: {why}\n", node.id));
    }
    for node in &snapshot.nodes {
        if let Some(payloads) = node.payloads.filter(|payloads| payloads.bytes > 0) {
            let (bytes, limit) = (size(payloads.bytes), size(payloads.limit));
            text.push_str(&format!("{}: {bytes} of at most {limit} for large payloads\n", node.id));
        }
        node.denied().for_each(|denial| text.push_str(&format!("{}: {denial}\n", node.id)));
        node.refused.iter().for_each(|refused| text.push_str(&format!("{}: {refused}\n", node.id)));
    }
    text
}

fn cells(row: &ChannelRow) -> Vec<String> {
    let stats = &row.stats;
    let percent = |bytes: u64| format!("{:.0} %", bytes as f64 * 100.0 / stats.capacity.max(1) as f64);
    let time = |part: f64| stats.latency.quantile(part).map_or("-".to_owned(), readable);
    vec![
        row.from.clone(),
        row.to.clone(),
        row.address(),
        if row.by_receiver { "open".to_owned() } else { report::state_name(stats.state).to_owned() },
        grouped(stats.sent),
        grouped(stats.processed),
        grouped(stats.queued),
        grouped(stats.dropped),
        grouped(stats.missed),
        grouped(stats.returned),
        readable(stats.blocked.as_nanos() as u64),
        percent(stats.depth),
        percent(stats.depth_max),
        time(0.5),
        time(0.99),
        time(0.999),
        if stats.latency.is_empty() { "-".to_owned() } else { readable(stats.latency.max_ns()) },
    ]
}
