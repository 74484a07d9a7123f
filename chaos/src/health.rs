//! Whether a survivor has grown: descriptors, mappings, memory.

use testkit::proc::Usage;

/// Checks that a process has not grown since by more than one channel, which may exist at one of the two moments only.
///
/// Memory also depends on the allocator. Many rounds lie between the moments, so that any leak adds up to more.
pub(crate) fn has_not_grown(pid: u32, before: &Usage) -> anyhow::Result<()> {
    let now = Usage::of(pid)?;
    let grown = |what: &str| format!("{what} have grown: {before:?}, now {now:?}");
    anyhow::ensure!(now.descriptors <= before.descriptors + 4, grown("descriptors"));
    anyhow::ensure!(now.memfds() <= before.memfds() + 6, grown("mapped channels"));
    // The C library keeps the stacks and arenas of up to 8 threads, which close the descriptors of strangers.
    anyhow::ensure!(now.mappings() <= before.mappings() + 40, grown("mappings"));
    anyhow::ensure!(now.memory_kib <= before.memory_kib + 1536, grown("KiB of memory"));
    Ok(())
}
