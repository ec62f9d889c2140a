//! The metrics that Prometheus reads: one registry, labels of fixed types. Some are counted here when something
//! happens. The others are owned by other modules (the queue, the outbox, the cameras) and are copied from
//! [`Readings`] when a page is written. Values that are not known are left out.

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

/// The `Content-Type` of [`Metrics::page`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of the buckets of durations, in seconds: from a layer on a GPU to a large model on a slow CPU.
const SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Upper bounds of the buckets of batch sizes, in clips.
const CLIPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// The values of other modules at the moment when a page is written. Counts are since the start.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// State and counters of each camera.
    pub cameras: BTreeMap<CameraId, CameraReading>,
    /// The number of clips that wait for the model.
    pub queue: usize,
    /// How long the oldest of these clips has waited.
    pub queue_age: Duration,
    /// Clips that newer ones replaced in the queue.
    pub overload: BTreeMap<CameraId, u64>,
    /// Descriptions that wait for the broker, or for its acknowledgement.
    pub outbox: usize,
    /// The size of these descriptions.
    pub outbox_bytes: u64,
    /// The age of the oldest of these descriptions.
    pub outbox_age: Duration,
    /// Descriptions that were dropped to make space for newer ones.
    pub outbox_dropped: BTreeMap<CameraId, u64>,
    /// Descriptions that the broker rejected.
    pub outbox_set_aside: BTreeMap<CameraId, u64>,
    /// Snapshots that were dropped to make space for those of other cameras.
    pub outbox_dropped_snapshots: BTreeMap<CameraId, u64>,
    /// Whether the outbox is on disk.
    pub outbox_on_disk: bool,
    /// Whether the broker is connected.
    pub broker_connected: bool,
}

/// State and counters of a camera.
#[derive(Clone, Copy, Debug)]
pub struct CameraReading {
    /// Its state.
    pub state: CameraState,
    /// Frames that were taken from it.
    pub frames: u64,
    /// Errors of its decoder.
    pub decode_errors: u64,
    /// Windows with too few frames for a clip.
    pub too_few: u64,
}

type Counters<L> = Family<L, Counter>;
type Gauges<L> = Family<L, Gauge>;

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
    /// Held while readings are copied and the page is written.
    page_lock: Mutex<()>,
    clips: Counters<OfCamera>,
    descriptions: Counters<OfCamera>,
    dropped: Counters<OfDrop>,
    camera_reconnects: Counters<OfCamera>,
    broker_reconnects: Counter,
    tokens: Counters<OfTokens>,
    stages: StageSeconds,
    batch: BatchSizes,
    model: Gauges<OfModel>,
    gpu: Gauges<OfGpu>,
    device_used: Gauges<OfDevice>,
    device_total: Gauges<OfDevice>,
    out_of_memory: Counters<OfDevice>,
    readings: ReadingMetrics,
}

/// The metrics that are copied from [`Readings`].
#[derive(Debug, Default)]
struct ReadingMetrics {
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
struct StageSeconds(Family<OfStage, Histogram>);

impl Default for StageSeconds {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(SECONDS)))
    }
}

#[derive(Clone, Debug)]
struct BatchSizes(Histogram);

impl Default for BatchSizes {
    fn default() -> Self {
        Self(Histogram::new(CLIPS))
    }
}

