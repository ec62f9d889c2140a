//! The messages between camscribe and the broker.
//!
//! rumqttc does not say which acknowledgement belongs to which message. It announces each message with
//! its packet id when it writes it, in the order of the requests. So a message waits for its packet id
//! first, and then for the acknowledgement with that id.

use std::collections::{BTreeMap, VecDeque};

use uuid::Uuid;

use super::broker_quirks::MessageKey;
use crate::publish::outbox::Row;

/// A message that was requested and is not acknowledged yet.
pub(super) struct Sent {
    pub topic: String,
    pub origin: Origin,
    /// The size of its packet, bytes.
    pub bytes: usize,
}

/// Where a message comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// The outbox.
    Event(Row),
    /// What is told of an event of the outbox before the event itself: that an alert was switched.
    Transition(Row),
    /// The answers to questions about cameras. Whoever asked does not wait for long: none is sent again.
    Reply,
    /// The retained messages.
    State {
        /// The message's number there.
        number: u64,
        /// The id of the event whose snapshot the message is.
        snapshot: Option<Uuid>,
    },
}

impl Sent {
    /// The row in the outbox, for an event and what is told of it.
    pub fn row(&self) -> Option<Row> {
        match self.origin {
            Origin::Event(row) | Origin::Transition(row) => Some(row),
            Origin::Reply | Origin::State { .. } => None,
        }
    }

    pub fn key(&self) -> MessageKey {
        (self.topic.clone(), self.row())
    }
}

/// All messages in flight of one connection.
#[derive(Default)]
pub(super) struct InFlightMessages {
    /// Requested and not written yet, in order.
    requested: VecDeque<Sent>,
    /// Written and not acknowledged yet, by packet id.
    written: BTreeMap<u16, Sent>,
}

impl InFlightMessages {
    pub fn len(&self) -> usize {
        self.requested.len() + self.written.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn requested(&mut self, sent: Sent) {
        self.requested.push_back(sent);
    }

    /// The next message was written with this packet id. Returns the message if it has QoS 0: its id is
    /// 0, and no acknowledgement will come.
    pub fn written(&mut self, id: u16) -> Option<Sent> {
        let sent = self.requested.pop_front()?;
        if id == 0 {
            return Some(sent);
        }
        self.written.insert(id, sent);
        None
    }

    /// The message with this packet id was acknowledged. Returns the message.
    pub fn acknowledged(&mut self, id: u16) -> Option<Sent> {
        self.written.remove(&id)
    }

    /// Removes and returns all messages.
    pub fn drain(&mut self) -> Vec<Sent> {
        std::mem::take(&mut self.written).into_values().chain(self.requested.drain(..)).collect()
    }
}
