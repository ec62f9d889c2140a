//! The commands, as clap parses them.

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use super::{
    alerts::AlertsArgs, ask::AskArgs, bench::BenchArgs, calibrate::CalibrateArgs, check::CheckArgs,
    demo::DemoArgs, describe::DescribeArgs, forget::ForgetArgs, history::HistoryArgs, pull::PullArgs,
    replay::ReplayArgs, run::RunArgs,
};

/// Describes what cameras see, in words, over MQTT.
#[derive(Debug, Parser)]
#[command(version = crate::VERSION, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What camscribe can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the configured cameras and publish what they see, until stopped.
    Run(RunArgs),
    /// Describe video files or streams and print the descriptions.
    Describe(Box<DescribeArgs>),
    /// Ask the model about images, videos or nothing but text.
    Ask(Box<AskArgs>),
    /// Make the probabilities of a question honest, from clips or events whose true answers are known.
    Calibrate(CalibrateArgs),
    /// Show what the configuration's alerts would have done with recorded events.
    Alerts(AlertsArgs),
    /// Search, show, export and forget what the history has.
    History(HistoryArgs),
    /// Describe the kept frames of an event again, and compare.
    Replay(ReplayArgs),
    /// Check the configuration and print the effective values, secrets masked.
    Check(CheckArgs),
    /// Download a model by its hub id, for use without a network.
    Pull(PullArgs),
    /// Remove a retired node from the broker and from Home Assistant.
    Forget(ForgetArgs),
    /// Show everything at work without camera, broker or download.
    Demo(DemoArgs),
    /// Measure how fast models of the published sizes are on this machine; needs no download.
    Bench(BenchArgs),
    /// Print the JSON Schema of the published events.
    Schema,
    /// Print a completion script for a shell.
    Completions(CompletionsArgs),
    /// Print the manual page.
    #[command(hide = true)]
    Man,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell to print it for.
    pub shell: Shell,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
