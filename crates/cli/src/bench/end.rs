//! One end of a measurement: what it sends with, and what it receives with.
//!
//! Node `b` receives what is published on `bench/b`, or what is sent to it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use librpc::{ConnectError, Event, Inbox, Node, Publisher, SendError, Sender, Wait};
use serde::{Deserialize, Serialize};

use crate::deadline::SLICE;
use crate::interrupt::Interrupt;

/// Longer than any receiver should be away.
const LIMIT: Duration = Duration::from_secs(10);

/// Which way the messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Via {
    /// Published on a topic, received by a subscription
    Topic,
    /// Sent to a node
    Send,
}

pub(super) fn topic(node: &str) -> String {
    format!("bench/{node}")
}

/// The inbox of a node. A signal stops it.
pub(super) fn inbox(node: &Node, via: Via, wait: Wait, capacity: u64, interrupt: &Interrupt) -> anyhow::Result<Inbox> {
    let builder = match via {
        Via::Topic => node.subscriber_builder([topic(node.id())]),
        Via::Send => node.inbox_builder(),
    };
    let inbox = builder.wait(wait).capacity(capacity).open()?;
    let stop = inbox.stop_handle();
    interrupt.then(move || stop.stop());
    Ok(inbox)
}

/// A publisher to a node, once the node is there.
pub(super) fn publisher(node: &Node, to: &str, interrupt: &Interrupt) -> anyhow::Result<Publisher> {
    let mut publisher = node.publisher(&topic(to))?;
    publisher.set_limit(LIMIT);
    patiently(to, interrupt, || Ok(publisher.wait_for_subscriber(SLICE)?.then_some(())))?;
    Ok(publisher)
}

/// Tries until there is something, up to a limit, and not after a signal: then the other side may have left.
fn patiently<T>(
    to: &str,
    interrupt: &Interrupt,
    mut attempt: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let begun = Instant::now();
    loop {
        if let Some(found) = attempt()? {
            return Ok(found);
        }
        anyhow::ensure!(interrupt.signal().is_none(), "interrupted");
        anyhow::ensure!(begun.elapsed() < LIMIT, "node {to:?} does not appear");
    }
}

/// What sends to a node.
pub(super) enum To {
    Topic(Publisher),
    Node(Sender),
}

impl To {
    /// Waits until the node is there, or a signal comes.
    pub(super) fn open(node: &Node, to: &str, via: Via, interrupt: &Interrupt) -> anyhow::Result<Self> {
        Ok(match via {
            Via::Send => {
                let mut sender = patiently(to, interrupt, || match node.sender_within(to, SLICE) {
                    Err(ConnectError::NotFound { .. } | ConnectError::NoInbox { .. }) => Ok(None),
                    sender => Ok(Some(sender?)),
                })?;
                sender.set_limit(LIMIT);
                Self::Node(sender)
            }
            Via::Topic => Self::Topic(publisher(node, to, interrupt)?),
        })
    }

    /// Sends a message. Waits for room.
    #[inline]
    pub(super) fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        match self {
            Self::Node(sender) => Ok(sender.send(message)?),
            Self::Topic(publisher) => match publisher.publish(message)? {
                receipt if receipt.inboxes() == 1 => Ok(()),
                receipt => bail!(missed(receipt.undelivered())),
            },
        }
    }

    /// Sends a message if there is room.
    #[inline]
    pub(super) fn try_send(&mut self, message: &[u8]) -> anyhow::Result<bool> {
        match self {
            Self::Node(sender) => match sender.try_send(message) {
                Ok(()) => Ok(true),
                Err(SendError::Full { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Self::Topic(publisher) => match publisher.try_publish(message)? {
                receipt if receipt.inboxes() == 1 => Ok(true),
                receipt if matches!(receipt.undelivered(), [SendError::Full { .. }]) => Ok(false),
                receipt => bail!(missed(receipt.undelivered())),
            },
        }
    }

    /// Waits until everything is processed, or the receiver is gone.
    pub(super) fn settle(&mut self) {
        let _ = self.flush(); // both are fine
    }

    /// Waits until everything is processed.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Node(sender) => sender.flush(LIMIT),
            Self::Topic(publisher) => publisher.flush(LIMIT),
        }
        .context("not everything was processed")
    }
}

#[cold]
fn missed(undelivered: &[SendError]) -> anyhow::Error {
    match undelivered.first() {
        Some(error) => anyhow::anyhow!("{error}"),
        None => anyhow::anyhow!("the other process is gone"),
    }
}

/// Takes the next message. `None`: the inbox was stopped, or its sender has left.
#[inline]
pub(super) fn next<R>(inbox: &mut Inbox, take: impl FnOnce(&[u8]) -> R) -> anyhow::Result<Option<R>> {
    loop {
        match inbox.recv_event()? {
            Some(Event::Message(message)) => return Ok(Some(take(message.payload()))),
            None | Some(Event::SenderLeft(..)) => return Ok(None),
            Some(_) => {}
        }
    }
}
