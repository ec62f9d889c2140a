//! `camscribe run`: the service.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use crate::{app, config, describe::Describer, logging, shutdown};

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
    no_core_dumps().context("core dumps, which would hold passwords, cannot be switched off")?;
    let loaded = config::load(args.config.as_deref())?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let load = |model: &config::Model| Ok(Box::new(app::load_model(model)?) as Box<dyn Describer>);
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        let reload = app::Reload { file: args.config, hangups: shutdown::on_hangup()? };
        app::run(loaded.config, load, Some(reload), stop).await
    });
    // A thread that hangs in a camera's driver must not hold up the end.
    runtime.shutdown_background();
    result
}

/// A dump of this process would hold the passwords of cameras and broker. Nor may another program
/// of the same user look into its memory or environment.
fn no_core_dumps() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}

/// The runtime that every command uses.
///
/// # Errors
/// When the system gives no threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
}
