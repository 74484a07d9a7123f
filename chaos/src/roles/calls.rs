//! A server that says which requests it takes, and a client that says how its calls end.

use std::time::Duration;

use anyhow::Context;
use librpc::{CallError, CallOptions, Client, Wait};
use serde::{Deserialize, Serialize};

use super::{DomainAt, at_end_of_stdin, open, say};
use crate::log::Notes;

const LIMIT: Duration = Duration::from_secs(60);
/// One call in this many is given up.
const GIVEN_UP: u64 = 5;

pub(crate) fn serve(domain: &DomainAt, id: &str) -> anyhow::Result<()> {
    let node = open(domain, id)?;
    let server = node.serve("work")?;
    let stop = server.stop_handle();
    at_end_of_stdin(move || stop.stop())?;
    say("ready")?;
    while let Some(request) = server.recv()? {
        let number = String::from_utf8(request.to_vec())?;
        say(&number)?;
        request.reply(number.as_bytes())?;
    }
    Ok(())
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallCount {
    pub(crate) domain: DomainAt,
    pub(crate) calls: u64,
}

impl CallCount {
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        let node = open(&self.domain, "client")?;
        let client = node.client("work")?;
        for number in 0..self.calls {
            let request = number.to_string();
            if number % GIVEN_UP == 0 {
                drop(client.start(request.as_bytes(), LIMIT));
                continue;
            }
            let outcome = match client.call(request.as_bytes(), LIMIT) {
                Ok(reply) if *reply == *request.as_bytes() => "answered",
                Err(CallError::ServerDied { taken: true, .. }) => "taken",
                Err(CallError::ServerDied { taken: false, .. } | CallError::NoServer { .. }) => "untaken",
                other => anyhow::bail!("call {number}: {other:?}"),
            };
            say(&format!("{outcome} {number}"))?;
        }
        say("ended")
    }
}

/// How a call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    Answered,
    /// Its server had taken it, and died.
    Lost,
    /// No server had taken it.
    Untaken,
    Late,
    Cancelled,
}

impl Ended {
    const ALL: [Self; 5] = [Self::Answered, Self::Lost, Self::Untaken, Self::Late, Self::Cancelled];

    /// 0 stands for a call that has not ended.
    fn byte(self) -> u8 {
        self as u8 + 1
    }

    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.byte() == byte)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Lost => "lost with their server",
            Self::Untaken => "not taken",
            Self::Late => "too late",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Whether the call with this number may be carried out twice.
pub(crate) fn is_idempotent(number: u64) -> bool {
    number.is_multiple_of(10)
}

/// What the server makes of a request.
fn answer(number: u64) -> [u8; 8] {
    number.wrapping_mul(3).to_le_bytes()
}

/// The clock that all processes share, in ns.
pub(crate) fn now_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Takes requests, and never answers.
pub(crate) fn hold(domain: &DomainAt, id: &str) -> anyhow::Result<()> {
    let node = open(domain, id)?;
    let server = node.serve("work")?;
    let stop = server.stop_handle();
    at_end_of_stdin(move || stop.stop())?;
    say("ready")?;
    let mut held = Vec::new();
    while let Some(request) = server.recv()? {
        held.push(request);
        say("taken")?;
    }
    Ok(())
}

/// Notes each request before it answers.
pub(crate) fn serve_noted(domain: &DomainAt, id: &str, notes: &str) -> anyhow::Result<()> {
    let (node, notes) = (open(domain, id)?, Notes::open(notes)?);
    let server = node.server_builder("work").wait(Wait::Block).open()?;
    let stop = server.stop_handle();
    at_end_of_stdin(move || stop.stop())?;
    say("ready")?;
    while let Some(request) = server.recv()? {
        let number = u64::from_le_bytes(request[..].try_into()?);
        notes.count(number)?;
        request.reply(&answer(number))?;
    }
    Ok(())
}

/// Several clients of one process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CallMany {
    pub(crate) domain: DomainAt,
    pub(crate) id: String,
    pub(crate) clients: u64,
    /// The number of the first call, and how many each client makes.
    pub(crate) first: u64,
    pub(crate) calls: u64,
    /// Where the ends of calls are noted.
    pub(crate) notes: String,
}

impl CallMany {
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        let (node, notes) = (open(&self.domain, &self.id)?, Notes::open(&self.notes)?);
        let call_all = |first: u64| {
            let client = node.client_builder("work").wait(Wait::Block).open()?;
            (first..first + self.calls).try_for_each(|number| {
                let how = call(&client, number).with_context(|| format!("call {number}"))?;
                notes.note(number, how.byte())
            })
        };
        std::thread::scope(|scope| {
            let begin = |client| scope.spawn(move || call_all(self.first + client * self.calls));
            let clients: Vec<_> = (0..self.clients).map(begin).collect();
            clients.into_iter().try_for_each(|client| client.join().expect("no client panics"))
        })?;
        say("ended")
    }
}

fn call(client: &Client, number: u64) -> anyhow::Result<Ended> {
    let request = number.to_le_bytes();
    // Some are given up, and some have hardly any time.
    let limit = match number % 100 {
        7 => {
            drop(client.start(&request, LIMIT));
            return Ok(Ended::Cancelled);
        }
        13 => Duration::from_micros(50),
        _ => LIMIT,
    };
    let options = CallOptions::new(limit).idempotent(is_idempotent(number));
    Ok(match client.call(&request, options) {
        Ok(reply) if *reply == answer(number) => Ended::Answered,
        Err(CallError::ServerDied { taken: true, node, .. }) => {
            say(&format!("died {node} {}", now_ns()))?;
            Ended::Lost
        }
        Err(CallError::ServerDied { taken: false, .. } | CallError::NoServer { .. }) => Ended::Untaken,
        Err(CallError::Deadline { .. }) if limit < LIMIT => Ended::Late,
        other => anyhow::bail!("{other:?}"),
    })
}
