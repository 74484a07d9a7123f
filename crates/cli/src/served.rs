//! What the clients and servers of a domain have counted, service by service: for `stat`, `top`, `metrics`, `graph`, `doctor`.

use std::collections::HashMap;

use comfy_table::{CellAlignment, Table, presets};
use librpc::{CallSide, CallStats, Observed};

use crate::latency::{grouped, readable};

/// What the clients of a node, or its servers, have counted for one service.
#[derive(Clone, Debug)]
pub(crate) struct ServiceRow {
    pub(crate) node: String,
    incarnation: String,
    pub(crate) stats: CallStats,
    /// What has happened since an earlier look, if there was one.
    pub(crate) recent: Option<Recent>,
}

/// What has happened between two looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recent {
    /// Per second.
    pub(crate) calls: f64,
    pub(crate) failed: f64,
    /// Calls were in flight all the time, and none has ended.
    pub(crate) is_stuck: bool,
}

/// All rows of the nodes that answer, by service.
pub(crate) fn find(observed: &[Observed]) -> Vec<ServiceRow> {
    let of_node = |Observed { node, stats, .. }: &Observed| {
        let row = |stats: &CallStats| ServiceRow {
            node: node.id.clone(),
            incarnation: node.incarnation.to_string(),
            stats: stats.clone(),
            recent: None,
        };
        stats.iter().flat_map(|stats| &stats.calls).map(row).collect::<Vec<_>>()
    };
    let mut rows: Vec<ServiceRow> = observed.iter().flat_map(of_node).collect();
    rows.sort_by(|a, b| a.order().cmp(&b.order()));
    rows
}

/// Adds to every row what has happened since an earlier look.
pub(crate) fn compare(rows: &mut [ServiceRow], earlier: &[ServiceRow], seconds: f64) {
    let before: HashMap<_, &ServiceRow> = earlier.iter().map(|row| (row.key(), row)).collect();
    for row in rows {
        row.recent = before.get(&row.key()).map(|was| Recent::between(&was.stats, &row.stats, seconds));
    }
}

impl Recent {
    fn between(was: &CallStats, now: &CallStats, seconds: f64) -> Self {
        let rate = |was: u64, now: u64| now.saturating_sub(was) as f64 / seconds;
        let ended = |stats: &CallStats| stats.answered.saturating_add(stats.failures.total());
        Self {
            calls: rate(was.calls, now.calls),
            failed: rate(was.failures.total(), now.failures.total()),
            is_stuck: was.in_flight() > 0 && now.in_flight() > 0 && ended(was) == ended(now),
        }
    }
}

impl ServiceRow {
    fn order(&self) -> (&str, &str, &str) {
        (&self.stats.service, self.side(), &self.node)
    }

    fn key(&self) -> (String, String, &'static str) {
        (self.incarnation.clone(), self.stats.service.to_string(), self.side())
    }

    pub(crate) fn is_server(&self) -> bool {
        self.stats.side == CallSide::Server
    }

    pub(crate) fn side(&self) -> &'static str {
        if self.is_server() { "server" } else { "client" }
    }

    /// How calls have failed: each kind, and how many.
    pub(crate) fn failures(&self) -> String {
        let kinds = self.stats.failures.iter().filter(|(_, count)| *count > 0);
        let kinds: Vec<String> = kinds.map(|(kind, count)| format!("{} {}", grouped(count), kind.name())).collect();
        if kinds.is_empty() { "-".to_owned() } else { kinds.join(", ") }
    }
}

/// The rows as a table. Empty: there are none.
pub(crate) fn table(rows: &[ServiceRow]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let has_rates = rows.iter().any(|row| row.recent.is_some());
    let mut header = vec!["SERVICE", "SIDE", "NODE", "OPEN", "CALLS", "ANSWERED", "IN FLIGHT", "P50", "P99", "P99.9"];
    header.push("MAX");
    if has_rates {
        header.extend(["CALLS/S", "FAILED/S"]);
    }
    header.push("FAILURES");
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for row in rows {
        let stats = &row.stats;
        let time = |part: f64| stats.latency.quantile(part).map_or("-".to_owned(), readable);
        let mut cells = vec![stats.service.to_string(), row.side().to_owned(), row.node.clone()];
        cells.extend([stats.open, stats.calls, stats.answered, stats.in_flight()].map(grouped));
        cells.extend([time(0.5), time(0.99), time(0.999)]);
        cells.push(if stats.latency.is_empty() { "-".to_owned() } else { readable(stats.latency.max_ns()) });
        if has_rates {
            let rate = |of: fn(&Recent) -> f64| {
                row.recent.as_ref().map_or("-".to_owned(), |recent| grouped(of(recent).round() as u64))
            };
            cells.extend([rate(|recent| recent.calls), rate(|recent| recent.failed)]);
        }
        cells.push(row.failures());
        table.add_row(cells);
    }
    let numbers = if has_rates { 10 } else { 8 };
    table.column_iter_mut().skip(3).take(numbers).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}
