//! Signals. The first SIGINT or SIGTERM starts an orderly shutdown, the second one aborts. SIGHUP requests that
//! the configuration is read again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that the first signal cancels. The second signal ends the process at once.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let cancelled = token.clone();
    tokio::spawn(async move {
        loop {
            // As shells expect it, the exit code of a process that a signal ends is 128 and its number.
            let (name, exit_code) = tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 128 + SignalKind::interrupt().as_raw_value()),
                _ = terminate.recv() => ("SIGTERM", 128 + SignalKind::terminate().as_raw_value()),
            };
            if cancelled.is_cancelled() {
                tracing::error!("{name} again: stopping at once");
                #[expect(clippy::disallowed_methods, reason = "the second signal ends the process at once")]
                std::process::exit(exit_code);
            }
            tracing::info!("{name}: shutting down (send it again to stop at once)");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// Returns a stream of SIGHUP signals. From now on the signal no longer ends the process.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn on_hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
