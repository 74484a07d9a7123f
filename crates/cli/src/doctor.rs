//! `librpc doctor`: whether the machine and the domain meet the needs of librpc, and what to do if they do not.

mod domain; //    the directory, its files, and the nodes in it
mod elsewhere; // processes whose directory of the same path is another one
mod machine; //   the kernel, its limits, and memory
mod payloads; //  the memory for large payloads
mod place; //     the file system that the domain is on
mod services; //  services without a server, and servers that do not answer

use std::io::Write;

use librpc::Domain;
use serde::Serialize;

use crate::domain::DomainArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::Looker;

/// Checks the machine and the domain, and says what to do
///
/// Each line is PASS, WARN (works, but look at it) or FAIL (does not work). The exit code is 1 if anything failed,
/// otherwise 0. It joins nothing and creates nothing.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc doctor
  librpc doctor --domain robot --strict       # warnings fail, too
  librpc doctor --json | jq 'select(.verdict != \"PASS\")'")]
pub(crate) struct Args {
    /// Count warnings as failures
    #[arg(long)]
    strict: bool,
    /// Write one object per line: check, verdict, found, todo
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

/// The result of one check.
#[derive(Debug, Serialize)]
struct Check {
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    todo: Option<String>,
}

impl Check {
    fn pass(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Pass, found: found.into(), todo: None }
    }

    fn warn(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Warn, found: found.into(), todo: Some(todo.into()) }
    }

    fn fail(check: &'static str, found: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Fail, found: found.into(), todo: Some(todo.into()) }
    }
}

pub(crate) fn run(args: &DomainArgs, options: &Args) -> CommandResult {
    let domain = args.unchecked()?;
    let mut checks = machine::checks();
    checks.extend(place::checks(domain.path()));
    match domain::directory(&domain) {
        Ok(found) => {
            checks.extend(found);
            let mut looker = Looker::new(domain.clone());
            match looker.look() {
                Ok(snapshot) => {
                    checks.extend(domain::nodes(&snapshot));
                    checks.extend([payloads::check(&snapshot), services::check(&mut looker, &snapshot)?]);
                }
                Err(error) => checks.push(Check::fail("nodes", error.to_string(), "see the lines above")),
            }
        }
        Err(failed) => checks.extend([failed, elsewhere::check(domain.path())]),
    }
    let mut text = String::new();
    for check in &checks {
        text.push_str(&if options.json { serde_json::to_string(check)? } else { line(check) });
        text.push('\n');
    }
    std::io::stdout().write_all(text.as_bytes())?;
    let worst = checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Pass);
    let limit = if options.strict { Verdict::Warn } else { Verdict::Fail };
    if worst >= limit {
        let bad = checks.iter().filter(|check| check.verdict >= limit).count();
        anyhow::bail!("{bad} of {} checks did not pass", checks.len());
    }
    Ok(Outcome::Done)
}

/// What is wrong with the domain's directory and its file system, apart from its nodes: what nodes of another version have left, no space, and
/// processes whose directory was removed.
pub(crate) fn of_directory(domain: &Domain) -> Vec<String> {
    let path = domain.path();
    let removed = elsewhere::in_removed(path);
    let removed = (!removed.is_empty()).then(|| format!("pid {} in a domain that was removed", removed.join(", ")));
    let strange = match domain.strange_files() {
        Ok(strange) => strange.iter().map(|file| format!("{}: {}", file.path.display(), file.why)).collect(),
        Err(error) => vec![error.to_string()],
    };
    let place = if path.is_dir() { place::checks(path) } else { Vec::new() };
    let place = place.into_iter().filter(|check| check.verdict == Verdict::Fail).map(|check| check.found);
    removed.into_iter().chain(strange).chain(place).collect()
}

fn line(check: &Check) -> String {
    let verdict = match check.verdict {
        Verdict::Pass => "PASS",
        Verdict::Warn => "WARN",
        Verdict::Fail => "FAIL",
    };
    let todo = check.todo.as_ref().map_or(String::new(), |todo| format!("\n                        → {todo}"));
    format!("{verdict}  {:<16}  {}{todo}", check.check, check.found)
}
