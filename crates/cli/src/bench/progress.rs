//! The progress of a measurement, on a terminal only. Nothing is drawn while anything is measured: the bar moves between two
//! rounds, or between two messages that are waited for.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(what: String, rounds: u64) -> Self {
        let bar = ProgressBar::with_draw_target(Some(rounds), ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.tick();
        Self(bar)
    }

    /// A round is over.
    pub(super) fn step(&self) {
        self.0.inc(1);
        self.0.tick();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
