//! What the [`Publisher`](super::Publisher) and the task that holds the MQTT connection share.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::{self, Instant},
};
use tokio_util::bytes::Bytes;

use super::{
    ask_inbox::{AskInbox, Reply},
    command_inbox::CommandInbox,
    findings::{Findings, is_same_state},
    home_assistant::{self, Discovery},
    outbox::{Outbox, Snapshot},
    profile::CameraProfile,
    retained::{ContentType, RetainedMessage, RetainedStore, Turn},
    topics::Topics,
};
use crate::{camera::CameraId, runtime_settings::SETTINGS};

/// The state of the connection to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// The first attempt is under way.
    Connecting,
    /// Connected.
    Online,
    /// Not connected; camscribe keeps trying.
    Offline {
        /// The reason, for people.
        why: String,
    },
    /// The publisher has shut down.
    Stopped,
}

/// What the publisher and the connection share.
pub(super) struct Shared {
    pub outbox: Arc<Outbox>,
    pub topics: Topics,
    pub discovery: Option<Discovery>,
    /// Takes the commands of subscribers; `None`: commands are off.
    pub commands: Option<Arc<CommandInbox>>,
    pub asks: Option<Asks>,
    retained: Mutex<RetainedStore>,
    /// The cameras that exist, with their profiles. Nothing is retained of others: an event of a camera that
    /// was removed may still be on its way.
    cameras: Mutex<BTreeMap<CameraId, CameraProfile>>,
    /// Notified when a retained message is set.
    pub retained_changed: Notify,
    pub state: watch::Sender<BrokerState>,
    pub stop: watch::Sender<Option<Stop>>,
}

/// Takes questions of subscribers about cameras.
#[derive(Clone, Debug)]
pub(super) struct Asks {
    pub inbox: Arc<AskInbox>,
    /// The filters of the topics that the answers may go to.
    pub response_topics: Vec<String>,
}

/// How to shut down.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stop {
    /// Deliver until then.
    pub until: Instant,
    /// The last payload of the node's status topic.
    pub farewell: &'static str,
}

impl Shared {
    pub fn new(
        outbox: Arc<Outbox>,
        topics: Topics,
        discovery: Option<Discovery>,
        commands: Option<Arc<CommandInbox>>,
        asks: Option<Asks>,
    ) -> Self {
        Self {
            outbox,
            topics,
            discovery,
            commands,
            asks,
            retained: Mutex::default(),
            cameras: Mutex::default(),
            retained_changed: Notify::new(),
            state: watch::Sender::new(BrokerState::Connecting),
            stop: watch::Sender::new(None),
        }
    }

    /// The next answer to a question about a camera. Since the question came, the configuration may have changed where
    /// answers may go.
    pub fn take_reply(&self) -> Option<Reply> {
        let asks = self.asks.as_ref()?;
        std::iter::from_fn(|| asks.inbox.take_reply()).find(|reply| {
            self.topics.is_ask_answer(&reply.topic)
                || self.topics.may_reply(&reply.topic, &asks.response_topics)
        })
    }

    /// Completes when such an answer has come.
    pub async fn replied(&self) {
        match &self.asks {
            Some(asks) => asks.inbox.replied().await,
            None => std::future::pending().await,
        }
    }

    pub fn retained(&self) -> MutexGuard<'_, RetainedStore> {
        // Nothing panics while the lock is held, so a poisoned lock guards whole data.
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cameras(&self) -> MutexGuard<'_, BTreeMap<CameraId, CameraProfile>> {
        // As above.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the node's Home Assistant discovery.
    pub fn announce_node(&self) {
        if let Some(discovery) = &self.discovery {
            self.retain_configs(discovery.node(&self.topics));
        }
    }

    /// Adds a camera, or changes its profile: publishes its snapshot, if one was not delivered before the last process
    /// ended, and its Home Assistant discovery. What the old profile had and the new one has not is forgotten.
    pub fn announce(&self, camera: &CameraId, profile: CameraProfile) {
        let old = self.cameras().insert(camera.clone(), profile.clone());
        match old {
            Some(old) if old == profile => return,
            Some(old) => {
                let kept = self.retained_topics(camera, &profile);
                let gone = self.retained_topics(camera, &old).into_iter().filter(|it| !kept.contains(it));
                gone.for_each(|topic| self.retain(topic, ContentType::Text, ""));
            }
            None => self.retain_waiting_snapshot(camera),
        }
        if let Some(discovery) = &self.discovery {
            self.retain_configs(discovery.camera(&self.topics, camera, &profile));
        }
    }

    fn retain_configs(&self, configs: Vec<(String, Value)>) {
        for (topic, config) in configs {
            self.retain(topic, ContentType::Json, config.to_string());
        }
    }

