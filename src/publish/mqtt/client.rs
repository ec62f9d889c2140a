//! One client interface for both versions of MQTT: 5, and 3.1.1 for brokers that do not support 5.
//!
//! rumqttc has a client for each version, and the two share no types. A session sees only the types
//! below.

use std::{future::Future, pin::Pin, time::Duration};

use rumqttc::{Transport, v5};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    broker_quirks::BrokerQuirks,
    connector::{Connector, MAX_PACKET},
    protocol::Protocol,
    reason_text::{self, DisconnectReason, PubAckOutcome},
};
use crate::{config::Login, publish::retained::ContentType};

/// How many messages may be in flight, if the broker allows as many.
const MAX_IN_FLIGHT: u16 = 32;
/// The interval of pings, which tell a dead connection from an idle one.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// For name look-up, TCP, TLS and the CONNACK together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the broker to close the connection after a DISCONNECT.
pub(super) const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Requests that rumqttc queues: all messages in flight, a subscription and a DISCONNECT. A request
/// never has to wait.
const REQUESTS: usize = MAX_IN_FLIGHT as usize + 2;

/// A message to the broker. MQTT 3.1.1 has no field for `content`, `expiry` and `event`.
pub(super) struct Outgoing {
    pub topic: String,
    /// QoS 1, else QoS 0.
    pub qos1: bool,
    pub retain: bool,
    pub payload: Bytes,
    pub content: ContentType,
    /// Seconds.
    pub expiry: Option<u32>,
    /// The user property `id`.
    pub event: Option<Uuid>,
    /// What the message that this one answers calls it.
    pub correlation: Option<Bytes>,
}

/// What the broker does with the retained messages that match a new subscription.
#[derive(Clone, Copy, Debug)]
pub(super) enum OnSubscribe {
    /// It sends them.
    SendRetained,
    /// It does not send them. MQTT 3.1.1 has no such request: they come with the mark `retained`.
    SkipRetained,
}

/// An event of a connection.
#[derive(Debug)]
pub(super) enum BrokerEvent {
    /// CONNACK: the broker accepts the connection.
    Connected(BrokerLimits),
    /// The next message was written with this packet id; 0 for QoS 0, which has none.
    Written(u16),
    /// PUBACK of the message with this packet id.
    Acknowledged(u16, PubAckOutcome),
    /// Another client's message.
    Message(Incoming),
    /// SUBACK: whether each topic filter was granted, in their order.
    Subscribed(Vec<bool>),
    /// An event that does not matter here.
    Other,
}

/// Another client's message.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    pub topic: Bytes,
    pub payload: Bytes,
    /// The broker had kept it from before the subscription.
    pub retained: bool,
    /// Where its sender wants an answer. MQTT 3.1.1 has neither this nor the two below.
    pub response_topic: Option<String>,
    /// What the answer is to carry.
    pub correlation: Option<Bytes>,
    /// After so many seconds it is of no use.
    pub expiry: Option<u32>,
}

/// What a broker allows, from its CONNACK. Before MQTT 5, a CONNACK does not say.
#[derive(Debug)]
pub(super) struct BrokerLimits {
    /// The largest packet, bytes.
    pub max_packet: usize,
    /// How many messages may be in flight.
    pub max_in_flight: usize,
    pub retain: bool,
    pub qos1: bool,
    /// A connection without an event for this long is dead. Pings cause events more often than that. No
    /// event comes when a write blocks on a dead connection: rumqttc neither pings nor times out then.
    pub max_silence: Duration,
}

impl BrokerLimits {
    fn new(properties: Option<&v5::mqttbytes::v5::ConnAckProperties>) -> Self {
        let max_packet = properties.and_then(|p| p.max_packet_size).unwrap_or(MAX_PACKET);
        let keep_alive = properties.and_then(|p| p.server_keep_alive).map(|s| Duration::from_secs(s.into()));
        let receive_max = properties.and_then(|p| p.receive_max).unwrap_or(u16::MAX);
        Self {
            max_packet: max_packet.min(MAX_PACKET) as usize,
            max_in_flight: usize::from(receive_max.min(MAX_IN_FLIGHT)),
            retain: properties.and_then(|p| p.retain_available) != Some(0),
            qos1: properties.and_then(|p| p.max_qos) != Some(0),
            max_silence: 3 * keep_alive.unwrap_or_default().max(KEEP_ALIVE),
        }
    }
}

/// Takes requests for a connection.
pub(super) enum Client {
    V5(v5::AsyncClient),
    V311(rumqttc::AsyncClient),
}

