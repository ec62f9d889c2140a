//! `camscribe check`: is this configuration right, and what does it come to?

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::probe;
use crate::{app, config, publish::Prepared};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Try what it names instead of printing it: the model, the broker and every enabled camera
    #[arg(long)]
    pub probe: bool,
}

/// Prints the effective configuration to standard output, or what came of trying it; warnings to
/// standard error.
///
/// # Errors
/// [`config::ConfigError`] with every mistake; [`SettingsError`](crate::publish::SettingsError); that something does not work.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let loaded = config::load(args.config.as_deref())?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    // What stands in the files of certificates and keys.
    Prepared::new(app::publish_settings(&loaded.config, None))?;
    if args.probe {
        return probe::run(&loaded.config);
    }
    std::io::stdout().write_all(loaded.to_toml().as_bytes())?;
    Ok(())
}
