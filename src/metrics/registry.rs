//! The metrics that are counted when something happens, and the page with all of them.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::Utc;
use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::{
    clients::ClientMetrics,
    labels::{
        AskEnd, OfBuild, OfCamera, OfDevice, OfDrop, OfGpu, OfModel, OfShare, OfStage, OfTokens, Reason,
        Stage, TokenKind,
    },
    questions::QuestionMetrics,
    readings::{Counters, Gauges, ReadingMetrics, Readings, gauge, set},
    text_format::{self, TextFormat},
};
use crate::{
    camera::CameraId,
    device::GpuInfo,
    event::{Event, EventKind, ModelInfo},
};

/// Upper bounds of the buckets of durations, in seconds: from a layer on a GPU to a large model on a slow CPU.
const SECONDS: [f64; 15] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];
/// Upper bounds of the buckets of batch sizes, in clips.
const CLIPS: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

/// All metrics.
#[derive(Debug, Default)]
pub struct Metrics {
    registry: Registry,
    /// Held while readings are copied and the page is written.
    page_lock: Mutex<()>,
    clips: Counters<OfCamera>,
    descriptions: Counters<OfCamera>,
    unchanged: Counters<OfCamera>,
    model_seconds: SecondsOf<OfShare>,
    dropped: Counters<OfDrop>,
    /// The clips of [`Metrics::dropped`], of all cameras and for all reasons.
    dropped_clips: AtomicU64,
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
    build: Gauges<OfBuild>,
    reload_succeeded: Gauge,
    reload_time: Gauge<f64, AtomicU64>,
    readings: ReadingMetrics,
    questions: QuestionMetrics,
    /// What is counted of requests over HTTP.
    pub clients: ClientMetrics,
    /// The cameras that something was counted of.
    counted: Mutex<BTreeSet<CameraId>>,
}

