//! What clients of the page are told as it happens: events, and what each camera last showed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use crate::{
    camera::CameraId,
    event::{AlertInfo, Event, EventKind},
    http::Live,
};

/// The time in which clips are counted.
const RATE_SPAN: Duration = Duration::from_secs(60);
/// The most clips that are counted.
const MOST_COUNTED: usize = 100_000;

/// What clients of the page are told as it happens.
#[derive(Default)]
pub struct Feed {
    /// Tells them.
    pub live: Arc<Live>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    cameras: BTreeMap<CameraId, Shown>,
    /// When clips of the last minute were done.
    clips: VecDeque<Instant>,
}

/// What a camera last showed.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Its newest event that is not of an unchanged clip.
    pub latest: Option<Event>,
    /// Its alerts after its newest clip of any kind.
    pub alerts: BTreeMap<String, AlertInfo>,
    /// The end of its newest clip of any kind.
    pub seen: Option<DateTime<Utc>>,
    /// Its newest picture, a JPEG, and the event that it belongs to.
    pub snapshot: Option<(Uuid, Bytes)>,
}

impl Feed {
    /// Tells of an event that is in the outbox.
    pub fn event(&self, event: &Event, snapshot: Option<Bytes>) {
        let mut inner = self.lock();
        let shown = inner.cameras.entry(event.camera.clone()).or_default();
        shown.seen = Some(event.clip.end);
        shown.alerts.clone_from(&event.alerts);
        if event.kind != EventKind::Unchanged {
            shown.latest = Some(event.clone());
        }
        if let Some(jpeg) = snapshot {
            shown.snapshot = Some((event.id, jpeg));
        }
        let now = Instant::now();
        inner.clips.push_back(now);
        let is_old = |then: &Instant| now.duration_since(*then) > RATE_SPAN;
        while inner.clips.len() > MOST_COUNTED || inner.clips.front().is_some_and(is_old) {
            inner.clips.pop_front();
        }
        drop(inner);
        match serde_json::to_string(event) {
            Ok(json) => self.live.tell("event", Some(event.id), &json),
            Err(error) => tracing::error!("an event cannot be written as JSON: {error}"),
        }
    }

    /// Takes in what a camera last showed before this process, unless it has shown something already.
    pub fn remember(&self, event: Event) {
        let mut inner = self.lock();
        let shown = inner.cameras.entry(event.camera.clone()).or_default();
        if shown.latest.is_none() {
            if shown.seen.is_none() {
                shown.seen = Some(event.clip.end);
                shown.alerts.clone_from(&event.alerts);
            }
            shown.latest = Some(event);
        }
    }

    /// What a camera last showed.
    pub fn shown(&self, camera: &CameraId) -> Shown {
        self.lock().cameras.get(camera).cloned().unwrap_or_default()
    }

    /// Forgets the picture of a camera.
    pub fn forget_snapshot(&self, camera: &CameraId) {
        if let Some(shown) = self.lock().cameras.get_mut(camera) {
            shown.snapshot = None;
        }
    }

    /// Forgets a camera.
    pub fn forget(&self, camera: &CameraId) {
        self.lock().cameras.remove(camera);
    }

    /// How many clips were done in the last minute.
    pub fn clips_per_minute(&self) -> f64 {
        let inner = self.lock();
        inner.clips.iter().filter(|then| then.elapsed() <= RATE_SPAN).count() as f64
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing panics while the lock is held.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
