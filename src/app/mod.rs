//! The daemon: joins capture, describe, publish and http, which do not know each other. Cameras push clips into
//! the queue, the model's thread takes them out and fills the outbox, the publisher empties it. Shutdown goes
//! the same way, stage by stage, so that what was described is delivered.
//!
//! | file | what it holds |
//! |---|---|
//! | `run.rs` | the life of the daemon: build, spawn, ready, watch, drain |
//! | `settings.rs`, `load.rs` | the configuration, translated for capture, publish and describe |
//! | `cameras.rs` | the cameras' tasks |
//! | `calibrations.rs` | calibrations that are for another model |
//! | `worker.rs`, `instrumented.rs`, `delivery.rs` | the model's thread, its metrics, and what becomes of descriptions |
//! | `active_config.rs`, `config_change.rs`, `overrides.rs`, `reload.rs` | what may change while the daemon runs |
//! | `status_reporter.rs`, `retained_topics.rs` | what is published about node and cameras |
//! | `monitoring.rs`, `questions.rs` | what the HTTP server answers, and what it puts to the model |
//! | `feed.rs`, `page.rs` | what the page shows, and what can be done there |
//! | `recording.rs` | the history, and what is kept in it |
//! | `views.rs` | what may be seen of the cameras |
//! | `asks.rs` | questions about what a camera shows now |
//! | `video_file.rs` | videos that a question is about |
//! | `deps.rs` | what the model's thread and the cameras use |
//! | `state_file.rs` | small files in the state directory |

mod active_config;
mod asks;
mod calibrations;
mod cameras;
mod config_change;
mod delivery;
mod deps;
mod feed;
mod instrumented;
mod load;
mod monitoring;
mod overrides;
mod page;
mod questions;
mod recording;
mod reload;
mod retained_topics;
mod run;
mod settings;
mod state_file;
mod status_reporter;
mod video_file;
mod views;
mod worker;

pub use load::load_model;
pub use reload::Reload;
pub use run::run;
pub use settings::{camera_config, enabled, overflow, pipeline_mistakes, publish_settings};
pub use video_file::read_video;
