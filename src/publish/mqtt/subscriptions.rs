//! The topics that camscribe subscribes to: Home Assistant's status, commands, and questions about cameras.

use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Incoming, OnSubscribe, QueueFull};
use crate::{
    camera::CameraId,
    camera_ask::{CameraAsk, Refusal},
    publish::{
        ask_inbox::{ReplyTo, WaitingAsk},
        shared::{Asks, Shared},
    },
};

/// An answer that comes later than this is of no use, if the question does not expire sooner.
const ASK_LIMIT: Duration = Duration::from_secs(60);
/// The longest correlation data that is sent back, bytes.
const MAX_CORRELATION: usize = 1024;

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
        let asks = shared.asks.as_ref().map(|_| Filter {
            topic: shared.topics.asks(),
            without: "camscribe will not receive questions about cameras",
        });
        let filters = birth.into_iter().chain(commands).chain(asks).collect();
        Self { shared, filters, pending: false }
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

    /// Handles a message of another client.
    pub fn on_message(&self, message: Incoming) {
        let Incoming { topic, payload, retained, .. } = &message;
        let shared = self.shared;
        if let Some(discovery) = &shared.discovery
            && topic == discovery.birth_topic().as_bytes()
        {
            if **payload == *b"online" {
                shared.retained().resend_below(discovery.prefix());
            }
            return;
        }
        // A retained command or question would come again at every start.
        if *retained {
            return;
        }
        let camera = str::from_utf8(topic).ok().and_then(|topic| shared.topics.asked(topic));
        if let (Some(camera), Some(asks)) = (camera, &shared.asks) {
            return self.on_ask(asks, camera, message);
        }
        if let Some(commands) = &shared.commands {
            let exists = |camera: &CameraId| shared.cameras().contains_key(camera);
            commands.receive(&shared.topics, exists, topic, payload);
        }
    }

    /// Takes in a question about a camera, or refuses it.
    fn on_ask(&self, asks: &Asks, camera: CameraId, message: Incoming) {
        let topics = &self.shared.topics;
        let wanted = message.response_topic.filter(|topic| topics.may_reply(topic, &asks.response_topics));
        // What the caller calls its question is for those who cannot name a topic of their own.
        let correlation = message.correlation.filter(|_| wanted.is_some());
        let (correlation, too_long) = match correlation {
            Some(data) if data.len() > MAX_CORRELATION => (None, true),
            data => (data, false),
        };
        let topic = wanted.unwrap_or_else(|| topics.ask_answer(&camera));
        let request = CameraAsk::request_of(&message.payload);
        let reply_to = ReplyTo { topic, correlation, request };
        let refuse = |reply_to, refusal| asks.inbox.reply(&camera, reply_to, &Err(refusal));
        match CameraAsk::parse(&message.payload) {
            _ if too_long => {
                let why = format!("the correlation data is longer than {MAX_CORRELATION} bytes");
                refuse(reply_to, Refusal::Invalid(why));
            }
            Err(why) => refuse(reply_to, Refusal::Invalid(why)),
            Ok(_) if !self.shared.cameras().contains_key(&camera) => {
                refuse(reply_to, Refusal::NoSuchCamera(camera.to_string()));
            }
            Ok(ask) => {
                let seconds = message.expiry.map_or(ASK_LIMIT, |seconds| Duration::from_secs(seconds.into()));
                let until = Instant::now() + seconds.min(ASK_LIMIT);
                asks.inbox.receive(WaitingAsk { camera, ask, until, reply_to });
            }
        }
    }
}
