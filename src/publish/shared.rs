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
    command_inbox::CommandInbox,
    home_assistant::{self, Discovery},
    outbox::{Outbox, Snapshot},
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
    retained: Mutex<RetainedStore>,
    /// The cameras that exist, and what people call each. Nothing is retained of others: an event of a camera that
    /// was removed may still be on its way.
    cameras: Mutex<BTreeMap<CameraId, String>>,
    /// Notified when a retained message is set.
    pub retained_changed: Notify,
    pub state: watch::Sender<BrokerState>,
    pub stop: watch::Sender<Option<Stop>>,
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
    ) -> Self {
        Self {
            outbox,
            topics,
            discovery,
            commands,
            retained: Mutex::default(),
            cameras: Mutex::default(),
            retained_changed: Notify::new(),
            state: watch::Sender::new(BrokerState::Connecting),
            stop: watch::Sender::new(None),
        }
    }

    pub fn retained(&self) -> MutexGuard<'_, RetainedStore> {
        // Nothing panics while the lock is held, so a poisoned lock guards whole data.
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cameras(&self) -> MutexGuard<'_, BTreeMap<CameraId, String>> {
        // As above.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the node's Home Assistant discovery.
    pub fn announce_node(&self) {
        if let Some(discovery) = &self.discovery {
            self.retain_configs(discovery.node(&self.topics));
        }
    }

    /// Adds a camera, or names it anew: publishes its snapshot, if one was not delivered before the last process
    /// ended, and its Home Assistant discovery.
    pub fn announce(&self, camera: &CameraId, name: &str) {
        let old_name = self.cameras().insert(camera.clone(), name.into());
        match old_name {
            Some(old) if old == name => return,
            Some(_) => {}
            None => self.retain_waiting_snapshot(camera),
        }
        if let Some(discovery) = &self.discovery {
            self.retain_configs(discovery.camera(&self.topics, camera, name));
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

    /// Retains a camera's newest event, if the camera exists. Its snapshot goes first: who reads the event finds
    /// the image that belongs to it.
    pub fn retain_newest(&self, camera: &CameraId, event: Bytes) {
        // Locked until the messages are set, so that they cannot come after those that erase the camera.
        let cameras = self.cameras();
        if cameras.contains_key(camera) {
            self.retain_waiting_snapshot(camera);
            self.retain(self.topics.latest(camera), ContentType::Json, event);
        } else {
            self.outbox.keep_snapshots(|other| other != camera);
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
    pub fn retained_topics(&self, camera: &CameraId) -> Vec<String> {
        let topics = &self.topics;
        let mut retained = Vec::new();
        if let Some(discovery) = &self.discovery {
            retained.extend(discovery.camera(topics, camera, "").into_iter().map(|(topic, _)| topic));
        }
        retained.extend([topics.camera_status(camera), topics.latest(camera), topics.snapshot(camera)]);
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
