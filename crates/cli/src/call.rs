//! `librpc call`: one request to a service, and its reply on stdout.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use futures_core::Stream;
use librpc::{CallError, Client, Reply, ServeError};
use serde::Serialize;

use crate::deadline::Deadline;
use crate::domain::{DomainArgs, unique_id};
use crate::file;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::stdout::{Stdout, Written};
use crate::wait;

/// Calls a service, and writes its reply to stdout
///
/// Waits for the service and for the reply. 0: there is a reply. 1: the call has failed; stderr says how. 3: the server died while it
/// worked on the request, which it may have carried out. 124: the time was up.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc call plan/route 'to the dock'
  librpc call image/scale - < photo.jpg > small.jpg
  librpc call plan/route 'to the dock' --stream        # each part of the reply as it comes
  librpc call plan/route --json --time | jq .time_ns")]
pub(crate) struct Args {
    /// The service
    service: String,
    /// The request; `-`: all of stdin [default: empty]
    data: Option<String>,
    /// How long to wait for the service and the reply
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Report how long the call took
    #[arg(long)]
    time: bool,
    /// Take a reply that comes in parts, and write each of them as it comes
    #[arg(long)]
    stream: bool,
    /// Write one object per reply or part: service, server, payload (or payload_base64); or error and kind
    #[arg(long)]
    json: bool,
    /// Call the server of this node
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    /// The id of the node that calls [default: call and 8 hex digits]
    #[arg(long)]
    id: Option<String>,
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let node = domain.open(&args.id.clone().map_or_else(|| unique_id("call"), Ok)?)?;
    let client = open(node.client_builder(&args.service).any_types().open())?;
    let request = match args.data.as_deref() {
        Some("-") => match file::stdin(&interrupt).context("cannot read stdin")? {
            Ok(request) => request,
            Err(signal) => return Ok(Outcome::Interrupted(signal)),
        },
        data => data.unwrap_or_default().as_bytes().to_vec(),
    };
    let mut calling = Calling { args: &args, interrupt: &interrupt, stdout: Stdout::new(), begun: Instant::now() };
    match calling.call(&client, &request) {
        Ok(outcome) => Ok(outcome),
        Err(NotDone::Call(error)) => calling.failed(&error),
        Err(NotDone::Other(error)) => Err(error),
    }
}

/// A client or a server of a service. An invalid name is wrong usage.
pub(crate) fn open<T>(opened: Result<T, ServeError>) -> anyhow::Result<T> {
    opened.map_err(|error| match error {
        ServeError::InvalidService(bad) => Usage(bad.to_string()).into(),
        error => error.into(),
    })
}

/// Why there is no reply.
enum NotDone {
    Call(CallError),
    Other(anyhow::Error),
}

impl From<CallError> for NotDone {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<anyhow::Error> for NotDone {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

struct Calling<'a> {
    args: &'a Args,
    interrupt: &'a Interrupt,
    stdout: Stdout,
    begun: Instant,
}

impl Calling<'_> {
    fn call(&mut self, client: &Client, request: &[u8]) -> Result<Outcome, NotDone> {
        let deadline = Deadline::after(self.args.timeout);
        match self.wait_for_server(client, deadline)? {
            Err(signal) => return Ok(Outcome::Interrupted(signal)),
            Ok(true) => {}
            Ok(false) => {
                let (service, node) = (client.service().into(), self.args.to.as_deref().map(Into::into));
                return Err(CallError::NoServer { service, node }.into());
            }
        }
        let mut options = librpc::CallOptions::new(deadline.next_wait(Duration::MAX));
        options.to = self.args.to.as_deref().map(Into::into);
        self.begun = Instant::now();
        if self.args.stream {
            let mut parts = match wait::run(client.call_stream_async(request, options), self.interrupt)? {
                Ok(parts) => parts?,
                Err(signal) => return Ok(Outcome::Interrupted(signal)),
            };
            loop {
                match wait::run(poll_fn(|context| Pin::new(&mut parts).poll_next(context)), self.interrupt)? {
                    Ok(Some(part)) => {
                        if let Some(outcome) = self.write(&part?)? {
                            return Ok(outcome);
                        }
                    }
                    Ok(None) => break,
                    Err(signal) => return Ok(Outcome::Interrupted(signal)),
                }
            }
        } else {
            match wait::run(client.call_async(request, options), self.interrupt)? {
                Ok(reply) => {
                    if let Some(outcome) = self.write(&reply?)? {
                        return Ok(outcome);
                    }
                }
                Err(signal) => return Ok(Outcome::Interrupted(signal)),
            }
        }
        if self.args.time && !self.args.json {
            say(format_args!("{} took {:.3?}", self.args.service, self.begun.elapsed()));
        }
        Ok(Outcome::Done)
    }

