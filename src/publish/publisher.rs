//! The handle of a connection to the broker.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use serde_json::json;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::bytes::Bytes;

use super::{
    command_inbox::CommandInbox,
    home_assistant::Discovery,
    info::{Info, Load, state_name},
    mqtt::{self, Connector, TlsError},
    outbox::{Outbox, Snapshot},
    profile::CameraProfile,
    retained::ContentType,
    settings::Settings,
    shared::{Asks, BrokerState, Shared, Stop},
    topics::{BadTopic, Topics},
};
use crate::{
    camera::{CameraId, CameraState},
    runtime_settings::{SETTINGS, Values},
};

/// How often the outbox is flushed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Why publishing cannot start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A name that cannot be part of a topic.
    #[error(transparent)]
    Topic(#[from] BadTopic),
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// The retained messages of a camera's newest event. The next publisher retains them again.
#[derive(Clone, Debug)]
pub struct Newest {
    camera: CameraId,
    event: Option<Bytes>,
    /// By name.
    alerts: BTreeMap<String, Bytes>,
    snapshot: Option<Snapshot>,
}

/// Checked settings: a connection that can be started.
pub struct Prepared {
    connector: Connector,
    topics: Topics,
    discovery: Option<Discovery>,
    commands: Option<Arc<CommandInbox>>,
    asks: Option<Asks>,
    cameras: BTreeMap<CameraId, CameraProfile>,
}

impl Prepared {
    /// Checks the settings and reads the certificates that they name.
    ///
    /// # Errors
    /// When a name cannot be part of a topic, or a certificate or key cannot be used.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let topics = Topics::new(&settings.topic_prefix, &settings.node)?;
        let discovery = Discovery::new(&settings.discovery_prefix, settings.inboxes.is_some())?;
        let connector = Connector::new(settings.broker, settings.version, settings.login, &topics)?;
        let response_topics = settings.response_topics;
        let (commands, asks) = settings.inboxes.map(|it| (it.commands, it.asks)).unzip();
        let asks = asks.map(|inbox| Asks { inbox, response_topics });
        Ok(Self { connector, topics, discovery, commands, asks, cameras: settings.cameras })
    }
}

/// A connection to the broker, kept up from [`Publisher::connect`] until [`Publisher::shutdown`]. Dropping it
/// closes the connection without an MQTT DISCONNECT, so that the broker publishes the will.
pub struct Publisher {
    shared: Arc<Shared>,
    /// `None` once it is in use.
    connector: Option<Connector>,
    connection: Option<JoinHandle<()>>,
    flushing: JoinHandle<()>,
}

impl Publisher {
    /// Starts to connect and to deliver what `outbox` holds. A broker that cannot be reached is no
    /// error: the publisher keeps trying. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// As [`Prepared::new`].
    pub fn start(settings: Settings, outbox: Arc<Outbox>) -> Result<Self, SettingsError> {
        let mut publisher = Self::new(Prepared::new(settings)?, outbox, Vec::new());
        publisher.connect();
        Ok(publisher)
    }

    /// A publisher that does not connect yet, with checked settings. `newest` comes from the publisher that this
    /// one replaces. Must be called inside a tokio runtime.
    pub fn new(prepared: Prepared, outbox: Arc<Outbox>, newest: Vec<Newest>) -> Self {
        let Prepared { connector, topics, discovery, commands, asks, cameras } = prepared;
        let shared = Arc::new(Shared::new(outbox, topics, discovery, commands, asks));
        shared.retain(shared.topics.status(), ContentType::Text, "online");
        let (mut latest, mut alerts) = (Vec::new(), Vec::new());
        for Newest { camera, event, alerts: of_camera, snapshot } in
            newest.into_iter().filter(|it| cameras.contains_key(&it.camera))
        {
            let topic = |(alert, payload)| (shared.topics.alert(&camera, alert), payload);
            let known = cameras.get(&camera).into_iter().flat_map(|profile| profile.alerts.keys());
            alerts.extend(known.filter_map(|alert| Some(topic((alert, of_camera.get(alert)?.clone())))));
            if let Some(snapshot) = snapshot {
                shared.retain_snapshot(&camera, snapshot);
            }
            latest.extend(event.map(|event| (camera, event)));
        }
        // Before anything is delivered: only events of announced cameras are retained. A snapshot that waits in the
        // outbox is retained here, and goes out before the event that speaks of it.
        shared.announce_node();
        cameras.iter().for_each(|(camera, profile)| shared.announce(camera, profile.clone()));
        for (camera, event) in latest {
            shared.retain_newest(&camera, event);
        }
        for (topic, payload) in alerts {
            shared.retain(topic, ContentType::Json, payload);
        }
        let flushing = tokio::spawn(flush_regularly(Arc::clone(&shared.outbox)));
        Self { shared, connector: Some(connector), connection: None, flushing }
    }

    /// Starts to connect. What was set before is published together, the node's `online` last. Must be called
    /// inside a tokio runtime.
    pub fn connect(&mut self) {
        if let Some(connector) = self.connector.take() {
            self.connection = Some(tokio::spawn(mqtt::run(connector, Arc::clone(&self.shared))));
        }
    }

    /// Adds a camera: its newest event is retained from now on, and Home Assistant discovers it with its profile. A
    /// camera that was added before has another profile from now on.
    pub fn announce(&self, camera: &CameraId, profile: CameraProfile) {
        self.shared.announce(camera, profile);
    }

