//! From a clip to its description: preprocessing, the model, its files, and the worker.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, or is a table of cases")]

#[path = "../support"]
mod support {
    pub mod checkpoint;
    pub mod decisions;
    pub mod given;
    pub mod picture;
}

mod bench;
mod decisions;
mod describe;
mod generation;
mod model_directory;
mod preparation;
mod requests;
mod shapes;
mod unchanged;
mod weights;
