//! Whether messages come as a stream, so that pausing is worthwhile.
//!
//! A receiver that follows its sender closely costs both most of their speed, because each cache line goes back and
//! forth. If it pauses for a moment when it finds nothing, a batch forms. But if the sender waits for an answer, the
//! receiver must never pause. It cannot know which is the case, so it tries. If several messages in a row follow a
//! pause, they came faster than the pause was long, and the receiver pauses at the next gap, too. Otherwise it tries
//! again after more and more gaps.

/// This many messages between two gaps are a stream, even without a pause.
const STREAM: u32 = 16;
/// If this many messages follow a pause, it was worthwhile.
const BATCH: u32 = 4;
/// The length of a pause: one to three microseconds.
const PAUSES: u32 = 128;
/// How many gaps pass after a trial that was not worthwhile, at first and at most. So one message in thousands is late.
const SOONEST: u32 = 16;
const LATEST: u32 = 8192;

/// What the gaps between messages have shown.
#[derive(Debug)]
pub(super) struct Stream {
    /// Messages since the last gap.
    batch: u32,
    was_paused: bool,
    until_trial: u32,
    between_trials: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self { batch: 0, was_paused: false, until_trial: SOONEST, between_trials: SOONEST }
    }
}

impl Stream {
    /// This many messages have come in a row.
    #[inline(always)]
    pub(super) fn came(&mut self, messages: u32) {
        self.batch = self.batch.saturating_add(messages);
    }

    /// A message was followed by a gap. Pauses if that is worthwhile. `may_pause`: the caller has time.
    pub(super) fn gap(&mut self, may_pause: bool) {
        let batch = std::mem::take(&mut self.batch);
        let is_stream = batch >= if self.was_paused { BATCH } else { STREAM };
        if is_stream {
            self.between_trials = SOONEST;
        } else if self.was_paused {
            self.between_trials = (2 * self.between_trials).min(LATEST);
            self.until_trial = self.between_trials;
        } else {
            self.until_trial -= 1;
        }
        self.was_paused = may_pause && (is_stream || self.until_trial == 0);
        if self.was_paused {
            (0..PAUSES).for_each(|_| crate::sys::thread::spin_loop());
        }
        self.until_trial = self.until_trial.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In how many of these gaps the receiver pauses, given how many messages follow a pause, and how many follow a gap
    /// without a pause.
    fn paused(gaps: u32, after_pause: u32, otherwise: u32) -> u32 {
        let mut stream = Stream::default();
        let mut paused = 0;
        for _ in 0..gaps {
            stream.came(if stream.was_paused { after_pause } else { otherwise });
            stream.gap(true);
            paused += u32::from(stream.was_paused);
        }
        paused
    }

    #[test]
    fn a_dialogue_is_tried_ever_less_often() {
        assert_eq!(paused(16, 1, 1), 1);
        assert!(paused(100_000, 1, 1) < 100_000 / LATEST + 12);
    }

    #[test]
    fn a_stream_on_its_heels_is_found_out() {
        assert_eq!(paused(15 + 1000, 20, 1), 1000);
    }

    #[test]
    fn a_stream_that_runs_ahead_is_known_at_once() {
        assert_eq!(paused(1000, 100, 100), 1000);
    }

    #[test]
    fn a_receiver_without_time_never_pauses() {
        let mut stream = Stream::default();
        for _ in 0..100 {
            stream.came(100);
            stream.gap(false);
            assert!(!stream.was_paused);
        }
    }
}
