//! What the library logs, on stderr: `--log`, or `LIBRPC_LOG`.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

use crate::outcome::Usage;

#[derive(clap::Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// What the library logs to stderr: error, warn, info, debug, or by target, as in librpc::node=debug
    /// [default: $LIBRPC_LOG, or nothing]. `top` in a terminal logs only with 2>FILE
    #[arg(long, global = true, help_heading = "Log", value_name = "FILTER")]
    log: Option<String>,
}

impl LogArgs {
    /// Installs the log, if one is wanted.
    pub(crate) fn install(&self) -> anyhow::Result<()> {
        let from_env = || std::env::var_os("LIBRPC_LOG").map(|filter| filter.to_string_lossy().into_owned());
        let filter = self.log.clone().or_else(from_env).filter(|filter| !filter.is_empty());
        let Some(filter) = filter else { return Ok(()) };
        let filter = EnvFilter::try_new(&filter).map_err(|error| Usage(format!("log filter {filter:?}: {error}")))?;
        let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        let subscriber =
            tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr);
        subscriber.try_init().map_err(|error| anyhow::anyhow!(error)).context("cannot install the log")
    }
}
