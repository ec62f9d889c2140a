//! `camscribe run`: the service.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

use super::runtime::runtime;
use crate::{app, config, logging, memory, shutdown};

/// Arguments of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs until a signal stops it.
///
/// # Errors
/// [`config::ConfigError`] before anything starts; later as [`app::run`].
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    memory::limit_arenas();
    no_core_dumps().context("cannot disable core dumps, which would contain passwords")?;
    let loaded = config::load(args.config.as_deref())?;
    let config::LogSettings { level, format } = loaded.config.log;
    logging::init(level, format);
    let file = args.config.as_deref().unwrap_or(Path::new(config::DEFAULT_FILE));
    let state = loaded.config.node.state_dir.as_deref().unwrap_or(Path::new(""));
    let node = &loaded.config.node.id;
    let (file, state) = (file.display(), state.display());
    let fragments = match loaded.fragments.len() {
        0 => String::new(),
        count => format!(" and {count} of conf.d"),
    };
    tracing::info!(
        "camscribe {}: node {node}, configuration {file}{fragments}, state in {state}",
        crate::VERSION
    );
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let result = runtime.block_on(async {
        let stop = shutdown::on_signal()?.token;
        let reload = app::Reload { file: args.config, hangups: shutdown::on_hangup()? };
        app::run(loaded.config, app::load_model, Some(reload), stop).await
    });
    // A thread that hangs in a camera's driver must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Disables core dumps, which would contain the passwords of cameras and broker, and keeps other programs of
/// the same user from reading this process's memory and environment.
///
/// # Errors
/// When the system refuses.
fn no_core_dumps() -> std::io::Result<()> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none)?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    Ok(())
}
