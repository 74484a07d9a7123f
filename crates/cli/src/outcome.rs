//! How a command ends. The exit codes are part of the contract.

use std::fmt;
use std::process::ExitCode;

use crate::stdout;

/// The exit code of wrong usage.
pub(crate) const USAGE: u8 = 2;

/// How a command that did not fail has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// Done, but not everything arrived.
    Loss,
    TimedOut,
    /// It has failed, and has said why.
    Failed,
    /// This signal came before the end of the command.
    Interrupted(i32),
}

pub(crate) type CommandResult = anyhow::Result<Outcome>;

/// An error of the caller: the command line makes no sense.
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
        Ok(Outcome::Failed) => 1,
        Ok(Outcome::Interrupted(signal)) => 128 + u8::try_from(signal).unwrap_or(0),
        // The reader may stop reading: that is no failure.
        Err(error) if error.downcast_ref().is_some_and(stdout::is_gone) => 0,
        Err(error) => {
            say(whole_text(&error));
            if error.is::<Usage>() { USAGE } else { 1 }
        }
    };
    ExitCode::from(code)
}

/// An error with its causes. A cause that the text already contains is not repeated.
fn whole_text(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Writes one line for the user to stderr. Nothing is done if stderr is closed.
pub(crate) fn say(what: impl fmt::Display) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "librpc: {what}");
}