/// rumqttc's queue of requests is full.
#[derive(Debug)]
pub(super) struct QueueFull;

/// The connection itself. It makes progress only while it is polled.
pub(super) enum EventLoop {
    V5(Box<v5::EventLoop>),
    V311(Box<rumqttc::EventLoop>),
}

/// A poll of the event loop, which it owns. rumqttc loses data when a started poll is dropped, so that the
/// poll is kept while other things are waited for.
pub(super) type Poll =
    Pin<Box<dyn Future<Output = (EventLoop, Result<BrokerEvent, DisconnectReason>)> + Send>>;

/// Polls the event loop.
pub(super) fn poll(mut events: EventLoop) -> Poll {
    Box::pin(async move {
        let result = events.poll().await;
        (events, result)
    })
}

/// A connection that is made when its event loop is first polled.
pub(super) fn connect(
    connector: &Connector,
    protocol: Protocol,
    quirks: &BrokerQuirks,
) -> (Client, EventLoop) {
    match protocol {
        Protocol::V5 => {
            let (client, events) = v5::AsyncClient::new(options_5(connector, quirks), REQUESTS);
            (Client::V5(client), EventLoop::V5(Box::new(events)))
        }
        Protocol::V311 => {
            let (client, mut events) = rumqttc::AsyncClient::new(options_311(connector, quirks), REQUESTS);
            let mut network = rumqttc::NetworkOptions::new();
            network.set_connection_timeout(CONNECT_TIMEOUT.as_secs());
            events.set_network_options(network);
            (Client::V311(client), EventLoop::V311(Box::new(events)))
        }
    }
}

/// The host as rumqttc takes it: with TLS as it is, because the certificate is checked against it;
/// without TLS, an IPv6 address in brackets.
fn host(connector: &Connector) -> String {
    match &connector.address.host {
        host if host.contains(':') && matches!(connector.transport, Transport::Tcp) => format!("[{host}]"),
        host => host.clone(),
    }
}

fn options_5(connector: &Connector, quirks: &BrokerQuirks) -> v5::MqttOptions {
    use v5::mqttbytes::v5::{LastWill, LastWillProperties};
    let mut options = v5::MqttOptions::new(&connector.client_id, host(connector), connector.address.port);
    options
        .set_transport(connector.transport.clone())
        .set_clean_start(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_connection_timeout(CONNECT_TIMEOUT.as_secs())
        .set_max_packet_size(Some(connector.max_incoming))
        .set_outgoing_inflight_upper_limit(MAX_IN_FLIGHT);
    if let Some(topic) = &connector.will_topic {
        let (qos, properties) = (qos_5(quirks.qos1), None::<LastWillProperties>);
        options.set_last_will(LastWill::new(topic, "offline", qos, quirks.retain, properties));
    }
    if let Some(Login { username, password }) = &connector.login {
        options.set_credentials(username, password.expose());
    }
    options
}

fn options_311(connector: &Connector, quirks: &BrokerQuirks) -> rumqttc::MqttOptions {
    let mut options =
        rumqttc::MqttOptions::new(&connector.client_id, host(connector), connector.address.port);
    options
        .set_transport(connector.transport.clone())
        .set_clean_session(true)
        .set_keep_alive(KEEP_ALIVE)
        .set_max_packet_size(connector.max_incoming as usize, MAX_PACKET as usize)
        .set_inflight(MAX_IN_FLIGHT);
    if let Some(topic) = &connector.will_topic {
        options.set_last_will(rumqttc::LastWill::new(topic, "offline", qos_311(quirks.qos1), quirks.retain));
    }
    if let Some(Login { username, password }) = &connector.login {
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
    /// Requests a PUBLISH.
    pub fn publish(&self, message: Outgoing) -> Result<(), QueueFull> {
        match self {
            Self::V5(client) => {
                let properties = properties(&message);
                let Outgoing { topic, qos1, retain, payload, .. } = message;
                let handed =
                    client.try_publish_with_properties(topic, qos_5(qos1), retain, payload, properties);
                handed.map_err(|_| QueueFull)
            }
            Self::V311(client) => {
                let Outgoing { topic, qos1, retain, payload, .. } = message;
                client.try_publish(topic, qos_311(qos1), retain, payload).map_err(|_| QueueFull)
            }
        }
    }

    /// The size of the PUBLISH packet of a message, bytes.
    pub fn size(&self, message: &Outgoing) -> usize {
        // The packet id counts, whatever its value.
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

    /// Requests a SUBSCRIBE.
    pub fn subscribe(&self, topics: &[String], on_subscribe: OnSubscribe) -> Result<(), QueueFull> {
        use v5::mqttbytes::v5::RetainForwardRule;
        match self {
            Self::V5(client) => {
                let filter = |topic| {
                    let mut filter = v5::mqttbytes::v5::Filter::new(topic, qos_5(true));
                    match on_subscribe {
                        OnSubscribe::SendRetained => {
                            filter.retain_forward_rule = RetainForwardRule::OnEverySubscribe;
                        }
                        OnSubscribe::SkipRetained => {
                            filter.retain_forward_rule = RetainForwardRule::Never;
                            filter.preserve_retain = true;
                        }
                    }
                    filter
                };
                client.try_subscribe_many(topics.iter().map(filter)).map_err(|_| QueueFull)
            }
            Self::V311(client) => {
                let filter = |topic: &String| rumqttc::SubscribeFilter::new(topic.clone(), qos_311(true));
                client.try_subscribe_many(topics.iter().map(filter)).map_err(|_| QueueFull)
            }
        }
    }

    /// Requests a DISCONNECT, so that the broker discards the will.
    pub fn disconnect(&self) -> Result<(), QueueFull> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| QueueFull),
            Self::V311(client) => client.try_disconnect().map_err(|_| QueueFull),
        }
    }
}

