//! How far a source has been read: a progress bar on a terminal, nothing elsewhere.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use crate::camera::CameraStatus;

/// The progress bar of a source. Clones are the same bar.
#[derive(Clone)]
pub struct SourceProgressBar(ProgressBar);

impl SourceProgressBar {
    /// A bar without a length yet.
    pub fn new() -> Self {
        let bar = if io::stderr().is_terminal() { ProgressBar::no_length() } else { ProgressBar::hidden() };
        let style =
            ProgressStyle::with_template("{elapsed_precise} [{wide_bar}] {msg}").expect("a valid template");
        Self(bar.with_style(style))
    }

    /// Runs `print` while the bar is hidden.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.0.finish_and_clear();
    }

    /// Shows the position of a source until the sender of its status is dropped.
    pub async fn follow(self, mut changes: watch::Receiver<CameraStatus>) {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        while changes.changed().await.is_ok() {
            let (position, length) = {
                let status = changes.borrow_and_update();
                (status.position, status.duration)
            };
            if let Some(length) = length {
                self.0.set_length(millis(length));
            }
            self.0.set_position(millis(position));
            let of = length.map(|l| format!(" of {:.0} s", l.as_secs_f64())).unwrap_or_default();
            self.0.set_message(format!("{:.0}{of}", position.as_secs_f64()));
        }
    }
}
