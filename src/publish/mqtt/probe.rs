//! Checks that the broker accepts a connection: connects, logs in and disconnects. Publishes nothing
//! and has no will.

use tokio::time;

use super::{
    broker_quirks::{BrokerQuirks, V5Support},
    client::{self, BrokerEvent, DISCONNECT_TIMEOUT},
    connector::Connector,
    protocol::Protocol,
    reason_text::{CLOSED_BEFORE_CONNACK, DisconnectReason, NOT_MQTT},
    tls::TlsError,
};
use crate::{config::MqttVersion, publish::settings::Settings};

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker does not answer, or does not accept the connection.
    #[error("{0}")]
    Broker(String),
}

/// Checks that the broker accepts a connection. The client id is not the service's, because the broker
/// would close the connection of a service that runs.
///
/// # Errors
/// When the broker does not accept a connection, or a certificate or key cannot be used.
pub async fn probe(settings: &Settings) -> Result<(), ProbeError> {
    let connector = Connector::for_probe(settings)?;
    let mut quirks = BrokerQuirks::default();
    loop {
        let protocol = connector.protocol(&quirks);
        let (client, mut events) = client::connect(&connector, protocol, &quirks);
        match events.poll().await {
            Ok(BrokerEvent::Connected(_)) => {}
            Ok(_) => return Err(ProbeError::Broker(NOT_MQTT.into())),
            Err(
                DisconnectReason::VersionUnsupported(_)
                | DisconnectReason::Closed(_)
                | DisconnectReason::NoAnswer,
            ) if connector.version == MqttVersion::Auto && protocol == Protocol::V5 => {
                quirks.v5 = V5Support::Unsupported;
                continue;
            }
            Err(DisconnectReason::Closed(why)) => {
                return Err(ProbeError::Broker(format!("{why}; {CLOSED_BEFORE_CONNACK}")));
            }
            Err(reason) => return Err(ProbeError::Broker(reason.into_text())),
        }
        if client.disconnect().is_ok() {
            // The broker closes the connection after the DISCONNECT.
            let closed = async { while events.poll().await.is_ok() {} };
            let _ = time::timeout(DISCONNECT_TIMEOUT, closed).await;
        }
        return Ok(());
    }
}
