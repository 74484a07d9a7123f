//! A server that says which requests it takes, and a client that says how its calls end.

use std::time::Duration;

use librpc::CallError;
use serde::{Deserialize, Serialize};

use super::{DomainAt, at_end_of_stdin, open, say};

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
