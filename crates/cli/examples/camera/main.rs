//! A camera with several viewers, some of which are killed all the time, and what becomes of its frames:
//!
//! ```sh
//! cargo run --release -p librpc-cli --example camera                                    # 60 Hz × 8 MiB, the last viewer is killed
//! cargo run --release -p librpc-cli --example camera -- --seconds 600 --kill any        # a viewer or the camera, at random
//! ```
//!
//! The camera writes each frame once, into a loan. Each viewer reads it where it is, and checks its checksum. Viewers take the
//! latest frames, so the camera never waits for them. At the end it prints, for each viewer, how many frames came, were missed and
//! were torn, and how much memory the frames took. A torn frame is a failure.

mod film; //   the process of the camera
mod frame; //  what a frame contains
mod memfds; // how much memory the processes have for messages
mod view; //   the process of a viewer

use std::io::Read;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::{Parser, ValueEnum};
use librpc::Domain;
use testkit::{Process, Random};

/// How often the reports of the processes are read.
const TICK: Duration = Duration::from_millis(10);
/// How long a process may take to begin, or to end.
const LIMIT: Duration = Duration::from_secs(30);
/// How long nobody is killed before the memory is measured at the end. Memory that is unused is given back after ten seconds.
const CALM: Duration = Duration::from_secs(15);

#[derive(Parser, Clone, Debug)]
struct Args {
    /// How long frames come
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Frames per second
    #[arg(long, default_value_t = 60.0)]
    rate: f64,
    /// Bytes of a frame
    #[arg(long, default_value_t = 8 << 20)]
    size: usize,
    #[arg(long, default_value_t = 3)]
    viewers: usize,
    /// Who is killed with SIGKILL and started again
    #[arg(long, value_enum, default_value_t = Kill::Last)]
    kill: Kill,
    /// Seconds from one kill to the next
    #[arg(long, default_value_t = 1.0)]
    every: f64,
    /// What is random follows from this number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The domain [default: one of its own]
    #[arg(long)]
    domain: Option<String>,
    #[arg(long, hide = true)]
    part: Option<usize>,
}

#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum Kill {
    Nobody,
    /// The last viewer
    Last,
    /// A viewer or the camera, at random
    Any,
}

impl Args {
    fn domain(&self) -> Domain {
        let own = || format!("camera-{}", std::process::id());
        Domain::parse(self.domain.clone().unwrap_or_else(own))
    }
}

/// The camera, or a viewer, and what all of its processes have reported.
struct Part {
    index: usize,
    process: Process,
    began: Instant,
    /// The last report of this process, and the sums of the former ones.
    now: [u64; 3],
    before: [u64; 3],
    lived: Duration,
    kills: u64,
}

impl Part {
    fn start(args: &Args, index: usize) -> anyhow::Result<Self> {
        let (process, began) = (start(args, index)?, Instant::now());
        Ok(Self { index, process, began, now: [0; 3], before: [0; 3], lived: Duration::ZERO, kills: 0 })
    }

    /// Reads what it has reported.
    fn read(&mut self) -> anyhow::Result<()> {
        if let Some(line) = self.process.has_said()?.pop() {
            let numbers: Vec<u64> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
            self.now = numbers.try_into().map_err(|_| anyhow::anyhow!("a report that is not one: {line:?}"))?;
        }
        Ok(())
    }

    fn sums(&self) -> [u64; 3] {
        std::array::from_fn(|at| self.before[at] + self.now[at])
    }

    fn kill(&mut self, args: &Args) -> anyhow::Result<()> {
        self.process.kill()?;
        self.read()?;
        self.lived += self.began.elapsed();
        (self.before, self.now) = (self.sums(), [0; 3]);
        (self.process, self.began) = (start(args, self.index)?, Instant::now());
        self.kills += 1;
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        self.lived += self.began.elapsed();
        self.process.close_stdin();
        let ended = self.process.ends(LIMIT)?;
        ensure!(ended.success(), "a process has ended with {ended}");
        self.read()
    }
}

fn start(args: &Args, index: usize) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(std::env::args_os().skip(1)).arg(format!("--part={index}"));
    if args.domain.is_none() {
        command.arg(format!("--domain={}", args.domain().path().display()));
    }
    Process::start(&mut command)
}

