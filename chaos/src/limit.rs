//! Time limits, beside what the machine itself keeps processes waiting.
//!
//! Who wants to run and does not, for others have the processors, is not late by any fault of its own. The kernel knows how
//! long that was, thread by thread (`/proc/PID/task/TID/schedstat`). So what is late is waited for, and then judged: the
//! time that was taken, less the time for which the battery's own processes stood in the run queues, must be within the
//! limit. A sleep, a back-off or a lost wake-up of the library's is no such time: nobody stands in a run queue then. Nor is
//! what they compute.
//!
//! The times of all threads are added up, for one may wait for the other; where several stand in the queues at once, that
//! allows more than was lost. On a machine without that file nothing is allowed for.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::undo;
use crate::worker::HANG;

/// Whether this is the short profile: nobody is judged, only a hang is told. Set once, before anything runs.
pub(crate) static IS_SHORT: AtomicBool = AtomicBool::new(false);

/// How often a limit was passed by the machine's doing, and the longest that anything took then.
static EXCUSED: Mutex<(u64, Duration)> = Mutex::new((0, Duration::ZERO));

/// Since this was asked last: how often a limit was passed by the machine's doing, and the longest that anything took then.
pub(crate) fn excused() -> Option<(u64, Duration)> {
    let mut excused = EXCUSED.lock().expect("no panic under this lock");
    Some(std::mem::take(&mut *excused)).filter(|(times, _)| *times > 0)
}

pub(crate) struct Limit {
    limit: Duration,
    /// When it began, and how long each thread had stood in a run queue by then; `None`: it only tells a hang.
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

    /// So long it is waited for.
    pub(crate) fn hang(&self) -> Duration {
        if self.begun.is_some() { HANG } else { self.limit }
    }

    /// What was waited for has happened: whether it was in time.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let Some((begun, before)) = &self.begun else { return Ok(()) };
        let (took, limit) = (begun.elapsed(), self.limit);
        if took <= limit {
            return Ok(());
        }
        let since = |(thread, queued): (u32, Duration)| match before.get(&thread) {
            Some(&before) => queued.saturating_sub(before), // its number may be an ended one's
            None => queued,
        };
        let queued: Duration = queued().into_iter().map(since).sum();
        anyhow::ensure!(
            took <= limit + queued,
            "it took {took:?} instead of {limit:?}, and the machine kept the processes waiting for {queued:?} only"
        );
        let mut excused = EXCUSED.lock().expect("no panic under this lock");
        *excused = (excused.0 + 1, excused.1.max(took));
        Ok(())
    }
}

/// How long each thread of this process, its children and theirs has stood in a run queue.
fn queued() -> HashMap<u32, Duration> {
    let own = std::process::id();
    let mut pids = vec![own];
    let mut at = 0;
    while at < pids.len() {
        let children = undo::children_of(pids[at]);
        pids.extend(children.iter().map(|pid| pid.as_raw_nonzero().get().unsigned_abs()));
        at += 1;
    }
    let tasks = pids.iter().filter_map(|pid| std::fs::read_dir(format!("/proc/{pid}/task")).ok());
    let thread = |task: std::fs::DirEntry| {
        let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        let queued = schedstat.split_whitespace().nth(1)?.parse().ok()?; // run, queued, times: in ns
        Some((task.file_name().to_str()?.parse().ok()?, Duration::from_nanos(queued)))
    };
    tasks.flatten().flatten().filter_map(thread).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One test: the threads of the one half would excuse the other.
    #[test]
    fn who_stands_in_a_run_queue_is_excused_and_a_sleep_is_no_excuse() {
        let cores = std::thread::available_parallelism().unwrap().get();
        let limit = Limit::new(Duration::from_millis(300));
        let begun = Instant::now();
        // Four times as many as there are processors: each waits for three quarters of the time.
        std::thread::scope(|scope| {
            for _ in 0..4 * cores {
                scope.spawn(|| while begun.elapsed() < Duration::from_millis(1200) {});
            }
            std::thread::sleep(Duration::from_secs(1));
            limit.check().unwrap();
        });
        assert_eq!(excused().map(|(times, _)| times), Some(1));
        assert!(excused().is_none());

        // Long beside what the other tests' threads wait for.
        let limit = Limit::new(Duration::from_millis(1));
        std::thread::sleep(Duration::from_secs(3));
        let error = limit.check().unwrap_err().to_string();
        assert!(error.starts_with("it took 3"), "{error}");
    }
}
