//! What one connection to the broker has found out about it, for the next connection.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::protocol::Protocol;
use crate::publish::outbox::Row;

/// An event that the broker refuses this often in a row without a clear reason is dead-lettered. With
/// the pauses between the attempts this takes some minutes.
const MAX_UNCLEAR: u32 = 20;

/// Identifies a message: its topic, and its row if it is an event.
pub(super) type MessageKey = (String, Option<Row>);

/// What is known of the broker.
#[derive(Debug)]
pub(super) struct BrokerQuirks {
    /// It supports retained messages.
    pub retain: bool,
    /// It supports QoS 1.
    pub qos1: bool,
    /// Whether it supports MQTT 5.
    pub v5: V5Support,
    /// Messages that were in flight when the broker rejected one of them, and messages that it does not
    /// take now. While there are any, one message is sent at a time: the next rejection is about the
    /// message that is in flight then, and nothing overtakes a message that is not taken now.
    pub quarantined: BTreeSet<MessageKey>,
    /// Topics of transitions that the broker does not take. Nothing more is told there: the events tell it, too.
    pub untold: BTreeSet<String>,
    /// The size of the smallest packet that was too large for the broker, bytes.
    pub too_large: Option<usize>,
    /// Connections in a row that the broker closed without a reason, while messages were in flight and
    /// none was delivered.
    pub unexplained_disconnects: u32,
    /// Connections in a row that the broker closed before it acknowledged the subscriptions.
    pub failed_subscriptions: u32,
    /// No topic is subscribed to until then: the broker does not allow it, or somebody publishes
    /// messages that are too large.
    pub subscriptions_paused_until: Option<Instant>,
    /// The last message of an event that the broker refused without a clear reason, and how often in a row.
    unclear: Option<(MessageKey, u32)>,
}

impl Default for BrokerQuirks {
    fn default() -> Self {
        Self {
            retain: true,
            qos1: true,
            v5: V5Support::Assumed,
            quarantined: BTreeSet::new(),
            untold: BTreeSet::new(),
            too_large: None,
            unexplained_disconnects: 0,
            failed_subscriptions: 0,
            subscriptions_paused_until: None,
            unclear: None,
        }
    }
}

impl BrokerQuirks {
    /// Counts that the broker refused a message of an event without a clear reason. Returns whether that happened so
    /// often that the message is to be given up.
    pub fn refused_unclearly(&mut self, message: MessageKey) -> bool {
        let before =
            self.unclear.as_ref().filter(|(last, _)| *last == message).map_or(0, |(_, times)| *times);
        self.unclear = Some((message, before + 1));
        before + 1 >= MAX_UNCLEAR
    }
}

/// Whether a broker supports MQTT 5. Some brokers close the connection when they see a version that they
/// do not know, and some never answer, which looks like a broken connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum V5Support {
    /// Nothing speaks against it.
    Assumed,
    /// The broker closed a connection that used MQTT 5, or did not answer. MQTT 3.1.1 is tried next.
    Doubtful,
    /// The broker accepted MQTT 3.1.1, so the network is good. MQTT 5 is tried once more.
    Retrying,
    /// The broker said that it does not support MQTT 5, or failed to accept it again.
    Unsupported,
}

impl V5Support {
    /// The version to try next.
    pub fn protocol(self) -> Protocol {
        match self {
            Self::Assumed | Self::Retrying => Protocol::V5,
            Self::Doubtful | Self::Unsupported => Protocol::V311,
        }
    }
}
