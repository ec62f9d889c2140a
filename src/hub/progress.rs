//! What a pull reports while it runs.

use std::time::Duration;

/// What happens while a model is pulled.
#[derive(Clone, Copy, Debug)]
pub enum PullProgress<'a> {
    /// Another process pulls the same model; this one waits until that has ended.
    Waiting,
    /// The download of a file of `size` bytes begins.
    File {
        /// Its name in the repository.
        name: &'a str,
        /// Its size in bytes.
        size: u64,
    },
    /// This many bytes of the file are here, including those of earlier runs.
    Bytes(u64),
    /// An attempt failed; the next one begins after `pause`.
    Retry {
        /// Why the attempt failed.
        why: &'a str,
        /// The time until the next one.
        pause: Duration,
    },
}