    /// Sets the retained message of a topic. An empty payload makes the broker forget the topic.
    pub fn retain(&self, topic: String, content: ContentType, payload: impl Into<Bytes>) {
        let payload = payload.into();
        let turn = match &topic {
            topic if *topic == self.topics.status() => Turn::Last,
            topic if payload.is_empty() && home_assistant::is_config(topic) => Turn::First,
            _ => Turn::Middle,
        };
        self.set(RetainedMessage { topic, payload, content, event: None, turn });
    }

    fn set(&self, message: RetainedMessage) {
        self.retained().set(message);
        self.retained_changed.notify_one();
    }

    /// Retains a camera's newest event and its answers, if the camera exists. Its snapshot goes first: who reads the
    /// event finds the image that belongs to it.
    pub fn retain_newest(&self, camera: &CameraId, event: Bytes) {
        // Locked until the messages are set, so that they cannot come after those that erase the camera.
        let cameras = self.cameras();
        let Some(profile) = cameras.get(camera) else {
            return self.outbox.keep_snapshots(|other| other != camera);
        };
        self.retain_waiting_snapshot(camera);
        let known: Vec<String> =
            profile.questions.keys().map(|question| self.topics.answer(camera, question)).collect();
        for (topic, answer) in Findings::of(&self.topics, &event).answers {
            // An event of before a reload may answer a question that is gone.
            if known.contains(&topic) {
                self.retain(topic, ContentType::Json, answer);
            }
        }
        self.retain(self.topics.latest(camera), ContentType::Json, event);
    }

    /// Retains the states of a camera's alerts, if they exist, where they are not what is retained already.
    pub fn retain_alerts(&self, camera: &CameraId, alerts: Vec<(String, Bytes)>) {
        let cameras = self.cameras();
        let Some(profile) = cameras.get(camera) else { return };
        let known: Vec<String> =
            profile.alerts.keys().map(|alert| self.topics.alert(camera, alert)).collect();
        for (topic, state) in alerts {
            let is_new = self.retained().get(&topic).is_none_or(|it| !is_same_state(&it.payload, &state));
            if is_new && known.contains(&topic) {
                self.retain(topic, ContentType::Json, state);
            }
        }
    }

    /// Retains a camera's snapshot from the outbox, if there is one.
    fn retain_waiting_snapshot(&self, camera: &CameraId) {
        if let Some(snapshot) = self.outbox.snapshot(camera) {
            self.retain_snapshot(camera, snapshot);
        }
    }

    pub fn retain_snapshot(&self, camera: &CameraId, Snapshot { id, jpeg }: Snapshot) {
        let topic = self.topics.snapshot(camera);
        let content = ContentType::Jpeg;
        self.set(RetainedMessage { topic, payload: jpeg, content, event: Some(id), turn: Turn::Middle });
    }

    /// The topics on which something of the node itself may be retained, but its status: those of Home Assistant
    /// first.
    pub fn retained_node_topics(&self) -> Vec<String> {
        let topics = &self.topics;
        let configs = self.discovery.iter().flat_map(|discovery| discovery.node(topics));
        configs.map(|(topic, _)| topic).chain([topics.info(), topics.load()]).collect()
    }

    /// The topics on which something of a camera may be retained, those of Home Assistant first: they are cleared
    /// in this order.
    pub fn retained_topics(&self, camera: &CameraId, profile: &CameraProfile) -> Vec<String> {
        let topics = &self.topics;
        let mut retained = Vec::new();
        if let Some(discovery) = &self.discovery {
            retained.extend(discovery.camera(topics, camera, profile).into_iter().map(|(topic, _)| topic));
        }
        retained.extend([topics.camera_status(camera), topics.latest(camera), topics.snapshot(camera)]);
        retained.extend(profile.questions.keys().map(|question| topics.answer(camera, question)));
        retained.extend(profile.alerts.keys().map(|alert| topics.alert(camera, alert)));
        if self.commands.is_some() {
            retained.extend(SETTINGS.iter().map(|setting| topics.state(camera, setting.name)));
        }
        retained
    }

    /// Returns when there is no point in connecting any more: the publisher shuts down, and either
    /// nothing is left to deliver or the time for it is up.
    pub async fn nothing_left_to_do(&self, stop: &mut watch::Receiver<Option<Stop>>) {
        let stop = match stop.wait_for(Option::is_some).await {
            Ok(stop) => *stop,
            Err(_) => None, // the publisher is gone
        };
        if let Some(stop) = stop
            && !self.outbox.is_empty()
        {
            time::sleep_until(stop.until).await;
        }
    }
}
