//! The topics that camscribe subscribes to: Home Assistant's status, and commands.

use super::client::{Client, OnSubscribe, QueueFull};
use crate::{camera::CameraId, publish::shared::Shared};

/// The subscriptions of one connection.
pub(super) struct Subscriptions<'a> {
    shared: &'a Shared,
    filters: Vec<Filter>,
    /// The broker has not acknowledged the SUBSCRIBE yet.
    pub pending: bool,
}

struct Filter {
    topic: String,
    /// What does not work without the subscription, for people.
    without: &'static str,
}

impl<'a> Subscriptions<'a> {
    /// The subscriptions that the settings ask for.
    pub fn new(shared: &'a Shared) -> Self {
        let birth = shared.discovery.as_ref().map(|discovery| Filter {
            topic: discovery.birth_topic(),
            without: "camscribe will not notice when Home Assistant starts",
        });
        let commands = shared.commands.as_ref().map(|_| Filter {
            topic: shared.topics.commands(),
            without: "camscribe will not receive commands",
        });
        Self { shared, filters: birth.into_iter().chain(commands).collect(), pending: false }
    }

    /// Requests the subscriptions, if there are any.
    pub fn request(&mut self, client: &Client) -> Result<(), QueueFull> {
        let topics: Vec<_> = self.filters.iter().map(|filter| filter.topic.clone()).collect();
        self.pending = !topics.is_empty();
        if self.pending { client.subscribe(&topics, OnSubscribe::SkipRetained) } else { Ok(()) }
    }

    /// The broker's SUBACK. Logs the subscriptions that it does not grant.
    pub fn acknowledged(&mut self, granted: &[bool]) {
        self.pending = false;
        for (Filter { topic, without }, _) in
            self.filters.iter().zip(granted).filter(|(_, granted)| !**granted)
        {
            tracing::warn!("{without}: the broker does not let this user subscribe to {topic}");
        }
    }

    /// Handles a message of another client. `retained`: the broker had kept it from before the
    /// subscription.
    pub fn on_message(&self, topic: &[u8], payload: &[u8], retained: bool) {
        let shared = self.shared;
        if let Some(discovery) = &shared.discovery
            && topic == discovery.birth_topic().as_bytes()
        {
            if payload == b"online" {
                shared.retained().resend_below(discovery.prefix());
            }
            return;
        }
        // A retained command would be applied again at every start.
        if let Some(commands) = shared.commands.as_ref().filter(|_| !retained) {
            let exists = |camera: &CameraId| shared.cameras().contains_key(camera);
            commands.receive(&shared.topics, exists, topic, payload);
        }
    }
}
