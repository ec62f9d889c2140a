//! What is told about the node and its cameras: retained on the broker, and said again to the next
//! broker when the settings change.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::former::Former;
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    device::Gpu,
    event::ModelInfo,
    metrics::{CameraReading, Metrics},
    publish::{BrokerState, CameraInfo, Info, Newest, Prepared, Publisher, outbox::Outbox},
};

/// See above.
pub struct Board {
    metrics: Arc<Metrics>,
    outbox: Arc<Outbox>,
    inner: Mutex<Inner>,
}

struct Inner {
    /// None before the model is there, after the end, and while it is replaced.
    publisher: Option<Publisher>,
    model: Option<ModelInfo>,
    gpu: Option<Gpu>,
    cameras: BTreeMap<CameraId, Camera>,
    /// Of each: whether it is to be watched, and what is asked.
    settings: BTreeMap<CameraId, (bool, String)>,
    former: Former,
}

/// What is known of a camera.
struct Camera {
    state: CameraState,
    why: Option<String>,
    decoder: Option<String>,
    /// None: it is switched off.
    status: Option<watch::Receiver<CameraStatus>>,
    /// Pictures came, and then no more.
    lost: bool,
}

/// Moving to another broker, or to other topics of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Same broker, same topics: another password or certificate, say.
    Stay,
    /// What was retained at the old place is taken away.
    Leave,
}

impl Board {
    /// Nothing to tell yet, and nobody to tell it to.
    pub fn new(metrics: Arc<Metrics>, outbox: Arc<Outbox>, former: Former) -> Self {
        let inner = Inner {
            publisher: None,
            model: None,
            gpu: None,
            cameras: BTreeMap::new(),
            settings: BTreeMap::new(),
            former,
        };
        Self { metrics, outbox, inner: Mutex::new(inner) }
    }

