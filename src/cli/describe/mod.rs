//! `camscribe describe`: describes files or streams, one source after another, and prints the descriptions.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the arguments and their checks |
//! | `command.rs` | the order of work, over all sources |
//! | `source.rs` | a source, and what capture needs to know about it |
//! | `clips.rs` | one source: its clips, described as they are read |
//! | `printer.rs`, `output_file.rs`, `progress_bar.rs` | what is printed and where |

mod args;
mod clips;
mod command;
mod output_file;
mod printer;
mod progress_bar;
mod source;

pub use args::{DescribeArgs, SamplingArg};
pub use command::run;
pub use printer::Format;
