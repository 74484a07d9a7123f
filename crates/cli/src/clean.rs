//! `librpc clean`: removes what dead nodes have left, and the domain if it is empty.

use std::io::Write;

use librpc::Domain;
use serde::Serialize;

use crate::domain::DomainArgs;
use crate::outcome::{CommandResult, Outcome};

/// Removes what dead nodes have left, and the domain itself if no node is alive in it
///
/// If neither --domain nor LIBRPC_DOMAIN names a domain: in every domain of this user under /dev/shm, including what killed
/// benchmarks and demos have left.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc clean --dry-run     # what would be removed
  librpc clean")]
pub(crate) struct Args {
    /// Remove nothing, only show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Write one object per domain: nodes, domain (the directory, if it is removed), dry_run
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Removed {
    nodes: Vec<String>,
    domain: Option<String>,
    dry_run: bool,
}

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let mut stdout = std::io::stdout();
    for domain in domain.all_domains()? {
        let removed = if args.dry_run { look(&domain)? } else { clean(&domain)? };
        let mut text = String::new();
        if args.json {
            text = format!("{}\n", serde_json::to_string(&removed)?);
        } else {
            let done = if args.dry_run { "would remove" } else { "removed" };
            for node in &removed.nodes {
                text.push_str(&format!("{done} node {node}\n"));
            }
            if let Some(domain) = &removed.domain {
                text.push_str(&format!("{done} domain {domain}\n"));
            }
        }
        stdout.write_all(text.as_bytes())?;
    }
    Ok(Outcome::Done)
}

fn look(domain: &Domain) -> anyhow::Result<Removed> {
    let leftovers = domain.leftovers()?;
    let goes = leftovers.domain.then(|| domain.path().display().to_string());
    Ok(Removed { nodes: leftovers.nodes, domain: goes, dry_run: true })
}

fn clean(domain: &Domain) -> anyhow::Result<Removed> {
    let was_there = domain.path().is_dir();
    let nodes = domain.clean()?;
    let gone = was_there && !domain.path().is_dir();
    Ok(Removed { nodes, domain: gone.then(|| domain.path().display().to_string()), dry_run: false })
}
