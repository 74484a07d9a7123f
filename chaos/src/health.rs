//! Whether a survivor has grown: descriptors, mappings, memory.

use testkit::proc::Usage;

/// How much more a process may hold at one of two moments than at the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slack {
    descriptors: u64,
    memfds: u64,
    memory_kib: u64,
}

impl Slack {
    /// One channel, which may exist at one of the two moments only.
    pub(crate) const CHANNEL: Self = Self { descriptors: 4, memfds: 6, memory_kib: 1536 };
    /// The same where payloads of some MiB are lent. How many wait or are held at a moment depends on where the other side was killed:
    /// up to the 64 MiB that an inbox takes, in several memories. And a receiver has a copy only once it has received one.
    pub(crate) const PAYLOADS: Self = Self { descriptors: 16, memfds: 16, memory_kib: 64 * 1024 + 1536 };
}

/// Checks that a process has not grown since by more than the slack.
///
/// Memory also depends on the allocator. Many rounds lie between the moments, so that any leak adds up to more.
pub(crate) fn has_not_grown(pid: u32, before: &Usage, slack: Slack) -> anyhow::Result<()> {
    let now = Usage::of(pid)?;
    let grown = |what: &str| format!("{what} have grown: {before:?}, now {now:?}");
    anyhow::ensure!(now.descriptors <= before.descriptors + slack.descriptors, grown("descriptors"));
    anyhow::ensure!(now.memfds() <= before.memfds() + slack.memfds, grown("mapped channels"));
    // The C library keeps the stacks and arenas of up to 8 threads, which close the descriptors of strangers.
    anyhow::ensure!(now.mappings() <= before.mappings() + 40, grown("mappings"));
    anyhow::ensure!(now.memory_kib <= before.memory_kib + slack.memory_kib, grown("KiB of memory"));
    Ok(())
}
