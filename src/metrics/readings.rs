//! The metrics that other modules own. Their values are copied when a page is written.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{
    labels::{OfCamera, OfDrop, OfState, Reason},
    process,
};
use crate::camera::{CameraId, CameraState};

pub type Counters<L> = Family<L, Counter>;
pub type Gauges<L> = Family<L, Gauge>;

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
    /// Events that wait for the broker, or for its acknowledgement.
    pub outbox: usize,
    /// The size of these events.
    pub outbox_bytes: u64,
    /// The age of the oldest of these events.
    pub outbox_age: Duration,
    /// Events that were dropped to make space for newer ones.
    pub outbox_dropped: BTreeMap<CameraId, u64>,
    /// Events that the broker refused, or that could not be read from the disk.
    pub outbox_dead_lettered: BTreeMap<CameraId, u64>,
    /// Snapshots that were dropped to make space for those of other cameras.
    pub outbox_dropped_snapshots: BTreeMap<CameraId, u64>,
    /// Whether new events are stored on disk.
    pub outbox_on_disk: bool,
    /// The history; `None`: there is none.
    pub history: Option<HistoryReading>,
    /// Whether the broker is connected.
    pub broker_connected: bool,
    /// Commands for cameras that do not exist.
    pub unknown_camera_commands: u64,
    /// Questions about cameras that got no reply, because too many came.
    pub unanswered_asks: u64,
}

/// The history.
#[derive(Clone, Copy, Debug, Default)]
pub struct HistoryReading {
    /// Whether it takes events.
    pub is_on: bool,
    /// The events that it has.
    pub events: u64,
    /// Its size.
    pub bytes: u64,
    /// Events that it did not get.
    pub dropped_events: u64,
    /// Events whose frames it did not get.
    pub dropped_frames: u64,
}

/// State and counters of a camera.
#[derive(Clone, Copy, Debug)]
pub struct CameraReading {
    /// Its state.
    pub state: CameraState,
    /// Its counters.
    pub counts: CameraCounts,
}

/// The counters of a camera that never fall.
#[derive(Clone, Copy, Debug, Default)]
pub struct CameraCounts {
    /// Frames that were taken from it.
    pub frames: u64,
    /// Errors of its decoder.
    pub decode_errors: u64,
    /// Windows with too few frames for a clip.
    pub too_few: u64,
}

/// What a camera lost, as other modules have counted since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    overload: u64,
    dropped: u64,
    dead_lettered: u64,
    dropped_snapshots: u64,
}

impl Losses {
    /// What was lost since `before`.
    fn since(self, before: Option<&Self>) -> Self {
        let before = before.copied().unwrap_or_default();
        Self {
            overload: self.overload.saturating_sub(before.overload),
            dropped: self.dropped.saturating_sub(before.dropped),
            dead_lettered: self.dead_lettered.saturating_sub(before.dead_lettered),
            dropped_snapshots: self.dropped_snapshots.saturating_sub(before.dropped_snapshots),
        }
    }
}

impl Readings {
    fn losses(&self, camera: &CameraId) -> Losses {
        let of = |counts: &BTreeMap<CameraId, u64>| counts.get(camera).copied().unwrap_or_default();
        Losses {
            overload: of(&self.overload),
            dropped: of(&self.outbox_dropped),
            dead_lettered: of(&self.outbox_dead_lettered),
            dropped_snapshots: of(&self.outbox_dropped_snapshots),
        }
    }
}

/// The metrics that are copied from [`Readings`].
#[derive(Debug, Default)]
pub struct ReadingMetrics {
    frames: Counters<OfCamera>,
    decode_errors: Counters<OfCamera>,
    state: Gauges<OfState>,
    queue: Gauge,
    queue_age: Gauge<f64, AtomicU64>,
    outbox: Gauge,
    outbox_bytes: Gauge,
    outbox_age: Gauge<f64, AtomicU64>,
    outbox_dropped: Counters<OfCamera>,
    outbox_dead_lettered: Counters<OfCamera>,
    outbox_dropped_snapshots: Counters<OfCamera>,
    outbox_on_disk: Gauge,
    history_on: Gauge,
    history_events: Gauge,
    history_bytes: Gauge,
    history_dropped_events: Counter,
    history_dropped_frames: Counter,
    broker_connected: Gauge,
    unknown_camera_commands: Counter,
    unanswered_asks: Counter,
    resident: Gauge,
    cpu: Counter<f64, AtomicU64>,
    started: Gauge<f64, AtomicU64>,
    /// What removed cameras had lost.
    before: Mutex<BTreeMap<CameraId, Losses>>,
}

