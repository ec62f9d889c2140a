//! Runs a command, prints its error and returns its exit code.

use std::{io, process::ExitCode};

use super::{
    alerts,
    args::{Cli, Command},
    ask, bench, calibrate,
    check::{self, BadFiles, CheckedAsService},
    completions, demo, describe, forget, history,
    interrupted::Interrupted,
    man, pull, replay, run, schema,
    usage::UsageError,
};
use crate::{
    config::ConfigError,
    http::ServerTlsError,
    hub::HubError,
    logging::{tell, tell_error},
    publish::SettingsError,
};

/// The exit code of a usage error; clap uses the same.
const USAGE: u8 = 2;
/// The exit code of a wrong configuration: `EX_CONFIG` of sysexits.h. The unit file tells systemd not to
/// restart after it.
const BAD_CONFIGURATION: u8 = 78;

/// Runs a command. Errors are printed on standard error.
pub fn dispatch(cli: Cli) -> ExitCode {
    let serves = matches!(cli.command, Command::Run(_));
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Describe(args) => describe::run(&args),
        Command::Ask(args) => ask::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Alerts(args) => alerts::run(&args),
        Command::History(args) => history::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Forget(args) => forget::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Schema => schema::run(),
        Command::Completions(args) => completions::run(&args),
        Command::Man => man::run(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, serves),
    }
}

/// Prints the error and, indented, its causes. Returns its exit code. `serves`: it ended the service.
fn fail(error: &anyhow::Error, serves: bool) -> ExitCode {
    // The reader of our output may close it early: `camscribe schema | head`.
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        tell(interrupted);
        return ExitCode::from(interrupted.exit_code);
    }
    if let Some(CheckedAsService { exit_code }) = error.downcast_ref() {
        return ExitCode::from(*exit_code);
    }
    tell_error(format_args!("error: {error}"));
    for cause in error.chain().skip(1) {
        tell_error(format_args!("  because: {cause}"));
    }
    let wrong = error.is::<ConfigError>()
        || error.is::<SettingsError>()
        || error.is::<ServerTlsError>()
        || error.is::<BadFiles>();
    if wrong || serves && error.downcast_ref().is_some_and(lacks_model) {
        ExitCode::from(BAD_CONFIGURATION)
    } else if error.is::<UsageError>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// Whether the model that the configuration names has to be pulled first: to start again does not help.
fn lacks_model(error: &HubError) -> bool {
    matches!(error, HubError::BadId(_) | HubError::NotPulled(_) | HubError::Incomplete { .. })
}
