//! What a command says that a signal has ended early.

/// A signal has stopped a command before it was done.
#[derive(Debug, thiserror::Error)]
#[error("stopped after {progress}")]
pub struct Interrupted {
    /// The exit code for that signal.
    pub exit_code: u8,
    /// How many sources were described to their end, of how many.
    pub progress: String,
}
