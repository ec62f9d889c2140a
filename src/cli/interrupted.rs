//! What a command says that a signal has ended early.

/// A signal has stopped a command before it was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped after {done} of {all} sources")]
pub struct Interrupted {
    /// The exit code for that signal.
    pub exit_code: u8,
    /// Sources that were described to their end.
    pub done: usize,
    /// All sources.
    pub all: usize,
}
