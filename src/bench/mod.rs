//! Measures how fast the model is on this machine. It makes a model of random weights in the size of a published one,
//! gives it batches of clips, times every stage, and compares the times with the device's peak rates, measured in the
//! same run. It needs no download, no camera and no GStreamer.

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
