//! The command line: a file a command. Errors are printed as sentences on standard error and become exit codes.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the commands that there are |
//! | `dispatch.rs` | runs a command; errors and exit codes |
//! | `check.rs`, `probe.rs` | `check`, and its `--probe` |
//! | `runtime.rs`, `usage.rs` | what several commands share |
//! | others | the command of that name |

pub mod alerts;
mod args;
mod as_service;
pub mod ask;
pub mod bench;
pub mod calibrate;
pub mod check;
mod completions;
pub mod demo;
pub mod describe;
mod dispatch;
pub mod forget;
pub mod history;
mod interrupted;
mod man;
mod probe;
pub mod pull;
pub mod replay;
pub mod run;
mod runtime;
mod schema;
mod usage;

pub use args::{Cli, Command};
pub use dispatch::dispatch;
