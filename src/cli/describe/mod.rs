//! `camscribe describe`: describes files, folders or streams, one source after another, and prints the descriptions.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs`, `asked.rs` | the arguments and their checks; the questions among them |
//! | `command.rs`, `job.rs` | the order of work, over all sources; what holds for all of them |
//! | `sources.rs`, `folder.rs` | all sources; the videos below a folder |
//! | `source.rs`, `naming.rs` | a source, and what capture needs to know about it; names that are made from its own |
//! | `clips.rs` | one source: its clips, described as they are read |
//! | `printer.rs`, `text.rs` | the formats; names in lines that people read |
//! | `output_file.rs`, `output_dir.rs`, `question.rs` | one file for all, or one each; which of them are whole |
//! | `progress.rs`, `tally.rs` | how far a run has come, and what became of it |

mod args;
mod asked;
mod clips;
mod command;
mod folder;
mod job;
mod naming;
mod output_dir;
mod output_file;
mod printer;
pub mod progress;
mod question;
mod source;
mod sources;
mod tally;
mod text;

pub use args::{DescribeArgs, SamplingArg};
pub use command::run;
pub use printer::Format;
