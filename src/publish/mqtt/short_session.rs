//! A connection beside that of the service, for one purpose: `check --probe` and `forget`. It has no will, and a client
//! id of its own, because the broker would close the connection of a service that runs.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::{self, Instant};
use tokio_util::bytes::Bytes;

use super::{
    broker_quirks::{BrokerQuirks, V5Support},
    client::{
        self, BrokerEvent, BrokerLimits, Client, DISCONNECT_TIMEOUT, Incoming, Outgoing, Poll, QueueFull,
        poll,
    },
    connector::Connector,
    protocol::Protocol,
    reason_text::{CLOSED_BEFORE_CONNACK, DisconnectReason, NOT_MQTT, PubAckOutcome},
    tls::TlsError,
};
use crate::{
    config::MqttVersion,
    publish::{retained::ContentType, settings::Settings},
};

/// For the broker to answer a request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// MQTT does not say which retained message is the last. After this time without another there are no more.
const QUIET: Duration = Duration::from_secs(2);

/// Why the broker cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker does not answer, or does not accept the connection.
    #[error("{0}")]
    Broker(String),
}

/// An accepted connection.
pub(in crate::publish) struct ShortSession {
    client: Client,
    poll: Poll,
    limits: BrokerLimits,
}

impl ShortSession {
    /// Connects and logs in.
    ///
    /// # Errors
    /// When the broker does not accept the connection, or a certificate or key cannot be used.
    pub async fn open(settings: &Settings) -> Result<Self, SessionError> {
        let connector = Connector::for_short_session(settings)?;
        let mut quirks = BrokerQuirks::default();
        loop {
            let protocol = connector.protocol(&quirks);
            let (client, events) = client::connect(&connector, protocol, &quirks);
            let (events, first) = poll(events).await;
            let why = match first {
                Ok(BrokerEvent::Connected(limits)) => return Ok(Self { client, poll: poll(events), limits }),
                Ok(_) => NOT_MQTT.into(),
                Err(
                    DisconnectReason::VersionUnsupported(_)
                    | DisconnectReason::Closed(_)
                    | DisconnectReason::NoAnswer,
                ) if connector.version == MqttVersion::Auto && protocol == Protocol::V5 => {
                    quirks.v5 = V5Support::Unsupported;
                    continue;
                }
                Err(DisconnectReason::Closed(why)) => format!("{why}; {CLOSED_BEFORE_CONNACK}"),
                Err(reason) => reason.into_text(),
            };
            return Err(SessionError::Broker(why));
        }
    }

    /// The retained messages that match `filters`.
    ///
    /// # Errors
    /// When the broker does not let this user subscribe, or the connection ends.
    pub async fn retained(&mut self, filters: &[String]) -> Result<BTreeMap<String, Bytes>, SessionError> {
        self.client.subscribe(filters, client::OnSubscribe::SendRetained).map_err(|QueueFull| overfull())?;
        let (mut found, mut subscribed) = (BTreeMap::new(), false);
        let mut until = Instant::now() + ANSWER_TIMEOUT;
        while let Some(event) = self.next(until).await? {
            match event {
                BrokerEvent::Subscribed(granted) => {
                    if let Some((filter, _)) = filters.iter().zip(granted).find(|(_, granted)| !granted) {
                        let why = format!("the broker does not let this user subscribe to {filter}");
                        return Err(SessionError::Broker(why));
                    }
                    subscribed = true;
                    until = Instant::now() + QUIET;
                }
                BrokerEvent::Message(Incoming { topic, payload, retained: true, .. })
                    if !payload.is_empty() =>
                {
                    found.insert(String::from_utf8_lossy(&topic).into_owned(), payload);
                    until = until.max(Instant::now() + QUIET);
                }
                _ => {}
            }
        }
        if subscribed { Ok(found) } else { Err(no_answer("the subscription")) }
    }

    /// Makes the broker forget what it retains on a topic. Returns why it refuses, if it says so.
    ///
    /// # Errors
    /// When the connection ends, or the broker does not answer.
    pub async fn clear(&mut self, topic: &str) -> Result<Option<&'static str>, SessionError> {
        let qos1 = self.limits.qos1;
        let message = Outgoing {
            topic: topic.into(),
            qos1,
            retain: true,
            payload: Bytes::new(),
            content: ContentType::Text,
            expiry: None,
            event: None,
            correlation: None,
        };
        self.client.publish(message).map_err(|QueueFull| overfull())?;
        let until = Instant::now() + ANSWER_TIMEOUT;
        while let Some(event) = self.next(until).await? {
            match event {
                BrokerEvent::Written(_) if !qos1 => return Ok(None),
                BrokerEvent::Acknowledged(_, PubAckOutcome::Accepted) => return Ok(None),
                BrokerEvent::Acknowledged(
                    _,
                    PubAckOutcome::TryLater(why) | PubAckOutcome::Unclear(why) | PubAckOutcome::Refused(why),
                ) => return Ok(Some(why)),
                _ => {}
            }
        }
        Err(no_answer(topic))
    }

    /// Disconnects.
    pub async fn close(mut self) {
        if self.client.disconnect().is_ok() {
            // The broker closes the connection after the DISCONNECT.
            let until = Instant::now() + DISCONNECT_TIMEOUT;
            while let Ok(Some(_)) = self.next(until).await {}
        }
    }

    /// Waits for the next event; `None`: none has come `until` then.
    async fn next(&mut self, until: Instant) -> Result<Option<BrokerEvent>, SessionError> {
        let Ok((events, result)) = time::timeout_at(until, &mut self.poll).await else { return Ok(None) };
        self.poll = poll(events);
        result.map(Some).map_err(|reason| SessionError::Broker(reason.into_text()))
    }
}

fn no_answer(what: &str) -> SessionError {
    SessionError::Broker(format!("the broker does not acknowledge {what}"))
}

fn overfull() -> SessionError {
    SessionError::Broker("the connection takes no more messages".into())
}
