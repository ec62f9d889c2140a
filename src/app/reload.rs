//! When the configuration file is read again.

use std::path::PathBuf;

use tokio::signal::unix::Signal;

/// Requests to read the configuration file again, and its path.
pub struct Reload {
    /// The file; none is the default one.
    pub file: Option<PathBuf>,
    /// SIGHUP.
    pub hangups: Signal,
}

impl Reload {
    /// Waits for the next request and returns the path of the file. Never returns without a `reload`.
    pub async fn requested(reload: &mut Option<Self>) -> Option<PathBuf> {
        if let Some(reload) = reload
            && reload.hangups.recv().await.is_some()
        {
            return reload.file.clone();
        }
        std::future::pending().await
    }
}
