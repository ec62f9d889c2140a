//! `camscribe demo`: everything at work without camera, broker or download.

use std::time::Duration;

use clap::Args;

use crate::config::units;

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port of the embedded broker on loopback; 0 picks a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port: u16,
    /// Stop after this time [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = units::duration)]
    pub duration: Option<Duration>,
}

/// Runs until told to stop.
pub fn run(_args: DemoArgs) -> anyhow::Result<()> {
    anyhow::bail!("demo is not part of this build yet")
}
