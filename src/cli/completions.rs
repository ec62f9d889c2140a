//! `camscribe completions`: completion scripts, generated from the command line's definition.

use std::io::{self, Write};

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};

/// Prints the script.
///
/// # Errors
/// When it cannot be written.
pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "camscribe", &mut script);
    io::stdout().write_all(&script)?;
    Ok(())
}
