//! `camscribe alerts`: what the configuration's alerts would have made of recorded events. Needs neither model nor network.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the arguments, and the rules to try |
//! | `command.rs` | reads the events, has them judged, prints what came of it |
//! | `text.rs` | the output for people |

mod args;
mod command;
mod text;

pub use args::{AlertsArgs, ReplayFormat};
pub use command::run;
