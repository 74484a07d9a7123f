//! Stdin, line by line, as messages: what `send` and `pub` have in common.
//!
//! It ends when everything is processed, or says what is not.

use std::time::Duration;

use anyhow::Context;

use crate::interrupt::Interrupt;
use crate::lines::{Filled, Lines, Next};
use crate::outcome::{CommandResult, Outcome, say};

/// How long one wait lasts, between two looks at what else may have happened.
pub(crate) const SLICE: Duration = Duration::from_millis(100);
/// The longest line for which there is room while nobody says how long one may be.
const LONGEST: usize = 1 << 20;

/// Where lines go.
pub(crate) trait Feed {
    /// The longest message in bytes, if there is somebody to say so.
    fn max_message(&mut self) -> anyhow::Result<Option<usize>>;
    /// Sends a line, and waits as long as it may; what went wrong with this one alone is said, and counted.
    fn line(&mut self, number: u64, line: &[u8], interrupt: &Interrupt) -> anyhow::Result<Option<Ended>>;
    /// Waits up to a limit until everything is processed.
    fn flush(&mut self, limit: Duration) -> anyhow::Result<Option<Ended>>;
    /// Whether nothing is on its way.
    fn all_processed(&mut self) -> bool;
    /// Whether anything did not arrive.
    fn has_lost(&mut self) -> bool;
    /// What became of the messages, in words.
    fn numbers(&mut self) -> String;
    /// Whether the numbers are said at the end, even if stdin came to its end.
    fn says_numbers(&mut self) -> bool;
}

/// Why the lines end before stdin does.
pub(crate) enum Ended {
    /// There is nobody left to send to.
    Lost(String),
    Interrupted(i32),
}

/// Sends each line of stdin, and waits until everything is processed.
pub(crate) fn feed(mut to: impl Feed, interrupt: &Interrupt) -> CommandResult {
    let mut too_long = false;
    let ended = lines(&mut to, interrupt, &mut too_long)?;
    Ok(match ended {
        Some(Ended::Lost(why)) => {
            say(format_args!("{why}: {}", to.numbers()));
            Outcome::Loss
        }
        Some(Ended::Interrupted(signal)) => {
            say(format_args!("interrupted: {}", to.numbers()));
            Outcome::Interrupted(signal)
        }
        None => {
            if to.says_numbers() {
                say(to.numbers());
            }
            if too_long || to.has_lost() { Outcome::Loss } else { Outcome::Done }
        }
    })
}

/// Says that a line is over the limit.
pub(crate) fn say_too_long(number: u64, bytes: u64, max: usize) {
    say(format_args!("line {number} was not sent: it has {bytes} bytes, the limit is {max}"));
}

fn lines(to: &mut impl Feed, interrupt: &Interrupt, too_long: &mut bool) -> anyhow::Result<Option<Ended>> {
    let mut lines = Lines::new();
    loop {
        let mut failed = None;
        let next = lines.next(|| {
            let max = to.max_message().unwrap_or_else(|error| {
                failed = Some(error);
                None
            });
            max.unwrap_or(LONGEST)
        });
        if let Some(error) = failed {
            return Err(error);
        }
        match next {
            Next::Line(line) => {
                if let Some(ended) = to.line(lines.number(), lines.bytes(line), interrupt)? {
                    return Ok(Some(ended));
                }
            }
            Next::TooLong(bytes) => {
                *too_long = true;
                say_too_long(lines.number(), bytes, to.max_message()?.unwrap_or(LONGEST));
            }
            Next::Nothing => {
                if let Some(ended) = read(to, interrupt, &mut lines)? {
                    return Ok(Some(ended));
                }
            }
            Next::End => return flush(to, interrupt),
        }
    }
}

/// Reads more of stdin. As long as anything is not processed, the receivers are looked at while nothing comes.
fn read(to: &mut impl Feed, interrupt: &Interrupt, lines: &mut Lines) -> anyhow::Result<Option<Ended>> {
    let idle = (!to.all_processed()).then_some(SLICE);
    let filled = lines.fill(interrupt, idle).context("cannot read stdin")?;
    match (filled, interrupt.signal()) {
        (_, Some(signal)) => Ok(Some(Ended::Interrupted(signal))),
        (Filled::Idle, None) => to.flush(Duration::ZERO),
        _ => Ok(None),
    }
}

/// Waits until everything is processed.
fn flush(to: &mut impl Feed, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
    loop {
        if let Some(ended) = to.flush(SLICE)? {
            return Ok(Some(ended));
        }
        if to.all_processed() {
            return Ok(None);
        }
        if let Some(signal) = interrupt.signal() {
            return Ok(Some(Ended::Interrupted(signal)));
        }
    }
}
