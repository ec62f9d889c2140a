//! Signals. The first SIGINT or SIGTERM starts an orderly shutdown, the second one aborts. SIGHUP requests that
//! the configuration is read again.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// An orderly shutdown, which a signal starts.
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// Is cancelled by the first signal.
    pub token: CancellationToken,
    exit_code: Arc<OnceLock<u8>>,
}

impl Shutdown {
    /// The exit code of a process that is ended by the signal that came, as shells expect it: 128 and its number.
    /// `None`: none has come.
    pub fn exit_code(&self) -> Option<u8> {
        self.exit_code.get().copied()
    }
}

/// Waits for signals from now on. The second one ends the process at once.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<Shutdown> {
    let shutdown = Shutdown { token: CancellationToken::new(), exit_code: Arc::default() };
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let Shutdown { token, exit_code } = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let (name, code) = tokio::select! {
                _ = interrupt.recv() => ("SIGINT", 130),
                _ = terminate.recv() => ("SIGTERM", 143),
            };
            if token.is_cancelled() {
                tracing::error!("{name} again: stopping at once");
                #[expect(clippy::disallowed_methods, reason = "the second signal ends the process at once")]
                std::process::exit(code.into());
            }
            tracing::info!("{name}: shutting down (send it again to stop at once)");
            exit_code.get_or_init(|| code);
            token.cancel();
        }
    });
    Ok(shutdown)
}

/// Returns a stream of SIGHUP signals. From now on the signal no longer ends the process.
///
/// # Errors
/// When the signal handler cannot be installed.
pub fn on_hangup() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
