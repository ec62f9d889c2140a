//! Parse, run, exit code: 0; 1 run-time failure; 2 usage; 78 bad configuration.

use std::process::ExitCode;

use camscribe::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::run(cli::Cli::parse())
}
