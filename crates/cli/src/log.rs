//! The library's words on stderr: `--log`, or `LIBRPC_LOG`.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::outcome::Usage;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// What the library says, on stderr: error, warn, info, debug, or by target, as in librpc::incoming=debug.
    /// Default: $LIBRPC_LOG, or else nothing. (top in a terminal: only with 2>FILE)
    #[arg(long, global = true, help_heading = "Log", value_name = "FILTER")]
    log: Option<String>,
}

impl LogArgs {
    /// Has the library speak, if it is to.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        let filter = self.log.clone().or_else(|| std::env::var("LIBRPC_LOG").ok()).filter(|filter| !filter.is_empty());
        let Some(filter) = filter else { return Ok(()) };
        let filter = EnvFilter::try_new(&filter).map_err(|error| Usage(format!("log filter {filter:?}: {error}")))?;
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
        subscriber.try_init().map_err(|error| anyhow::anyhow!(error)).context("cannot install the log")
    }
}
