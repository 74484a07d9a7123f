//! Stdin, line by line, or files as messages: for `send` and `pub`.
//!
//! It ends when everything is processed, or reports what is not.

use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use anyhow::Context;
use librpc::{WaitSet, WaitSetError};

use crate::file::{self, Content, MessageFile};
use crate::interrupt::Interrupt;
use crate::lines::{Filled, Lines, Next};
use crate::outcome::{CommandResult, Outcome, say};
use crate::wait::{OTHERS, Wait};

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
    /// Waits, while no line comes, for what ends it. `None`: it is to be asked again. It may be dropped at any time.
    async fn watch(&mut self) -> anyhow::Result<Option<Ended>>;
    /// When to ask again in any case.
    fn patience(&self) -> Option<Duration>;
    /// Waits until everything is processed. It may be dropped at any time.
    async fn flush(&mut self) -> anyhow::Result<Option<Ended>>;
    /// Adds what [`Feed::tell`] tells about to a wait set, under this token.
    fn add_to(&self, set: &mut WaitSet, token: u64) -> Result<(), WaitSetError>;
    /// Reports what has happened to the receivers.
    fn tell(&mut self);
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
    let fed = pass(to, files, interrupt)?;
    Ok(report(to, fed))
}

/// What became of the messages.
pub(crate) struct Fed {
    /// Why not all of them were sent and processed.
    pub(crate) ended: Option<Ended>,
    /// Whether one was over the limit.
    too_long: bool,
}

/// The same, and reports nothing yet.
pub(crate) fn pass(to: &mut impl Feed, files: &[PathBuf], interrupt: &Interrupt) -> anyhow::Result<Fed> {
    let mut too_long = false;
    let ended = match files {
        [] => lines(to, interrupt, &mut too_long)?,
        files => send_files(to, files, interrupt, &mut too_long)?,
    };
    let ended = match ended {
        None => flush(to, interrupt)?,
        ended => ended,
    };
    Ok(Fed { ended, too_long })
}

/// Reports how it went, and how the command ends.
pub(crate) fn report(to: &mut impl Feed, Fed { ended, too_long }: Fed) -> Outcome {
    match ended {
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
    }
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
    let (mut lines, mut wait) = (Lines::new(), None);
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
                if let Some(ended) = read(to, interrupt, &mut lines, &mut wait)? {
                    return Ok(Some(ended));
                }
            }
            Next::End => return Ok(None),
        }
    }
}

/// The tokens of what is waited for besides the future.
const RECEIVERS: u64 = OTHERS;
const STDIN: u64 = OTHERS + 1;

/// Reads more of stdin, or watches the receivers while there is nothing.
fn read(
    to: &mut impl Feed,
    interrupt: &Interrupt,
    lines: &mut Lines,
    wait: &mut Option<Wait>,
) -> anyhow::Result<Option<Ended>> {
    let filled = lines.fill(interrupt).context("cannot read stdin")?;
    if filled == Filled::Idle && interrupt.signal().is_none() {
        to.tell();
        let wait = match wait {
            Some(wait) => wait,
            None => {
                // A file cannot be waited for, but always has something.
                let mut made = for_receivers(to, interrupt)?;
                made.set.add_descriptor(STDIN, rustix::stdio::stdin())?;
                wait.insert(made)
            }
        };
        let patience = to.patience();
        if let Some(ended) = wait.step(pin!(to.watch()), patience)?.transpose()?.flatten() {
            return Ok(Some(ended));
        }
    }
    Ok(interrupt.signal().map(Ended::Interrupted))
}

/// A wait that ends when there is something to tell about the receivers, too.
pub(crate) fn for_receivers(to: &impl Feed, interrupt: &Interrupt) -> anyhow::Result<Wait> {
    let mut wait = Wait::new(interrupt)?;
    to.add_to(&mut wait.set, RECEIVERS)?;
    Ok(wait)
}

/// Waits until everything is processed.
pub(crate) fn flush(to: &mut impl Feed, interrupt: &Interrupt) -> anyhow::Result<Option<Ended>> {
    let mut wait = for_receivers(to, interrupt)?;
    loop {
        let flushed = wait.step(pin!(to.flush()), None)?.transpose()?;
        to.tell();
        if let Some(Some(ended)) = flushed {
            return Ok(Some(ended));
        }
        if flushed.is_some() && to.all_processed() {
            return Ok(None);
        }
        if let Some(signal) = interrupt.signal() {
            return Ok(Some(Ended::Interrupted(signal)));
        }
    }
}
