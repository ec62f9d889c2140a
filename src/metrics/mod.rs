//! What Prometheus reads: one registry, labels of fixed types. Some numbers are counted here as
//! things happen; the others belong to somebody else (the queue, the outbox, the cameras) and are
//! taken over as [`Readings`] when a page is written. What is not known is left out.

use std::{
    collections::BTreeMap,
    fs,
    sync::{Mutex, PoisonError, atomic::AtomicU64, atomic::Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use self::labels::{OfCamera, OfDevice, OfDrop, OfGpu, OfModel, OfStage, OfState, OfTokens};
pub use self::labels::{Reason, Stage, TokenKind};
use crate::{
    camera::{CameraId, CameraState},
    device::Gpu,
    event::{Event, ModelInfo},
};

mod labels;

/// What a page of [`Metrics::page`] is, for the `Content-Type` header.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Bounds of durations, seconds: from a layer on a GPU to a large model on a slow CPU.
const SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Bounds of batches, clips.
const CLIPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// What others know at the moment when a page is written. Counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// The cameras.
    pub cameras: BTreeMap<CameraId, CameraReading>,
    /// Clips that wait for the model.
    pub queue: usize,
    /// How long the first of them has waited.
    pub queue_age: Duration,
    /// Clips that newer ones displaced.
    pub overload: BTreeMap<CameraId, u64>,
    /// Descriptions that wait for the broker, or for its acknowledgement.
    pub outbox: usize,
    /// What they take.
    pub outbox_bytes: u64,
    /// How long the first of them has waited.
    pub outbox_age: Duration,
    /// Descriptions that made room for newer ones.
    pub outbox_dropped: BTreeMap<CameraId, u64>,
    /// Descriptions that the broker will not take.
    pub outbox_set_aside: BTreeMap<CameraId, u64>,
    /// Snapshots that made room for other cameras'.
    pub outbox_dropped_snapshots: BTreeMap<CameraId, u64>,
    /// Whether what waits is on disk.
    pub outbox_on_disk: bool,
    /// Whether the broker is connected.
    pub broker_connected: bool,
}

/// How a camera is.
#[derive(Clone, Copy, Debug)]
pub struct CameraReading {
    /// In one word.
    pub state: CameraState,
    /// Frames that were taken from it.
    pub frames: u64,
    /// Errors of its decoder.
    pub decode_errors: u64,
    /// Windows that had too few frames for a clip.
    pub too_few: u64,
}

type Counters<L> = Family<L, Counter>;
type Gauges<L> = Family<L, Gauge>;

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
    /// One page at a time takes over readings.
    page: Mutex<()>,
    clips: Counters<OfCamera>,
    descriptions: Counters<OfCamera>,
    dropped: Counters<OfDrop>,
    camera_reconnects: Counters<OfCamera>,
    broker_reconnects: Counter,
    tokens: Counters<OfTokens>,
    stages: Stages,
    batch: Batch,
    model: Gauges<OfModel>,
    gpu: Gauges<OfGpu>,
    device_used: Gauges<OfDevice>,
    device_total: Gauges<OfDevice>,
    out_of_memory: Counters<OfDevice>,
    read: Read,
}

/// What is taken over from [`Readings`].
#[derive(Debug, Default)]
struct Read {
    frames: Counters<OfCamera>,
    decode_errors: Counters<OfCamera>,
    state: Gauges<OfState>,
    queue: Gauge,
    queue_age: Gauge<f64, AtomicU64>,
    outbox: Gauge,
    outbox_bytes: Gauge,
    outbox_age: Gauge<f64, AtomicU64>,
    outbox_dropped: Counters<OfCamera>,
    outbox_set_aside: Counters<OfCamera>,
    outbox_dropped_snapshots: Counters<OfCamera>,
    outbox_on_disk: Gauge,
    broker_connected: Gauge,
    resident: Gauge,
}

#[derive(Clone, Debug)]
struct Stages(Family<OfStage, Histogram>);

