//! What a pull reports while it runs.

use std::time::Duration;

/// What happens while a model is pulled.
#[derive(Clone, Copy, Debug)]
pub enum PullProgress<'a> {
    /// Another process pulls the same model; this one waits until that has ended.
    Waiting,
    /// The download of a file of `size` bytes begins.
    File { name: &'a str, size: u64 },
    /// This many bytes of the file are here, including those of earlier runs.
    Bytes(u64),
    /// An attempt failed; the next one begins after `pause`.
    Retry { why: &'a str, pause: Duration },
}
