//! `camscribe run`: the service.

use std::path::PathBuf;

use clap::Args;

use crate::{app, config, logging, shutdown};

/// Threads for everything that waits: cameras' supervisors, the publisher, signals.
const WORKERS: usize = 2;

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs until told to stop.
///
/// # Errors
/// [`config::ConfigError`] before anything starts; later what [`app::run`] says.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::init(false);
    let loaded = config::load(args.config.as_deref())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let describer = Box::new(app::load_model(&loaded.config.model)?);
    runtime()?.block_on(async {
        let cancel = shutdown::on_signal()?;
        app::run(loaded.config, describer, cancel).await
    })
}

/// The runtime that every command uses.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
}
