//! The retained messages that the broker should have: the newest payload of each topic.
//!
//! Messages are set here at any time, connected or not. The MQTT session takes those that the broker
//! does not have yet, by their [`Turn`], the oldest first. After a reconnect it takes all of them again.

use std::collections::VecDeque;

use tokio_util::bytes::Bytes;
use uuid::Uuid;

/// The type of a payload. MQTT 5 passes it on to subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ContentType {
    Text,
    Json,
    Jpeg,
}

/// When a message is sent, of those that wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Turn {
    /// Before all others: clears a Home Assistant configuration. Its entity is gone before the topics that it
    /// reads are cleared, and before another configuration takes its place.
    First,
    Middle,
    /// After all others: the node's status. What it says is true of the other topics.
    Last,
}

/// A retained message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RetainedMessage {
    pub topic: String,
    pub payload: Bytes,
    pub content: ContentType,
    /// Id of the event that it belongs to: the user property `id`.
    pub event: Option<Uuid>,
    pub turn: Turn,
}

/// The newest message of every topic. Bounded by the number of topics, which depends on the number of
/// cameras.
#[derive(Debug, Default)]
pub(super) struct RetainedStore {
    entries: VecDeque<Entry>,
    /// The number of the next message.
    number: u64,
}

#[derive(Debug)]
struct Entry {
    /// Distinguishes the message from an older one of the same topic, which may still be in flight.
    number: u64,
    message: RetainedMessage,
    state: DeliveryState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DeliveryState {
    Unsent,
    InFlight,
    /// The broker has it.
    Delivered,
    /// The broker does not take it now.
    Postponed,
    /// The broker refuses it. It is not sent again, but a newer message of its topic is.
    Rejected,
}

impl RetainedStore {
    /// Sets the message of its topic, in place of the last one.
    pub fn set(&mut self, message: RetainedMessage) {
        self.entries.retain(|old| old.message.topic != message.topic);
        self.entries.push_back(Entry { number: self.number, message, state: DeliveryState::Unsent });
        self.number += 1;
    }

    /// The newest message of a topic.
    pub fn get(&self, topic: &str) -> Option<&RetainedMessage> {
        self.entries.iter().map(|entry| &entry.message).find(|message| message.topic == topic)
    }

    /// The unsent message whose turn it is, and its number. It is in flight from now on.
    pub fn take(&mut self) -> Option<(u64, RetainedMessage)> {
        let unsent = self.entries.iter_mut().filter(|entry| entry.state == DeliveryState::Unsent);
        // The first one of those with the same turn.
        let entry = unsent.min_by_key(|entry| entry.message.turn)?;
        entry.state = DeliveryState::InFlight;
        Some((entry.number, entry.message.clone()))
    }

    /// Every message was handed to the connection.
    pub fn all_sent(&self) -> bool {
        self.entries.iter().all(|entry| entry.state != DeliveryState::Unsent)
    }

    /// The broker has acknowledged or refused every message.
    pub fn all_acked(&self) -> bool {
        let acked = |state| matches!(state, DeliveryState::Delivered | DeliveryState::Rejected);
        self.entries.iter().all(|entry| acked(entry.state))
    }

    /// The broker has acknowledged this message.
    pub fn delivered(&mut self, number: u64) {
        self.set_state(number, DeliveryState::Delivered);
    }

    /// Sends every message again: a broker may have lost them all.
    pub fn resend_all(&mut self) {
        self.resend(|_| true);
    }

