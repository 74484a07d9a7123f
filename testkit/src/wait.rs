//! Waiting for a state.

use std::time::{Duration, Instant};

/// Anything that takes longer than this hangs. It is far longer than anything here takes, even on a busy machine.
pub const HANG: Duration = Duration::from_secs(30);

/// How often a state is checked.
const INTERVAL: Duration = Duration::from_micros(100);

/// Waits until this is so. Panics after [`HANG`].
#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool) {
    if let Err(error) = wait_for(HANG, || Ok(is_so())) {
        panic!("{error}");
    }
}

/// Waits until this is so; an error if that takes longer than `limit`, or if looking fails.
pub fn wait_for(limit: Duration, mut is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !is_so()? {
        anyhow::ensure!(begun.elapsed() < limit, "waited {limit:?} for a state that did not come");
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}
