//! `camscribe check`: checks the configuration and prints its effective values.

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{as_service::run_as_service, probe};
use crate::{
    app,
    config::{self, Loaded},
    http,
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
    /// Write the picture of each enabled camera into this folder, masked and cropped as the model sees it: CAMERA.jpg
    #[arg(long, value_name = "DIR", requires = "probe")]
    pub preview: Option<PathBuf>,
}

/// What is wrong with files that the configuration names, a line each.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct BadFiles(Vec<String>);

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
/// [`config::ConfigError`] with every error of the configuration; [`BadFiles`]; when a probe fails.
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
    check_files(&loaded)?;
    if args.probe {
        return probe::run(&loaded.config, args.preview.as_deref());
    }
    std::io::stdout().write_all(loaded.to_toml().as_bytes())?;
    Ok(())
}

/// Checks the certificates and keys of the broker and of the HTTP server, and the pipeline files of the user's own that enabled cameras use.
fn check_files(loaded: &Loaded) -> Result<(), BadFiles> {
    let config = &loaded.config;
    let broker = Prepared::new(app::publish_settings(config, None)).err();
    let broker = broker.map(|error| format!("{:#}", anyhow::Error::new(error)));
    let server = config.http.tls.as_ref().and_then(|(cert, key)| http::server_config(cert, key).err());
    let server = server.map(|error| error.to_string());
    let bad: Vec<_> = broker.into_iter().chain(server).chain(app::pipeline_mistakes(loaded)).collect();
    if bad.is_empty() { Ok(()) } else { Err(BadFiles(bad)) }
}
