//! What the processes do that a measurement starts. One word of JSON on their command line says it.

use serde::{Deserialize, Serialize};

use super::end::Via;
use super::exchange::Exchange;

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Part {
    /// Receives at each of these nodes, on a thread each.
    Receive { nodes: Vec<String>, cpu: Option<usize> },
    /// Connects this many senders of one node to a node, and sends nothing.
    Connected { to: String, count: u32 },
    /// Opens this many nodes.
    Nodes { count: u32 },
    /// Joins, leaves and subscribes on demand.
    Visitor,
    /// Subscribes and takes what comes, with this many other subscriptions besides.
    Patterns { count: u32, cpu: Option<usize> },
    /// Joins, connects and sends a first message: this many times, or until it is asked to leave.
    Connect { to: String, via: Via, size: usize, count: Option<u64>, cpu: Option<usize> },
    /// Sends every message back.
    Echo { node: String, to: String, via: Via, cpu: Option<usize> },
    /// Answers each request with its own bytes.
    Serve { spins: bool, cpu: Option<usize> },
    /// Waits until each call is cancelled.
    ServeCancelled { cpu: Option<usize> },
    /// Answers each request, and sends parts that nobody takes.
    ServeUnread { cpu: Option<usize> },
    /// Connects this many clients to a service, and calls no more.
    Clients { count: u32 },
    /// Answers an eventfd.
    AnswerEventfd { socket: String, cpu: Option<usize> },
    /// Takes messages as they come.
    Sink { node: String, via: Via, cpu: Option<usize> },
    /// Sends and receives at the same time.
    Exchange(Exchange),
    /// Sleeps, and says how long a message took to wake it.
    Sleepers { socket: String, cpu: Option<usize> },
    /// Takes large messages, and says how long they took.
    ViewInPlace { subscribers: u32, size: usize, cpu: Option<usize> },
    /// Reads large messages in full.
    ViewInFull { subscribers: u32, cpu: Option<usize> },
    /// Has many inboxes.
    Crowd { size: usize, cpu: Option<usize> },
}

impl Part {
    /// The words that start it.
    pub(super) fn arguments(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec!["bench-part".to_owned(), serde_json::to_string(self)?])
    }
}

impl std::str::FromStr for Part {
    type Err = serde_json::Error;

    fn from_str(text: &str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }
}
