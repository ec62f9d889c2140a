//! The status of the node and its cameras: published as retained messages, and published again when another
//! broker is configured. The one owner of the [`Publisher`].

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::Utc;
use tokio::sync::watch;

use super::{feed::Feed, retained_topics::RetainedTopics};
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    device::GpuInfo,
    event::ModelInfo,
    metrics::{CameraCounts, CameraReading, Metrics},
    plural::plural,
    publish::{
        self, BrokerState, CameraInfo, CameraProfile, Info, Load, Newest, Prepared, Publisher, ReloadInfo,
        outbox::{Outbox, Storage},
    },
    runtime_settings::{ENABLED, PROMPT, Value, Values},
};

/// Collects the status of the cameras, and publishes it once there is a publisher.
pub struct StatusReporter {
    metrics: Arc<Metrics>,
    outbox: Arc<Outbox>,
    feed: Arc<Feed>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// None before the model is loaded, after [`StatusReporter::close`], and while it is replaced.
    publisher: Option<Publisher>,
    model: Option<ModelInfo>,
    gpu: Option<GpuInfo>,
    cameras: BTreeMap<CameraId, Camera>,
    /// What people call each camera.
    profiles: BTreeMap<CameraId, CameraProfile>,
    /// How the node keeps up; `None` before it is known.
    load: Option<Load>,
    /// The run-time settings of each camera.
    settings: BTreeMap<CameraId, Values>,
    topics: RetainedTopics,
    /// The topics that were last said to be cleared.
    clearing: Vec<String>,
    /// The last reload; none yet.
    reload: Option<ReloadInfo>,
    /// Whether commands may change settings.
    accepts_settings: bool,
}

/// What is known of a camera but for what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CameraFacts {
    /// What people call it.
    pub name: String,
    /// Its state, as it is published.
    pub state: &'static str,
    /// The reason for the state, if there is one.
    pub why: Option<String>,
    /// Whether it is to be watched.
    pub enabled: bool,
    /// What is asked about its clips.
    pub prompt: String,
    /// The names of its questions.
    pub questions: Vec<String>,
    /// The names of its alerts.
    pub alerts: Vec<String>,
}

/// What is known of the node.
pub struct NodeFacts {
    /// The model, once it is loaded.
    pub model: Option<ModelInfo>,
    /// The name of the GPU, if the model runs on one.
    pub gpu: Option<String>,
    /// The last reload; none yet.
    pub reload: Option<ReloadInfo>,
    /// Whether commands may change settings.
    pub accepts_settings: bool,
}

/// The status of a camera.
struct Camera {
    state: CameraState,
    why: Option<String>,
    decoder: Option<String>,
    /// None for a camera that is disabled.
    status: Option<watch::Receiver<CameraStatus>>,
    /// Frames arrived and then stopped.
    lost: bool,
    /// What was counted before the camera was last started, by the configuration or a command.
    before: CameraCounts,
}

/// What happens to retained messages when the publisher is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldTopics {
    /// They stay: broker and topics are the same, but for example the password has changed.
    Keep,
    /// They are cleared: another broker or other topics are used from now on.
    Clear,
}

impl StatusReporter {
    /// A reporter without cameras and without a publisher.
    pub fn new(metrics: Arc<Metrics>, outbox: Arc<Outbox>, feed: Arc<Feed>, topics: RetainedTopics) -> Self {
        let inner = Inner {
            publisher: None,
            model: None,
            gpu: None,
            cameras: BTreeMap::new(),
            profiles: BTreeMap::new(),
            load: None,
            settings: BTreeMap::new(),
            topics,
            clearing: Vec::new(),
            reload: None,
            accepts_settings: false,
        };
        Self { metrics, outbox, feed, inner: Mutex::new(inner) }
    }