impl ReadingMetrics {
    /// Adds the metrics to the registry.
    pub fn register(&self, r: &mut Registry) {
        r.register("camscribe_frames", "Frames that clips took", self.frames.clone());
        let help =
            "Errors of the camera's decoder: reported errors, incomplete frames, and data that gave no frame";
        r.register("camscribe_decoder_errors", help, self.decode_errors.clone());
        r.register("camscribe_camera_state", "1 for the state that the camera is in", self.state.clone());
        r.register("camscribe_queue_clips", "Clips that wait for the model", self.queue.clone());
        let help = "How long the clip that has waited longest has waited for the model";
        r.register("camscribe_queue_age_seconds", help, self.queue_age.clone());
        let help = "Events that the broker has not acknowledged";
        r.register("camscribe_outbox_messages", help, self.outbox.clone());
        r.register(
            "camscribe_outbox_bytes",
            "Size of the events that the broker has not acknowledged",
            self.outbox_bytes.clone(),
        );
        let help = "Age of the oldest event that the broker has not acknowledged";
        r.register("camscribe_outbox_age_seconds", help, self.outbox_age.clone());
        let help = "Events dropped to make space for newer ones";
        r.register("camscribe_outbox_dropped", help, self.outbox_dropped.clone());
        let help = "Events that the broker refused, or that could not be read from the disk";
        r.register("camscribe_outbox_set_aside", help, self.outbox_dead_lettered.clone());
        let help = "Snapshots dropped to make space for those of other cameras";
        r.register("camscribe_outbox_dropped_snapshots", help, self.outbox_dropped_snapshots.clone());
        let help = "1 while new events are stored on disk, 0 while they are stored in memory";
        r.register("camscribe_outbox_on_disk", help, self.outbox_on_disk.clone());
        let help = "1 while the history takes events, 0 while it is stopped or there is none";
        r.register("camscribe_history_on", help, self.history_on.clone());
        r.register("camscribe_history_events", "Events in the history", self.history_events.clone());
        r.register("camscribe_history_bytes", "Size of the history", self.history_bytes.clone());
        let help = "Events that the history did not get";
        r.register("camscribe_history_dropped_events", help, self.history_dropped_events.clone());
        let help = "Events whose frames the history did not get";
        r.register("camscribe_history_dropped_frames", help, self.history_dropped_frames.clone());
        let help = "1 while the MQTT broker is connected";
        r.register("camscribe_broker_connected", help, self.broker_connected.clone());
        let help = "Commands over MQTT for cameras that do not exist";
        r.register("camscribe_unknown_camera_commands", help, self.unknown_camera_commands.clone());
        let help = "Questions about cameras over MQTT that got no reply, because too many came";
        r.register("camscribe_asks_unanswered", help, self.unanswered_asks.clone());
        let help = "Resident memory of this process";
        r.register("process_resident_memory_bytes", help, self.resident.clone());
        r.register("process_cpu_seconds", "CPU time of this process", self.cpu.clone());
        let help = "When this process started, in seconds since 1970";
        r.register("process_start_time_seconds", help, self.started.clone());
    }

    /// Removes a camera. If it comes back, its counters begin at 0 again.
    pub fn remove(&self, camera: &CameraId, readings: &Readings) {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.insert(camera.clone(), readings.losses(camera));
        let labels = OfCamera { camera: camera.clone() };
        for counters in [
            &self.frames,
            &self.decode_errors,
            &self.outbox_dropped,
            &self.outbox_dead_lettered,
            &self.outbox_dropped_snapshots,
        ] {
            counters.remove(&labels);
        }
    }

    /// Copies the readings. `clips_dropped` counts, among others, the clips that were dropped in the queue.
    pub fn update(&self, readings: &Readings, clips_dropped: &Counters<OfDrop>) {
        self.state.clear();
        for (camera, reading) in &readings.cameras {
            for state in CameraState::ALL {
                let labels = OfState { camera: camera.clone(), state };
                self.state.get_or_create(&labels).set((state == reading.state).into());
            }
            let labels = OfCamera { camera: camera.clone() };
            set(&self.frames, &labels, reading.counts.frames);
            set(&self.decode_errors, &labels, reading.counts.decode_errors);
        }
        self.queue.set(gauge(readings.queue));
        self.queue_age.set(readings.queue_age.as_secs_f64());
        self.outbox.set(gauge(readings.outbox));
        self.outbox_bytes.set(readings.outbox_bytes.try_into().unwrap_or(i64::MAX));
        self.outbox_on_disk.set(readings.outbox_on_disk.into());
        self.outbox_age.set(readings.outbox_age.as_secs_f64());
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        for camera in readings.cameras.keys() {
            let counts = readings.losses(camera).since(before.get(camera));
            let labels = OfCamera { camera: camera.clone() };
            set(&self.outbox_dropped, &labels, counts.dropped);
            set(&self.outbox_dead_lettered, &labels, counts.dead_lettered);
            set(&self.outbox_dropped_snapshots, &labels, counts.dropped_snapshots);
            let overload = OfDrop { camera: camera.clone(), reason: Reason::Overload };
            set(clips_dropped, &overload, counts.overload);
        }
        let history = readings.history.unwrap_or_default();
        self.history_on.set(history.is_on.into());
        self.history_events.set(history.events.try_into().unwrap_or(i64::MAX));
        self.history_bytes.set(history.bytes.try_into().unwrap_or(i64::MAX));
        self.history_dropped_events.inner().store(history.dropped_events, Ordering::Relaxed);
        self.history_dropped_frames.inner().store(history.dropped_frames, Ordering::Relaxed);
        self.broker_connected.set(readings.broker_connected.into());
        self.unknown_camera_commands.inner().store(readings.unknown_camera_commands, Ordering::Relaxed);
        self.unanswered_asks.inner().store(readings.unanswered_asks, Ordering::Relaxed);
        if let Some(bytes) = process::resident() {
            self.resident.set(gauge(bytes));
        }
        if let Some(process) = process::times() {
            self.cpu.inner().store(process.cpu.as_secs_f64().to_bits(), Ordering::Relaxed);
            self.started.set(process.started.as_secs_f64());
        }
    }
}

/// Sets a counter to the count of its owner.
pub fn set<L>(counters: &Counters<L>, labels: &L, count: u64)
where
    L: Clone + std::hash::Hash + Eq,
{
    counters.get_or_create(labels).inner().store(count, Ordering::Relaxed);
}

/// Converts to the type of a gauge.
pub fn gauge(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
