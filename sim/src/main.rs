//! Runs schedules of simulated domains, and says which ones fail.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use librpc_sim::machine;
use librpc_sim::workload::{self, Workload};

/// Whole domains of librpc nodes on a simulated kernel: seeded, deterministic, with a fault at any step.
#[derive(Clone, Debug, Parser)]
#[command(after_help = "\
Examples:
  sim --schedules 10000                           every workload, 10,000 schedules together
  sim --schedules 1000000 --seed 7                from seed 7 on
  sim --workload once --seed 42 --trace           one schedule, step by step
  sim --schedules 1000 --twice                    a seed decides everything
  sim --list                                      the workloads")]
struct Arguments {
    /// How many schedules to run, of all workloads together.
    #[arg(long, default_value_t = 1)]
    schedules: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this workload.
    #[arg(long)]
    workload: Option<String>,
    /// Prints each step of the schedule.
    #[arg(long)]
    trace: bool,
    /// Nothing goes wrong but the order in which threads take turns.
    #[arg(long)]
    without_faults: bool,
    /// Runs each schedule twice, and compares the two. (Otherwise one in a hundred is.)
    #[arg(long)]
    twice: bool,
    /// How many schedules run at the same time.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Ends after this many failures.
    #[arg(long, default_value_t = 10)]
    failures: usize,
    /// Lists the workloads.
    #[arg(long)]
    list: bool,
    /// Runs the schedules in this process.
    #[arg(long, hide = true)]
    worker: bool,
}

