//! The two versions of MQTT behind one face: 5, and 3.1.1 for brokers that lack it. rumqttc has a
//! client for each, and the two share no types; a session sees only what is below.

use std::time::Duration;

use rumqttc::{Transport, v5};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    super::retained::ContentType,
    Broker, CONNECT_TIMEOUT, KEEP_ALIVE, MAX_INCOMING, WINDOW,
    memory::Memory,
    words::{self, Ending, Verdict},
};
use crate::config::Login;

/// The largest packet that MQTT can frame, bytes.
const MAX_PACKET: usize = 268_435_455;
/// Room for the window, a subscription and a farewell: handing a message over never waits.
const REQUESTS: usize = WINDOW as usize + 2;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Protocol {
    #[default]
    V5,
    V311,
}

/// A message to the broker. Version 3.1.1 has no place for what `content`, `expiry` and `event` say.
pub(super) struct Outgoing {
    pub topic: String,
    /// The broker is to acknowledge it.
    pub qos1: bool,
    pub retain: bool,
    pub payload: Bytes,
    pub content: ContentType,
    /// Seconds.
    pub expiry: Option<u32>,
    /// The user property `id`.
    pub event: Option<Uuid>,
}

/// What happens on a connection.
#[derive(Debug)]
pub(super) enum Heard {
    /// The broker lets us in.
    Connected(Limits),
    /// The next message that was handed over is written, under this packet id; 0 without one.
    Written(u16),
    /// The broker's answer to the message of this packet id.
    Answered(u16, Verdict),
    /// Someone else's message.
    Message { topic: Bytes, payload: Bytes, retained: bool },
    /// Which of the wanted subscriptions stand, in their order.
    Subscribed(Vec<bool>),
    /// Nothing that matters here.
    Other,
}

/// What a broker allows, by its ConnAck. Before version 5 it cannot say.
#[derive(Debug)]
pub(super) struct Limits {
    pub max_packet: usize,
    pub window: usize,
    pub retain: bool,
    pub qos1: bool,
    /// Pings make sure that something happens more often than this. Nothing does when a write hangs on
    /// a dead line: rumqttc neither pings nor times out then.
    pub silence: Duration,
}

impl Limits {
    fn of(properties: Option<&v5::mqttbytes::v5::ConnAckProperties>) -> Self {
        let max_packet = properties.and_then(|p| p.max_packet_size).map_or(MAX_PACKET, |max| max as usize);
        let keep_alive = properties.and_then(|p| p.server_keep_alive).map(|s| Duration::from_secs(s.into()));
        let receive_max = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX);
        Self {
            max_packet: max_packet.min(MAX_PACKET),
            window: usize::from(receive_max.min(WINDOW)),
            retain: properties.and_then(|p| p.retain_available) != Some(0),
            qos1: properties.and_then(|p| p.max_qos) != Some(0),
            silence: 3 * keep_alive.unwrap_or_default().max(KEEP_ALIVE),
        }
    }
}

/// Where messages are handed over.
pub(super) enum Client {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// The connection cannot take more now.
#[derive(Debug)]
pub(super) struct Full;

/// The connection itself: it lives by being polled.
pub(super) enum Line {
    V5(Box<v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// A connection that begins when it is first polled.
pub(super) fn dial(broker: &Broker, protocol: Protocol, memory: &Memory) -> (Client, Line) {
    match protocol {
        Protocol::V5 => {
            let (client, events) = v5::AsyncClient::new(options_5(broker, memory), REQUESTS);
            (Client::V5(client), Line::V5(Box::new(events)))
        }
        Protocol::V311 => {
            let (client, mut events) = rumqttc::AsyncClient::new(options_311(broker, memory), REQUESTS);
            let mut network = rumqttc::NetworkOptions::new();
            network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
            events.set_network_options(network);
            (Client::V311(client), Line::V311(Box::new(events)))
        }
    }
}

/// TLS checks the name as it is; a plain address has to have a numeric host in brackets.
fn host(broker: &Broker) -> String {
    match &broker.address.host {
        host if host.contains(':') && matches!(broker.transport, Transport::Tcp) => format!("[{host}]"),
        host => host.clone(),
    }
}

fn options_5(broker: &Broker, memory: &Memory) -> v5::MqttOptions {
    use v5::mqttbytes::v5::{LastWill, LastWillProperties};
    let mut options = v5::MqttOptions::new(&broker.client_id, host(broker), broker.address.port);
    options
        .set_transport(broker.transport.clone())
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_max_packet_size(Some(MAX_INCOMING))
        .set_outgoing_inflight_upper_limit(WINDOW);
    if let Some(topic) = &broker.will_topic {
        let (qos, properties) = (qos_5(memory.qos1), None::<LastWillProperties>);
        options.set_last_will(LastWill::new(topic, "offline", qos, memory.retain, properties));
    }
    if let Some(Login { username, password }) = &broker.login {
        options.set_credentials(username, password.expose());
    }
    options
}

fn options_311(broker: &Broker, memory: &Memory) -> rumqttc::MqttOptions {
    let mut options = rumqttc::MqttOptions::new(&broker.client_id, host(broker), broker.address.port);
    options
        .set_transport(broker.transport.clone())
        .set_clean_session(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(MAX_INCOMING as usize, MAX_PACKET)
        .set_inflight(WINDOW);
    if let Some(topic) = &broker.will_topic {
        options.set_last_will(rumqttc::LastWill::new(topic, "offline", qos_311(memory.qos1), memory.retain));
    }
    if let Some(Login { username, password }) = &broker.login {
        options.set_credentials(username, password.expose());
    }
    options
}

fn qos_5(qos1: bool) -> v5::mqttbytes::QoS {
    if qos1 { v5::mqttbytes::QoS::AtLeastOnce } else { v5::mqttbytes::QoS::AtMostOnce }
}

fn qos_311(qos1: bool) -> rumqttc::QoS {
    if qos1 { rumqttc::QoS::AtLeastOnce } else { rumqttc::QoS::AtMostOnce }
}

impl Client {
    /// Hands a message over.
    pub fn publish(&self, message: Outgoing) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                let properties = properties(&message);
                let Outgoing { topic, qos1, retain, payload, .. } = message;
                let handed =
                    client.try_publish_with_properties(topic, qos_5(qos1), retain, payload, properties);
                handed.map_err(|_| Full)
            }
            Self::V311(client) => {
                let Outgoing { topic, qos1, retain, payload, .. } = message;
                client.try_publish(topic, qos_311(qos1), retain, payload).map_err(|_| Full)
            }
        }
    }

