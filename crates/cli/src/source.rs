//! The node that sends, how fast it sends, and how long it waits for receivers: for `send`, `chat` and `pub`.

use std::num::NonZeroU32;
use std::time::Duration;

use librpc::{Node, NodeBuilder, Rate};

use crate::domain::{DomainArgs, unique_id};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// The id of the node that sends [default: the command and 8 hex digits, as in send-1b2c3d4e]
    #[arg(long)]
    id: Option<String>,
    /// How long to wait for a receiver before anything is read [default: 10s; pub does not wait]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) wait: Option<Duration>,
    /// If a receiver dies, wait this long for it to come back, and then deliver what it had not processed. On topics, only
    /// durable subscriptions come back
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) redeliver: Option<Duration>,
    /// Send at most N messages per second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// Send at most N messages at once [default: a hundredth of --rate]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<NonZeroU32>,
}

impl SourceArgs {
    /// Opens the node that sends.
    pub(crate) fn open(&self, domain: &DomainArgs, command: &str) -> anyhow::Result<Node> {
        self.open_with(domain, command, |node| node)
    }

    /// The same, with this setup.
    pub(crate) fn open_with(
        &self,
        domain: &DomainArgs,
        command: &str,
        set_up: impl FnOnce(NodeBuilder) -> NodeBuilder,
    ) -> anyhow::Result<Node> {
        domain.open_with(&self.id.clone().map_or_else(|| unique_id(command), Ok)?, set_up)
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        let hundredth = |rate: NonZeroU32| NonZeroU32::new(rate.get() / 100).unwrap_or(NonZeroU32::MIN);
        self.rate.map(|rate| Rate::messages(rate, self.burst.unwrap_or_else(|| hundredth(rate))))
    }
}
