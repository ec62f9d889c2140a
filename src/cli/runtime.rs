//! The tokio runtime of the commands that need one.

/// The threads for everything that waits: cameras' supervisors, the publisher, signals.
const WORKERS: usize = 2;

/// Creates a runtime.
///
/// # Errors
/// When the system cannot create threads.
pub fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
}