impl Default for Stages {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

#[derive(Clone, Debug)]
struct Batch(Histogram);

impl Default for Batch {
    fn default() -> Self {
        Self(Histogram::new(CLIPS))
    }
}

impl Metrics {
    /// Everything at nought.
    pub fn new() -> Self {
        let mut metrics = Self::default();
        let mut registry = Registry::default();
        let r = &mut registry;
        r.register("camscribe_clips", "Clips cut from the camera's frames", metrics.clips.clone());
        let help = "Clips that were described";
        r.register("camscribe_descriptions", help, metrics.descriptions.clone());
        r.register(
            "camscribe_clips_dropped",
            "Clips without a description, and why",
            metrics.dropped.clone(),
        );
        let help = "Times that the camera came back after its pictures had ceased";
        r.register("camscribe_camera_reconnects", help, metrics.camera_reconnects.clone());
        let help = "Times that the MQTT broker was connected again";
        r.register("camscribe_broker_reconnects", help, metrics.broker_reconnects.clone());
        r.register("camscribe_tokens", "Tokens in and out of the model", metrics.tokens.clone());
        let help = "Time that clips spent in each stage; from preprocess to decode once for each batch";
        r.register("camscribe_stage_seconds", help, metrics.stages.0.clone());
        r.register("camscribe_batch_clips", "Clips described together", metrics.batch.0.clone());
        r.register("camscribe_model_info", "What runs here", metrics.model.clone());
        r.register("camscribe_gpu_info", "The GPU that the model runs on", metrics.gpu.clone());
        let help = "Memory of the model's device that is taken, by whomever";
        r.register("camscribe_device_memory_used_bytes", help, metrics.device_used.clone());
        let help = "Memory of the model's device";
        r.register("camscribe_device_memory_bytes", help, metrics.device_total.clone());
        let help = "Batches that the memory of the model's device was too small for";
        r.register("camscribe_device_out_of_memory", help, metrics.out_of_memory.clone());
        metrics.read.register(r);
        metrics.registry = registry;
        metrics
    }

    /// What runs here.
    pub fn model(&self, model: &ModelInfo) {
        let labels = OfModel {
            version: env!("CARGO_PKG_VERSION").into(),
            model: model.id.clone(),
            revision: model.revision.clone(),
            device: model.device.clone(),
            dtype: model.dtype.clone(),
        };
        self.model.get_or_create(&labels).set(1);
    }

    /// A clip has been cut.
    pub fn clip(&self, camera: &CameraId) {
        self.clips.get_or_create(&OfCamera { camera: camera.clone() }).inc();
    }

    /// A clip was described.
    pub fn described(&self, event: &Event) {
        self.descriptions.get_or_create(&OfCamera { camera: event.camera.clone() }).inc();
        let tokens = &event.tokens;
        for (kind, count) in [
            (TokenKind::Prompt, tokens.prompt),
            (TokenKind::Image, tokens.image),
            (TokenKind::Generated, tokens.generated),
        ] {
            self.tokens.get_or_create(&OfTokens { kind }).inc_by(count as u64);
        }
        self.stage(Stage::Queued, Duration::from_millis(event.timing_ms.queued));
        self.stage(Stage::Total, Duration::from_millis(event.timing_ms.total));
    }

    /// A clip will have no description.
    pub fn dropped(&self, camera: &CameraId, reason: Reason) {
        self.dropped.get_or_create(&OfDrop { camera: camera.clone(), reason }).inc();
    }

    /// What the model runs on, unless that is the CPU.
    pub fn gpu(&self, device: &str, gpu: &Gpu) {
        let labels = OfGpu {
            device: device.into(),
            name: gpu.name.clone(),
            compute_capability: gpu.compute_capability.clone(),
            cuda: gpu.cuda.clone(),
        };
        self.gpu.get_or_create(&labels).set(1);
    }

    /// So many clips were described together.
    pub fn batch(&self, clips: usize) {
        self.batch.0.observe(clips as f64);
    }

    /// Something spent so long in a stage.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages.0.get_or_create(&OfStage { stage }).observe(time.as_secs_f64());
    }

    /// How full the memory of the model's device is, bytes.
    pub fn device_memory(&self, device: &str, used: usize, total: usize) {
        let labels = OfDevice { device: device.into() };
        self.device_used.get_or_create(&labels).set(whole(used));
        self.device_total.get_or_create(&labels).set(whole(total));
    }

    /// A batch was too large for the memory of the model's device.
    pub fn out_of_memory(&self, device: &str) {
        self.out_of_memory.get_or_create(&OfDevice { device: device.into() }).inc();
    }

    /// A camera came back.
    pub fn camera_reconnected(&self, camera: &CameraId) {
        self.camera_reconnects.get_or_create(&OfCamera { camera: camera.clone() }).inc();
    }

