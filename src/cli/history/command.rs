//! Which command of `history` is meant.

use super::{
    args::{HistoryArgs, HistoryCommand},
    export, forget, search, show,
};
use crate::logging;

/// Runs the command that is meant.
///
/// # Errors
/// Those of the command.
pub fn run(args: &HistoryArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    match &args.command {
        HistoryCommand::Search(args) => search::run(args),
        HistoryCommand::Show(args) => show::run(args),
        HistoryCommand::Export(args) => export::run(args),
        HistoryCommand::Forget(args) => forget::run(args),
    }
}
