//! Services that are called and not served, and servers that do not answer.

use std::time::Duration;

use super::Check;
use crate::snapshot::{Looker, Snapshot};
use crate::warnings::{self, NO_SERVER, SILENT_SERVER};

/// A server that has ended none of its requests for this time does not answer.
const SILENT: Duration = Duration::from_secs(1);

/// Looks a second time if that can tell a server that is silent from one that is just at work.
pub(super) fn check(looker: &mut Looker, snapshot: &Snapshot) -> anyhow::Result<Check> {
    const NAME: &str = "services";
    let is_at_work = snapshot.services.iter().any(|row| row.is_server() && row.stats.in_flight() > 0);
    let mut found = warnings::find(snapshot);
    if is_at_work {
        std::thread::sleep(SILENT);
        let mut later = looker.look()?;
        later.compare_with(snapshot);
        found = warnings::find(&later);
    }
    let of_services = |name: &str| [NO_SERVER, SILENT_SERVER].contains(&name);
    let found: Vec<String> = found.into_iter().filter(|warning| of_services(warning.name)).map(|w| w.text).collect();
    let todo = "start a server of it, or see what the server is doing: its process has received these requests";
    Ok(match found.len() {
        0 => Check::pass(NAME, "every service that has a client has a server, and every server answers"),
        1..=5 => Check::warn(NAME, found.join("; "), todo),
        all => Check::warn(NAME, format!("{}; and {} more", found[..5].join("; "), all - 5), todo),
    })
}
