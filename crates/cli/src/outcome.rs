//! How a command ends: the exit codes are part of the contract.

use std::fmt;
use std::process::ExitCode;

/// The code of wrong usage.
pub(crate) const USAGE: u8 = 2;

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Done, but not everything arrived.
    Loss,
    TimedOut,
    /// Ended by this signal before it was over.
    Interrupted(i32),
}

pub(crate) type CommandResult = anyhow::Result<Outcome>;

/// An error that is the caller's: the words of the command line make no sense.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Reports an error, and turns a result into an exit code.
pub(crate) fn exit(result: CommandResult) -> ExitCode {
    let code = match result {
        Ok(Outcome::Done) => 0,
        Ok(Outcome::Loss) => 3,
        Ok(Outcome::TimedOut) => 124,
        Ok(Outcome::Interrupted(signal)) => 128 + u8::try_from(signal).unwrap_or(0),
        Err(error) if stdout_is_closed(&error) => 0,
        Err(error) => {
            say(whole_text(&error));
            if error.is::<Usage>() { USAGE } else { 1 }
        }
    };
    ExitCode::from(code)
}

/// An error with its causes, but for what a message says already.
fn whole_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Whether nobody wants to read on: that is the reader's choice, and no failure.
fn stdout_is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// One line of talk on stderr; if that is closed, there is nobody to tell.
pub(crate) fn say(what: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "librpc: {what}");
}
