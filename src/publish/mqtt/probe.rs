//! A look at the broker: connect, log in, say goodbye. No topic is touched, and there is no will.

use rumqttc::v5::{AsyncClient, Event, mqttbytes::v5::Packet};
use tokio::time;

use super::{super::Settings, TlsError, connection, session::FAREWELL, transport, words};

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// It does not answer, or does not let us in.
    #[error("{0}")]
    Broker(String),
}

/// Tries whether the broker lets us in. The client id is not the service's, which may be running:
/// the broker would end its connection.
///
/// # Errors
/// Why it does not.
pub async fn probe(settings: &Settings) -> Result<(), ProbeError> {
    let transport = transport(&settings.broker)?;
    let client_id = format!("camscribe-{}-probe-{}", settings.node, std::process::id());
    let options = connection(client_id, &settings.broker, transport, settings.login.as_ref());
    let (client, mut events) = AsyncClient::new(options, 1);
    match events.poll().await {
        Ok(Event::Incoming(Packet::ConnAck(_))) => {}
        Ok(_) => return Err(ProbeError::Broker("what answers there does not speak MQTT 5".into())),
        Err(error) => return Err(ProbeError::Broker(words::trouble(&error))),
    }
    if client.try_disconnect().is_ok() {
        // The broker hangs up once it has read our goodbye.
        let hung_up = async { while events.poll().await.is_ok() {} };
        let _ = time::timeout(FAREWELL, hung_up).await;
    }
    Ok(())
}
