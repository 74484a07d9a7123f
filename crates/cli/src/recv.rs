//! `librpc recv`: what is sent to a node, on stdout.
//!
//! Invariant: what was not written is not acknowledged. A message is written first, whole, and acknowledged then.

use std::num::NonZeroU64;

use anyhow::Context;
use base64::Engine;
use librpc::{Acknowledge, Admission, DEFAULT_CAPACITY, InboxError, Message};
use serde::Serialize;

use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome, Usage};
use crate::stdout::{Stdout, Written};

/// Writes the messages sent to a node to stdout, one line each
///
/// A message is acknowledged when it is written. Ends with 0 at SIGINT, SIGTERM, or when nobody reads its stdout.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc recv display                        # until interrupted
  librpc recv display --count 1              # one message
  librpc recv display --json | jq .payload
  librpc recv display --admit uid:1001 --group users --domain /dev/shm/shared")]
pub(crate) struct Args {
    /// The id of the node to open
    node: String,
    /// Leave after so many messages
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,
    /// One object a line: from, sequence, payload (or payload_base64), redelivered
    #[arg(long, conflicts_with = "raw")]
    json: bool,
    /// Nothing between the messages
    #[arg(long)]
    raw: bool,
    /// Whom to admit besides the own user: uid:N, gid:N, pid:N or exe:/path (may be repeated)
    #[arg(long, value_name = "RULE", value_parser = parse_rule)]
    admit: Vec<Rule>,
    /// Bytes of each sender's ring, a power of two; the longest message is a quarter of it, less 64 bytes
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_CAPACITY)]
    capacity: u64,
}

#[derive(Clone, Debug)]
enum Rule {
    Uid(u32),
    Gid(u32),
    Pid(u32),
    Executable(String),
}

fn parse_rule(text: &str) -> Result<Rule, String> {
    let number = |text: &str| text.parse::<u32>().map_err(|error| format!("{text:?}: {error}"));
    match text.split_once(':') {
        Some(("uid", uid)) => number(uid).map(Rule::Uid),
        Some(("gid", gid)) => number(gid).map(Rule::Gid),
        Some(("pid", pid)) => number(pid).map(Rule::Pid),
        Some(("exe", path)) if path.starts_with('/') => Ok(Rule::Executable(path.to_owned())),
        _ => Err("a rule is uid:N, gid:N, pid:N or exe:/path".to_owned()),
    }
}

fn admission(rules: Vec<Rule>) -> Admission {
    rules.into_iter().fold(Admission::same_user(), |admission, rule| match rule {
        Rule::Uid(uid) => admission.uid(uid),
        Rule::Gid(gid) => admission.gid(gid),
        Rule::Pid(pid) => admission.pid(pid),
        Rule::Executable(path) => admission.executable(path),
    })
}

pub(crate) fn run(domain: &DomainArgs, args: Args) -> CommandResult {
    let interrupt = Interrupt::install()?;
    let mut stdout = Stdout::new();
    let node = domain.open_admitting(&args.node, admission(args.admit))?;
    let inbox = node.inbox_builder().capacity(args.capacity).acknowledge(Acknowledge::Explicit).open();
    let mut inbox = inbox.map_err(|error| match error {
        InboxError::Capacity { .. } => anyhow::Error::from(Usage(error.to_string())),
        error => error.into(),
    })?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());

    let mut written = 0;
    let mut line = Vec::new();
    while let Some(message) = inbox.recv()? {
        line.clear();
        if args.json {
            serde_json::to_writer(&mut line, &Line::new(&message)).context("cannot write JSON")?;
        } else {
            line.extend_from_slice(message.payload());
        }
        if !args.raw {
            line.push(b'\n');
        }
        match stdout.write(&line, &interrupt).context("cannot write to stdout")? {
            Written::All => inbox.ack(),
            Written::Closed | Written::Interrupted => break,
        }
        written += 1;
        if args.count.is_some_and(|count| written >= count.get()) {
            break;
        }
    }
    Ok(Outcome::Done)
}

#[derive(Serialize)]
struct Line<'a> {
    from: &'a str,
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    redelivered: bool,
}

impl<'a> Line<'a> {
    fn new(message: &Message<'a>) -> Self {
        let payload = std::str::from_utf8(message.payload()).ok();
        let encode = || base64::engine::general_purpose::STANDARD.encode(message.payload());
        Self {
            from: message.from(),
            sequence: message.sequence(),
            payload,
            payload_base64: payload.is_none().then(encode),
            redelivered: message.is_redelivered(),
        }
    }
}
