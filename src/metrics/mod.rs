//! The metrics that Prometheus reads: one registry, labels of fixed types. Some are counted here when something
//! happens ([`Metrics`]). The others are owned by other modules (the queue, the outbox, the cameras) and are
//! copied from [`Readings`] when a page is written. Values that are not known are left out.
//!
//! | file | what it holds |
//! |---|---|
//! | `registry.rs` | what is counted here, and the page |
//! | `clients.rs` | what is counted of requests over HTTP |
//! | `questions.rs` | what is counted of questions and alerts |
//! | `readings.rs`, `process.rs` | what other modules own, and what the system knows of the process |
//! | `text_format.rs` | the formats of the page |
//! | `labels.rs` | the labels and their values |

mod clients;
mod labels;
mod process;
mod questions;
mod readings;
mod registry;
mod text_format;

pub use clients::ClientMetrics;
pub use labels::{AskEnd, Reason, Refusal, Route, Stage, StatusClass, TokenKind};
pub use readings::{CameraCounts, CameraReading, HistoryReading, Readings};
pub use registry::Metrics;
pub use text_format::TextFormat;
