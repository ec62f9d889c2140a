//! Checks that the broker accepts a connection: connects, logs in and disconnects. Publishes nothing.

use super::short_session::{SessionError, ShortSession};
use crate::publish::settings::Settings;

/// Checks that the broker accepts a connection.
///
/// # Errors
/// When the broker does not accept a connection, or a certificate or key cannot be used.
pub async fn probe(settings: &Settings) -> Result<(), SessionError> {
    ShortSession::open(settings).await?.close().await;
    Ok(())
}
