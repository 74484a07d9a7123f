//! `librpc call`: one request to a service, and its reply on stdout.

use std::io::Read;
use std::time::{Duration, Instant};

use anyhow::Context;
use base64::Engine;
use librpc::{CallError, Client, Reply, ServeError};
use serde::Serialize;

use crate::deadline::{Deadline, SLICE};
use crate::domain::{DomainArgs, unique_id};
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage, say};
use crate::stdout::{Stdout, Written};

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
        Some("-") => {
            let mut request = Vec::new();
            std::io::stdin().lock().read_to_end(&mut request).context("cannot read stdin")?;
            request
        }
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
        while !self.is_there(client, deadline.next_wait(SLICE))? {
            if let Some(signal) = self.interrupt.signal() {
                return Ok(Outcome::Interrupted(signal));
            }
            if deadline.has_passed() {
                let (service, node) = (client.service().into(), self.args.to.as_deref().map(Into::into));
                return Err(CallError::NoServer { service, node }.into());
            }
        }
        let mut options = librpc::CallOptions::new(deadline.next_wait(Duration::MAX));
        options.to = self.args.to.as_deref().map(Into::into);
        self.begun = Instant::now();
        if self.args.stream {
            let mut parts = client.call_stream(request, options)?;
            loop {
                match parts.next_timeout(SLICE) {
                    Some(part) => {
                        let part = part?;
                        if let Some(outcome) = self.write(&part)? {
                            return Ok(outcome);
                        }
                    }
                    None if parts.is_over() => break,
                    None => {
                        if let Some(signal) = self.interrupt.signal() {
                            return Ok(Outcome::Interrupted(signal));
                        }
                    }
                }
            }
        } else {
            let mut pending = client.start(request, options)?;
            let reply = loop {
                if let Some(reply) = pending.wait_timeout(SLICE) {
                    break reply?;
                }
                if let Some(signal) = self.interrupt.signal() {
                    return Ok(Outcome::Interrupted(signal));
                }
            };
            if let Some(outcome) = self.write(&reply)? {
                return Ok(outcome);
            }
        }
        if self.args.time && !self.args.json {
            say(format_args!("{} took {:.3?}", self.args.service, self.begun.elapsed()));
        }
        Ok(Outcome::Done)
    }

    /// Whether somebody serves the service, or the node that is asked for does.
    fn is_there(&self, client: &Client, wait: Duration) -> Result<bool, CallError> {
        let Some(to) = &self.args.to else { return client.wait_for_server(wait) };
        let is_there = client.servers()?.iter().any(|node| **node == **to);
        if !is_there {
            std::thread::sleep(wait.min(Duration::from_millis(10)));
        }
        Ok(is_there)
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
