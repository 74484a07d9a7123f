//! `librpc metrics`: a page of metrics for Prometheus. Counters are read when the page is requested.

mod counters; // counts that never fall
mod page; //     the content of the page
mod server; //   the part of HTTP that a scrape needs
mod topics; //   what is published, by topic

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use librpc::Observer;

use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, say};
use crate::snapshot::{ANSWER_LIMIT, Snapshot};

use counters::Counters;
use server::{Answer, Server};
use topics::Topics;

/// Serves the domain's counters to Prometheus, as OpenMetrics text
///
/// Nodes are asked only when the page is requested. Runs until interrupted. Messages are counted by sending node, receiving
/// node and address, and once more by topic. docs/grafana.json is a dashboard.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc metrics --listen 127.0.0.1:9464
  curl -s http://127.0.0.1:9464/metrics | grep librpc_queue_depth")]
pub(crate) struct Args {
    /// Where to listen. Port 0 takes a free port, which stderr names
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    /// How many topics have series of their own. All others are counted together, as topic `**`
    #[arg(long, value_name = "N", default_value_t = 500)]
    topics: usize,
}

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let last = Mutex::new((Observer::new(domain.domain()?), Arc::default(), Topics::new(args.topics)));
    let server = Server::listen(args.listen)?;
    say(format_args!("listening on http://{}/metrics", server.address()?));
    server.serve(&interrupt, move |path| match path {
        "/metrics" | "/" => {
            page(&last).unwrap_or_else(|error| Answer::text("500 Internal Server Error", format!("{error:#}\n")))
        }
        _ => Answer::text("404 Not Found", "only /metrics\n"),
    })?;
    Ok(Outcome::Done)
}

/// Simultaneous requests look at the domain one after the other.
fn page(last: &Mutex<(Observer, Arc<Counters>, Topics)>) -> anyhow::Result<Answer> {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let observed = last.0.look(ANSWER_LIMIT)?;
    let counters = Arc::new(Counters::of(&observed, &last.1));
    last.1 = counters.clone();
    let snapshot = Snapshot::of(observed);
    last.2.add(&snapshot);
    let topics = last.2.sums();
    drop(last);
    let body = page::encode(&snapshot, &counters, topics)?;
    Ok(Answer { status: "200 OK", kind: OPEN_METRICS, body })
}