    /// Waits until somebody serves the service, or the node that is asked for does. `Err`: a signal came first.
    fn wait_for_server(&self, client: &Client, deadline: Deadline) -> Result<Result<bool, i32>, NotDone> {
        let left = deadline.next_wait(Duration::MAX);
        let waited = match self.args.to.as_deref() {
            None => wait::run(client.wait_for_server_async(left), self.interrupt)?,
            Some(node) => wait::run(client.wait_for_server_at_async(node, left), self.interrupt)?,
        };
        Ok(match waited {
            Ok(found) => Ok(found?),
            Err(signal) => Err(signal),
        })
    }

    /// Writes a reply. `Some`: nothing more is to be written.
    fn write(&mut self, reply: &Reply) -> anyhow::Result<Option<Outcome>> {
        let mut line = Vec::new();
        if self.args.json {
            let payload = std::str::from_utf8(reply).ok();
            let encode = || base64::engine::general_purpose::STANDARD.encode(reply);
            let (service, server) = (&*self.args.service, reply.server());
            let payload_base64 = payload.is_none().then(encode);
            let time_ns = self.args.time.then(|| self.begun.elapsed().as_nanos() as u64);
            let object = Line { service, server, payload, payload_base64, time_ns };
            serde_json::to_writer(&mut line, &object).context("cannot write JSON")?;
        } else {
            line.extend_from_slice(reply);
        }
        line.push(b'\n');
        Ok(match self.stdout.write(&line, self.interrupt).context("cannot write to stdout")? {
            Written::All => None,
            Written::Closed => Some(Outcome::Done),
            Written::Interrupted => Some(Outcome::Interrupted(self.interrupt.signal().unwrap_or_default())),
        })
    }

    /// Says why a call has failed.
    fn failed(&mut self, error: &CallError) -> CommandResult {
        let (kind, code) = match error {
            CallError::NoServer { .. } => ("NoServer", Outcome::TimedOut),
            CallError::Deadline { .. } => ("Deadline", Outcome::TimedOut),
            CallError::ServerDied { taken: true, .. } => ("ServerDied", Outcome::Loss),
            CallError::ServerDied { .. } => ("ServerDied", Outcome::Failed),
            CallError::Busy { .. } => ("Busy", Outcome::Failed),
            CallError::Unimplemented { .. } => ("Unimplemented", Outcome::Failed),
            CallError::Mismatch { .. } => ("Mismatch", Outcome::Failed),
            CallError::Failed { .. } => ("Failed", Outcome::Failed),
            CallError::Refused { .. } => ("Refused", Outcome::Failed),
            _ => ("Error", Outcome::Failed),
        };
        say(format_args!("{kind}: {error}"));
        if self.args.json {
            let object = Failure { service: &self.args.service, kind, error: error.to_string() };
            let mut line = serde_json::to_vec(&object).context("cannot write JSON")?;
            line.push(b'\n');
            self.stdout.write(&line, self.interrupt).context("cannot write to stdout")?;
        }
        Ok(code)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    service: &'a str,
    server: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ns: Option<u64>,
}

#[derive(Serialize)]
struct Failure<'a> {
    service: &'a str,
    kind: &'a str,
    error: String,
}
