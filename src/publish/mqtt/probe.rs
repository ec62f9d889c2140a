//! A look at the broker: connect, log in, say goodbye. No topic is touched, and there is no will.

use tokio::time;

use super::{
    super::Settings,
    Broker, TlsError,
    memory::{Lacks5, Memory},
    session::FAREWELL,
    wire::{self, Heard, Protocol},
    words::{Ending, NEVER_LET_IN},
};
use crate::config::MqttVersion;

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
    let broker = Broker::silent(settings)?;
    let mut memory = Memory::default();
    loop {
        let protocol = broker.protocol(&memory);
        let (client, mut line) = wire::dial(&broker, protocol, &memory);
        match line.poll().await {
            Ok(Heard::Connected(_)) => {}
            Ok(_) => return Err(ProbeError::Broker("what answers there does not speak MQTT".into())),
            Err(Ending::LacksVersion(_) | Ending::HungUp(_))
                if broker.version == MqttVersion::Auto && protocol == Protocol::V5 =>
            {
                memory.lacks_5 = Lacks5::Yes;
                continue;
            }
            Err(Ending::HungUp(why)) => return Err(ProbeError::Broker(format!("{why}; {NEVER_LET_IN}"))),
            Err(ending) => return Err(ProbeError::Broker(ending.why())),
        }
        if client.disconnect().is_ok() {
            // The broker hangs up once it has read our goodbye.
            let hung_up = async { while line.poll().await.is_ok() {} };
            let _ = time::timeout(FAREWELL, hung_up).await;
        }
        return Ok(());
    }
}
