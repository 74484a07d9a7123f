//! The frame of the parts: their sections, counts and seeds, and how each ended.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::limit::{self, IS_SHORT};
use crate::undo;

/// What a user may choose.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// How many rounds each section runs, instead of the profile's number.
    #[arg(long)]
    rounds: Option<u64>,
    /// The first round, to repeat one: each has random numbers of its own.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run only the section of this name (a fault point, for example).
    #[arg(long)]
    only: Option<String>,
    /// Run all parts in about two minutes, with smaller counts, and judge only hangs.
    #[arg(long)]
    pub(crate) short: bool,
    /// Print one JSON object a line.
    #[arg(long)]
    json: bool,
}

/// A section that this machine does not allow, and why.
#[derive(Debug)]
pub(crate) struct Skipped(pub(crate) String);

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SKIPPED: {}", self.0)
    }
}

impl std::error::Error for Skipped {}

/// How a section has ended.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Outcome {
    pub(crate) part: &'static str,
    pub(crate) section: String,
    pub(crate) count: u64,
    pub(crate) result: &'static str,
    pub(crate) seconds: f64,
    pub(crate) note: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay: Option<String>,
}

/// The rounds of a section.
pub(crate) struct Rounds {
    pub(crate) seed: u64,
    section: String,
    first: u64,
    pub(crate) count: u64,
    /// The round that is running, if rounds do not depend on one another.
    current: Cell<Option<u64>>,
}

impl Rounds {
    /// The random numbers of a round.
    pub(crate) fn rng(&self, round: u64) -> fastrand::Rng {
        let name =
            self.section.bytes().fold(self.seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3));
        fastrand::Rng::with_seed(name.wrapping_add(round))
    }

    /// Runs rounds that do not depend on one another: after a failure one of them can be repeated.
    pub(crate) fn each(&self, mut run: impl FnMut(u64, fastrand::Rng) -> anyhow::Result<()>) -> anyhow::Result<()> {
        for round in self.first..self.first + self.count {
            self.current.set(Some(round));
            run(round, self.rng(round))?;
        }
        self.current.set(None);
        Ok(())
    }

    /// The rounds of a section in which each depends on those before it.
    pub(crate) fn together(&self) -> impl Iterator<Item = (u64, fastrand::Rng)> + '_ {
        (self.first..self.first + self.count).map(|round| (round, self.rng(round)))
    }
}

pub(crate) struct Battery {
    pub(crate) options: Options,
    part: &'static str,
    pub(crate) outcomes: Vec<Outcome>,
}

impl Battery {
    pub(crate) fn new(options: Options) -> Self {
        IS_SHORT.store(options.short, Ordering::Relaxed);
        Self { options, part: "", outcomes: Vec::new() }
    }

    pub(crate) fn begin(&mut self, part: &'static str) {
        self.part = part;
    }

    /// The full count, or the short one.
    pub(crate) fn pick<T>(&self, full: T, short: T) -> T {
        if self.options.short { short } else { full }
    }

    /// Runs a section with this many rounds, unless the user asked for another number. `run` returns a note.
    pub(crate) fn section(&mut self, name: &str, rounds: u64, run: impl FnOnce(&Rounds) -> anyhow::Result<String>) {
        if self.options.only.as_ref().is_some_and(|only| only != name) {
            return;
        }
        let Options { seed, first, short, .. } = self.options;
        let count = self.options.rounds.unwrap_or(rounds);
        let rounds = Rounds { seed, section: name.to_owned(), first, count, current: Cell::new(None) };
        let begun = Instant::now();
        let result = run(&rounds);
        drop(undo::gate()); // never returns after a signal, which may be why a section failed
        undo::end_children();
        undo::remove_domains();
        let (result, note, replay) = match result {
            Ok(note) => ("passed", note, None),
            Err(error) if error.is::<Skipped>() => ("SKIPPED", error.to_string().replace("SKIPPED: ", ""), None),
            Err(error) => {
                let (first, count) = rounds.current.get().map_or((first, count), |round| (round, 1));
                let short = if short { " --short" } else { "" };
                let part = self.part;
                let replay = format!(
                    "cargo run --release -p librpc-chaos -- {part} --only {name} --seed {seed} --first {first} --rounds {count}{short}"
                );
                ("FAILED", format!("{error:#}"), Some(replay))
            }
        };
        let note = match limit::excused() {
            Some((times, most)) => format!("{note}; late {times} times because of the machine, by up to {most:.1?}"),
            None => note,
        };
        let count = if result == "SKIPPED" { 0 } else { count };
        let outcome = Outcome {
            part: self.part,
            section: name.to_owned(),
            count,
            result,
            seconds: (begun.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            note,
            replay,
        };
        self.report(&outcome);
        self.outcomes.push(outcome);
    }

    fn report(&self, outcome: &Outcome) {
        let Outcome { part, section, count, result, seconds, note, replay } = outcome;
        if self.options.json {
            println!("{}", serde_json::to_string(outcome).expect("an outcome is plain"));
            return;
        }
        println!("{part:9} {section:26} {count:>10} {result:8} {seconds:>7.1} s  {note}");
        if let Some(replay) = replay {
            println!("  repeat: {replay}");
        }
    }

    /// Prints the table at the end. Returns `false` if something has failed.
    pub(crate) fn sum_up(&self) -> bool {
        if !self.options.json && self.outcomes.len() > 1 {
            let mut table = comfy_table::Table::new();
            table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
            table.set_header(["part", "section", "count", "result", "seconds"]);
            for Outcome { part, section, count, result, seconds, .. } in &self.outcomes {
                let (count, seconds) = (count.to_string(), format!("{seconds:.1}"));
                table.add_row([part, section.as_str(), &count, result, &seconds]);
            }
            println!("\n{table}");
        }
        self.outcomes.iter().all(|outcome| outcome.result != "FAILED")
    }
}
