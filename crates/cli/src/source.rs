//! Who sends, how fast, and whether it survives its receivers: what `send` and `pub` have in common.

use std::num::NonZeroU32;
use std::time::Duration;

use librpc::{Node, Rate};

use crate::domain::{DomainArgs, unique_id};

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct SourceArgs {
    /// The id of the node that sends [default: the command's name and 8 hex digits, as in send-1b2c3d4e]
    #[arg(long)]
    id: Option<String>,
    /// If a receiver dies (of a topic: a durable subscriber), wait so long for it to be back, and deliver then what it had
    /// not processed
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub(crate) redeliver: Option<Duration>,
    /// At most so many messages per second
    #[arg(long, value_name = "N")]
    rate: Option<NonZeroU32>,
    /// At most so many of them at once [default: what a hundredth of a second allows]
    #[arg(long, value_name = "N", requires = "rate")]
    burst: Option<NonZeroU32>,
}

impl SourceArgs {
    /// Opens the node that sends.
    pub(crate) fn open(&self, domain: &DomainArgs, command: &str) -> anyhow::Result<Node> {
        domain.open(&self.id.clone().map_or_else(|| unique_id(command), Ok)?)
    }

    pub(crate) fn rate(&self) -> Option<Rate> {
        let hundredth = |rate: NonZeroU32| NonZeroU32::new(rate.get() / 100).unwrap_or(NonZeroU32::MIN);
        self.rate.map(|rate| Rate::messages(rate, self.burst.unwrap_or_else(|| hundredth(rate))))
    }
}
