//! Why the history cannot be read or written.

/// Why the history cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Its file is not open yet, or cannot be opened.
    #[error("the history cannot be read now")]
    Closed,
    /// The database fails.
    #[error("the history fails: {0}")]
    Database(#[from] rusqlite::Error),
}
