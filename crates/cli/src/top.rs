//! `librpc top`: a domain at work, live. It joins nothing and creates nothing.

mod app; //      what is shown, and what the keys do
mod draw; //     how it looks
mod lines; //    nodes, inboxes and channels as lines of a table
mod terminal; // the terminal, and how it is restored

use std::io::{IsTerminal, Write};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::domain::DomainArgs;
use crate::interrupt::Interrupt;
use crate::options::AboutArgs;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{Looker, Snapshot};
use crate::{about, report, stat, warnings};

use app::{App, Goes};
use terminal::Terminal;

/// Shows a domain at work: nodes, inboxes, channels, rates, depths, latencies, and what is wrong
///
/// Nodes are asked from outside: traffic is not slowed down, and nothing is joined or created. A node that does not answer
/// within 1 s is shown as stalled. `?` shows the keys.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  librpc top
  librpc top display                    # a node, a topic or a pattern
  librpc top --once                     # one look, as text
  librpc top --once --json | jq 'select(.kind == \"warning\")'")]
pub(crate) struct Args {
    #[command(flatten)]
    about: AboutArgs,
    /// Look once, for a moment, and write what was found as text
    #[arg(long)]
    once: bool,
    /// With --once: write one object per line, with `kind` node, inbox, channel, service or warning, and every counter by
    /// its name
    #[arg(long, requires = "once")]
    json: bool,
    /// The time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
}

impl Args {
    /// Whether it takes over a terminal.
    pub(crate) fn draws(&self) -> bool {
        !self.once && std::io::stdout().is_terminal() && std::io::stdin().is_terminal()
    }
}

/// The time between the two looks of --once.
const MOMENT: Duration = Duration::from_millis(250);
/// How long the screen may stay outdated after a key or a look.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long restoring the terminal may take after a signal.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn run(domain: &DomainArgs, args: &Args) -> CommandResult {
    let domain = domain.domain()?;
    let mut looker = Looker::new(domain.clone());
    if !args.draws() {
        return once(&mut looker, args);
    }
    let interrupt = Interrupt::install()?;
    // A signal ends the command even if drawing blocks. It has joined nothing, so nothing is left behind.
    interrupt.then(|| {
        std::thread::sleep(LAST_PATIENCE);
        std::process::exit(0);
    });
    let (looks, seen) = mpsc::sync_channel(1);
    let (interval, stop) = (args.interval.max(Duration::from_millis(100)), interrupt.clone());
    let look = move || {
        while stop.signal().is_none() {
            let begun = Instant::now();
            if looks.send(looker.look()).is_err() {
                return; // the screen is gone
            }
            let _ = stop.wait_for(interval.saturating_sub(begun.elapsed()));
        }
    };
    std::thread::Builder::new().name("look".into()).spawn(look).context("cannot start a thread")?;
    let mut terminal = Terminal::enter()?;
    let mut app = App::new(domain.path().display().to_string(), args.about.what.clone());
    let shown = show(&mut terminal, &mut app, &seen, &interrupt);
    drop(terminal);
    shown.map(|()| Outcome::Done)
}

fn show(
    terminal: &mut Terminal,
    app: &mut App,
    seen: &mpsc::Receiver<anyhow::Result<Snapshot>>,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    terminal.draw(app)?;
    while interrupt.signal().is_none() {
        let mut has_changed = false;
        if !is_there(interrupt)? {
            return Ok(());
        }
        if event::poll(Duration::ZERO)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if app.key(key) == Goes::Away {
                        return Ok(());
                    }
                    has_changed = true;
                }
                Event::Resize(..) => has_changed = true,
                _ => {}
            }
        }
        if let Ok(found) = seen.try_recv() {
            match found {
                Ok(snapshot) => app.update(snapshot),
                Err(error) if app.snapshot.is_none() => return Err(error),
                // This may pass: too few descriptors, or a directory that is being created again.
                Err(error) => app.trouble = Some(format!("{error:#}")),
            }
            has_changed = true;
        }
        if has_changed {
            terminal.draw(app)?;
        }
    }
    Ok(())
}

/// Waits a moment for a key. `false`: the terminal is gone. This is checked before keys are read, because crossterm would
/// read from such a terminal for ever.
fn is_there(interrupt: &Interrupt) -> anyhow::Result<bool> {
    let (stdin, patience) = (std::io::stdin(), Timespec::try_from(PATIENCE).expect("a short time"));
    let mut waited = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(interrupt, PollFlags::empty())];
    match poll(&mut waited, Some(&patience)) {
        Ok(_) | Err(Errno::INTR) => {} // INTR: perhaps it has another size now
        Err(errno) => return Err(errno.into()),
    }
    Ok(!waited[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL))
}

fn once(looker: &mut Looker, args: &Args) -> CommandResult {
    let earlier = looker.look()?;
    if earlier.nodes.is_empty() {
        return Ok(Outcome::Done);
    }
    std::thread::sleep(MOMENT);
    let mut snapshot = looker.look()?;
    snapshot.compare_with(&earlier);
    let part = about::select(&snapshot, args.about.what.as_deref());
    let warnings = warnings::find_in(&part, &snapshot);
    let text = if args.json {
        report::json(&part, &warnings)?
    } else {
        let mut text = app::summary(&part) + "\n";
        warnings.iter().for_each(|warning| text.push_str(&format!("{}: {}\n", warning.name, warning.text)));
        text + "\n" + &stat::table(&part)
    };
    std::io::stdout().write_all(text.as_bytes())?;
    about::say_if_nothing_matches(&part, &snapshot, args.about.what.as_deref());
    Ok(Outcome::Done)
}