    /// Sends the messages of the topics below `prefix` again.
    pub fn resend_below(&mut self, prefix: &str) {
        self.resend(|topic| topic.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')));
    }

    /// The broker does not take this message now.
    pub fn postpone(&mut self, number: u64) {
        self.set_state(number, DeliveryState::Postponed);
    }

    /// Sends the postponed messages again.
    pub fn resend_postponed(&mut self) {
        for entry in self.entries.iter_mut().filter(|entry| entry.state == DeliveryState::Postponed) {
            entry.state = DeliveryState::Unsent;
        }
    }

    /// The broker refuses this message for good.
    pub fn reject(&mut self, number: u64) {
        self.set_state(number, DeliveryState::Rejected);
    }

    fn set_state(&mut self, number: u64, state: DeliveryState) {
        let in_flight = |entry: &&mut Entry| entry.number == number && entry.state == DeliveryState::InFlight;
        if let Some(entry) = self.entries.iter_mut().find(in_flight) {
            entry.state = state;
        }
    }

    fn resend(&mut self, which: impl Fn(&str) -> bool) {
        for entry in &mut self.entries {
            if entry.state != DeliveryState::Rejected && which(&entry.message.topic) {
                entry.state = DeliveryState::Unsent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, payload: &'static str) -> RetainedMessage {
        RetainedMessage {
            topic: topic.into(),
            payload: payload.into(),
            content: ContentType::Text,
            event: None,
            turn: Turn::Middle,
        }
    }

    fn taken(store: &mut RetainedStore) -> Vec<(String, Bytes)> {
        std::iter::from_fn(|| store.take()).map(|(_, message)| (message.topic, message.payload)).collect()
    }

    #[test]
    fn only_the_newest_message_of_a_topic_is_sent() {
        let mut store = RetainedStore::default();
        store.set(message("a", "1"));
        store.set(message("b", "1"));
        store.set(message("a", "2"));
        assert!(!store.all_sent());
        assert_eq!(taken(&mut store), [("b".into(), "1".into()), ("a".into(), "2".into())]);
        assert!(store.all_sent());
    }

    #[test]
    fn messages_are_sent_by_their_turn_also_in_a_new_session() {
        let mut store = RetainedStore::default();
        for (topic, turn) in [
            ("a", Turn::Last),
            ("b", Turn::Middle),
            ("c", Turn::First),
            ("d", Turn::Middle),
            ("e", Turn::First),
        ] {
            store.set(RetainedMessage { turn, ..message(topic, "1") });
        }
        for _ in 0..2 {
            let order: Vec<_> = taken(&mut store).into_iter().map(|(topic, _)| topic).collect();
            assert_eq!(order, ["c", "e", "b", "d", "a"]);
            store.resend_all();
        }
    }

    #[test]
    fn a_new_session_gets_everything_again_but_what_the_broker_refuses() {
        let mut store = RetainedStore::default();
        for topic in ["a", "b", "c"] {
            store.set(message(topic, "1"));
        }
        while let Some((number, message)) = store.take() {
            if message.topic == "b" {
                store.reject(number);
            }
        }
        store.resend_all();
        assert_eq!(taken(&mut store), [("a".into(), "1".into()), ("c".into(), "1".into())]);
        store.set(message("b", "2"));
        assert_eq!(taken(&mut store), [("b".into(), "2".into())]);
    }

    #[test]
    fn an_acknowledgement_counts_for_its_own_message_only() {
        let mut store = RetainedStore::default();
        store.set(message("a", "1"));
        let (older, _) = store.take().unwrap();
        store.set(message("a", "2"));
        let (newer, _) = store.take().unwrap();
        store.delivered(older);
        assert!(!store.all_acked());
        store.delivered(newer);
        assert!(store.all_acked());
    }

    #[test]
    fn a_message_that_is_not_taken_now_is_sent_later() {
        let mut store = RetainedStore::default();
        store.set(message("a", "1"));
        let (number, _) = store.take().unwrap();
        store.postpone(number);
        assert!(store.take().is_none() && store.all_sent() && !store.all_acked());
        store.resend_postponed();
        assert_eq!(taken(&mut store), [("a".into(), "1".into())]);
    }

    #[test]
    fn resending_below_a_prefix_leaves_the_others_and_prefixes_alike() {
        let mut store = RetainedStore::default();
        for topic in ["home/x", "homeassistant/x", "home"] {
            store.set(message(topic, "1"));
        }
        taken(&mut store);
        store.resend_below("home");
        assert_eq!(taken(&mut store), [("home/x".into(), "1".into())]);
    }
}