/// How a failure is seen again.
const AGAIN: &str = "cargo run --release --manifest-path sim/Cargo.toml --";
/// How many schedules run in one process. Memory that killed simulated processes leave is freed when it ends.
const CHUNK: u64 = 500;
/// A schedule that takes longer than this on the real clock counts as endless.
const REAL_LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        for Workload { name, about, .. } in workload::ALL {
            println!("{name:14} {about}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let workloads = chosen(&arguments)?;
    if arguments.worker || arguments.trace {
        machine::install();
        return Ok(if run_here(&arguments, &workloads) { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    run_in_workers(&arguments)
}

fn chosen(arguments: &Arguments) -> Result<Vec<Workload>> {
    let Some(name) = &arguments.workload else { return Ok(workload::ALL.to_vec()) };
    match workload::ALL.iter().find(|workload| workload.name == name) {
        Some(workload) => Ok(vec![*workload]),
        None => bail!("no workload {name:?} (`sim --list` shows them)"),
    }
}

/// Runs schedules one after the other; `false`: one has failed.
fn run_here(arguments: &Arguments, workloads: &[Workload]) -> bool {
    static RUNNING: AtomicU64 = AtomicU64::new(0);
    std::thread::spawn(|| {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let now = RUNNING.load(Ordering::Relaxed);
            if now != seen {
                (seen, since) = (now, Instant::now());
            } else if since.elapsed() > REAL_LIMIT {
                println!("FAILED: the schedule of seed {now} does not end");
                std::process::exit(2);
            }
        }
    });
    let mut sum = Sum::default();
    let end = arguments.seed + arguments.schedules;
    let mut next = arguments.seed;
    while next < end {
        // A thread that has panicked in the middle of a run is unusable, so the next runs get another thread.
        let runs = || {
            while next < end {
                RUNNING.store(next, Ordering::Relaxed);
                let is_well = run_one(arguments, workloads, next, &mut sum);
                next += 1;
                if !is_well {
                    return;
                }
            }
        };
        std::thread::scope(|scope| scope.spawn(runs).join()).expect("the simulator does not panic");
    }
    println!("RUN {} {} {} {}", arguments.schedules, sum.steps, sum.kills, sum.errors);
    sum.failures == 0
}

/// Runs one schedule; `false`: it has failed.
fn run_one(arguments: &Arguments, workloads: &[Workload], seed: u64, sum: &mut Sum) -> bool {
    let workload = &workloads[(seed % workloads.len() as u64) as usize];
    let lines = if arguments.trace { 8_000_000 } else { 0 };
    let report = workload::run(workload, seed, !arguments.without_faults, lines);
    sum.steps += report.steps;
    sum.kills += report.kills as u64;
    sum.errors += report.errors_injected;
    if arguments.trace {
        report.lines.iter().for_each(|line| println!("{line}"));
        println!("{} steps, digest {:016x}", report.steps, report.digest);
    }
    let mut failure = report.failure.map(|failure| failure.what);
    if failure.is_none() && (arguments.twice || seed.is_multiple_of(100)) {
        let again = workload::run(workload, seed, !arguments.without_faults, 0);
        let is_same = (again.digest, again.steps) == (report.digest, report.steps);
        failure = (!is_same).then(|| "the same seed, run again, led to another run".into());
    }
    let Some(what) = failure else { return true };
    sum.failures += 1;
    println!("FAILED: --workload {} --seed {seed}: {}", workload.name, what.replace('\n', "\n  "));
    println!("  again: {AGAIN} --workload {} --seed {seed} --trace", workload.name);
    false
}

/// The sums over all workers.
#[derive(Default)]
struct Sum {
    schedules: u64,
    steps: u64,
    kills: u64,
    errors: u64,
    failures: usize,
}

fn run_in_workers(arguments: &Arguments) -> Result<ExitCode> {
    let (next, sum, begun) = (Mutex::new(arguments.seed), Mutex::new(Sum::default()), Instant::now());
    let end = arguments.seed + arguments.schedules;
    let work = || -> Result<()> {
        loop {
            let from = {
                let mut next = next.lock().expect("no panic under this lock");
                let from = *next;
                *next = (*next + CHUNK).min(end);
                from
            };
            if from >= end || sum.lock().expect("no panic under this lock").failures >= arguments.failures {
                return Ok(());
            }
            run_worker(arguments, from, CHUNK.min(end - from), &sum)?;
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let workers: Vec<_> = (0..arguments.jobs).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })?;
    let Sum { schedules, steps, kills, errors, failures } = sum.into_inner().expect("no panic under this lock");
    println!(
        "{schedules} schedules, {failures} failed, {steps} steps, {kills} kills, {errors} errors, {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_worker(arguments: &Arguments, seed: u64, schedules: u64, sum: &Mutex<Sum>) -> Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--worker", "--seed", &seed.to_string(), "--schedules", &schedules.to_string()]);
    if let Some(workload) = &arguments.workload {
        command.args(["--workload", workload]);
    }
    command.args(arguments.without_faults.then_some("--without-faults"));
    command.args(arguments.twice.then_some("--twice"));
    let mut worker = command.stdout(Stdio::piped()).spawn().context("start a worker")?;
    let mut has_ended = false;
    for line in BufReader::new(worker.stdout.take().expect("it is piped")).lines() {
        let line = line?;
        let mut sum = sum.lock().expect("no panic under this lock");
        if let Some(counts) = line.strip_prefix("RUN ") {
            let mut counts = counts.split(' ').map(|count| count.parse::<u64>());
            let mut next = || counts.next().context("four counts")?.context("a count");
            sum.schedules += next()?;
            sum.steps += next()?;
            sum.kills += next()?;
            sum.errors += next()?;
            has_ended = true;
            continue;
        }
        sum.failures += usize::from(line.starts_with("FAILED"));
        println!("{line}");
        std::io::stdout().flush()?;
    }
    let status = worker.wait()?;
    if !has_ended && schedules > 1 {
        return (seed..seed + schedules).try_for_each(|seed| run_worker(arguments, seed, 1, sum)); // find the one that failed
    }
    if !has_ended {
        let mut sum = sum.lock().expect("no panic under this lock");
        sum.failures += 1;
        println!("FAILED: --seed {seed}: the process that ran it has ended with {status}");
    }
    Ok(())
}
