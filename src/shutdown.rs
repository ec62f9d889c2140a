//! Signals. The first SIGINT or SIGTERM starts an orderly shutdown, the second one aborts. SIGHUP requests that
//! the configuration is read again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after the second signal: 128 + SIGINT, as shells expect it.
const ABORTED: i32 = 130;

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
            let name = tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            };
            if cancelled.is_cancelled() {
                tracing::error!("{name} again: stopping at once");
                #[expect(clippy::disallowed_methods, reason = "the second signal ends the process at once")]
                std::process::exit(ABORTED);
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
