//! One look at a domain, or one after the other.

use std::io::Write;
use std::num::NonZeroU64;
use std::time::Duration;

use crate::interrupt::Interrupt;
use crate::outcome::{CommandResult, Outcome};
use crate::snapshot::{Looker, Snapshot};
use crate::stdout::was_closed;

/// Looking again and again.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct WatchArgs {
    /// Look again and again, and show the rates in between
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "1s", value_parser = humantime::parse_duration)]
    watch: Option<Duration>,
    /// End after N looks
    #[arg(long, value_name = "N", requires = "watch")]
    count: Option<NonZeroU64>,
}

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(10);

impl WatchArgs {
    /// Shows one look, or one after the other, each compared with the one before it. `over`: the time between the two looks that are
    /// compared without --watch. If it is 0, there is only one look, and nothing to compare it with.
    pub(crate) fn run(
        self,
        looker: &mut Looker,
        over: Duration,
        is_json: bool,
        mut show: impl FnMut(&Snapshot) -> anyhow::Result<()>,
    ) -> CommandResult {
        let Some(every) = self.watch else {
            let mut snapshot = looker.look()?;
            if !over.is_zero() && !snapshot.nodes.is_empty() {
                std::thread::sleep(over);
                let mut later = looker.look()?;
                later.compare_with(&snapshot);
                snapshot = later;
            }
            show(&snapshot)?;
            return Ok(Outcome::Done);
        };
        let interrupt = Interrupt::install()?;
        let mut earlier: Option<Snapshot> = None;
        let mut looks = 0;
        while interrupt.signal().is_none() {
            let mut snapshot = looker.look()?;
            if let Some(earlier) = &earlier {
                snapshot.compare_with(earlier);
            }
            show(&snapshot)?;
            earlier = Some(snapshot);
            looks += 1;
            if self.count.is_some_and(|count| looks >= count.get()) || was_closed() {
                break;
            }
            if !is_json {
                std::io::stdout().write_all(b"\n")?;
            }
            interrupt.wait_for(every.max(SHORTEST))?;
        }
        Ok(Outcome::Done)
    }
}
