//! `librpc man`: the pages of the manual, made of what `--help` says.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::builder::Resettable;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use roff::{Roff, bold, roman};

use crate::Cli;
use crate::outcome::{CommandResult, Outcome, Usage};

/// Writes a page of the manual to stdout, or all of them to a directory
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc man | man -l -
  librpc man send | man -l -
  librpc man bench latency | man -l -
  librpc man --dir ~/.local/share/man/man1       # then: man librpc-send")]
pub(crate) struct Args {
    /// The command to describe [default: librpc itself]
    command: Vec<String>,
    /// Write the pages of all commands to this directory, which is made if it is missing
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

/// The commands that have to do with one another.
const RELATED: [&[&str]; 7] = [
    &["recv", "send", "chat", "duplex"],
    &["sub", "pub", "hz", "topics"],
    &["call", "serve", "services"],
    &["nodes", "stat", "top", "topics", "services", "graph"],
    &["doctor", "clean", "check", "metrics", "top"],
    &["bench", "demo"],
    &["completions", "man"],
];

/// What each exit code means.
const CODES: [(&str, &str); 6] = [
    ("0", "Done."),
    ("1", "Failed; stderr says why."),
    ("2", "Wrong usage: an unknown option, or a value that the option cannot have."),
    ("3", "Done, but messages were lost; stderr says how many."),
    ("124", "Timed out."),
    (
        "130, 143",
        "Interrupted by SIGINT or SIGTERM before it was done. Commands that run until they are interrupted end with 0.",
    ),
];

const VARIABLES: [(&str, &str); 3] = [
    ("LIBRPC_DOMAIN", "The domain, where --domain does not name one."),
    ("LIBRPC_LOG", "What the library logs to stderr, where --log does not say so."),
    ("NO_COLOR", "If it is set, there are no colours on a terminal."),
];

pub(crate) fn run(args: &Args) -> CommandResult {
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    if let Some(dir) = &args.dir {
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        write_all(&cli, None, dir)?;
        return Ok(Outcome::Done);
    }
    let (mut command, mut parent) = (&cli, None);
    for name in &args.command {
        let found = command.find_subcommand(name).filter(|found| !found.is_hide_set());
        let found = found.ok_or_else(|| Usage(format!("there is no command {:?}", args.command.join(" "))))?;
        (command, parent) = (found, Some(command));
    }
    std::io::stdout().write_all(&page(command, parent)?)?;
    Ok(Outcome::Done)
}

/// Writes the page of a command, and those of the commands below it.
fn write_all(command: &Command, parent: Option<&Command>, dir: &Path) -> anyhow::Result<()> {
    let path = dir.join(format!("{}.1", name(command)));
    std::fs::write(&path, page(command, parent)?).with_context(|| format!("cannot write {}", path.display()))?;
    visible(command).try_for_each(|below| write_all(below, Some(command), dir))
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|below| !below.is_hide_set())
}

/// The name of its page.
fn name(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page(command: &Command, parent: Option<&Command>) -> anyhow::Result<Vec<u8>> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let about = command.clone().after_help(Resettable::Reset).subcommand_help_heading("COMMANDS");
    let source = concat!("librpc ", env!("CARGO_PKG_VERSION"));
    let mut page = Vec::new();
    Man::new(about).date(" ").source(source).manual("librpc").render(&mut page)?;
    let mut page: String = String::from_utf8(page)?.lines().map(with_bold_code).collect();
    let mut roff = Roff::new();
    let (notes, examples) = parts(&help);
    if !notes.is_empty() {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(notes.join(" "))]);
    }
    list(&mut roff, "EXIT STATUS", &CODES);
    list(&mut roff, "ENVIRONMENT", &VARIABLES);
    if !examples.is_empty() {
        roff.control("SH", ["EXAMPLES"]).control("nf", []);
        for example in examples {
            roff.text([roman(example)]);
        }
        roff.control("fi", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    let also: Vec<String> = see_also(command, parent).iter().map(|name| format!("{name}(1)")).collect();
    roff.text([roman(also.join(", "))]);
    page += &roff.to_roff();
    Ok(page.into_bytes())
}

/// Divides what a command's help ends with into text and examples.
fn parts(help: &str) -> (Vec<&str>, Vec<&str>) {
    let lines = help.lines().filter(|line| !line.is_empty() && *line != "Examples:");
    let (examples, notes): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("  "));
    // The exit codes have a section of their own.
    let notes = notes.into_iter().filter(|line| !line.starts_with("Exit codes:"));
    (notes.collect(), examples.into_iter().map(str::trim_start).collect())
}

fn list(roff: &mut Roff, title: &str, entries: &[(&str, &str)]) {
    roff.control("SH", [title]);
    for (name, text) in entries {
        roff.control("TP", []).text([bold(*name)]).text([roman(*text)]);
    }
}

/// The pages to read next.
fn see_also(command: &Command, parent: Option<&Command>) -> Vec<String> {
    let Some(parent) = parent else { return visible(command).map(|below| name(below).to_owned()).collect() };
    let groups = RELATED.iter().filter(|group| name(parent) == "librpc" && group.contains(&command.get_name()));
    let related = groups.flat_map(|group| *group).filter(|other| **other != command.get_name());
    let mut names = vec!["librpc".to_owned()];
    names.extend((name(parent) != "librpc").then(|| name(parent).to_owned()));
    names.extend(visible(command).map(|below| name(below).to_owned()));
    for name in related.map(|other| format!("librpc-{other}")) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// A line of a page, in which what stands in backticks is bold instead.
fn with_bold_code(line: &str) -> String {
    let pieces: Vec<&str> = line.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return format!("{line}\n"); // a backtick of its own
    }
    let mut text = String::new();
    for (at, piece) in pieces.iter().enumerate() {
        let is_code = at % 2 == 1;
        text += if is_code { "\\fB" } else { "" };
        text += piece;
        text += if is_code { "\\fR" } else { "" };
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_is_related_to_others() {
        let (cli, related) = (Cli::command(), RELATED.concat());
        let commands: BTreeSet<&str> = visible(&cli).map(Command::get_name).collect();
        assert_eq!(related.into_iter().collect::<BTreeSet<_>>(), commands);
    }

    #[test]
    fn code_is_bold() {
        assert_eq!(with_bold_code("as `librpc nodes` shows"), "as \\fBlibrpc nodes\\fR shows\n");
        assert_eq!(with_bold_code("one ` alone"), "one ` alone\n");
    }
}