/// Counters of seconds.
type SecondsOf<L> = Family<L, Counter<f64, AtomicU64>>;

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
        let help = "Clips that the model described";
        r.register("camscribe_descriptions", help, metrics.descriptions.clone());
        let help = "Clips that were found unchanged, so that the last description holds";
        r.register("camscribe_unchanged", help, metrics.unchanged.clone());
        let help = "Time of the model that the camera took: its share of what it answered together";
        r.register("camscribe_camera_model_seconds", help, metrics.model_seconds.clone());
        r.register("camscribe_clips_dropped", "Clips without an event, and why", metrics.dropped.clone());
        let help = "Times that the camera delivered frames again after it had stopped";
        r.register("camscribe_camera_reconnects", help, metrics.camera_reconnects.clone());
        let help = "Times that the MQTT broker was connected again";
        r.register("camscribe_broker_reconnects", help, metrics.broker_reconnects.clone());
        r.register("camscribe_tokens", "Tokens in and out of the model", metrics.tokens.clone());
        let help = "Time spent in each stage; preprocess to prefill count once for what begins together";
        r.register("camscribe_stage_seconds", help, metrics.stages.0.clone());
        r.register("camscribe_batch_clips", "Clips described together", metrics.batch.0.clone());
        r.register("camscribe_build_info", "The version of camscribe", metrics.build.clone());
        let help = "1 if the configuration was accepted when it was last read, 0 if it was rejected";
        r.register("camscribe_config_last_reload_successful", help, metrics.reload_succeeded.clone());
        let help = "When a configuration was last accepted, in seconds since 1970";
        r.register(
            "camscribe_config_last_reload_success_timestamp_seconds",
            help,
            metrics.reload_time.clone(),
        );
        r.register("camscribe_model_info", "Version, model and device", metrics.model.clone());
        r.register("camscribe_gpu_info", "The GPU that the model runs on", metrics.gpu.clone());
        let help = "Used memory of the model's device, by all programs";
        r.register("camscribe_device_memory_used_bytes", help, metrics.device_used.clone());
        let help = "Memory of the model's device";
        r.register("camscribe_device_memory_bytes", help, metrics.device_total.clone());
        let help = "Batches that did not fit into the memory of the model's device";
        r.register("camscribe_device_out_of_memory", help, metrics.out_of_memory.clone());
        metrics.readings.register(r);
        metrics.questions.register(r);
        metrics.clients.register(r);
        metrics.registry = registry;
        metrics.build.get_or_create(&OfBuild { version: crate::VERSION.into() }).set(1);
        metrics.reloaded(true);
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

    /// Sets whether the configuration was accepted when it was read.
    pub fn reloaded(&self, accepted: bool) {
        self.reload_succeeded.set(accepted.into());
        if accepted {
            self.reload_time.set(Utc::now().timestamp_millis() as f64 / 1e3);
        }
    }

    /// Counts something of a camera. Meanwhile no page is written that would remove the camera.
    fn count(&self, camera: &CameraId, add: impl FnOnce(OfCamera)) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if !counted.contains(camera) {
            counted.insert(camera.clone());
        }
        add(OfCamera { camera: camera.clone() });
    }

    /// Counts a clip that was cut from a camera's frames.
    pub fn clip(&self, camera: &CameraId) {
        self.count(camera, |of| {
            self.clips.get_or_create(&of).inc();
        });
    }

    /// Counts a clip that has an event, its tokens and its times.
    pub fn described(&self, event: &Event) {
        let clips = match event.kind {
            EventKind::Description | EventKind::Answers => &self.descriptions,
            EventKind::Unchanged => &self.unchanged,
        };
        let tokens = &event.tokens;
        self.count(&event.camera, |of| {
            self.questions.event(event);
            clips.get_or_create(&of).inc();
            for (kind, count) in [
                (TokenKind::Prompt, tokens.prompt),
                (TokenKind::Image, tokens.image),
                (TokenKind::Generated, tokens.generated),
            ] {
                let labels = OfTokens { camera: of.camera.clone(), kind };
                self.tokens.get_or_create(&labels).inc_by(count as u64);
            }
        });
        self.stage(Stage::Queued, Duration::from_millis(event.timing_ms.queued));
        self.stage(Stage::Total, Duration::from_millis(event.timing_ms.total));
    }

    /// Counts a clip that will have no event.
    pub fn dropped(&self, camera: &CameraId, reason: Reason) {
        self.count(camera, |OfCamera { camera }| {
            self.dropped.get_or_create(&OfDrop { camera, reason }).inc();
        });
        self.dropped_clips.fetch_add(1, Ordering::Relaxed);
    }

    /// How many clips [`Metrics::dropped`] has counted.
    pub fn dropped_clips(&self) -> u64 {
        self.dropped_clips.load(Ordering::Relaxed)
    }

    /// Counts the time of the model that a request of each of these cameras took in a stage.
    pub fn model_time<'a>(&self, stage: Stage, time: Duration, cameras: impl Iterator<Item = &'a CameraId>) {
        for camera in cameras {
            self.count(camera, |OfCamera { camera }| {
                self.model_seconds.get_or_create(&OfShare { camera, stage }).inc_by(time.as_secs_f64());
            });
        }
    }

    /// Sets the GPU that the model runs on.
    pub fn gpu(&self, device: &str, gpu: &GpuInfo) {
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

    /// Counts a question about what a camera shows now, which ended after this time.
    pub fn asked(&self, camera: &CameraId, end: AskEnd, after: Duration) {
        self.count(camera, |of| self.questions.asked(&of.camera, end, after));
    }

    /// Counts that a camera came back.
    pub fn camera_reconnected(&self, camera: &CameraId) {
        self.count(camera, |of| {
            self.camera_reconnects.get_or_create(&of).inc();
        });
    }

    /// Counts that the broker was connected again.
    pub fn broker_reconnected(&self) {
        self.broker_reconnects.inc();
    }

    /// Creates the counters of a camera at zero, so that Prometheus sees the first event as an increase.
    fn create_counters(&self, camera: &CameraId) {
        self.count(camera, |of| {
            for counters in self.of_cameras() {
                drop(counters.get_or_create(&of));
            }
            self.questions.create(camera);
            for reason in Reason::ALL {
                drop(self.dropped.get_or_create(&OfDrop { camera: camera.clone(), reason }));
            }
            for stage in Stage::OF_BATCH {
                drop(self.model_seconds.get_or_create(&OfShare { camera: camera.clone(), stage }));
            }
            for kind in TokenKind::ALL {
                drop(self.tokens.get_or_create(&OfTokens { camera: camera.clone(), kind }));
            }
        });
    }

    /// The counters that have the label of a camera alone.
    fn of_cameras(&self) -> [&Counters<OfCamera>; 4] {
        [&self.clips, &self.descriptions, &self.unchanged, &self.camera_reconnects]
    }

    /// Removes what was counted of cameras that are no longer configured.
    fn remove_others(&self, readings: &Readings) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let (kept, removed) =
            counted.iter().cloned().partition(|camera| readings.cameras.contains_key(camera));
        *counted = kept;
        let removed: BTreeSet<CameraId> = removed;
        for camera in removed {
            let of = OfCamera { camera: camera.clone() };
            for counters in self.of_cameras() {
                counters.remove(&of);
            }
            self.questions.remove(&camera);
            for reason in Reason::ALL {
                self.dropped.remove(&OfDrop { camera: camera.clone(), reason });
            }
            for stage in Stage::OF_BATCH {
                self.model_seconds.remove(&OfShare { camera: camera.clone(), stage });
            }
            for kind in TokenKind::ALL {
                self.tokens.remove(&OfTokens { camera: camera.clone(), kind });
            }
            self.readings.remove(&camera, readings);
        }
    }

    /// Returns all metrics as text.
    pub fn page(&self, readings: &Readings, format: TextFormat) -> String {
        let _lock = self.page_lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.remove_others(readings);
        self.readings.update(readings, &self.dropped);
        for (camera, reading) in &readings.cameras {
            self.create_counters(camera);
            let labels = OfDrop { camera: camera.clone(), reason: Reason::TooFewFrames };
            set(&self.dropped, &labels, reading.counts.too_few);
        }
        let mut page = String::new();
        // Writing to a String cannot fail.
        let _ = text::encode(&mut page, &self.registry);
        match format {
            TextFormat::Prometheus => text_format::to_prometheus(&page),
            TextFormat::OpenMetrics => page,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{
        super::{
            labels::{Refusal, Route, StatusClass},
            readings::{CameraCounts, CameraReading},
        },
        *,
    };
    use crate::{camera::CameraState, event::Tokens};

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
            CameraReading {
                state: CameraState::Offline,
                counts: CameraCounts { frames: 12, decode_errors: 3, too_few: 4 },
            },
        );
        let page = metrics.page(&readings, TextFormat::OpenMetrics);
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
    fn requests_of_clients_are_counted_from_zero() {
        let metrics = Metrics::new();
        let page = |metrics: &Metrics| metrics.page(&Readings::default(), TextFormat::OpenMetrics);
        let chat = "camscribe_http_requests_total{route=\"chat_completions\",status=\"2xx\"}";
        assert_eq!(line(&page(&metrics), chat), Some(0.0));
        metrics.clients.request(Route::Chat, StatusClass::Success, None);
        metrics.clients.request(Route::Chat, StatusClass::ClientError, Some(Refusal::Busy));
        metrics.clients.began(Duration::from_millis(300));
        metrics.clients.answered(Tokens { prompt: 9, image: 4, generated: 2 }, Duration::from_millis(1500));
        let page = page(&metrics);
        for (start, value) in [
            (chat, 1.0),
            ("camscribe_http_requests_total{route=\"chat_completions\",status=\"4xx\"}", 1.0),
            ("camscribe_http_refused_total{reason=\"busy\"}", 1.0),
            ("camscribe_http_refused_total{reason=\"too_slow\"}", 0.0),
            ("camscribe_client_tokens_total{kind=\"prompt\"}", 9.0),
            ("camscribe_client_tokens_total{kind=\"generated\"}", 2.0),
            ("camscribe_client_first_token_seconds_bucket{le=\"0.25\"}", 0.0),
            ("camscribe_client_first_token_seconds_bucket{le=\"0.5\"}", 1.0),
            ("camscribe_client_answer_seconds_sum", 1.5),
        ] {
            assert_eq!(line(&page, start), Some(value), "{start}\n{page}");
        }
    }

    #[test]
    fn both_formats_have_the_same_samples_and_each_its_own_comments() {
        let metrics = Metrics::new();
        metrics.clip(&camera("porch"));
        metrics.stage(Stage::Vision, Duration::from_millis(1500));
        let reading = CameraReading { state: CameraState::Online, counts: CameraCounts::default() };
        let readings =
            Readings { cameras: BTreeMap::from([(camera("porch"), reading)]), ..Readings::default() };
        let [open, own] =
            [TextFormat::OpenMetrics, TextFormat::Prometheus].map(|format| metrics.page(&readings, format));
        // The memory of this process may change between the two.
        let is_sample = |line: &&str| !line.starts_with('#') && !line.starts_with("process_");
        // Those of one metric come in any order.
        let samples = |page: &str| page.lines().filter(is_sample).map(String::from).collect::<BTreeSet<_>>();
        assert_eq!(samples(&open), samples(&own));
        assert!(samples(&own).iter().all(|sample| !sample.contains('#')), "no exemplars: {own}");
        assert!(open.contains("# TYPE camscribe_clips counter\n"), "{open}");
        assert!(own.contains("# TYPE camscribe_clips_total counter\n"), "{own}");
        assert!(own.contains("# TYPE camscribe_stage_seconds histogram\n"), "{own}");
        assert!(own.lines().all(|line| !line.starts_with("# EOF") && !line.starts_with("# UNIT")), "{own}");
        let counters = own.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"));
        assert!(counters.into_iter().all(|name| name.ends_with("_total")), "{own}");
    }

    #[test]
    fn unknown_values_are_left_out_and_a_removed_camera_is_gone() {
        let metrics = Metrics::new();
        metrics.clip(&camera("yard"));
        metrics.dropped(&camera("yard"), Reason::Undescribed);
        let mut readings = Readings::default();
        readings.cameras.insert(
            camera("yard"),
            CameraReading {
                state: CameraState::Online,
                counts: CameraCounts { frames: 1, ..CameraCounts::default() },
            },
        );
        assert!(
            metrics
                .page(&readings, TextFormat::Prometheus)
                .contains("camscribe_camera_state{camera=\"yard\"")
        );
        readings.overload.insert(camera("yard"), 4);
        let removed = Readings { cameras: BTreeMap::new(), ..readings.clone() };
        let page = metrics.page(&removed, TextFormat::Prometheus);
        assert!(!page.contains("yard"), "{page}");
        assert!(!page.contains("camscribe_device_memory_bytes{"), "{page}");
        metrics.device_memory("cuda:0", 5, 9);
        readings.overload.insert(camera("yard"), 6);
        let page = metrics.page(&readings, TextFormat::Prometheus);
        // It has come back, and begins anew.
        assert_eq!(line(&page, "camscribe_clips_total{camera=\"yard\"}"), Some(0.0));
        let overload = "camscribe_clips_dropped_total{camera=\"yard\",reason=\"overload\"}";
        assert_eq!(line(&page, overload), Some(2.0), "{page}");
        let page = metrics.page(&Readings::default(), TextFormat::Prometheus);
        assert_eq!(line(&page, "camscribe_device_memory_used_bytes{device=\"cuda:0\"}"), Some(5.0));
    }
}
