//! Stdin, line by line, or files as messages: for `send` and `pub`.
//!
//! It ends when everything is processed, or reports what is not.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::deadline::SLICE;
use crate::file::{self, Content, MessageFile};
use crate::interrupt::Interrupt;
use crate::lines::{Filled, Lines, Next};
use crate::outcome::{CommandResult, Outcome, say};

/// Where a message comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source<'a> {
    Line(u64),
    File(&'a Path),
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// What a message contains.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
    Bytes(&'a [u8]),
    File(&'a MessageFile),
}

/// Where messages go.
pub(crate) trait Feed {
    /// The longest message in bytes that may be delivered. A longer line is not kept in memory.
    fn max_message(&mut self) -> anyhow::Result<usize>;
    /// Sends a message, and waits up to its limit. A failure of this message alone is reported and counted.
    fn send(&mut self, from: Source, payload: Payload, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>>;
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

/// Why it ends before all messages are sent.
pub(crate) enum Ended {
    /// There is no receiver left.
    Lost(String),
    Interrupted(i32),
}

/// Sends these files, or else each line of stdin, and waits until everything is processed.
pub(crate) fn feed(to: &mut impl Feed, files: &[PathBuf], interrupt: &Interrupt) -> CommandResult {
    let mut too_long = false;
    let ended = match files {
        [] => lines(to, interrupt, &mut too_long)?,
        files => send_files(to, files, interrupt, &mut too_long)?,
    };
    let ended = match ended {
        None => flush(to, interrupt)?,
        ended => ended,
    };
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

/// Reports a message that is over the limit.
pub(crate) fn say_too_long(from: Source, bytes: u64, max: usize) {
    say(format_args!("{from} was not sent: it has {bytes} bytes, the limit is {max}"));
}

fn send_files(
    to: &mut impl Feed,
    files: &[PathBuf],
    interrupt: &Interrupt,
    too_long: &mut bool,
) -> anyhow::Result<Option<Ended>> {
    for path in files {
        let from = Source::File(path);
        let max = to.max_message()?;
        let ended = match file::content(path, max, interrupt)? {
            Content::Stored(file) => to.send(from, Payload::File(&file), interrupt)?,
            Content::Read(bytes) => to.send(from, Payload::Bytes(&bytes), interrupt)?,
            Content::Interrupted(signal) => Some(Ended::Interrupted(signal)),
            Content::TooLong(bytes) => {
                *too_long = true;
                match bytes {
                    Some(bytes) => say_too_long(from, bytes, max),
                    None => say(format_args!("{from} was not sent: it has more than {max} bytes, the limit")),
                }
                None
            }
        };
        let interrupted = interrupt.signal().map(Ended::Interrupted);
        if let Some(ended) = ended.or(interrupted) {
            return Ok(Some(ended));
        }
    }
    Ok(None)
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
                let from = Source::Line(lines.number());
                if let Some(ended) = to.send(from, Payload::Bytes(lines.bytes(line)), interrupt)? {
                    return Ok(Some(ended));
                }
            }
            Next::TooLong(bytes) => {
                *too_long = true;
                say_too_long(Source::Line(lines.number()), bytes, to.max_message()?);
            }
            Next::Nothing => {
                if let Some(ended) = read(to, interrupt, &mut lines)? {
                    return Ok(Some(ended));
                }
            }
            Next::End => return Ok(None),
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
