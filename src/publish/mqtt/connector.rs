//! How to reach the broker.

use std::sync::Arc;

use rumqttc::{TlsConfiguration, Transport};

use super::{
    broker_quirks::BrokerQuirks,
    protocol::Protocol,
    tls::{self, TlsError},
};
use crate::{
    config::{Login, MqttVersion},
    publish::{
        settings::{BrokerAddress, Settings},
        topics::Topics,
    },
};

/// The largest packet that the service takes, bytes: Home Assistant's status, commands, and what
/// others publish on those topics.
const MAX_INCOMING: u32 = 64 * 1024;
/// The largest packet that MQTT can frame, bytes.
pub(super) const MAX_PACKET: u32 = 268_435_455;

/// How to reach the broker, with the certificates read.
pub(in crate::publish) struct Connector {
    pub(super) address: BrokerAddress,
    pub(super) version: MqttVersion,
    pub(super) login: Option<Login>,
    pub(super) transport: Transport,
    pub(super) client_id: String,
    /// The largest packet that the broker may send, bytes.
    pub(super) max_incoming: u32,
    /// The topic on which the broker publishes `offline` when the connection is lost.
    pub(super) will_topic: Option<String>,
}

impl Connector {
    /// A connector for the service.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub fn new(
        address: BrokerAddress,
        version: MqttVersion,
        login: Option<Login>,
        topics: &Topics,
    ) -> Result<Self, TlsError> {
        let transport = transport(&address)?;
        let client_id = format!("camscribe-{}", topics.node());
        let will_topic = Some(topics.status());
        Ok(Self { address, version, login, transport, client_id, max_incoming: MAX_INCOMING, will_topic })
    }

    /// A connector with a client id of its own and no will.
    ///
    /// # Errors
    /// When a certificate or key cannot be used.
    pub(super) fn for_short_session(settings: &Settings) -> Result<Self, TlsError> {
        Ok(Self {
            transport: transport(&settings.broker)?,
            address: settings.broker.clone(),
            version: settings.version,
            login: settings.login.clone(),
            client_id: format!("camscribe-{}-probe-{}", settings.node, std::process::id()),
            // Snapshots are among what it reads.
            max_incoming: MAX_PACKET,
            will_topic: None,
        })
    }

    /// The version of MQTT to try next.
    pub(super) fn protocol(&self, quirks: &BrokerQuirks) -> Protocol {
        match self.version {
            MqttVersion::Auto => quirks.v5.protocol(),
            MqttVersion::V5 => Protocol::V5,
            MqttVersion::V311 => Protocol::V311,
        }
    }
}

/// Plain TCP, or TLS with its certificates read.
fn transport(address: &BrokerAddress) -> Result<Transport, TlsError> {
    Ok(match &address.tls {
        None => Transport::Tcp,
        Some(files) => Transport::Tls(TlsConfiguration::Rustls(Arc::new(tls::client_config(files)?))),
    })
}
