//! `camscribe calibrate`: makes the probabilities of a question honest, from clips or events whose true answers are known.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the arguments |
//! | `command.rs` | the order of work |
//! | `labels.rs` | the file of clips and events with their true answers |
//! | `asking.rs` | the model, asked about clips and about a blank picture |
//! | `report.rs`, `plot.rs` | the table, and the reliability diagram |

mod args;
mod asking;
mod command;
mod labels;
mod plot;
mod report;

pub use args::CalibrateArgs;
pub use command::run;
