//! Probabilities made honest: of what is answered with 0.8, eight of ten should be so. Answers whose truth is known make a
//! [`Calibration`], which then corrects the answers to that question by that model. Does no I/O.
//!
//! | file | what it holds |
//! |---|---|
//! | `correction.rs` | how probabilities are corrected |
//! | `quality.rs` | answers whose truth is known, and how good they are |
//! | `fit.rs` | the correction that fits such answers best, and how it does on answers that it has not seen |
//! | `file.rs` | a calibration as a file: what it is for, and what it does to an answer |

pub mod correction;
pub mod file;
pub mod fit;
pub mod quality;

pub use correction::Correction;
pub use file::{CalibratedModel, Calibration, Quality};
