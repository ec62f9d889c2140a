//! `camscribe check`: checks the configuration and prints its effective values.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::probe;
use crate::{app, config, logging::tell, publish::Prepared};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Test what it names instead of printing it: the model, the broker and every enabled camera
    #[arg(long)]
    pub probe: bool,
}

/// Prints the effective configuration, or the results of `--probe`, on standard output, and warnings on
/// standard error.
///
/// # Errors
/// [`config::ConfigError`] with every error of the configuration;
/// [`SettingsError`](crate::publish::SettingsError) for the broker's settings; when a probe fails.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let loaded = config::load(args.config.as_deref())?;
    for warning in &loaded.warnings {
        tell(format_args!("warning: {warning}"));
    }
    // Reads the files with certificates and keys.
    Prepared::new(app::publish_settings(&loaded.config, None))?;
    if args.probe {
        return probe::run(&loaded.config);
    }
    std::io::stdout().write_all(loaded.to_toml().as_bytes())?;
    Ok(())
}
