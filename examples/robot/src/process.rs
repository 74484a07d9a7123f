//! What each role needs from its process: the end, the time, and a beat.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use librpc::StopHandle;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::time::{ClockId, clock_gettime};
use signal_hook::consts::SIGTERM;

use crate::messages::Head;

/// No role outlives its supervisor.
pub(crate) fn die_with_supervisor() -> anyhow::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// The head of this process's message with this number.
pub(crate) fn head(number: u64) -> Head {
    Head { number, run: std::process::id().into() }
}

/// The time in ns on a clock that all processes share.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// SIGTERM asks a role to end. Call these before the node is opened: the supervisor asks only roles whose node is there.
pub(crate) struct Termination(UnixStream);

impl Termination {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, writer)?;
        Ok(Self(reader))
    }

    /// For a wait set: readable once the role is to end.
    pub(crate) fn descriptor(&self) -> &UnixStream {
        &self.0
    }

    /// For an inbox: its receives return `None` then.
    pub(crate) fn stops(self, inbox: StopHandle) {
        thread::spawn(move || {
            let _ = std::io::Read::read(&mut &self.0, &mut [0]); // an error is the end, too
            inbox.stop();
        });
    }
}

/// Beats at a rate until the process is to end.
pub(crate) struct Beat {
    ended: Arc<AtomicBool>,
    interval: Duration,
    due: Instant,
}

impl Beat {
    pub(crate) fn new(hertz: u32) -> anyhow::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(SIGTERM, ended.clone())?;
        Ok(Self { ended, interval: Duration::from_secs(1) / hertz, due: Instant::now() })
    }

    /// Waits for the next beat. `false`: the process is to end. Beats that were missed are left out.
    pub(crate) fn next(&mut self) -> bool {
        let now = Instant::now();
        thread::sleep(self.due.saturating_duration_since(now));
        self.due = (self.due + self.interval).max(now);
        !self.ended.load(Ordering::Relaxed)
    }
}
