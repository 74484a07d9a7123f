//! `librpc nodes`: which nodes are in the domain, and whether they answer. It joins nothing and creates nothing.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use comfy_table::{Table, presets};
use librpc::{NodeInfo, NodeStats, ObserveError, Observed, Observer};
use serde::Serialize;

use crate::domain::DomainArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{ANSWER_LIMIT, State, denials, listed_type};

/// Lists the nodes of the domain
///
/// A dead node whose files are still there is shown as dead, and a node that does not answer within 1 s as stalled.
/// Topics that the subscriptions of a node may not read, or that are of another type, are listed after the table. If there is no domain,
/// nothing is shown.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc nodes
  librpc nodes --json | jq -r 'select(.alive) | .id'")]
pub(crate) struct Args {
    /// Write one object per line: id, pid, uid, incarnation, alive, state, inboxes, types, opened_unix_s, denials, mismatches
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    pid: u32,
    uid: u32,
    incarnation: String,
    alive: bool,
    state: State,
    inboxes: &'a [String],
    /// The types of those inboxes that want one, by address.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    types: BTreeMap<&'a str, String>,
    opened_unix_s: u64,
    /// The topics that its subscriptions may not read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    denials: Vec<String>,
    /// Those of its inboxes that others mean as another type.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mismatches: Vec<String>,
}

impl<'a> Line<'a> {
    fn new(Observed { node, stats, .. }: &'a Observed) -> Self {
        let state = State::of(stats);
        let opened_unix_s = node.opened.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let NodeInfo { id, pid, uid, incarnation, alive, inboxes, .. } = node;
        Self {
            id,
            pid: *pid,
            uid: *uid,
            incarnation: incarnation.to_string(),
            alive: *alive,
            state,
            inboxes,
            types: types(node),
            opened_unix_s,
            denials: denied(node, stats, false),
            mismatches: denied(node, stats, true),
        }
    }
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut nodes = Observer::new(domain.domain()?).probe(ANSWER_LIMIT)?;
    nodes.sort_by(|a, b| a.node.id.cmp(&b.node.id));
    let mut text = String::new();
    if args.json {
        for node in &nodes {
            text.push_str(&serde_json::to_string(&Line::new(node))?);
            text.push('\n');
        }
    } else if !nodes.is_empty() {
        for line in table(&nodes).lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        for Observed { node, stats, .. } in &nodes {
            let denied = [denied(node, stats, false), denied(node, stats, true)].concat();
            denied.iter().for_each(|denial| text.push_str(&format!("{}: {denial}\n", node.id)));
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(Outcome::Done)
}

/// What the inboxes of a node want, by address.
fn types(node: &NodeInfo) -> BTreeMap<&str, String> {
    let typed = node.listed.iter().filter_map(|inbox| Some((inbox, listed_type(inbox)?)));
    typed.flat_map(|(inbox, text)| inbox.addresses.iter().map(move |address| (&**address, text.clone()))).collect()
}

/// The topics that a node's subscriptions do not get, according to the node.
fn denied(node: &NodeInfo, stats: &Result<NodeStats, ObserveError>, of_types: bool) -> Vec<String> {
    let Ok(stats) = stats else { return Vec::new() };
    let of_kind = denials(node, stats, |_| true).into_iter().filter(|denial| denial.is_mismatch == of_types);
    of_kind.map(|denial| denial.text).collect()
}

/// The addresses of a node's inboxes, each with its type if it has one.
fn with_types(node: &NodeInfo) -> String {
    let types = types(node);
    let shown = |address: &String| match types.get(&**address) {
        Some(text) => format!("{address}:{text}"),
        None => address.clone(),
    };
    node.inboxes.iter().map(shown).collect::<Vec<_>>().join(" ")
}

fn table(nodes: &[Observed]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["NODE", "PID", "UID", "STATE", "AGE", "INBOXES", "INCARNATION"]);
    for Observed { node, stats, .. } in nodes {
        let age = SystemTime::now().duration_since(node.opened).unwrap_or_default().as_secs();
        table.add_row([
            node.id.clone(),
            node.pid.to_string(),
            node.uid.to_string(),
            State::of(stats).name().to_owned(),
            humantime::format_duration(std::time::Duration::from_secs(age)).to_string(),
            with_types(node),
            node.incarnation.to_string(),
        ]);
    }
    table
}