    /// The bytes that a message takes on the wire.
    pub fn size(&self, message: &Outgoing) -> usize {
        // The packet id counts, whatever it will be.
        match self {
            Self::V5(_) => {
                let properties = Some(properties(message));
                let payload = message.payload.clone();
                let mut packet =
                    v5::mqttbytes::v5::Publish::new(&message.topic, qos_5(message.qos1), payload, properties);
                packet.pkid = 1;
                packet.size()
            }
            Self::V311(_) => {
                let payload = message.payload.clone();
                let mut packet = rumqttc::Publish::from_bytes(&message.topic, qos_311(message.qos1), payload);
                packet.pkid = 1;
                packet.size()
            }
        }
    }

    /// Asks for what others publish from now on; before version 5, for what is retained too.
    pub fn subscribe(&self, topics: &[String]) -> Result<(), Full> {
        match self {
            Self::V5(client) => {
                let filter = |topic| {
                    let mut filter = v5::mqttbytes::v5::Filter::new(topic, qos_5(true));
                    filter.retain_forward_rule = v5::mqttbytes::v5::RetainForwardRule::Never;
                    filter.preserve_retain = true;
                    filter
                };
                client.try_subscribe_many(topics.iter().map(filter)).map_err(|_| Full)
            }
            Self::V311(client) => {
                let filter = |topic: &String| rumqttc::SubscribeFilter::new(topic.clone(), qos_311(true));
                client.try_subscribe_many(topics.iter().map(filter)).map_err(|_| Full)
            }
        }
    }

    /// Says goodbye, so that the broker forgets the will.
    pub fn disconnect(&self) -> Result<(), Full> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| Full),
            Self::V311(client) => client.try_disconnect().map_err(|_| Full),
        }
    }
}

impl Line {
    /// Waits for what happens next.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn poll(&mut self) -> Result<Heard, Ending> {
        match self {
            Self::V5(events) => events.poll().await.map(heard_5).map_err(|error| words::ending(&error)),
            Self::V311(events) => {
                events.poll().await.map(heard_311).map_err(|error| words::ending_311(&error))
            }
        }
    }

    /// What had happened before the connection ended and was not told yet.
    pub fn rest(&mut self) -> Vec<Heard> {
        match self {
            Self::V5(line) => std::mem::take(&mut line.state.events).into_iter().map(heard_5).collect(),
            Self::V311(line) => std::mem::take(&mut line.state.events).into_iter().map(heard_311).collect(),
        }
    }
}

fn heard_5(event: v5::Event) -> Heard {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(id)) => Heard::Written(id),
        v5::Event::Incoming(Packet::ConnAck(ack)) => Heard::Connected(Limits::of(ack.properties.as_ref())),
        v5::Event::Incoming(Packet::PubAck(ack)) => Heard::Answered(ack.pkid, words::verdict(ack.reason)),
        v5::Event::Incoming(Packet::Publish(it)) => {
            Heard::Message { topic: it.topic, payload: it.payload, retained: it.retain }
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let stands = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
            Heard::Subscribed(ack.return_codes.iter().map(stands).collect())
        }
        _ => Heard::Other,
    }
}

fn heard_311(event: rumqttc::Event) -> Heard {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(id)) => Heard::Written(id),
        rumqttc::Event::Incoming(Packet::ConnAck(_)) => Heard::Connected(Limits::of(None)),
        rumqttc::Event::Incoming(Packet::PubAck(ack)) => Heard::Answered(ack.pkid, Verdict::Taken),
        rumqttc::Event::Incoming(Packet::Publish(it)) => {
            Heard::Message { topic: it.topic.into(), payload: it.payload, retained: it.retain }
        }
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            let stands = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
            Heard::Subscribed(ack.return_codes.iter().map(stands).collect())
        }
        _ => Heard::Other,
    }
}

fn properties(message: &Outgoing) -> v5::mqttbytes::v5::PublishProperties {
    let content_type = match message.content {
        ContentType::Text => "text/plain",
        ContentType::Json => "application/json",
        ContentType::Jpeg => "image/jpeg",
    };
    v5::mqttbytes::v5::PublishProperties {
        // 1: UTF-8 text.
        payload_format_indicator: (message.content != ContentType::Jpeg).then_some(1),
        message_expiry_interval: message.expiry,
        user_properties: message.event.map(|id| ("id".into(), id.to_string())).into_iter().collect(),
        content_type: Some(content_type.into()),
        ..v5::mqttbytes::v5::PublishProperties::default()
    }
}
