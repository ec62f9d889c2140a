//! The command line: what the person said goes to the command that does it; what went wrong comes
//! back as sentences on standard error and as an exit code.

use std::{io, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::{config::ConfigError, event::Event, publish::SettingsError};

pub mod bench;
pub mod check;
pub mod demo;
pub mod describe;
mod man;
mod print;
mod probe;
pub mod pull;
pub mod run;

/// What the command line parser ends with.
const USAGE: u8 = 2;
/// `EX_CONFIG` of sysexits.h: the service manager must not restart on it.
const BAD_CONFIGURATION: u8 = 78;

/// What cameras see, in words, over MQTT.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What camscribe can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the configured cameras and publish what they see, until told to stop.
    Run(run::RunArgs),
    /// Describe video files or streams and print the descriptions.
    Describe(describe::DescribeArgs),
    /// Check the configuration and print it as it takes effect, secrets masked.
    Check(check::CheckArgs),
    /// Download a model by its hub id, for use without a network.
    Pull(pull::PullArgs),
    /// Show everything at work without camera, broker or download.
    Demo(demo::DemoArgs),
    /// Measure how fast models of the published sizes are on this machine; needs no download.
    Bench(bench::BenchArgs),
    /// Print the JSON Schema of the published events.
    Schema,
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page.
    #[command(hide = true)]
    Man,
}

/// The command line asks for what cannot be done.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to print it for.
    shell: clap_complete::Shell,
}

/// Does what `cli` says, and says on standard error what went wrong.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Describe(args) => describe::run(args),
        Command::Check(args) => check::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Demo(args) => demo::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Schema => schema(),
        Command::Completions(args) => completions(args.shell),
        Command::Man => man::print(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Prints the error and, indented, its causes.
fn report(error: &anyhow::Error) -> ExitCode {
    // Whoever reads our output may leave before its end: `camscribe schema | head`.
    if error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because: {cause}");
    }
    if error.is::<ConfigError>() || error.is::<SettingsError>() {
        ExitCode::from(BAD_CONFIGURATION)
    } else if error.is::<Usage>() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// The JSON Schema of [`Event`].
fn schema() -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer_pretty(&mut out, &schemars::schema_for!(Event)).map_err(io::Error::from)?;
    io::Write::write_all(&mut out, b"\n")?;
    Ok(())
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "camscribe", &mut script);
    io::Write::write_all(&mut io::stdout(), &script)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
