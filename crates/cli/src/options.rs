//! Options that several commands share, and how their values are read.

use std::time::Duration;

use librpc::{DEFAULT_CAPACITY, InboxBuilder};

/// The longest message that an inbox takes by default, in bytes.
pub(crate) const MAX_MESSAGE: usize = 1 << 30;

/// How large messages may be that a command receives, and where they wait.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct RoomArgs {
    /// The size of each sender's ring, a power of two. It sets how many messages can wait, not how large they are: one
    /// larger than a quarter of it (with --policy drop-oldest: an eighth) waits in its sender's memory
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_CAPACITY)]
    capacity: u64,
    /// The largest message that is taken. A larger one is an error of its sender
    #[arg(long, value_name = "BYTES", default_value_t = MAX_MESSAGE)]
    max_message: usize,
}

impl RoomArgs {
    pub(crate) fn apply<'n>(&self, inbox: InboxBuilder<'n>) -> InboxBuilder<'n> {
        inbox.capacity(self.capacity).max_message(self.max_message)
    }
}

/// The topics that a command subscribes to.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PatternArgs {
    /// The topics, as patterns: levels joined by slashes, where `*` is one level and `**` any number, including none
    #[arg(required = true)]
    pub(crate) pattern: Vec<String>,
}

/// What a command shows of a domain.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct AboutArgs {
    /// Only this node, topic, pattern or service, with everything connected to it
    pub(crate) what: Option<String>,
}

/// The time between two looks that are compared.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct OverArgs {
    /// How long to look
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    pub(crate) over: Duration,
}

/// Reads a number of seconds: more than 0, and short enough for every clock.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds < 1e9);
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| !time.is_zero()).ok_or_else(|| "it must be more than 0 and less than 1e9".into())
}

/// Reads the size of a message in bytes, within these bounds.
pub(crate) fn size(text: &str, smallest: usize, largest: usize) -> Result<usize, String> {
    let size = text.parse().ok().filter(|size| (smallest..=largest).contains(size));
    size.ok_or_else(|| format!("it must be from {smallest} to {largest} bytes"))
}
