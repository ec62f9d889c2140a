//! `camscribe run`: the service.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs until told to stop.
pub fn run(_args: RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("run is not part of this build yet")
}