impl Metrics {
    /// All metrics at zero.
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
        let help = "Times that the camera delivered frames again after it had stopped";
        r.register("camscribe_camera_reconnects", help, metrics.camera_reconnects.clone());
        let help = "Times that the MQTT broker was connected again";
        r.register("camscribe_broker_reconnects", help, metrics.broker_reconnects.clone());
        r.register("camscribe_tokens", "Tokens in and out of the model", metrics.tokens.clone());
        let help = "Time that clips spent in each stage; preprocess to decode count once for each batch";
        r.register("camscribe_stage_seconds", help, metrics.stages.0.clone());
        r.register("camscribe_batch_clips", "Clips described together", metrics.batch.0.clone());
        r.register("camscribe_model_info", "Version, model and device", metrics.model.clone());
        r.register("camscribe_gpu_info", "The GPU that the model runs on", metrics.gpu.clone());
        let help = "Used memory of the model's device, by all programs";
        r.register("camscribe_device_memory_used_bytes", help, metrics.device_used.clone());
        let help = "Memory of the model's device";
        r.register("camscribe_device_memory_bytes", help, metrics.device_total.clone());
        let help = "Batches that did not fit into the memory of the model's device";
        r.register("camscribe_device_out_of_memory", help, metrics.out_of_memory.clone());
        metrics.readings.register(r);
        metrics.registry = registry;
        metrics
    }

    /// Sets version, model and device.
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

    /// Counts a clip that was cut from a camera's frames.
    pub fn clip(&self, camera: &CameraId) {
        self.clips.get_or_create(&OfCamera { camera: camera.clone() }).inc();
    }

    /// Counts a clip that was described, its tokens and its times.
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

    /// Counts a clip that will have no description.
    pub fn dropped(&self, camera: &CameraId, reason: Reason) {
        self.dropped.get_or_create(&OfDrop { camera: camera.clone(), reason }).inc();
    }

    /// Sets the GPU that the model runs on.
    pub fn gpu(&self, device: &str, gpu: &Gpu) {
        let labels = OfGpu {
            device: device.into(),
            name: gpu.name.clone(),
            compute_capability: gpu.compute_capability.clone(),
            cuda: gpu.cuda.clone(),
        };
        self.gpu.get_or_create(&labels).set(1);
    }

    /// Counts a batch of this many clips.
    pub fn batch(&self, clips: usize) {
        self.batch.0.observe(clips as f64);
    }

    /// Counts the time that something spent in a stage.
    pub fn stage(&self, stage: Stage, time: Duration) {
        self.stages.0.get_or_create(&OfStage { stage }).observe(time.as_secs_f64());
    }

    /// Sets the memory of the model's device, in bytes.
    pub fn device_memory(&self, device: &str, used: usize, total: usize) {
        let labels = OfDevice { device: device.into() };
        self.device_used.get_or_create(&labels).set(gauge(used));
        self.device_total.get_or_create(&labels).set(gauge(total));
    }

    /// Counts a batch that did not fit into the memory of the model's device.
    pub fn out_of_memory(&self, device: &str) {
        self.out_of_memory.get_or_create(&OfDevice { device: device.into() }).inc();
    }

    /// Counts that a camera came back.
    pub fn camera_reconnected(&self, camera: &CameraId) {
        self.camera_reconnects.get_or_create(&OfCamera { camera: camera.clone() }).inc();
    }

    /// Counts that the broker was connected again.
    pub fn broker_reconnected(&self) {
        self.broker_reconnects.inc();
    }

    /// Creates the counters of a camera at zero, so that Prometheus sees the first event as an increase.
    fn create_counters(&self, camera: &CameraId) {
        let of = OfCamera { camera: camera.clone() };
        for counters in [
            &self.clips,
            &self.descriptions,
            &self.camera_reconnects,
            &self.readings.outbox_dropped,
            &self.readings.outbox_set_aside,
            &self.readings.outbox_dropped_snapshots,
        ] {
            drop(counters.get_or_create(&of));
        }
        for reason in Reason::ALL {
            drop(self.dropped.get_or_create(&OfDrop { camera: camera.clone(), reason }));
        }
    }

    /// Returns all metrics as text of the type [`CONTENT_TYPE`].
    pub fn page(&self, readings: &Readings) -> String {
        let _lock = self.page_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.readings.update(readings);
        for (camera, reading) in &readings.cameras {
            self.create_counters(camera);
            let labels = OfDrop { camera: camera.clone(), reason: Reason::TooFewFrames };
            set(&self.dropped, &labels, reading.too_few);
        }
        for (camera, count) in &readings.overload {
            let labels = OfDrop { camera: camera.clone(), reason: Reason::Overload };
            set(&self.dropped, &labels, *count);
        }
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        page
    }
}

