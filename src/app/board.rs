//! What is told about the node and its cameras: retained on the broker, and said again to the next
//! broker when the settings change.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::former::Former;
use crate::{
    capture::{CameraStatus, State},
    device::Gpu,
    event::ModelInfo,
    frame::CameraId,
    metrics::{self, CameraReading, Metrics},
    publish::{BrokerState, CameraInfo, CameraState, Info, Prepared, Publisher, outbox::Outbox},
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
        cameras: impl IntoIterator<Item = &'a CameraId> + Clone,
    ) {
        self.metrics.model(&model);
        if let Some(gpu) = &gpu {
            self.metrics.gpu(&model.device, gpu);
        }
        let publisher = self.connect(prepared);
        let mut inner = self.lock();
        (inner.model, inner.gpu) = (Some(model), gpu);
        for id in inner.former.without(cameras.clone()) {
            self.forget_snapshot(&id);
            publisher.erase(&id);
        }
        inner.former.tell(cameras);
        inner.publisher = Some(publisher);
        inner.tell_all();
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
        let mut inner = self.lock();
        inner.cameras.insert(id.clone(), camera);
        inner.former.tell([id]);
        inner.tell(id);
        inner.tell_info();
        if let Some(publisher) = &inner.publisher {
            publisher.announce(id);
        }
    }

    /// A camera's status has changed; it also does with every frame.
    pub fn seen(&self, id: &CameraId, status: &CameraStatus) {
        let state = match status.state {
            State::Connecting => CameraState::Connecting,
            State::Online => CameraState::Online,
            State::Offline | State::Unauthorised => CameraState::Offline,
        };
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
        let mut inner = self.lock();
        inner.cameras.insert(id.clone(), off);
        inner.former.tell([id]);
        inner.tell(id);
        inner.tell_info();
        if let Some(publisher) = &inner.publisher {
            publisher.announce(id);
        }
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
        self.forget_snapshot(id);
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
        match (old, going) {
            (Some(old), Move::Leave) => old.leave().await,
            (Some(old), Move::Stay) => drop(old.shutdown(Duration::ZERO).await),
            (None, _) => {}
        }
        let publisher = self.connect(prepared);
        let mut inner = self.lock();
        // What was to be erased at the connection before may not have got there.
        inner.former.without(inner.cameras.keys()).iter().for_each(|id| publisher.erase(id));
        inner.publisher = Some(publisher);
        inner.tell_all();
    }

    /// Delivers what is left for at most `grace`. Gives the number of descriptions that the broker
    /// did not get.
    pub async fn close(&self, grace: Duration) -> usize {
        let publisher = self.lock().publisher.take();
        let Some(publisher) = publisher else { return self.outbox.len() };
        let told = publisher.told();
        let left = publisher.shutdown(grace).await;
        if told() {
            let Inner { former, cameras, .. } = &mut *self.lock();
            former.forget_others(cameras.keys());
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
    fn connect(&self, prepared: Prepared) -> Publisher {
        let publisher = Publisher::with(prepared, Arc::clone(&self.outbox));
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

    /// Nobody needs a picture of a camera that is gone.
    fn forget_snapshot(&self, id: &CameraId) {
        if let Some(snapshot) = self.outbox.snapshot(id) {
            self.outbox.forget_snapshot(snapshot.id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell_all(&self) {
        self.tell_info();
        for id in self.cameras.keys() {
            self.tell(id);
            self.tell_settings(id);
            if let Some(publisher) = &self.publisher {
                publisher.announce(id);
            }
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
        let Some(status) = &self.status else {
            return CameraReading { state: metrics::CameraState::Disabled, frames: 0, decode_errors: 0 };
        };
        let status = status.borrow();
        // What was said last may be more than its status knows: that it has ended.
        let state = match (self.state, status.state) {
            (CameraState::Offline, State::Unauthorised) => metrics::CameraState::Unauthorised,
            (CameraState::Offline, _) => metrics::CameraState::Offline,
            (CameraState::Online, _) => metrics::CameraState::Online,
            (CameraState::Connecting, _) => metrics::CameraState::Connecting,
            (CameraState::Disabled, _) => metrics::CameraState::Disabled,
        };
        CameraReading { state, frames: status.frames, decode_errors: status.decode_errors }
    }
}