impl EventLoop {
    /// Waits for the next event.
    ///
    /// # Errors
    /// When the connection ends.
    pub async fn poll(&mut self) -> Result<BrokerEvent, DisconnectReason> {
        match self {
            Self::V5(events) => {
                events.poll().await.map(event_5).map_err(|error| reason_text::disconnect_reason(&error))
            }
            Self::V311(events) => {
                events.poll().await.map(event_311).map_err(|error| reason_text::disconnect_reason_311(&error))
            }
        }
    }

    /// The events from before the end of the connection that were not polled yet.
    pub fn remaining(&mut self) -> Vec<BrokerEvent> {
        match self {
            Self::V5(events) => std::mem::take(&mut events.state.events).into_iter().map(event_5).collect(),
            Self::V311(events) => {
                std::mem::take(&mut events.state.events).into_iter().map(event_311).collect()
            }
        }
    }
}

fn event_5(event: v5::Event) -> BrokerEvent {
    use v5::mqttbytes::v5::{Packet, SubscribeReasonCode};
    match event {
        v5::Event::Outgoing(rumqttc::Outgoing::Publish(id)) => BrokerEvent::Written(id),
        v5::Event::Incoming(Packet::ConnAck(ack)) => {
            BrokerEvent::Connected(BrokerLimits::new(ack.properties.as_ref()))
        }
        v5::Event::Incoming(Packet::PubAck(ack)) => {
            BrokerEvent::Acknowledged(ack.pkid, reason_text::pub_ack_outcome(ack.reason))
        }
        v5::Event::Incoming(Packet::Publish(it)) => {
            let properties = it.properties.unwrap_or_default();
            BrokerEvent::Message(Incoming {
                topic: it.topic,
                payload: it.payload,
                retained: it.retain,
                response_topic: properties.response_topic,
                correlation: properties.correlation_data,
                expiry: properties.message_expiry_interval,
            })
        }
        v5::Event::Incoming(Packet::SubAck(ack)) => {
            let granted = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
            BrokerEvent::Subscribed(ack.return_codes.iter().map(granted).collect())
        }
        _ => BrokerEvent::Other,
    }
}

fn event_311(event: rumqttc::Event) -> BrokerEvent {
    use rumqttc::{Packet, SubscribeReasonCode};
    match event {
        rumqttc::Event::Outgoing(rumqttc::Outgoing::Publish(id)) => BrokerEvent::Written(id),
        rumqttc::Event::Incoming(Packet::ConnAck(_)) => BrokerEvent::Connected(BrokerLimits::new(None)),
        rumqttc::Event::Incoming(Packet::PubAck(ack)) => {
            BrokerEvent::Acknowledged(ack.pkid, PubAckOutcome::Accepted)
        }
        rumqttc::Event::Incoming(Packet::Publish(it)) => {
            let (topic, payload) = (it.topic.into(), it.payload);
            BrokerEvent::Message(Incoming { topic, payload, retained: it.retain, ..Incoming::default() })
        }
        rumqttc::Event::Incoming(Packet::SubAck(ack)) => {
            let granted = |code: &_| matches!(code, SubscribeReasonCode::Success(_));
            BrokerEvent::Subscribed(ack.return_codes.iter().map(granted).collect())
        }
        _ => BrokerEvent::Other,
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
        correlation_data: message.correlation.clone(),
        ..v5::mqttbytes::v5::PublishProperties::default()
    }
}
