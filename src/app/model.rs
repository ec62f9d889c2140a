//! The model's thread: loads the model, tries it out, then describes what the queue holds and
//! fills the outbox, until the queue is closed.

use std::{num::NonZeroUsize, sync::Arc, thread, time::Duration};

use anyhow::{Context, anyhow};
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use tokio::{sync::oneshot, time};

use crate::{
    clip::Clip,
    config::{self, Config},
    describe::{
        DescribeError, Describer, Description,
        worker::{self, Batching, Outcome},
    },
    device::{DeviceMemory, GpuInfo},
    event::{EventKind, ModelInfo},
    events::EventBuilder,
    frame::{Frame, Original},
    heartbeat::Heartbeat,
    lifecycle::{Lifecycle, Phase},
    metrics::{self, Metrics},
    publish::outbox::{Message, Outbox},
    queue::ClipQueue,
    resize::FrameScaling,
};

/// At the end: how long clips that wait may still be described, and how long the batch under way after
/// them may take. What is left of the time until the service manager loses its patience
/// (`TimeoutStopSec=` of the unit) is for cameras and broker.
const FLUSH: Duration = Duration::from_secs(15);
const LAST_BATCH: Duration = Duration::from_secs(15);

/// JPEG quality of snapshots: artefacts are invisible, and half the bytes of 95.
const SNAPSHOT_QUALITY: u8 = 85;

/// What the thread works with.
#[derive(Clone)]
pub struct Bench {
    /// Where clips come from.
    pub queue: Arc<ClipQueue>,
    /// Where descriptions go.
    pub outbox: Arc<Outbox>,
    /// Where is counted what it does.
    pub metrics: Arc<Metrics>,
    /// Who looks after it.
    pub lifecycle: Arc<Lifecycle>,
}

/// A model that can describe.
pub struct Warm {
    /// What events say of it.
    pub info: ModelInfo,
    /// What it computes on, unless that is the CPU.
    pub gpu: Option<GpuInfo>,
    /// How it scales frames down first.
    pub frame_scaling: Option<FrameScaling>,
}

/// The running thread.
pub struct Model {
    thread: thread::JoinHandle<()>,
    /// Told once the model can describe; dropped untold when it cannot.
    pub warm: oneshot::Receiver<Warm>,
    /// Told at the end of the thread: the fault that ended it, if one did.
    pub ended: oneshot::Receiver<anyhow::Result<()>>,
}

impl Model {
    /// Starts the thread, which gets its model from `load`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(
        load: impl FnOnce(&config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> + Send + 'static,
        config: &Config,
        bench: Bench,
    ) -> anyhow::Result<Self> {
        let batching = Batching {
            max_batch: NonZeroUsize::new(config.model.max_batch).context("max_batch is 0")?,
            linger: config.model.linger,
        };
        let (settings, node) = (config.model.clone(), config.node.id.clone());
        let (tell_warm, warm) = oneshot::channel();
        let (tell_end, ended) = oneshot::channel();
        let work = move || {
            let _closing = Closing(Arc::clone(&bench.queue));
            let ready = |warm| drop(tell_warm.send(warm));
            let result = load(&settings).and_then(|model| describe(model, ready, batching, &node, &bench));
            let _ = tell_end.send(result);
        };
        let thread = thread::Builder::new().name("model".into()).spawn(work)?;
        Ok(Self { thread, warm, ended })
    }

    /// Closes the queue and waits for the thread to describe what is in it. What takes too long is given
    /// up, and said: clips that wait, then the batch under way.
    ///
    /// # Errors
    /// When the thread panicked.
    pub async fn finish(self, queue: &ClipQueue) -> anyhow::Result<()> {
        queue.close();
        let mut ending = tokio::task::spawn_blocking(move || self.thread.join());
        let mut joined = time::timeout(FLUSH, &mut ending).await;
        // What a model that is gone has left, or one that is too slow.
        let left = queue.discard();
        if left > 0 {
            tracing::warn!("{left} clips that waited for the model are given up");
        }
        if joined.is_err() {
            joined = time::timeout(LAST_BATCH, ending).await;
        }
        match joined {
            Ok(joined) => joined?.map_err(|fault| anyhow!("the model's thread ended by a fault: {fault:?}")),
            Err(_) => {
                tracing::warn!("the clips that the model is describing are given up: it takes too long");
                Ok(())
            }
        }
    }
}