    /// Removes a camera: the broker and Home Assistant forget it.
    pub fn erase(&self, camera: &CameraId) {
        let profile = self.shared.cameras().remove(camera).unwrap_or_default();
        self.clear(self.shared.retained_topics(camera, &profile));
    }

    /// Makes the broker forget the camera's snapshot.
    pub fn erase_snapshot(&self, camera: &CameraId) {
        // Locked, so that it cannot come before one that is being retained.
        let _cameras = self.shared.cameras();
        self.clear([self.shared.topics.snapshot(camera)]);
    }

    /// Makes the broker forget what is retained on these topics.
    pub fn clear(&self, topics: impl IntoIterator<Item = String>) {
        topics.into_iter().for_each(|topic| self.shared.retain(topic, ContentType::Text, ""));
    }

    /// The topics on which something may be retained, those of all announced cameras included.
    pub fn retained_topics(&self) -> BTreeSet<String> {
        let node = self.shared.retained_node_topics();
        let cameras = self.shared.cameras();
        let of_cameras =
            cameras.iter().flat_map(|(camera, profile)| self.shared.retained_topics(camera, profile));
        node.into_iter().chain([self.shared.topics.status()]).chain(of_cameras).collect()
    }

    /// The retained messages of the cameras' newest events.
    pub fn newest(&self) -> Vec<Newest> {
        // In the order in which the lock of the retained messages is taken elsewhere, too: after the cameras'.
        let (cameras, topics) = (self.shared.cameras(), &self.shared.topics);
        let retained = self.shared.retained();
        let newest = |(camera, profile): (&CameraId, &CameraProfile)| {
            let alert = |alert: &String| {
                let message = retained.get(&topics.alert(camera, alert))?;
                Some((alert.clone(), message.payload.clone()))
            };
            let alerts = profile.alerts.keys().filter_map(alert).collect();
            let event = retained.get(&topics.latest(camera)).map(|message| message.payload.clone());
            let snapshot = retained
                .get(&topics.snapshot(camera))
                .and_then(|message| Some(Snapshot { id: message.event?, jpeg: message.payload.clone() }));
            Newest { camera: camera.clone(), event, alerts, snapshot }
        };
        cameras.iter().map(newest).collect()
    }

    /// Publishes the run-time settings of a camera, unless commands are off.
    pub fn camera_settings(&self, camera: &CameraId, values: &Values) {
        if self.shared.commands.is_none() {
            return;
        }
        for name in SETTINGS.iter().map(|setting| setting.name) {
            if let Some(value) = values.get(name) {
                let topic = self.shared.topics.state(camera, name);
                self.shared.retain(topic, ContentType::Text, value.to_string());
            }
        }
    }

    /// Publishes the state of a camera, and the reason for it.
    pub fn camera_status(&self, camera: &CameraId, state: CameraState, why: Option<&str>) {
        let payload = json!({ "state": state_name(state), "why": why }).to_string();
        self.shared.retain(self.shared.topics.camera_status(camera), ContentType::Json, payload);
    }

    /// Publishes what runs here.
    pub fn info(&self, info: &Info) {
        let payload = json!(info).to_string();
        self.shared.retain(self.shared.topics.info(), ContentType::Json, payload);
    }

    /// Publishes how the node keeps up.
    pub fn load(&self, load: &Load) {
        let payload = json!(load).to_string();
        self.shared.retain(self.shared.topics.load(), ContentType::Json, payload);
    }

    /// The state of the connection, now and from now on.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.shared.state.subscribe()
    }

    /// A function that returns whether the broker has acknowledged every retained message. It may be
    /// called after the shutdown.
    pub fn all_states_acked(&self) -> impl Fn() -> bool + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.retained().all_acked()
    }

    /// Delivers what is left for at most `grace`, publishes `offline` and disconnects. Returns the
    /// number of events that the broker did not get.
    pub async fn shutdown(self, grace: Duration) -> usize {
        let outbox = Arc::clone(&self.shared.outbox);
        self.stop(Stop { until: Instant::now() + grace, farewell: "offline" }).await;
        outbox.len()
    }

    /// Makes the broker forget this node and disconnects.
    pub async fn leave(self) {
        let cameras: Vec<_> = self.shared.cameras().keys().cloned().collect();
        cameras.iter().for_each(|camera| self.erase(camera));
        self.clear(self.shared.retained_node_topics());
        let (all_states_acked, status) = (self.all_states_acked(), self.shared.topics.status());
        self.stop(Stop { until: Instant::now(), farewell: "" }).await;
        if !all_states_acked() {
            tracing::warn!(
                "the previous MQTT broker cannot be reached: the messages of this node stay retained there \
                 ({status} and others)"
            );
        }
    }

    async fn stop(mut self, stop: Stop) {
        self.shared.stop.send_replace(Some(stop));
        if let Some(connection) = &mut self.connection
            && let Err(error) = connection.await
        {
            tracing::error!("the MQTT connection ended by a fault: {error}");
        }
        self.flushing.abort();
        let outbox = Arc::clone(&self.shared.outbox);
        // So that the next process does not deliver again what was acknowledged a moment ago.
        if let Err(error) = tokio::task::spawn_blocking(move || outbox.flush()).await {
            tracing::error!("the outbox ended by a fault: {error}");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection {
            connection.abort();
        }
        self.flushing.abort();
    }
}

async fn flush_regularly(outbox: Arc<Outbox>) {
    loop {
        time::sleep(FLUSH_INTERVAL).await;
        let outbox = Arc::clone(&outbox);
        if tokio::task::spawn_blocking(move || outbox.flush()).await.is_err() {
            return;
        }
    }
}