    /// The broker was connected again.
    pub fn broker_reconnected(&self) {
        self.broker_reconnects.inc();
    }

    /// What is counted of a camera is there from the beginning: a first loss must not look like a counter
    /// that has just been made.
    fn begin(&self, camera: &CameraId) {
        let of = OfCamera { camera: camera.clone() };
        for counters in [
            &self.clips,
            &self.descriptions,
            &self.camera_reconnects,
            &self.read.outbox_dropped,
            &self.read.outbox_set_aside,
            &self.read.outbox_dropped_snapshots,
        ] {
            drop(counters.get_or_create(&of));
        }
        for reason in Reason::ALL {
            drop(self.dropped.get_or_create(&OfDrop { camera: camera.clone(), reason }));
        }
    }

    /// Everything as a page, of the kind [`CONTENT_TYPE`].
    pub fn page(&self, readings: &Readings) -> String {
        let _one = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        self.read.take(readings);
        for (camera, reading) in &readings.cameras {
            self.begin(camera);
            let labels = OfDrop { camera: camera.clone(), reason: Reason::TooFewFrames };
            put(&self.dropped, &labels, reading.too_few);
        }
        for (camera, count) in &readings.overload {
            let labels = OfDrop { camera: camera.clone(), reason: Reason::Overload };
            put(&self.dropped, &labels, *count);
        }
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

impl Read {
    fn register(&self, r: &mut Registry) {
        r.register("camscribe_frames", "Frames taken from the camera", self.frames.clone());
        let help = "Errors of the camera's decoder: complaints, and pictures that were not whole";
        r.register("camscribe_decoder_errors", help, self.decode_errors.clone());
        r.register("camscribe_camera_state", "1 for the state that the camera is in", self.state.clone());
        r.register("camscribe_queue_clips", "Clips that wait for the model", self.queue.clone());
        let help = "How long the clip that has waited longest has waited for the model";
        r.register("camscribe_queue_age_seconds", help, self.queue_age.clone());
        let help = "Descriptions that the broker has not acknowledged";
        r.register("camscribe_outbox_messages", help, self.outbox.clone());
        r.register("camscribe_outbox_bytes", "What they take", self.outbox_bytes.clone());
        let help = "How old the oldest of them is";
        r.register("camscribe_outbox_age_seconds", help, self.outbox_age.clone());
        let help = "Descriptions that made room for newer ones";
        r.register("camscribe_outbox_dropped", help, self.outbox_dropped.clone());
        let help = "Descriptions that the broker will not take";
        r.register("camscribe_outbox_set_aside", help, self.outbox_set_aside.clone());
        let help = "Snapshots that made room for other cameras'";
        r.register("camscribe_outbox_dropped_snapshots", help, self.outbox_dropped_snapshots.clone());
        let help = "Whether what waits in the outbox is on disk";
        r.register("camscribe_outbox_on_disk", help, self.outbox_on_disk.clone());
        let help = "Whether the MQTT broker is connected";
        r.register("camscribe_broker_connected", help, self.broker_connected.clone());
        let help = "Memory that this process holds";
        r.register("process_resident_memory_bytes", help, self.resident.clone());
    }

    fn take(&self, readings: &Readings) {
        self.state.clear();
        for (camera, reading) in &readings.cameras {
            for state in CameraState::ALL {
                let labels = OfState { camera: camera.clone(), state };
                self.state.get_or_create(&labels).set((state == reading.state).into());
            }
            let labels = OfCamera { camera: camera.clone() };
            put(&self.frames, &labels, reading.frames);
            put(&self.decode_errors, &labels, reading.decode_errors);
        }
        self.queue.set(whole(readings.queue));
        self.queue_age.set(readings.queue_age.as_secs_f64());
        self.outbox.set(whole(readings.outbox));
        self.outbox_bytes.set(readings.outbox_bytes.try_into().unwrap_or(i64::MAX));
        self.outbox_on_disk.set(readings.outbox_on_disk.into());
        self.outbox_age.set(readings.outbox_age.as_secs_f64());
        for (counters, counts) in [
            (&self.outbox_dropped, &readings.outbox_dropped),
            (&self.outbox_set_aside, &readings.outbox_set_aside),
            (&self.outbox_dropped_snapshots, &readings.outbox_dropped_snapshots),
        ] {
            for (camera, count) in counts {
                put(counters, &OfCamera { camera: camera.clone() }, *count);
            }
        }
        self.broker_connected.set(readings.broker_connected.into());
        if let Some(bytes) = resident() {
            self.resident.set(whole(bytes));
        }
    }
}

/// Sets a counter to what its owner counted.
fn put<L>(counters: &Counters<L>, labels: &L, count: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    counters.get_or_create(labels).inner().store(count, Ordering::Relaxed);
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Resident memory of this process, in bytes: `VmRSS` of proc_pid_status(5), which counts in kB.
fn resident() -> Option<usize> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn camera(name: &str) -> CameraId {
        name.parse().unwrap()
    }

    fn line(page: &str, start: &str) -> Option<f64> {
        let rest = page.lines().find_map(|line| line.strip_prefix(start))?;
        Some(rest.trim().parse().unwrap())
    }

    #[test]
    fn what_is_counted_here_and_what_others_counted_stand_on_one_page() {
        let metrics = Metrics::new();
        metrics.clip(&camera("porch"));
        metrics.dropped(&camera("porch"), Reason::Undescribed);
        metrics.batch(3);
        metrics.stage(Stage::Vision, Duration::from_millis(1500));
        let mut readings = Readings {
            queue: 2,
            overload: BTreeMap::from([(camera("porch"), 7)]),
            outbox_dropped: BTreeMap::from([(camera("porch"), 5)]),
            ..Readings::default()
        };
        readings.cameras.insert(
            camera("porch"),
            CameraReading { state: CameraState::Offline, frames: 12, decode_errors: 3, too_few: 4 },
        );
        let page = metrics.page(&readings);
        for (start, value) in [
            ("camscribe_clips_total{camera=\"porch\"}", 1.0),
            ("camscribe_clips_dropped_total{camera=\"porch\",reason=\"overload\"}", 7.0),
            ("camscribe_clips_dropped_total{camera=\"porch\",reason=\"undescribed\"}", 1.0),
            ("camscribe_clips_dropped_total{camera=\"porch\",reason=\"too_few_frames\"}", 4.0),
            ("camscribe_clips_dropped_total{camera=\"porch\",reason=\"stopped\"}", 0.0),
            ("camscribe_camera_reconnects_total{camera=\"porch\"}", 0.0),
            ("camscribe_outbox_set_aside_total{camera=\"porch\"}", 0.0),
            ("camscribe_outbox_dropped_total{camera=\"porch\"}", 5.0),
            ("camscribe_frames_total{camera=\"porch\"}", 12.0),
            ("camscribe_decoder_errors_total{camera=\"porch\"}", 3.0),
            ("camscribe_camera_state{camera=\"porch\",state=\"offline\"}", 1.0),
            ("camscribe_camera_state{camera=\"porch\",state=\"online\"}", 0.0),
            ("camscribe_queue_clips", 2.0),
            ("camscribe_batch_clips_sum", 3.0),
            ("camscribe_stage_seconds_sum{stage=\"vision\"}", 1.5),
            ("camscribe_stage_seconds_bucket{le=\"1.0\",stage=\"vision\"}", 0.0),
            ("camscribe_stage_seconds_bucket{le=\"2.5\",stage=\"vision\"}", 1.0),
        ] {
            assert_eq!(line(&page, start), Some(value), "{start}\n{page}");
        }
        assert!(line(&page, "process_resident_memory_bytes").unwrap() > 1e6);
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn what_is_not_known_is_left_out_and_a_camera_that_is_gone_has_no_state() {
        let metrics = Metrics::new();
        let mut readings = Readings::default();
        readings.cameras.insert(
            camera("yard"),
            CameraReading { state: CameraState::Online, frames: 1, decode_errors: 0, too_few: 0 },
        );
        assert!(metrics.page(&readings).contains("camscribe_camera_state{camera=\"yard\""));
        let page = metrics.page(&Readings::default());
        assert!(!page.contains("camscribe_camera_state{"), "{page}");
        assert!(!page.contains("camscribe_device_memory_bytes{"), "{page}");
        metrics.device_memory("cuda:0", 5, 9);
        let page = metrics.page(&Readings::default());
        assert_eq!(line(&page, "camscribe_device_memory_used_bytes{device=\"cuda:0\"}"), Some(5.0));
    }
}
