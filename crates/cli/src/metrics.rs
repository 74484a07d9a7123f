//! `librpc metrics`: a page of metrics for Prometheus. Counters are read when the page is asked for.

mod page; // what the page says

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::anyhow;
use tiny_http::{Header, Method, Response, Server};

use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, say};
use crate::snapshot::Looker;

/// Serves the domain's counters to Prometheus, as OpenMetrics text
///
/// Nodes are asked when the page is asked for: nothing is polled in between. Runs until interrupted. Messages are counted
/// by sending node, receiving node and address. docs/grafana.json is a dashboard.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc metrics --listen 127.0.0.1:9464
  curl -s http://127.0.0.1:9464/metrics | grep librpc_queue_depth")]
pub(crate) struct Args {
    /// Where to listen; port 0 takes a free one, and stderr says which
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
}

const OPEN_METRICS: &str = "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let mut looker = Looker::new(domain.domain()?);
    let server = Server::http(args.listen).map_err(|error| anyhow!("cannot listen on {}: {error}", args.listen))?;
    let server = Arc::new(server);
    say(format_args!("listening on http://{}/metrics", server.server_addr()));
    let stopping = server.clone();
    interrupt.then(move || stopping.unblock());
    for request in server.incoming_requests() {
        if interrupt.signal().is_some() {
            break;
        }
        let is_asked = request.method() == &Method::Get && matches!(request.url(), "/metrics" | "/");
        let response = if !is_asked {
            Response::from_string("only GET /metrics\n").with_status_code(404)
        } else {
            match looker.look().and_then(|snapshot| Ok(page::encode(&snapshot)?)) {
                Ok(page) => Response::from_string(page).with_header(OPEN_METRICS.parse::<Header>().expect("a header")),
                Err(error) => Response::from_string(format!("{error:#}\n")).with_status_code(500),
            }
        };
        let _ = request.respond(response); // whoever asked may have gone
    }
    Ok(Outcome::Done)
}
