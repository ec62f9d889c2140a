//! The topics that camscribe subscribes to: Home Assistant's status, and commands.

use std::time::Duration;

use tokio::{sync::mpsc::error::TrySendError, time::Instant};

use super::client::{Client, QueueFull};
use crate::publish::{commands::CameraCommand, shared::Shared};

/// The shortest time between two warnings about rejected commands, so that nobody can fill the log with
/// them.
const WARNING_INTERVAL: Duration = Duration::from_secs(1);
/// The longest part of a topic that is logged, characters.
const MAX_LOGGED_TOPIC: usize = 200;

/// The subscriptions of one connection.
pub(super) struct Subscriptions<'a> {
    shared: &'a Shared,
    filters: Vec<Filter>,
    /// The broker has not acknowledged the SUBSCRIBE yet.
    pub pending: bool,
    /// When a rejected command was last logged.
    warned: Option<Instant>,
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
        Self { shared, filters: birth.into_iter().chain(commands).collect(), pending: false, warned: None }
    }

    /// Requests the subscriptions, if there are any.
    pub fn request(&mut self, client: &Client) -> Result<(), QueueFull> {
        let topics: Vec<_> = self.filters.iter().map(|filter| filter.topic.clone()).collect();
        self.pending = !topics.is_empty();
        if self.pending { client.subscribe(&topics) } else { Ok(()) }
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
    pub fn on_message(&mut self, topic: &[u8], payload: &[u8], retained: bool) {
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
        let Some(commands) = shared.commands.as_ref().filter(|_| !retained) else { return };
        let command = match CameraCommand::parse(&shared.topics, topic, payload) {
            Ok(command) => command,
            Err(bad) => return self.warn(topic, &bad.to_string()),
        };
        match commands.try_send(command) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => self.warn(topic, "too many commands come at once"),
            Err(TrySendError::Closed(_)) => self.warn(topic, "camscribe is shutting down"),
        }
    }

    fn warn(&mut self, topic: &[u8], why: &str) {
        if self.warned.is_none_or(|then| then.elapsed() >= WARNING_INTERVAL) {
            self.warned = Some(Instant::now());
            let topic: String = String::from_utf8_lossy(topic).chars().take(MAX_LOGGED_TOPIC).collect();
            tracing::warn!("the command on {topic:?} is ignored: {why}");
        }
    }
}
