//! `camscribe check`: checks the configuration and prints its effective values.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{as_service::run_as_service, probe};
use crate::{
    app, capture,
    config::{self, Config},
    logging::tell,
    publish::Prepared,
};

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

/// Pipeline files that cannot be used, each with its camera.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadPipelines(Vec<String>);

/// The check by the service ended with this exit code, and has said why.
#[derive(Debug, thiserror::Error)]
#[error("the check as the service failed")]
pub struct CheckedAsService {
    /// Its exit code.
    pub exit_code: u8,
}

/// Prints the effective configuration, or the results of `--probe`, on standard output, and warnings on
/// standard error.
///
/// # Errors
/// [`config::ConfigError`] with every error of the configuration;
/// [`SettingsError`](crate::publish::SettingsError) for the broker's settings; [`BadPipelines`]; when a probe fails.
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let is_the_services = args.config.as_deref().is_none_or(|file| file == Path::new(config::DEFAULT_FILE));
    if is_the_services && let Some(status) = run_as_service(env::args().skip(1))? {
        let exit_code = status.code().and_then(|code| code.try_into().ok()).unwrap_or(1);
        return if exit_code == 0 { Ok(()) } else { Err(CheckedAsService { exit_code }.into()) };
    }
    let loaded = config::load(args.config.as_deref())?;
    for warning in &loaded.warnings {
        tell(format_args!("warning: {warning}"));
    }
    // Reads the files with certificates and keys.
    Prepared::new(app::publish_settings(&loaded.config, None))?;
    check_pipelines(&loaded.config)?;
    if args.probe {
        return probe::run(&loaded.config);
    }
    std::io::stdout().write_all(loaded.to_toml().as_bytes())?;
    Ok(())
}

/// Checks the pipeline files of the user's own that enabled cameras use.
fn check_pipelines(config: &Config) -> Result<(), BadPipelines> {
    let check = |(id, camera)| {
        let checked = capture::check_pipeline(&app::camera_config(id, camera, &config.pipelines));
        checked.err().map(|error| format!("camera {id}: {:#}", anyhow::Error::new(error)))
    };
    let bad: Vec<_> = app::enabled(config).filter_map(check).collect();
    if bad.is_empty() { Ok(()) } else { Err(BadPipelines(bad)) }
}
