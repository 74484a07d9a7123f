//! `librpc topics`: who publishes what, who subscribes, and how much there is of it. It joins nothing and creates nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};
use librpc::Pattern;
use serde::Serialize;

use crate::about::{self, shows};
use crate::domain::DomainArgs;
use crate::latency::{grouped, readable, size};
use crate::options::OverArgs;
use crate::outcome::CommandResult;
use crate::published::{self, TopicRow};
use crate::report::round;
use crate::snapshot::{Looker, Snapshot};
use crate::watch::WatchArgs;

/// Lists the topics of the domain, with those who publish and subscribe
///
/// Topics without subscribers are shown, too, and after all topics the patterns that nobody publishes to. Nodes are asked from outside,
/// twice: MSG/S is the rate of the time in between. It is unknown (`-`) if an outbox publishes the topic together with others. A node
/// that does not answer within 1 s is shown as stalled, with what its subscribers know about it. If there is no domain, nothing is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc topics
  librpc topics 'sensor/**' --watch 1s
  librpc topics --over 0s                  # at once, without rates
  librpc topics --json | jq -r 'select(.subscribers == []) | .topic'")]
pub(crate) struct Args {
    /// Show only topics that match one of these, and patterns that have a topic in common with one
    pattern: Vec<Pattern>,
    #[command(flatten)]
    over: OverArgs,
    #[command(flatten)]
    watch: WatchArgs,
    /// Write one object per line: topic, type, publishers, subscribers, subscriber_nodes, rate, bytes_per_message,
    /// last_activity_ago_ns, stalled
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    /// Null: bytes without a type, or unknown.
    r#type: Option<String>,
    publishers: &'a BTreeSet<String>,
    /// The patterns that match.
    subscribers: BTreeSet<&'a str>,
    subscriber_nodes: BTreeSet<&'a str>,
    /// Messages published per second. Null: unknown.
    rate: Option<f64>,
    /// Null: there was none, or it is unknown.
    bytes_per_message: Option<f64>,
    last_activity_ago_ns: Option<u64>,
    /// Those of its nodes that do not answer.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    stalled: &'a BTreeSet<String>,
}

impl<'a> From<&'a TopicRow> for Line<'a> {
    fn from(row: &'a TopicRow) -> Self {
        let (patterns, nodes) = row.subscribers.iter().map(|(pattern, node)| (&**pattern, &**node)).unzip();
        Self {
            topic: &row.name,
            r#type: types(row),
            publishers: &row.publishers,
            subscribers: patterns,
            subscriber_nodes: nodes,
            rate: row.rate.map(round),
            bytes_per_message: row.message_bytes.map(round),
            last_activity_ago_ns: row.last.map(|ago| ago.as_nanos() as u64),
            stalled: &row.silent,
        }
    }
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut looker = Looker::new(domain.domain()?);
    args.watch.run(&mut looker, args.over.over, args.json, |snapshot| show(args, snapshot))
}

fn show(args: &Args, snapshot: &Snapshot) -> anyhow::Result<()> {
    let mut rows = published::find(snapshot);
    rows.retain(|row| shows(&args.pattern, &row.name));
    let mut text = String::new();
    if args.json {
        for row in &rows {
            text += &(serde_json::to_string(&Line::from(row))? + "\n");
        }
    } else if !rows.is_empty() {
        table(&rows).lines().for_each(|line| text += &format!("{}\n", line.trim_end()));
    }
    std::io::stdout().write_all(text.as_bytes())?;
    about::say_what_is_missing(snapshot, &args.pattern, rows.is_empty());
    Ok(())
}

/// The types of a topic; `None`: bytes without a type.
fn types(row: &TopicRow) -> Option<String> {
    let texts: Vec<&str> = row.types.iter().map(String::as_str).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}

/// What is shown where there is nothing, or nothing is known.
pub(crate) fn or_dash(text: Option<String>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned())
}

/// These names, of which those that do not answer are marked.
pub(crate) fn names<'a>(all: impl IntoIterator<Item = &'a String>, silent: &BTreeSet<String>) -> String {
    let shown = |id: &String| if silent.contains(id) { format!("{id} (stalled)") } else { id.clone() };
    or_dash(Some(all.into_iter().map(shown).collect::<Vec<_>>().join(", ")))
}

/// A rate, with one digit after the point where it is small.
pub(crate) fn rate(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { grouped(rate.round() as u64) }
}

fn table(rows: &[TopicRow]) -> Table {
    let mut table = Table::new();
    let header = ["TOPIC", "TYPE", "PUBLISHERS", "SUBSCRIBERS", "MSG/S", "BYTES/MSG", "LAST"];
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        let subscriber = |(pattern, node): &(String, String)| {
            let node = names([node], &row.silent);
            if *pattern == row.name { node } else { format!("{node} {pattern}") }
        };
        let subscribers: Vec<String> = row.subscribers.iter().map(subscriber).collect();
        let ago = |ago: Duration| readable(ago.as_nanos() as u64) + " ago";
        table.add_row([
            row.name.clone(),
            or_dash(types(row)),
            names(&row.publishers, &row.silent),
            or_dash(Some(subscribers.join(", "))),
            or_dash(row.rate.map(rate)),
            or_dash(row.message_bytes.map(|bytes| size(bytes.round() as u64))),
            or_dash(row.last.map(ago)),
        ]);
    }
    table.column_iter_mut().skip(4).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table
}
