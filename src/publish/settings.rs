//! Which broker to publish to, and under which topics.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use super::{ask_inbox::AskInbox, command_inbox::CommandInbox, profile::CameraProfile};
use crate::{
    camera::CameraId,
    config::{Login, MqttVersion},
};

/// Which broker to publish to, and under which topics.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The broker.
    pub broker: BrokerAddress,
    /// The version of MQTT to use.
    pub version: MqttVersion,
    /// User name and password, if the broker asks for them.
    pub login: Option<Login>,
    /// This node's name in topics.
    pub node: String,
    /// The first level or levels of all topics.
    pub topic_prefix: String,
    /// The first level or levels of Home Assistant's discovery topics; empty: no discovery.
    pub discovery_prefix: String,
    /// The cameras, and what people call each. [`Publisher::announce`](super::Publisher::announce) adds more.
    pub cameras: BTreeMap<CameraId, CameraProfile>,
    /// Takes what subscribers send; `None`: no topic for it is subscribed to.
    pub inboxes: Option<Inboxes>,
    /// The filters of the topics that the answers may go to.
    pub response_topics: Vec<String>,
}

/// Where what subscribers send waits.
#[derive(Clone, Debug, Default)]
pub struct Inboxes {
    /// Commands to cameras.
    pub commands: Arc<CommandInbox>,
    /// Questions about cameras.
    pub asks: Arc<AskInbox>,
}

/// The address of a broker.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// How to speak TLS; `None`: plain TCP.
    pub tls: Option<TlsFiles>,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// The PEM files for TLS.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Certificate authorities to trust; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// A client certificate and its key, for a broker that asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}
