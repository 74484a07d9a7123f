//! A process that does what a test tells it: each command is a line of JSON on stdin, each reply a line on stdout.
//!
//! The first argument is the path of the domain. `LIBRPC_FAULT` names the fault point at which the process is killed or
//! stopped.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use librpc::{Inbox, Node, Outbox, Sample, Sender};
use librpc_system_tests::command::Command;
use serde::Serialize;

mod inbox; //   the node's inbox, and subscriptions
mod node; //    opening and closing
mod process; // descriptors, forking
mod sender; //  senders to nodes
mod topics; //  the outbox that all topics share

/// The encoded answer to a command.
type Outcome = Result<serde_json::Value, Box<dyn Error>>;

/// A receive waits this long for a message that a test expects.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that a puppet holds. Dropped in this order.
struct Puppet {
    senders: HashMap<String, Sender>,
    outbox: Option<Outbox>,
    publish_limit: Duration,
    /// The node's own inbox has no name.
    inboxes: HashMap<Option<String>, Inbox>,
    held: Vec<Sample>,
    node: Option<Node>,
    domain: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    testkit::die_with_parent()?;
    let domain = std::env::args_os().nth(1).ok_or("the path of the domain is missing")?;
    let mut puppet = Puppet {
        senders: HashMap::new(),
        outbox: None,
        publish_limit: librpc::DEFAULT_SEND_TIMEOUT,
        inboxes: HashMap::new(),
        held: Vec::new(),
        node: None,
        domain: domain.into(),
    };
    for line in std::io::stdin().lock().lines() {
        let reply = puppet.obey(serde_json::from_str(&line?)?).map_err(|error| error.to_string());
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", serde_json::to_string(&reply)?)?;
        stdout.flush()?;
    }
    Ok(())
}

impl Puppet {
    fn obey(&mut self, command: Command) -> Outcome {
        match command {
            Command::Node(command) => self.obey_about_node(command),
            Command::Inbox(name, command) => self.obey_about_inbox(name, command),
            Command::Sender(to, command) => self.obey_about_sender(to, command),
            Command::Topics(command) => self.obey_about_topics(command),
            Command::Process(command) => self.obey_about_process(command),
        }
    }

    fn node(&self) -> Result<&Node, &'static str> {
        self.node.as_ref().ok_or("no node is open")
    }
}

fn answer(answer: impl Serialize) -> Outcome {
    Ok(serde_json::to_value(answer)?)
}

/// The answer to a command without a result.
fn done() -> Outcome {
    answer(())
}

fn text(payload: &[u8]) -> String {
    String::from_utf8_lossy(payload).into_owned()
}