    /// Starts to publish, once the model is loaded and the cameras are started, so that their states are known.
    /// Snapshots of cameras that are not among `cameras` are removed from the outbox, those of `seen_anew` at the broker.
    pub fn open<'a>(
        &self,
        prepared: Prepared,
        (model, gpu): (ModelInfo, Option<GpuInfo>),
        cameras: impl IntoIterator<Item = &'a CameraId>,
        seen_anew: &[CameraId],
    ) {
        self.metrics.model(&model);
        if let Some(gpu) = &gpu {
            self.metrics.gpu(&model.device, gpu);
        }
        let cameras: BTreeSet<_> = cameras.into_iter().collect();
        self.outbox.keep_snapshots(|camera| cameras.contains(camera));
        let publisher = self.publisher(prepared, Vec::new());
        seen_anew.iter().for_each(|id| publisher.erase_snapshot(id));
        let mut inner = self.lock();
        (inner.model, inner.gpu) = (Some(model), gpu);
        inner.publish_all(publisher);
    }

    /// Sets what people and Home Assistant know of each camera. Cameras of which this is another thing than before are
    /// announced again. To be called before a camera is added.
    pub fn set_profiles(&self, profiles: BTreeMap<CameraId, CameraProfile>) {
        let mut inner = self.lock();
        inner.profiles = profiles;
        inner.cameras.keys().for_each(|id| inner.announce(id));
        if let Some(publisher) = &inner.publisher {
            let used = publisher.retained_topics();
            inner.topics.add(used);
        }
    }

    /// Adds a camera that is being watched, and whose status is `status`.
    pub fn watch(&self, id: &CameraId, status: watch::Receiver<CameraStatus>) {
        let camera = Camera {
            state: CameraState::Connecting,
            why: None,
            decoder: None,
            status: Some(status),
            lost: false,
            before: CameraCounts::default(),
        };
        self.lock().insert(id, camera);
    }

    /// Takes over a new status of a camera. The status changes with every frame.
    pub fn update(&self, id: &CameraId, status: &CameraStatus) {
        let state = status.state;
        let why = Some(status.why.as_str()).filter(|why| !why.is_empty());
        self.set_state(id, state, why);
        let mut inner = self.lock();
        let Some(camera) = inner.cameras.get_mut(id) else { return };
        if state == CameraState::Online && std::mem::take(&mut camera.lost) {
            self.metrics.camera_reconnected(id);
        } else if state != CameraState::Online && status.frames > 0 {
            camera.lost = true;
        }
        if status.decoder.is_some() && camera.decoder != status.decoder {
            camera.decoder.clone_from(&status.decoder);
            inner.publish_info();
        }
    }

    /// Publishes the state of a camera, with the reason, if it has changed.
    pub fn set_state(&self, id: &CameraId, state: CameraState, why: Option<&str>) {
        let mut inner = self.lock();
        if let Some(camera) = inner.cameras.get_mut(id)
            && (camera.state, camera.why.as_deref()) != (state, why)
        {
            (camera.state, camera.why) = (state, why.map(Into::into));
            inner.publish_state(id);
        }
    }

    /// The state of a camera, with the reason. None: there is no such camera.
    pub fn state(&self, id: &CameraId) -> Option<(CameraState, Option<String>)> {
        let inner = self.lock();
        inner.cameras.get(id).map(|camera| (camera.state, camera.why.clone()))
    }

    /// Marks a camera as disabled by configuration or command.
    pub fn disable(&self, id: &CameraId) {
        let off = Camera {
            state: CameraState::Disabled,
            why: None,
            decoder: None,
            status: None,
            lost: false,
            before: CameraCounts::default(),
        };
        self.lock().insert(id, off);
    }

    /// Publishes how the node keeps up, if that has changed.
    pub fn set_load(&self, load: Load) {
        let mut inner = self.lock();
        if inner.load.replace(load) != Some(load) {
            inner.publish_load();
        }
    }

    /// Publishes the settings of a camera, if they have changed.
    pub fn set_settings(&self, id: &CameraId, values: Values) {
        let mut inner = self.lock();
        if inner.settings.insert(id.clone(), values.clone()).as_ref() != Some(&values) {
            inner.publish_settings(id);
        }
    }

    /// Sets whether commands may change settings.
    pub fn set_accepts_settings(&self, accepts: bool) {
        self.lock().accepts_settings = accepts;
    }

    /// What is known of the cameras but for what they show.
    pub fn camera_facts(&self) -> BTreeMap<CameraId, CameraFacts> {
        let inner = self.lock();
        let facts = |(id, camera): (&CameraId, &Camera)| {
            let profile = inner.profile(id);
            let value = |name| inner.settings.get(id).and_then(|values| values.get(name));
            let facts = CameraFacts {
                name: profile.name,
                state: publish::state_name(camera.state),
                why: camera.why.clone(),
                enabled: value(ENABLED) != Some(&Value::Switch(false)),
                prompt: value(PROMPT).map(ToString::to_string).unwrap_or_default(),
                questions: profile.questions.into_keys().collect(),
                alerts: profile.alerts.into_keys().collect(),
            };
            (id.clone(), facts)
        };
        inner.cameras.iter().map(facts).collect()
    }

    /// What is known of the node.
    pub fn node_facts(&self) -> NodeFacts {
        let inner = self.lock();
        NodeFacts {
            model: inner.model.clone(),
            gpu: inner.gpu.as_ref().map(|gpu| gpu.name.clone()),
            reload: inner.reload.clone(),
            accepts_settings: inner.accepts_settings,
        }
    }

    /// Removes the snapshot of a camera, here and at the broker.
    pub fn forget_snapshot(&self, id: &CameraId) {
        self.outbox.keep_snapshots(|camera| camera != id);
        self.feed.forget_snapshot(id);
        if let Some(publisher) = &self.lock().publisher {
            publisher.erase_snapshot(id);
        }
    }

    /// Removes a camera, here and at the broker.
    pub fn remove(&self, id: &CameraId) {
        self.outbox.keep_snapshots(|camera| camera != id);
        self.feed.forget(id);
        let mut inner = self.lock();
        inner.cameras.remove(id);
        inner.settings.remove(id);
        inner.publish_info();
        if let Some(publisher) = &inner.publisher {
            publisher.erase(id);
        }
    }

    /// Replaces the publisher by one with other settings. The outbox keeps its content.
    /// The snapshots of `seen_anew` are removed at the broker.
    pub async fn reconnect(&self, prepared: Prepared, old_topics: OldTopics, seen_anew: &[CameraId]) {
        let old = self.lock().publisher.take();
        let newest = old.as_ref().map_or_else(Vec::new, Publisher::newest);
        match (old, old_topics) {
            (Some(old), OldTopics::Clear) => old.leave().await,
            (Some(old), OldTopics::Keep) => drop(old.shutdown(Duration::ZERO).await),
            (None, _) => {}
        }
        let publisher = self.publisher(prepared, newest);
        seen_anew.iter().for_each(|id| publisher.erase_snapshot(id));
        self.lock().publish_all(publisher);
    }

    /// Delivers what is left, for at most `grace`. Returns the number of descriptions that were not delivered, and
    /// whether the broker has all that is retained.
    pub async fn close(&self, grace: Duration) -> (usize, bool) {
        let publisher = self.lock().publisher.take();
        let Some(publisher) = publisher else { return (self.outbox.len(), false) };
        let (all_acked, used) = (publisher.all_states_acked(), publisher.retained_topics());
        let left = publisher.shutdown(grace).await;
        if all_acked() {
            self.lock().topics.replace(used);
        }
        (left, all_acked())
    }

    /// Reports the result of reading the configuration again; an error is why it is not active.
    pub fn reloaded(&self, result: Result<(), String>) {
        self.metrics.reloaded(result.is_ok());
        let mut inner = self.lock();
        let first_line = |why: String| why.lines().next().unwrap_or_default().to_owned();
        inner.reload = Some(ReloadInfo { time: Utc::now(), error: result.err().map(first_line) });
        inner.publish_info();
    }

    /// How the cameras, the broker and the last reload are doing, in one line for people.
    pub fn summary(&self) -> String {
        let (connected, waiting) = (self.connected(), self.outbox.len());
        let inner = self.lock();
        let watched = || inner.cameras.values().filter(|camera| camera.status.is_some());
        let online = watched().filter(|camera| camera.state == CameraState::Online).count();
        let mut text = format!("{online} of {} cameras online", watched().count());
        text += if connected { ", broker connected" } else { ", broker not connected" };
        if waiting > 0 {
            text += &format!(", it has still to take {}", plural(waiting, "description"));
        }
        if let Storage::Memory { .. } = self.outbox.status().storage {
            text += "; descriptions are kept in memory only";
        }
        if inner.reload.as_ref().is_some_and(|reload| reload.error.is_some()) {
            text += "; the last reload was rejected: see the log";
        }
        text
    }

    /// Whether the broker is connected.
    pub fn connected(&self) -> bool {
        let inner = self.lock();
        inner.publisher.as_ref().is_some_and(|p| *p.state().borrow() == BrokerState::Online)
    }

    /// The state and counters of the cameras, for the metrics.
    pub fn readings(&self) -> BTreeMap<CameraId, CameraReading> {
        self.lock().cameras.iter().map(|(id, camera)| (id.clone(), camera.reading())).collect()
    }

    /// Makes a publisher that does not connect yet, and counts its reconnects.
    fn publisher(&self, prepared: Prepared, newest: Vec<Newest>) -> Publisher {
        let publisher = Publisher::new(prepared, Arc::clone(&self.outbox), newest);
        let (mut state, metrics) = (publisher.state(), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let online = |state: &BrokerState| *state == BrokerState::Online;
            // The task ends with the publisher, which owns the sender.
            if state.wait_for(online).await.is_err() {
                return;
            }
            while state.wait_for(|state| !online(state)).await.is_ok() && state.wait_for(online).await.is_ok()
            {
                metrics.broker_reconnected();
            }
        });
        publisher
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Hands everything to a new publisher, which then connects. Also clears topics that are no longer used: an
    /// earlier attempt may not have reached the broker.
    fn publish_all(&mut self, publisher: Publisher) {
        self.cameras.keys().for_each(|id| publisher.announce(id, self.profile(id)));
        let used = publisher.retained_topics();
        let unused = self.topics.unused(&used);
        if let Some(topic) = unused.first().filter(|_| unused != self.clearing) {
            tracing::info!("clearing {} no longer used, such as {topic}", plural(unused.len(), "topic"));
        }
        self.clearing.clone_from(&unused);
        publisher.clear(unused);
        self.topics.add(used);
        self.publisher = Some(publisher);
        self.publish_info();
        self.publish_load();
        for id in self.cameras.keys() {
            self.publish_state(id);
            self.publish_settings(id);
        }
        if let Some(publisher) = &mut self.publisher {
            publisher.connect();
        }
    }

    fn insert(&mut self, id: &CameraId, mut camera: Camera) {
        camera.before = self.cameras.get(id).map_or_else(CameraCounts::default, Camera::counts);
        self.cameras.insert(id.clone(), camera);
        self.publish_state(id);
        self.publish_info();
        self.announce(id);
        if let Some(publisher) = &self.publisher {
            self.topics.add(publisher.retained_topics());
        }
    }

    fn announce(&self, id: &CameraId) {
        if let Some(publisher) = &self.publisher {
            publisher.announce(id, self.profile(id));
        }
    }

    fn profile(&self, id: &CameraId) -> CameraProfile {
        self.profiles.get(id).cloned().unwrap_or_else(|| id.as_str().into())
    }

    fn publish_settings(&self, id: &CameraId) {
        if let (Some(publisher), Some(values)) = (&self.publisher, self.settings.get(id)) {
            publisher.camera_settings(id, values);
        }
    }

    fn publish_state(&self, id: &CameraId) {
        if let (Some(publisher), Some(camera)) = (&self.publisher, self.cameras.get(id)) {
            publisher.camera_status(id, camera.state, camera.why.as_deref());
        }
    }

    fn publish_load(&self) {
        if let (Some(publisher), Some(load)) = (&self.publisher, &self.load) {
            publisher.load(load);
        }
    }

    fn publish_info(&self) {
        let (Some(publisher), Some(model)) = (&self.publisher, &self.model) else { return };
        let watched = self.cameras.iter().filter(|(_, camera)| camera.status.is_some());
        let cameras = watched
            .map(|(id, camera)| (id.clone(), CameraInfo { decoder: camera.decoder.clone() }))
            .collect();
        let version = env!("CARGO_PKG_VERSION").into();
        publisher.info(&Info {
            version,
            model: model.clone(),
            gpu: self.gpu.clone(),
            cameras,
            reload: self.reload.clone(),
        });
    }
}

impl Camera {
    fn reading(&self) -> CameraReading {
        CameraReading { state: self.state, counts: self.counts() }
    }

    /// What was counted since the daemon has known the camera.
    fn counts(&self) -> CameraCounts {
        let mut counts = self.before;
        if let Some(status) = &self.status {
            let CameraStatus { frames, decode_errors, too_few, .. } = *status.borrow();
            counts.frames += frames;
            counts.decode_errors += decode_errors;
            counts.too_few += too_few;
        }
        counts
    }
}
