//! `camscribe history`: what the history has, searched, shown, exported and forgotten. Works while camscribe runs, and
//! makes no history where there is none.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the arguments |
//! | `command.rs` | which of the commands is meant |
//! | `place.rs` | where the history is, and what to do if it is not there |
//! | `time.rs`, `text.rs` | times and events as people write and read them |
//! | `search.rs`, `show.rs`, `forget.rs` | the commands of these names |
//! | `export.rs` | `export`, and its JSON lines |
//! | `table.rs`, `archive.rs` | its other formats: CSV and ZIP |
//! | `new_file.rs` | files that nobody else may read |

mod archive;
mod args;
mod command;
mod export;
mod forget;
mod new_file;
pub mod place;
mod search;
mod show;
mod table;
pub mod text;
mod time;

pub use args::{
    ExportArgs, ExportFormat, ForgetEventsArgs, HistoryArgs, HistoryCommand, PlaceArgs, SearchArgs,
    SearchFormat, SelectionArgs, ShowArgs,
};
pub use command::run;
pub use show::find;
