//! `camscribe pull`: a model comes to this machine, to be used without a network.

use std::path::PathBuf;

use clap::Args;

/// Arguments of `pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// Hub id of the model, and perhaps a branch, tag or commit of it
    #[arg(value_name = "MODEL[@REVISION]")]
    pub model: String,
    /// Put the files into this folder rather than into the cache
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// Downloads what is missing.
pub fn run(_args: &PullArgs) -> anyhow::Result<()> {
    anyhow::bail!("pull is not part of this build yet")
}