    /// From now on there is a model, and somebody to tell; also that there are no cameras any more but
    /// these.
    pub fn open<'a>(
        &self,
        prepared: Prepared,
        model: ModelInfo,
        gpu: Option<Gpu>,
        cameras: impl IntoIterator<Item = &'a CameraId>,
    ) {
        self.metrics.model(&model);
        if let Some(gpu) = &gpu {
            self.metrics.gpu(&model.device, gpu);
        }
        let publisher = self.connect(prepared, Vec::new());
        let cameras: BTreeSet<_> = cameras.into_iter().collect();
        self.outbox.keep_snapshots(|camera| cameras.contains(camera));
        let mut inner = self.lock();
        (inner.model, inner.gpu) = (Some(model), gpu);
        inner.tell_all(publisher);
    }

    /// A camera is being watched, and `status` is how it does.
    pub fn watch(&self, id: &CameraId, status: watch::Receiver<CameraStatus>) {
        let camera = Camera {
            state: CameraState::Connecting,
            why: None,
            decoder: None,
            status: Some(status),
            lost: false,
        };
        self.lock().insert(id, camera);
    }

    /// A camera's status has changed; it also does with every frame.
    pub fn seen(&self, id: &CameraId, status: &CameraStatus) {
        let state = status.state;
        let why = Some(status.why.as_str()).filter(|why| !why.is_empty());
        self.say(id, state, why);
        let mut inner = self.lock();
        let Some(camera) = inner.cameras.get_mut(id) else { return };
        if state == CameraState::Online && std::mem::take(&mut camera.lost) {
            self.metrics.camera_reconnected(id);
        } else if state != CameraState::Online && status.frames > 0 {
            camera.lost = true;
        }
        if status.decoder.is_some() && camera.decoder != status.decoder {
            camera.decoder.clone_from(&status.decoder);
            inner.tell_info();
        }
    }

    /// Says how a camera is, unless that is known.
    pub fn say(&self, id: &CameraId, state: CameraState, why: Option<&str>) {
        let mut inner = self.lock();
        if let Some(camera) = inner.cameras.get_mut(id)
            && (camera.state, camera.why.as_deref()) != (state, why)
        {
            (camera.state, camera.why) = (state, why.map(Into::into));
            inner.tell(id);
        }
    }

    /// A camera is switched off by its owner.
    pub fn disable(&self, id: &CameraId) {
        let off =
            Camera { state: CameraState::Disabled, why: None, decoder: None, status: None, lost: false };
        self.lock().insert(id, off);
    }

    /// What is set of a camera now, by the configuration or by a subscriber.
    pub fn set(&self, id: &CameraId, enabled: bool, prompt: &str) {
        let (mut inner, new) = (self.lock(), (enabled, prompt.to_owned()));
        if inner.settings.insert(id.clone(), new.clone()).as_ref() != Some(&new) {
            inner.tell_settings(id);
        }
    }

    /// There is no such camera any more.
    pub fn remove(&self, id: &CameraId) {
        self.outbox.keep_snapshots(|camera| camera != id);
        let mut inner = self.lock();
        inner.cameras.remove(id);
        inner.settings.remove(id);
        inner.tell_info();
        if let Some(publisher) = &inner.publisher {
            publisher.erase(id);
        }
    }

    /// Publishes by other settings. What waits in the outbox goes on waiting there meanwhile.
    pub async fn reconnect(&self, prepared: Prepared, going: Move) {
        let old = self.lock().publisher.take();
        let newest = old.as_ref().map_or_else(Vec::new, Publisher::newest);
        match (old, going) {
            (Some(old), Move::Leave) => old.leave().await,
            (Some(old), Move::Stay) => drop(old.shutdown(Duration::ZERO).await),
            (None, _) => {}
        }
        let publisher = self.connect(prepared, newest);
        self.lock().tell_all(publisher);
    }

    /// Delivers what is left for at most `grace`. Gives the number of descriptions that the broker
    /// did not get.
    pub async fn close(&self, grace: Duration) -> usize {
        let publisher = self.lock().publisher.take();
        let Some(publisher) = publisher else { return self.outbox.len() };
        let (told, used) = (publisher.told(), publisher.retained());
        let left = publisher.shutdown(grace).await;
        if told() {
            self.lock().former.forget_others(used);
        }
        left
    }

    /// Whether the broker is connected.
    pub fn connected(&self) -> bool {
        let inner = self.lock();
        inner.publisher.as_ref().is_some_and(|p| *p.state().borrow() == BrokerState::Online)
    }

    /// How the cameras are.
    pub fn readings(&self) -> BTreeMap<CameraId, CameraReading> {
        self.lock().cameras.iter().map(|(id, camera)| (id.clone(), camera.reading())).collect()
    }

    /// Starts a publisher, and counts how often it has to connect again.
    fn connect(&self, prepared: Prepared, newest: Vec<Newest>) -> Publisher {
        let publisher = Publisher::with(prepared, Arc::clone(&self.outbox), newest);
        let (mut state, metrics) = (publisher.state(), Arc::clone(&self.metrics));
        tokio::spawn(async move {
            let online = |state: &BrokerState| *state == BrokerState::Online;
            // Ends with the publisher, which holds the other side.
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
    /// Tells a new publisher everything, also what is in use no more: whatever was to be erased before
    /// may not have got there.
    fn tell_all(&mut self, publisher: Publisher) {
        self.cameras.keys().for_each(|id| publisher.announce(id));
        let used = publisher.retained();
        let out_of_use = self.former.without(&used);
        if let Some(topic) = out_of_use.first() {
            let count = out_of_use.len();
            tracing::info!(
                "nothing is retained any more on {count} topics that were used before, such as {topic}"
            );
        }
        publisher.clear(out_of_use);
        self.former.tell(used);
        self.publisher = Some(publisher);
        self.tell_info();
        for id in self.cameras.keys() {
            self.tell(id);
            self.tell_settings(id);
        }
    }

    fn insert(&mut self, id: &CameraId, camera: Camera) {
        self.cameras.insert(id.clone(), camera);
        self.tell(id);
        self.tell_info();
        if let Some(publisher) = &self.publisher {
            publisher.announce(id);
            self.former.tell(publisher.retained());
        }
    }

    fn tell_settings(&self, id: &CameraId) {
        if let (Some(publisher), Some((enabled, prompt))) = (&self.publisher, self.settings.get(id)) {
            publisher.camera_settings(id, *enabled, prompt);
        }
    }

    fn tell(&self, id: &CameraId) {
        if let (Some(publisher), Some(camera)) = (&self.publisher, self.cameras.get(id)) {
            publisher.camera_status(id, camera.state, camera.why.as_deref());
        }
    }

    fn tell_info(&self) {
        let (Some(publisher), Some(model)) = (&self.publisher, &self.model) else { return };
        let watched = self.cameras.iter().filter(|(_, camera)| camera.status.is_some());
        let cameras = watched
            .map(|(id, camera)| (id.clone(), CameraInfo { decoder: camera.decoder.clone() }))
            .collect();
        let version = env!("CARGO_PKG_VERSION").into();
        publisher.info(&Info { version, model: model.clone(), gpu: self.gpu.clone(), cameras });
    }
}

impl Camera {
    fn reading(&self) -> CameraReading {
        let state = self.state;
        let Some(status) = &self.status else {
            return CameraReading { state, frames: 0, decode_errors: 0, too_few: 0 };
        };
        let CameraStatus { frames, decode_errors, too_few, .. } = *status.borrow();
        CameraReading { state, frames, decode_errors, too_few }
    }
}
