//! Stdin, line by line, as messages: for `send` and `pub`.
//!
//! It ends when everything is processed, or reports what is not.

use anyhow::Context;

use crate::deadline::SLICE;
use crate::interrupt::Interrupt;
use crate::lines::{Filled, Lines, Next};
use crate::outcome::{CommandResult, Outcome, say};

/// Where lines go.
pub(crate) trait Feed {
    /// The longest message in bytes that may be delivered. A longer line is not kept in memory.
    fn max_message(&mut self) -> anyhow::Result<usize>;
    /// Sends a line, and waits up to its limit. A failure of this line alone is reported and counted.
    fn line(&mut self, number: u64, line: &[u8], interrupt: &Interrupt) -> anyhow::Result<Option<Ended>>;
    /// Whether to check the receivers while no line comes.
    fn is_watched(&mut self) -> bool;
    /// Checks the receivers.
    fn look(&mut self) -> anyhow::Result<Option<Ended>>;
    /// Waits until everything is processed, but only for a moment.
    fn flush(&mut self) -> anyhow::Result<Option<Ended>>;
    /// Whether no message is on its way.
    fn all_processed(&mut self) -> bool;
    /// Whether any message did not arrive.
    fn has_lost(&mut self) -> bool;
    /// What happened to the messages, in words.
    fn numbers(&mut self) -> String;
    /// Whether to report the numbers even if everything went well.
    fn says_numbers(&mut self) -> bool;
}

/// Why the lines end before stdin does.
pub(crate) enum Ended {
    /// There is no receiver left.
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

/// Reports a line that is over the limit.
pub(crate) fn say_too_long(number: u64, bytes: u64, max: usize) {
    say(format_args!("line {number} was not sent: it has {bytes} bytes, the limit is {max}"));
}

fn lines(to: &mut impl Feed, interrupt: &Interrupt, too_long: &mut bool) -> anyhow::Result<Option<Ended>> {
    let mut lines = Lines::new();
    loop {
        let mut failed = None;
        let next = lines.next(|| {
            to.max_message().unwrap_or_else(|error| {
                failed = Some(error);
                0
            })
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
                say_too_long(lines.number(), bytes, to.max_message()?);
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

/// Reads more of stdin.
fn read(to: &mut impl Feed, interrupt: &Interrupt, lines: &mut Lines) -> anyhow::Result<Option<Ended>> {
    let idle = to.is_watched().then_some(SLICE);
    let filled = lines.fill(interrupt, idle).context("cannot read stdin")?;
    match (filled, interrupt.signal()) {
        (_, Some(signal)) => Ok(Some(Ended::Interrupted(signal))),
        (Filled::Idle, None) => to.look(),
        _ => Ok(None),
    }
}

/// Waits until everything is processed.
fn flush(to: &mut impl Feed, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
    loop {
        if let Some(ended) = to.flush()? {
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
