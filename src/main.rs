//! The binary: parses the command line and runs the command. Exit codes: 0 success, 1 failure at run time,
//! 2 wrong usage, 78 wrong configuration, 130 or 143 stopped by a signal.

use std::process::ExitCode;

use camscribe::cli;
use clap::Parser;

fn main() -> ExitCode {
    cli::dispatch(cli::Cli::parse())
}
