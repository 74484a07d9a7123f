//! A process that sends one message and ends, and one that collects such messages.

use std::time::Duration;

use anyhow::Context;
use librpc::{Message, Node};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};

use super::{DomainAt, TOPIC, at_end_of_stdin, open, say};

/// How long a sender waits for its receiver.
const LIMIT: Duration = Duration::from_secs(60);

/// What a message is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum To {
    Node,
    Topic,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// It returns from `main`, which drops everything.
    Return,
    /// It calls `exit`, which drops nothing.
    Exit,
    /// SIGKILL.
    Kill,
}

/// Sends its number, and ends as soon as that is accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Once {
    pub(crate) domain: DomainAt,
    pub(crate) number: u64,
    pub(crate) to: To,
    pub(crate) ending: Ending,
}

impl Once {
    pub(super) fn play(self) -> anyhow::Result<()> {
        let node = open(&self.domain, &format!("once{}", self.number))?;
        let payload = self.number.to_string();
        let (mut sender, mut publisher) = (None, None);
        match self.to {
            To::Node => sender.insert(until_connected(&node)?).send(payload.as_bytes())?,
            To::Topic => {
                let publisher = publisher.insert(node.publisher(TOPIC)?);
                anyhow::ensure!(publisher.wait_for_subscriber(LIMIT)?, "nobody subscribes");
                let receipt = publisher.publish(payload.as_bytes())?;
                anyhow::ensure!((receipt.inboxes(), receipt.pending()) == (1, 0), "{receipt:?}");
            }
        }
        say("accepted")?;
        match self.ending {
            Ending::Return => Ok(()),
            Ending::Exit => std::process::exit(0),
            Ending::Kill => Ok(kill_process(getpid(), Signal::KILL)?),
        }
    }
}

/// Does not wait for the answer of a receiver, which may be stopped.
fn until_connected(node: &Node) -> anyhow::Result<librpc::Sender> {
    let begun = std::time::Instant::now();
    loop {
        match node.try_connect("sink") {
            Err(error) if begun.elapsed() > LIMIT => return Err(error).context("the receiver does not appear"),
            Err(_) => std::thread::sleep(Duration::from_micros(200)),
            connected => return Ok(connected?),
        }
    }
}

/// Says each number that it receives.
pub(super) fn collect(domain: &DomainAt, from: To) -> anyhow::Result<()> {
    let node = open(domain, "sink")?;
    let builder = match from {
        To::Node => node.inbox_builder(),
        To::Topic => node.subscriber_builder([TOPIC]),
    };
    let on_message = |message: Message<'_>| drop(say(&String::from_utf8_lossy(message.payload())));
    let handle = builder.callback(on_message)?;
    say("ready")?;
    let (end, ended) = std::sync::mpsc::channel();
    at_end_of_stdin(move || _ = end.send(()))?;
    ended.recv()?;
    Ok(handle.stop()?)
}
