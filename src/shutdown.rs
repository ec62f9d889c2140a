//! Signals: the first SIGINT or SIGTERM asks everything to end in order, the second aborts. SIGHUP
//! asks for the configuration to be read again.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Exit code of an aborted drain: 128 + SIGINT, what a shell expects.
const ABORTED: i32 = 130;

/// A token that the first signal cancels. A second signal ends the process at once.
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
                std::process::exit(ABORTED);
            }
            tracing::info!("{name}: finishing what is under way (send it again to stop at once)");
            cancelled.cancel();
        }
    });
    Ok(token)
}

/// Every SIGHUP from now on, which no longer ends the process.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn on_hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