/// Closes the queue whichever way the model's thread ends: cameras that block on a full one must not
/// wait for a model that is gone.
struct Closing(Arc<ClipQueue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

fn describe(
    mut model: Box<dyn Describer>,
    ready: impl FnOnce(Warm),
    batching: Batching,
    node: &str,
    bench: &Bench,
) -> anyhow::Result<()> {
    bench.lifecycle.monitor(model.heartbeat());
    bench.lifecycle.enter(Phase::WarmingUp);
    worker::warm_up(&mut *model).context("the model does not work")?;
    let mut events = EventBuilder::new(node, model.model());
    let warm = Warm { info: model.model(), gpu: model.gpu(), frame_scaling: model.frame_scaling() };
    let mut model = Counted { model, device: warm.info.device.clone(), metrics: &bench.metrics };
    model.count_memory();
    ready(warm);
    worker::run(&mut model, &bench.queue, batching, |outcome| deliver(outcome, &mut events, bench))
        .context("the model stopped")
}

/// A model whose work is counted.
struct Counted<'a> {
    model: Box<dyn Describer>,
    device: String,
    metrics: &'a Metrics,
}

impl Counted<'_> {
    fn count_memory(&self) {
        if let Some(DeviceMemory { used, total }) = self.model.device_memory() {
            self.metrics.device_memory(&self.device, used, total);
        }
    }
}

impl Describer for Counted<'_> {
    fn model(&self) -> ModelInfo {
        self.model.model()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        self.model.heartbeat()
    }

    fn max_clips(&self, frames: usize) -> Option<NonZeroUsize> {
        self.model.max_clips(frames)
    }

    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
        self.metrics.batch(clips.len());
        let described = self.model.describe(clips).inspect_err(|error| {
            if matches!(error, DescribeError::OutOfMemory(_)) {
                self.metrics.out_of_memory(&self.device);
            }
        })?;
        // The stages' times are those of the batch, whichever clip tells them.
        if let Some(Ok(description)) = described.iter().find(|it| it.is_ok()) {
            let stages = description.stages;
            self.metrics.stage(metrics::Stage::Preprocess, stages.preprocess);
            self.metrics.stage(metrics::Stage::Vision, stages.vision);
            self.metrics.stage(metrics::Stage::Prefill, stages.prefill);
            self.metrics.stage(metrics::Stage::Decode, stages.decode);
        }
        self.count_memory();
        Ok(described)
    }
}

/// Puts what was described into the outbox.
fn deliver(outcome: Outcome, events: &mut EventBuilder, bench: &Bench) {
    let (clip, event) = events.build(outcome);
    let camera = &clip.camera;
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            bench.metrics.dropped(camera, metrics::Reason::Undescribed);
            return tracing::warn!(%camera, clip = clip.seq, "a clip was not described: {error}");
        }
    };
    bench.metrics.described(&event);
    match event.kind {
        EventKind::Description => {
            tracing::info!(%camera, clip = clip.seq, ms = event.timing_ms.total, "{}", event.description);
        }
        EventKind::Unchanged => tracing::debug!(%camera, clip = clip.seq, "unchanged"),
    }
    if event.dropped.clips > 0 {
        tracing::warn!(%camera, "{} older clips were dropped: the model is slower than the cameras", event.dropped.clips);
    }
    // Of what was not described nobody needs a picture: the last one still shows it.
    let frame = clip.frames.iter().find(|frame| frame.has_original());
    let frame = frame.or_else(|| clip.frames.get(clip.frames.len() / 2));
    let snapshot = frame.filter(|_| event.kind == EventKind::Description).and_then(|frame| {
        jpeg(frame).inspect_err(|error| tracing::warn!(%camera, "no snapshot: {error}")).ok()
    });
    match Message::new(&event, snapshot) {
        Ok(message) => {
            bench.outbox.append(message);
            tracing::debug!(%camera, id = %event.id, "in the outbox");
        }
        Err(error) => tracing::error!(%camera, "an event cannot be written as JSON: {error}"),
    }
}

fn jpeg(frame: &Frame) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    let (rgb, width, height) = match &frame.original {
        Some(Original { width, height, rgb: Some(rgb) }) => (rgb, *width, *height),
        _ => (&frame.rgb, frame.width, frame.height),
    };
    JpegEncoder::new_with_quality(&mut out, SNAPSHOT_QUALITY).encode(
        rgb,
        width,
        height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(out)
}
