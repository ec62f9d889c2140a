//! `camscribe ask`: asks the model about images, videos or nothing but text, and prints its answer.
//!
//! | file | what it holds |
//! |---|---|
//! | `args.rs` | the arguments and their checks |
//! | `camera.rs` | questions to the running daemon |
//! | `chat.rs` | conversations as JSON |
//! | `media.rs` | images and videos, read |
//! | `command.rs` | the order of work |

mod args;
mod camera;
mod chat;
mod command;
pub mod media;

pub use args::{AnswerFormat, AskArgs};
pub use command::run;
