//! Measures how fast the model is on this machine. It makes a model of random weights in the size of a published one,
//! gives it batches of clips, times every stage, and compares the times with the device's peak rates, measured in the
//! same run. It needs no download, no camera and no GStreamer.
//!
//! | file | what it holds |
//! |---|---|
//! | `run.rs` | the order of work |
//! | `settings.rs`, `shapes.rs` | what is measured, and the sizes of published models |
//! | `random_model.rs` | the model, and clips for it |
//! | `stopwatch.rs`, `cost.rs` | what work costs: measured, and counted from the architecture |
//! | `camera_trials.rs` | how many cameras the model keeps up with |
//! | `report.rs` | the results, as JSON and Markdown |

pub mod camera_trials;
mod cost;
mod random_model;
pub mod report;
mod run;
mod settings;
pub mod shapes;
mod stopwatch;

pub use run::run;
pub use settings::Settings;