impl ReadingMetrics {
    fn register(&self, r: &mut Registry) {
        r.register("camscribe_frames", "Frames taken from the camera", self.frames.clone());
        let help = "Errors of the camera's decoder: its warnings, and frames that were incomplete";
        r.register("camscribe_decoder_errors", help, self.decode_errors.clone());
        r.register("camscribe_camera_state", "1 for the state that the camera is in", self.state.clone());
        r.register("camscribe_queue_clips", "Clips that wait for the model", self.queue.clone());
        let help = "How long the clip that has waited longest has waited for the model";
        r.register("camscribe_queue_age_seconds", help, self.queue_age.clone());
        let help = "Descriptions that the broker has not acknowledged";
        r.register("camscribe_outbox_messages", help, self.outbox.clone());
        r.register(
            "camscribe_outbox_bytes",
            "Size of the descriptions that the broker has not acknowledged",
            self.outbox_bytes.clone(),
        );
        let help = "Age of the oldest description that the broker has not acknowledged";
        r.register("camscribe_outbox_age_seconds", help, self.outbox_age.clone());
        let help = "Descriptions dropped to make space for newer ones";
        r.register("camscribe_outbox_dropped", help, self.outbox_dropped.clone());
        let help = "Descriptions that the broker rejected";
        r.register("camscribe_outbox_set_aside", help, self.outbox_set_aside.clone());
        let help = "Snapshots dropped to make space for those of other cameras";
        r.register("camscribe_outbox_dropped_snapshots", help, self.outbox_dropped_snapshots.clone());
        let help = "Whether the outbox is on disk";
        r.register("camscribe_outbox_on_disk", help, self.outbox_on_disk.clone());
        let help = "Whether the MQTT broker is connected";
        r.register("camscribe_broker_connected", help, self.broker_connected.clone());
        let help = "Resident memory of this process";
        r.register("process_resident_memory_bytes", help, self.resident.clone());
    }

    /// Copies the readings.
    fn update(&self, readings: &Readings) {
        self.state.clear();
        for (camera, reading) in &readings.cameras {
            for state in CameraState::ALL {
                let labels = OfState { camera: camera.clone(), state };
                self.state.get_or_create(&labels).set((state == reading.state).into());
            }
            let labels = OfCamera { camera: camera.clone() };
            set(&self.frames, &labels, reading.frames);
            set(&self.decode_errors, &labels, reading.decode_errors);
        }
        self.queue.set(gauge(readings.queue));
        self.queue_age.set(readings.queue_age.as_secs_f64());
        self.outbox.set(gauge(readings.outbox));
        self.outbox_bytes.set(readings.outbox_bytes.try_into().unwrap_or(i64::MAX));
        self.outbox_on_disk.set(readings.outbox_on_disk.into());
        self.outbox_age.set(readings.outbox_age.as_secs_f64());
        for (counters, counts) in [
            (&self.outbox_dropped, &readings.outbox_dropped),
            (&self.outbox_set_aside, &readings.outbox_set_aside),
            (&self.outbox_dropped_snapshots, &readings.outbox_dropped_snapshots),
        ] {
            for (camera, count) in counts {
                set(counters, &OfCamera { camera: camera.clone() }, *count);
            }
        }
        self.broker_connected.set(readings.broker_connected.into());
        if let Some(bytes) = resident() {
            self.resident.set(gauge(bytes));
        }
    }
}

/// Sets a counter to the count of its owner.
fn set<L>(counters: &Counters<L>, labels: &L, count: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    counters.get_or_create(labels).inner().store(count, Ordering::Relaxed);
}

/// Converts to the type of a gauge.
fn gauge(number: usize) -> i64 {
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
    fn a_page_holds_what_is_counted_here_and_what_other_modules_counted() {
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
    fn unknown_values_are_left_out_and_a_removed_camera_has_no_state() {
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