/// Calls this once the parent has closed stdin, or is gone.
fn at_the_end(call: impl FnOnce() + Send + 'static) {
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new()); // an error is the end, too
        call();
    });
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    match args.part {
        None => watch(&args),
        Some(0) => testkit::die_with_parent().and_then(|()| film::run(&args)),
        Some(viewer) => testkit::die_with_parent().and_then(|()| view::run(&args, viewer)),
    }
}

fn watch(args: &Args) -> anyhow::Result<()> {
    ensure!(args.size >= frame::HEAD && args.rate > 0.0 && args.every > 0.0 && args.viewers > 0, "that is no camera");
    let mut parts = (0..=args.viewers).map(|index| Part::start(args, index)).collect::<anyhow::Result<Vec<_>>>()?;
    let (mut random, mut memory) = (Random::new(args.seed), Memory::default());
    wait_for_frames(&mut parts)?;
    memory.look(&parts);
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(args.seconds));
    let calm = if args.kill == Kill::Nobody { Duration::ZERO } else { CALM.min(time / 4) };
    let every = Duration::from_secs_f64(args.every);
    let (mut next_kill, mut next_look) = (begun + every, begun);
    while begun.elapsed() < time {
        std::thread::sleep(TICK);
        parts.iter_mut().try_for_each(Part::read)?;
        let now = Instant::now();
        if now >= next_look {
            memory.look(&parts);
            next_look += Duration::from_secs(1).min(every);
        }
        if now >= next_kill && begun.elapsed() + calm < time {
            next_kill += every;
            let victim = match args.kill {
                Kill::Nobody => continue,
                Kill::Last => args.viewers,
                Kill::Any => random.below(parts.len() as u64) as usize,
            };
            parts[victim].kill(args)?;
        }
    }
    wait_for_frames(&mut parts)?;
    memory.look(&parts);
    // Viewers first: the camera serves them to the end.
    parts.iter_mut().rev().try_for_each(Part::end)?;
    let torn = print(args, &parts, &memory);
    args.domain().clean()?;
    ensure!(!args.domain().path().exists(), "{} is left", args.domain().path().display());
    ensure!(torn == 0, "{torn} frames were torn");
    Ok(())
}

/// Waits until a frame has come to each viewer since its last start.
fn wait_for_frames(parts: &mut [Part]) -> anyhow::Result<()> {
    let begun = Instant::now();
    while parts.iter().any(|part| part.now[0] == 0) {
        ensure!(begun.elapsed() < LIMIT, "no frames come");
        std::thread::sleep(TICK);
        parts.iter_mut().try_for_each(Part::read)?;
    }
    Ok(())
}

/// Bytes of the memfds of all processes: at first, at most, and now.
#[derive(Default)]
struct Memory {
    first: Option<u64>,
    most: u64,
    now: u64,
}

impl Memory {
    fn look(&mut self, parts: &[Part]) {
        self.now = memfds::bytes(parts.iter().map(|part| part.process.pid()));
        self.first.get_or_insert(self.now);
        self.most = self.most.max(self.now);
    }
}

/// Prints what has become of the frames, and returns how many were torn.
fn print(args: &Args, parts: &[Part], memory: &Memory) -> u64 {
    let rate = |part: &Part, frames: u64| frames as f64 / part.lived.as_secs_f64();
    let (camera, viewers) = parts.split_first().expect("there is a camera");
    let [published, unreached, waited] = camera.sums();
    println!(
        "camera: {published} frames of {} bytes, {:.1} a second; killed {} times; {unreached} did not reach a viewer, {waited} came late",
        args.size,
        rate(camera, published),
        camera.kills
    );
    let mut all_torn = 0;
    for viewer in viewers {
        let [came, missed, torn] = viewer.sums();
        all_torn += torn;
        println!(
            "viewer {}: {came} frames came, {:.1} a second; {missed} missed, {torn} torn; killed {} times",
            viewer.index,
            rate(viewer, came),
            viewer.kills
        );
    }
    let mib = |bytes: u64| bytes >> 20;
    let first = memory.first.unwrap_or_default();
    println!(
        "memfds: {} MiB at first, {} MiB at most, {} MiB at the end",
        mib(first),
        mib(memory.most),
        mib(memory.now)
    );
    all_torn
}
