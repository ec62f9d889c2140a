//! The model's thread: loads the model, warms it up, then describes the clips of the queue until that is closed
//! and empty. What is described is delivered on a thread beside it, so that the model need not wait for the disk.

use std::{
    num::NonZeroUsize,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};
use tokio::{sync::oneshot, time};

use super::{delivery::deliver, deps::WorkerDeps, instrumented::InstrumentedDescriber};
use crate::{
    camera::CameraId,
    config::{self, Config},
    describe::{
        self, Describer, FileSampler,
        worker::{self, Batching},
    },
    device::GpuInfo,
    event::ModelInfo,
    events::EventBuilder,
    lifecycle::Phase,
    plural::plural,
    queue::ClipQueue,
    resize::FrameScaling,
};

/// At the shutdown: how long waiting clips may still be described, and how long the batch after that may take.
/// The rest of the service manager's limit (`TimeoutStopSec=` of the unit) is for cameras and broker.
const FLUSH_LIMIT: Duration = Duration::from_secs(15);
const LAST_BATCH_LIMIT: Duration = Duration::from_secs(15);

/// Described clips that wait for their delivery. Behind a disk that is slower than the model, the model waits.
const DELIVERIES: usize = 4;

/// What is known of a model that is loaded and warm.
pub struct LoadedModel {
    /// What events state about it.
    pub info: ModelInfo,
    /// The GPU that it runs on, if it does.
    pub gpu: Option<GpuInfo>,
    /// How frames are scaled down before the model gets them, if it wants that.
    pub frame_scaling: Option<FrameScaling>,
    /// Which frames are taken of a whole file, if the model has a rule for that.
    pub file_sampler: Option<FileSampler>,
    /// The longest question and answer together, in tokens, if that is known.
    pub context_length: Option<usize>,
}

/// The running thread.
pub struct ModelWorker {
    thread: thread::JoinHandle<()>,
    /// Receives the model once it is loaded and warm. Closed without a value when that fails.
    pub loaded: oneshot::Receiver<LoadedModel>,
    /// Receives the result of the thread when it ends.
    pub ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl ModelWorker {
    /// Starts the thread, which loads its model with `load`.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn start(
        load: impl FnOnce(&config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> + Send + 'static,
        config: &Config,
        deps: WorkerDeps,
    ) -> anyhow::Result<Self> {
        let batching = Batching {
            max_batch: NonZeroUsize::new(config.model.max_batch).context("max_batch is 0")?,
            linger: config.model.linger,
            client_share: config.http.api_share,
        };
        let (settings, node) = (config.model.clone(), config.node.id.clone());
        let cameras: Vec<CameraId> = config.cameras.keys().cloned().collect();
        let (send_loaded, loaded) = oneshot::channel();
        let (send_end, ended) = oneshot::channel();
        let work = move || {
            let _guard = CloseOnDrop(Arc::clone(&deps.queue));
            let on_loaded = |model| drop(send_loaded.send(model));
            let result = load(&settings)
                .and_then(|model| describe(model, on_loaded, batching, (&node, &cameras), &deps));
            let _ = send_end.send(result);
        };
        let thread = thread::Builder::new().name("model".into()).spawn(work)?;
        Ok(Self { thread, loaded, ended })
    }

    /// Closes the queue and waits until the thread has described what is in it. What takes too long is dropped,
    /// with a warning: first the clips that wait, then the batch that is being described.
    ///
    /// # Errors
    /// When the thread panicked.
    pub async fn finish(self, queue: &ClipQueue) -> anyhow::Result<()> {
        queue.close();
        let mut ending = tokio::task::spawn_blocking(move || self.thread.join());
        let mut joined = time::timeout(FLUSH_LIMIT, &mut ending).await;
        // Clips remain if the thread has ended early or is too slow.
        let left = queue.discard();
        if left > 0 {
            tracing::warn!("dropped before the model saw them: {}", plural(left, "clip"));
        }
        if joined.is_err() {
            joined = time::timeout(LAST_BATCH_LIMIT, ending).await;
        }
        match joined {
            Ok(joined) => joined?.map_err(|panic| anyhow!("the model's thread panicked: {panic:?}")),
            Err(_) => {
                tracing::warn!("the clips that the model is describing are dropped: it takes too long");
                Ok(())
            }
        }
    }
}

/// Closes the queue when the model's thread ends, for whatever reason: cameras that block on a full queue must not
/// wait for a model that is gone.
struct CloseOnDrop(Arc<ClipQueue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Warms up the model, then describes clips until the queue is closed and empty.
fn describe(
    mut model: Box<dyn Describer>,
    on_loaded: impl FnOnce(LoadedModel),
    batching: Batching,
    (node, cameras): (&str, &[CameraId]),
    deps: &WorkerDeps,
) -> anyhow::Result<()> {
    deps.lifecycle.monitor(model.heartbeat());
    deps.lifecycle.enter(Phase::WarmingUp);
    describe::warm_up(&mut *model).context("the model does not work")?;
    let mut events = EventBuilder::new(node, model.model());
    for (camera, alerts) in deps.outbox.alerts().iter().filter(|(camera, _)| cameras.contains(camera)) {
        match serde_json::from_slice(alerts) {
            Ok(alerts) => events.resume(camera.clone(), alerts),
            Err(error) => {
                tracing::error!(%camera, "its alerts begin anew: what is stored of them is damaged: {error}")
            }
        }
    }
    let loaded = LoadedModel {
        info: model.model(),
        gpu: model.gpu(),
        frame_scaling: model.frame_scaling(),
        file_sampler: model.file_sampler(),
        context_length: model.context_length(),
    };
    let mut model = InstrumentedDescriber::new(model, loaded.info.device.clone(), &deps.metrics);
    on_loaded(loaded);
    let (handed, outcomes) = mpsc::sync_channel(DELIVERIES);
    thread::scope(|scope| {
        scope.spawn(move || outcomes.iter().for_each(|outcome| deliver(outcome, &mut events, deps)));
        // Without a delivery, which can only panic, there is nothing to work for: the scope panics, too.
        let hand_on = |outcome| {
            if handed.send(outcome).is_err() {
                deps.queue.close();
            }
        };
        let ended = worker::run(&mut model, &deps.queue, batching, hand_on);
        drop(handed);
        ended.context("the model stopped")
    })
}
