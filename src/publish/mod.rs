//! The network's side of the house: descriptions and states in, MQTT messages out.
//!
//! Descriptions come through the [`outbox::Outbox`], which keeps each until the broker has it, and
//! each camera's newest snapshot with them.
//! States (the node's, the cameras', what runs here) are posted on the [`Publisher`] and stand
//! retained at the broker, again after every reconnect. Only `mqtt/` knows the protocol.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::json;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinHandle,
    time::{self, Instant},
};
use tokio_util::bytes::Bytes;

use self::{
    command::Command,
    discovery::Discovery,
    outbox::{Outbox, Snapshot},
    retained::{Board, ContentType, Post},
    topics::{BadTopic, Topics},
};
use crate::{
    camera::{CameraId, CameraState},
    config::{Login, MqttVersion},
    device::Gpu,
    event::ModelInfo,
};

pub mod command;
pub mod discovery;
pub mod mqtt;
pub mod outbox;
mod retained;
pub mod topics;

/// So often the outbox brings its disk up to date.
const TEND: Duration = Duration::from_secs(1);

/// Where and as whom to publish.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the broker is.
    pub broker: BrokerAddress,
    /// What to speak with it.
    pub version: MqttVersion,
    /// As whom, if the broker wants to know.
    pub login: Option<Login>,
    /// This node's name in topics.
    pub node: String,
    /// What topics begin with.
    pub topic_prefix: String,
    /// What Home Assistant's configuration topics begin with; empty to leave it alone.
    pub discovery_prefix: String,
    /// The cameras that there are; [`Publisher::announce`] tells of more.
    pub cameras: Vec<CameraId>,
    /// Who obeys commands; none: they are not listened to.
    pub commands: Option<mpsc::Sender<Command>>,
}

/// Where a broker is.
#[derive(Clone, Debug)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether and how to speak TLS.
    pub tls: Option<TlsFiles>,
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What TLS rests on beside the system's own authorities. PEM files all.
#[derive(Clone, Debug, Default)]
pub struct TlsFiles {
    /// Authorities to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key, for a broker that asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Why publishing cannot start with these settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// A name that cannot stand in a topic.
    #[error(transparent)]
    Topic(#[from] BadTopic),
    /// A certificate or key that cannot be used.
    #[error(transparent)]
    Tls(#[from] mqtt::TlsError),
}

/// The `state` of a camera's status topic. The contract has four words: a camera that refuses our
/// credentials is offline, and `why` says so.
fn status_word(state: CameraState) -> &'static str {
    match state {
        CameraState::Unauthorised => CameraState::Offline.as_str(),
        other => other.as_str(),
    }
}

/// What runs here: the node's `info` topic.
#[derive(Clone, Debug, Serialize)]
pub struct Info {
    /// camscribe's version.
    pub version: String,
    /// What describes clips; `model.device` is where.
    pub model: ModelInfo,
    /// Nothing where the model runs on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
    /// The cameras.
    pub cameras: BTreeMap<CameraId, CameraInfo>,
}

/// What is known of a camera.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CameraInfo {
    /// The decoder that was chosen for it, once it runs.
    pub decoder: Option<String>,
}

/// How things stand with the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// The first attempt is under way.
    Connecting,
    /// Connected.
    Online,
    /// Not connected, being retried.
    Offline {
        /// In words.
        why: String,
    },
    /// Shut down.
    Stopped,
}

/// What stands retained of a camera's newest event: the next publisher says it again.
#[derive(Clone, Debug)]
pub struct Newest {
    camera: CameraId,
    event: Option<Bytes>,
    snapshot: Option<Snapshot>,
}

/// What the handle and the connection share.
struct Shared {
    outbox: Arc<Outbox>,
    topics: Topics,
    discovery: Option<Discovery>,
    commands: Option<mpsc::Sender<Command>>,
    board: Mutex<Board>,
    /// The cameras that there are. Of others nothing is retained: an event of a camera that was removed
    /// may still be under way.
    cameras: Mutex<BTreeSet<CameraId>>,
    posted: Notify,
    state: watch::Sender<BrokerState>,
    stop: watch::Sender<Option<Stop>>,
}

/// How to come to an end.
#[derive(Clone, Copy, Debug)]
struct Stop {
    /// Deliver until then.
    until: Instant,
    /// What the node's status topic says at last.
    farewell: &'static str,
}

impl Shared {
    fn board(&self) -> MutexGuard<'_, Board> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cameras(&self) -> MutexGuard<'_, BTreeSet<CameraId>> {
        // As above.
        self.cameras.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self, camera: &CameraId) {
        if !self.cameras().insert(camera.clone()) {
            return;
        }
        // One that was not delivered when the last process ended; a newer one takes its place.
        self.post_snapshot(camera);
        if let Some(discovery) = &self.discovery {
            for (topic, config) in discovery.configs(&self.topics, camera) {
                self.post(topic, ContentType::Json, config.to_string());
            }
        }
    }

