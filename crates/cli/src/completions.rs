//! `librpc completions` and `librpc man`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::Cli;
use crate::outcome::{CommandResult, Outcome};

/// Writes a completion script for a shell to stdout
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc completions bash > ~/.local/share/bash-completion/completions/librpc
  librpc completions zsh > ~/.zfunc/_librpc")]
pub(crate) struct Args {
    /// The shell
    shell: Shell,
}

/// Writes the manual page to stdout
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc man | man -l -
  librpc man send | man -l -")]
pub(crate) struct ManArgs {
    /// The command to describe [default: librpc itself]
    command: Option<String>,
}

pub(crate) fn run(args: &Args) -> CommandResult {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "librpc", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(Outcome::Done)
}

pub(crate) fn man(args: &ManArgs) -> CommandResult {
    let mut cli = Cli::command();
    cli.build();
    let command = match &args.command {
        None => cli,
        Some(name) => {
            let found = cli.find_subcommand(name).cloned();
            let found = found.ok_or_else(|| crate::outcome::Usage(format!("there is no command {name:?}")))?;
            found.name(format!("librpc-{name}"))
        }
    };
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    std::io::stdout().write_all(&page)?;
    Ok(Outcome::Done)
}
