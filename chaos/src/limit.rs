//! Time limits that allow for the time during which the machine itself keeps processes waiting.
//!
//! A process that is ready to run while others have the processors is not late by its own fault. The kernel counts that
//! time for each thread (`/proc/PID/task/TID/schedstat`). So a limit does not end the wait, but is judged afterwards:
//! the time taken, less the time that the battery's own threads spent in the run queues, must be within the limit. A
//! sleep, a back-off or a lost wake-up of the library is not excused, because the thread is not in a run queue then.
//! Neither is computing.
//!
//! The times of all threads are added up, because one may wait for another. When several are queued at once, that
//! excuses more than was lost. On a machine without that file nothing is excused.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use testkit::HANG;
use testkit::proc::children_of;

/// Whether this is the short profile, in which nothing is judged and only a hang is reported. Set once, before anything
/// runs.
pub(crate) static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// How often the machine made something exceed its limit, and the longest that anything took then.
static EXCUSED: Mutex<(u64, Duration)> = Mutex::new((0, Duration::ZERO));

/// How often the machine made something exceed its limit since the last call, and the longest that anything took then.
pub(crate) fn excused() -> Option<(u64, Duration)> {
    let mut excused = EXCUSED.lock().expect("no panic under this lock");
    Some(std::mem::take(&mut *excused)).filter(|(times, _)| *times > 0)
}

/// The limit within which the survivors of a death must continue. It begins now.
pub(crate) fn go_on() -> Limit {
    Limit::new(Duration::from_secs(1))
}

/// Waits for a state.
pub(crate) fn wait_for(limit: impl Into<Limit>, is_so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let limit = limit.into();
    testkit::wait_for(limit.hang(), is_so)?;
    limit.check()
}

/// A time limit. Made from a [`Duration`], it only ends the wait.
pub(crate) struct Limit {
    limit: Duration,
    /// When it began, and how long each thread had been queued by then; `None` if it only ends the wait.
    begun: Option<(Instant, HashMap<u32, Duration>)>,
}

impl From<Duration> for Limit {
    fn from(limit: Duration) -> Self {
        Self { limit, begun: None }
    }
}

impl Limit {
    /// A limit that begins now.
    pub(crate) fn new(limit: Duration) -> Self {
        match IS_SHORT.load(Ordering::Relaxed) {
            true => HANG.into(),
            false => Self { limit, begun: Some((Instant::now(), queued())) },
        }
    }

    /// Twice as long.
    pub(crate) fn doubled(self) -> Self {
        Self { limit: 2 * self.limit, ..self }
    }

    /// How long to wait at most.
    pub(crate) fn hang(&self) -> Duration {
        if self.begun.is_some() { HANG } else { self.limit }
    }

    /// Call this when the awaited state is there. An error if it was late by its own fault.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some((begun, before)) = &self.begun else { return Ok(()) };
        let (took, limit) = (begun.elapsed(), self.limit);
        if took <= limit {
            return Ok(());
        }
        let since = |(thread, queued): (u32, Duration)| match before.get(&thread) {
            Some(&before) => queued.saturating_sub(before), // a new thread may have the number of an old one
            None => queued,
        };
        let queued: Duration = queued().into_iter().map(since).sum();
        anyhow::ensure!(
            took <= limit + queued,
            "it took {took:?} instead of {limit:?}, and the machine kept the processes waiting for only {queued:?}"
        );
        let mut excused = EXCUSED.lock().expect("no panic under this lock");
        *excused = (excused.0 + 1, excused.1.max(took));
        Ok(())
    }
}

/// How long each thread of this process and of its descendants has been in a run queue.
fn queued() -> HashMap<u32, Duration> {
    let mut pids = vec![std::process::id()];
    let mut at = 0;
    while at < pids.len() {
        let children = children_of(pids[at]);
        pids.extend(children.iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
        at += 1;
    }
    let tasks = pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    let thread = |task: std::fs::DirEntry| {
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let queued = schedstat.split_whitespace().nth(1)?.parse().ok()?; // time run, time queued (in ns), times run
        Some((task.file_name().to_str()?.parse().ok()?, Duration::from_nanos(queued)))
    };
    tasks.flatten().flatten().filter_map(thread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test, because the threads of one half would excuse the other half.
    #[test]
    fn time_in_a_run_queue_is_excused_and_a_sleep_is_not() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let limit = Limit::new(Duration::from_millis(300));
        let begun = Instant::now();
        // Four threads for each processor: each thread waits for three quarters of the time.
        std::thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| while begun.elapsed() < Duration::from_millis(1200) {});
            }
            std::thread::sleep(Duration::from_secs(1));
            limit.check().unwrap();
        });
        assert_eq!(excused().map(|(times, _)| times), Some(1));
        assert!(excused().is_none());

        // This is long compared with the time that the threads of other tests are queued.
        let limit = Limit::new(Duration::from_millis(1));
        std::thread::sleep(Duration::from_secs(3));
        let error = limit.check().unwrap_err().to_string();
        assert!(error.starts_with("it took 3"), "{error}");
    }
}