    fn post(&self, topic: String, content: ContentType, payload: impl Into<Bytes>) {
        self.board().post(Post { topic, payload: payload.into(), content, event: None });
        self.posted.notify_one();
    }

    /// Posts a camera's newest event and its picture, if there is such a camera.
    fn retain_newest(&self, camera: &CameraId, event: Bytes) {
        // Held until it is posted, so that it cannot come after what erases it.
        let cameras = self.cameras();
        if cameras.contains(camera) {
            self.post(self.topics.latest(camera), ContentType::Json, event);
            self.post_snapshot(camera);
        } else {
            self.outbox.keep_snapshots(|other| other != camera);
        }
    }

    /// Posts what the outbox holds of a camera's pictures.
    fn post_snapshot(&self, camera: &CameraId) {
        if let Some(snapshot) = self.outbox.snapshot(camera) {
            self.post_picture(camera, snapshot);
        }
    }

    fn post_picture(&self, camera: &CameraId, Snapshot { id, jpeg }: Snapshot) {
        let topic = self.topics.snapshot(camera);
        self.board().post(Post { topic, payload: jpeg, content: ContentType::Jpeg, event: Some(id) });
        self.posted.notify_one();
    }

    /// Topics on which something of a camera may stand retained.
    fn retained(&self, camera: &CameraId) -> Vec<String> {
        let topics = &self.topics;
        let mut retained = vec![topics.camera_status(camera), topics.latest(camera), topics.snapshot(camera)];
        if self.commands.is_some() {
            retained.extend(["enabled", "prompt"].map(|what| topics.state(camera, what)));
        }
        if let Some(discovery) = &self.discovery {
            retained.extend(discovery.configs(topics, camera).into_iter().map(|(topic, _)| topic));
        }
        retained
    }

    fn newest(&self, camera: &CameraId) -> Newest {
        let board = self.board();
        let event = board.get(&self.topics.latest(camera)).map(|post| post.payload.clone());
        let snapshot = board.get(&self.topics.snapshot(camera));
        let snapshot =
            snapshot.and_then(|post| Some(Snapshot { id: post.event?, jpeg: post.payload.clone() }));
        Newest { camera: camera.clone(), event, snapshot }
    }
}

/// Settings that were found good: a connection that can be started.
pub struct Prepared {
    broker: mqtt::Broker,
    topics: Topics,
    discovery: Option<Discovery>,
    commands: Option<mpsc::Sender<Command>>,
    cameras: Vec<CameraId>,
}

impl Prepared {
    /// Checks the settings, and reads the certificates that they name.
    ///
    /// # Errors
    /// When they cannot be used.
    pub fn new(settings: Settings) -> Result<Self, SettingsError> {
        let topics = Topics::new(&settings.topic_prefix, &settings.node)?;
        let discovery = Discovery::new(&settings.discovery_prefix, settings.commands.is_some())?;
        let broker = mqtt::Broker::new(settings.broker, settings.version, settings.login, &topics)?;
        Ok(Self { broker, topics, discovery, commands: settings.commands, cameras: settings.cameras })
    }
}

/// A running connection to the broker, which is kept up until [`Publisher::shutdown`]. Dropping it
/// ends the connection without a word, so that the broker publishes the will.
pub struct Publisher {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    tending: JoinHandle<()>,
}

impl Publisher {
    /// Starts to connect and to deliver what `outbox` holds. An unreachable broker is no error:
    /// it is retried for ever. Must be called inside a tokio runtime.
    pub fn start(settings: Settings, outbox: Arc<Outbox>) -> Result<Self, SettingsError> {
        Ok(Self::with(Prepared::new(settings)?, outbox, Vec::new()))
    }

    /// As [`Publisher::start`], with settings that are known to be good. `newest`: what the publisher
    /// before this one has left.
    pub fn with(prepared: Prepared, outbox: Arc<Outbox>, newest: Vec<Newest>) -> Self {
        let Prepared { broker, topics, discovery, commands, cameras } = prepared;
        let shared = Arc::new(Shared {
            outbox,
            topics,
            discovery,
            commands,
            board: Mutex::default(),
            cameras: Mutex::default(),
            posted: Notify::new(),
            state: watch::Sender::new(BrokerState::Connecting),
            stop: watch::Sender::new(None),
        });
        shared.post(shared.topics.status(), ContentType::Text, "online");
        for Newest { camera, event, snapshot } in newest.into_iter().filter(|it| cameras.contains(&it.camera))
        {
            if let Some(event) = event {
                shared.post(shared.topics.latest(&camera), ContentType::Json, event);
            }
            if let Some(snapshot) = snapshot {
                shared.post_picture(&camera, snapshot);
            }
        }
        // Before anything is delivered: the newest event of each is to be retained.
        cameras.iter().for_each(|camera| shared.announce(camera));
        let task = tokio::spawn(mqtt::run(broker, Arc::clone(&shared)));
        let tending = tokio::spawn(tend(Arc::clone(&shared.outbox)));
        Self { shared, task, tending }
    }

