//! `librpc stat`: what every channel has counted. It joins nothing and makes nothing.

use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::latency::{grouped, readable};
use crate::outcome::{CommandResult, Outcome};
use crate::report;
use crate::snapshot::{ChannelRow, Looker, Recent, Snapshot, State, since};
use crate::warnings;

/// Shows what every channel of the domain has counted
///
/// Nodes are asked from outside: traffic is not slowed, and nothing is joined or made. A node that does not answer within
/// 1 s is shown as stalled, with what its senders know of it. Where there is no domain, nothing is shown. Latencies run
/// from a message's commit until it was processed, for about one message in 64 and those behind a pause.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc stat                              # every channel
  librpc stat display                      # to and from a node
  librpc stat 'sensor/**' --watch 1s       # topics, with rates
  librpc stat --json | jq 'select(.kind == \"channel\") | {from, to, queued, latency_p99_ns}'")]
pub(crate) struct Args {
    /// Only what has to do with this node, topic or pattern
    what: Option<String>,
    /// Again and again, with rates in between
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "1s", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// So many looks, then it ends
    #[arg(long, value_name = "N", requires = "watch")]
    count: Option<u64>,
    /// One object a line, with `kind` node, inbox, channel or warning, and every counter by its name
    #[arg(long)]
    json: bool,
}

/// No look follows another sooner.
const SHORTEST: Duration = Duration::from_millis(10);

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    let Some(every) = args.watch else {
        return show(args, &looker.look()?, &[]).map(|()| Outcome::Done);
    };
    let interrupt = Interrupt::install()?;
    let mut earlier: Option<Snapshot> = None;
    let mut looks = 0;
    while interrupt.signal().is_none() {
        let snapshot = looker.look()?;
        let recent = earlier.as_ref().map_or_else(Vec::new, |earlier| since(earlier, &snapshot));
        show(args, &snapshot, &recent)?;
        earlier = Some(snapshot);
        looks += 1;
        if args.count.is_some_and(|count| looks >= count) {
            break;
        }
        if !args.json {
            std::io::stdout().write_all(b"\n")?;
        }
        interrupt.wait_for(every.max(SHORTEST))?;
    }
    Ok(Outcome::Done)
}

fn show(args: &Args, snapshot: &Snapshot, recent: &[Option<Recent>]) -> anyhow::Result<()> {
    let about = args.what.as_deref();
    let text = if args.json {
        let warnings = warnings::find(snapshot, (!recent.is_empty()).then_some(recent));
        report::json(snapshot, recent, &warnings, about)?
    } else {
        table(snapshot, recent, about)
    };
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

/// The channels as a table, and behind it the nodes that say nothing.
pub(crate) fn table(snapshot: &Snapshot, recent: &[Option<Recent>], about: Option<&str>) -> String {
    let rows = snapshot.channels.iter().enumerate().filter(|(_, row)| about.is_none_or(|what| row.concerns(what)));
    let mut table = Table::new();
    let mut header = vec!["FROM", "TO", "ADDRESS", "STATE", "SENT", "PROCESSED", "QUEUED", "DROPPED", "MISSED"];
    header.extend(["RETURNED", "BLOCKED", "DEPTH", "MOST", "P50", "P99", "P99.9", "MAX"]);
    if !recent.is_empty() {
        header.extend(["MSG/S", "BYTES/S"]);
    }
    table.load_preset(presets::NOTHING).set_header(header);
    let mut is_empty = true;
    for (at, row) in rows {
        is_empty = false;
        let mut cells = cells(row);
        if !recent.is_empty() {
            let rates = recent.get(at).and_then(Option::as_ref).map(|recent| recent.rates);
            let rate = |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| grouped(rate.round() as u64));
            cells.extend([rate(rates.map(|rates| rates.sent)), rate(rates.map(|rates| rates.bytes))]);
        }
        table.add_row(cells);
    }
    table.column_iter_mut().skip(4).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    let mut text = String::new();
    if !is_empty {
        table.lines().for_each(|line| text.push_str(&format!("{}\n", line.trim_end())));
    }
    for node in snapshot.nodes.iter().filter(|node| node.state != State::Alive) {
        if about.is_none_or(|what| report::concerns_node(node, what)) {
            let (state, why) = (node.state.name(), node.why.as_deref().unwrap_or_default());
            text.push_str(&format!("{}: {state}: {why}\n", node.id));
        }
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