    /// There is such a camera: what is newest of it is retained from now on, and Home Assistant is told.
    pub fn announce(&self, camera: &CameraId) {
        self.shared.announce(camera);
    }

    /// The broker and Home Assistant forget a camera that there is no more: empty retained messages
    /// take the place of all that they keep of it.
    pub fn erase(&self, camera: &CameraId) {
        self.shared.cameras().remove(camera);
        self.clear(self.shared.retained(camera));
    }

    /// Nothing stands retained on these topics any more.
    pub fn clear(&self, topics: impl IntoIterator<Item = String>) {
        topics.into_iter().for_each(|topic| self.shared.post(topic, ContentType::Text, ""));
    }

    /// The topics on which something may stand retained, those of all announced cameras included.
    pub fn retained(&self) -> BTreeSet<String> {
        let node = [self.shared.topics.status(), self.shared.topics.info()];
        let cameras = self.shared.cameras();
        node.into_iter().chain(cameras.iter().flat_map(|camera| self.shared.retained(camera))).collect()
    }

    /// What stands retained of the cameras' newest events.
    pub fn newest(&self) -> Vec<Newest> {
        self.shared.cameras().iter().map(|camera| self.shared.newest(camera)).collect()
    }

    /// Says what commands have come to, if commands are taken.
    pub fn camera_settings(&self, camera: &CameraId, enabled: bool, prompt: &str) {
        if self.shared.commands.is_some() {
            let topics = &self.shared.topics;
            self.shared.post(topics.state(camera, "enabled"), ContentType::Text, command::switch(enabled));
            self.shared.post(topics.state(camera, "prompt"), ContentType::Text, prompt.to_owned());
        }
    }

    /// Publishes how a camera is doing, and why.
    pub fn camera_status(&self, camera: &CameraId, state: CameraState, why: Option<&str>) {
        let payload = json!({ "state": status_word(state), "why": why }).to_string();
        self.shared.post(self.shared.topics.camera_status(camera), ContentType::Json, payload);
    }

    /// Says what runs here.
    pub fn info(&self, info: &Info) {
        let payload = json!(info).to_string();
        self.shared.post(self.shared.topics.info(), ContentType::Json, payload);
    }

    /// How things stand with the broker, now and from now on.
    pub fn state(&self) -> watch::Receiver<BrokerState> {
        self.shared.state.subscribe()
    }

    /// Tells, whenever it is asked, whether the broker has been told of every state.
    pub fn told(&self) -> impl Fn() -> bool + use<> {
        let shared = Arc::clone(&self.shared);
        move || shared.board().all_delivered()
    }

    /// Delivers what is left for at most `grace`, says `offline` and disconnects. Gives the number
    /// of descriptions that the broker did not get.
    pub async fn shutdown(self, grace: Duration) -> usize {
        let outbox = Arc::clone(&self.shared.outbox);
        self.end(Stop { until: Instant::now() + grace, farewell: "offline" }).await;
        outbox.len()
    }

    /// Goes elsewhere: takes away what stands retained of this node, and disconnects.
    pub async fn leave(self) {
        let cameras = self.shared.cameras().clone();
        cameras.iter().for_each(|camera| self.erase(camera));
        self.clear([self.shared.topics.info()]);
        let (told, status) = (self.told(), self.shared.topics.status());
        self.end(Stop { until: Instant::now(), farewell: "" }).await;
        if !told() {
            tracing::warn!(
                "the broker that is left could not be reached: what it retains of this node stays there \
                 ({status} and others)"
            );
        }
    }

    async fn end(mut self, stop: Stop) {
        self.shared.stop.send_replace(Some(stop));
        if let Err(error) = (&mut self.task).await {
            tracing::error!("publishing ended by a fault: {error}");
        }
        self.tending.abort();
        let outbox = Arc::clone(&self.shared.outbox);
        // The next process need not deliver again what was acknowledged a moment ago.
        if let Err(error) = tokio::task::spawn_blocking(move || outbox.tend()).await {
            tracing::error!("the outbox ended by a fault: {error}");
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
        self.tending.abort();
    }
}

/// Keeps the outbox's disk up to date.
async fn tend(outbox: Arc<Outbox>) {
    loop {
        time::sleep(TEND).await;
        let outbox = Arc::clone(&outbox);
        if tokio::task::spawn_blocking(move || outbox.tend()).await.is_err() {
            return;
        }
    }
}
