//! Between the cameras and the model: clips wait here.
//!
//! Every camera pushes its finished clips; the model thread pops batches. Bounded per camera: a
//! live camera that is ahead of the model loses its own oldest clip, a file waits. Fair: a batch
//! takes the oldest clip of each waiting camera in turn, so a busy camera cannot starve a quiet one.
//!
//! A camera of priority 3 gets three turns where one of priority 1 gets one. Every turn moves a
//! camera's place on by the inverse of its priority, and the camera that is furthest behind has the
//! next one. Priorities matter only when the model cannot keep up: otherwise every clip gets its turn.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{camera::CameraId, clip::Clip};

/// Clips of one camera that wait for the model: one to be taken next, one behind it. More would
/// only make descriptions older.
pub const CLIPS_PER_CAMERA: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// What a push does when its camera's clips have reached their bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The camera's oldest clip makes room, and is counted: for live sources, which cannot wait.
    DropOldest,
    /// The pushing thread waits for room: for files, which lose nothing by it.
    Block,
}

/// A clip that comes out.
#[derive(Debug)]
pub struct Queued {
    /// The clip.
    pub clip: Clip,
    /// When it went in.
    pub queued_at: Instant,
    /// How many clips of its camera were dropped since the last one that came out.
    pub dropped_before: u64,
}

/// The queue is closed, or this camera has left: nothing more is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clip queue takes nothing more")]
pub struct Closed;

/// A bounded queue of clips, fair to cameras.
#[derive(Debug)]
pub struct ClipQueue {
    per_camera: usize,
    inner: Mutex<Inner>,
    /// A clip came in, or the queue was closed.
    filled: Condvar,
    /// A clip went out, a camera left, or the queue was closed.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    cameras: BTreeMap<CameraId, Lane>,
    /// The place of the camera that had the last turn: who joins starts here, so that nobody can
    /// save up turns.
    place: u64,
    /// Counts arrivals and turns: of cameras in the same place, the one that waited longest goes first.
    count: u64,
    waiting: usize,
    closed: bool,
}

#[derive(Debug)]
struct Lane {
    clips: VecDeque<(Clip, Instant)>,
    /// How far a turn moves the camera on.
    step: u64,
    place: u64,
    since: u64,
    dropped: u64,
    dropped_since_last: u64,
    /// For so many more turns it counts as one that loses clips.
    losing: u32,
    /// Nothing more is taken of it.
    left: bool,
}

/// A camera loses clips now and then, not before every batch: it counts as losing for so many turns.
const LOSING: u32 = 20;

/// Every priority divides it: the least common multiple of 1 to 10.
const WAY: u64 = 2520;

impl Default for Lane {
    fn default() -> Self {
        Self {
            clips: VecDeque::new(),
            step: WAY,
            place: 0,
            since: 0,
            dropped: 0,
            dropped_since_last: 0,
            losing: 0,
            left: false,
        }
    }
}

impl Lane {
    /// The smaller, the sooner its turn comes.
    fn rank(&self) -> (u64, u64) {
        (self.place, self.since)
    }
}

impl ClipQueue {
    /// An empty queue that holds at most `per_camera` clips of each camera.
    pub fn new(per_camera: NonZeroUsize) -> Self {
        Self {
            per_camera: per_camera.get(),
            inner: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// A camera begins, or begins again. `priority`: how many turns it gets where one of priority 1 gets
    /// one, 1 to 10. One that has not joined has priority 1.
    pub fn join(&self, camera: &CameraId, priority: u64) {
        let mut inner = self.lock();
        let lane = inner.cameras.entry(camera.clone()).or_default();
        lane.step = WAY / priority.clamp(1, 10);
        lane.left = false;
    }

    /// A camera ends: whoever waits for room for its clip is let go, and the clip with it. Those that
    /// are in stay in.
    pub fn leave(&self, camera: &CameraId) {
        self.lock().cameras.entry(camera.clone()).or_default().left = true;
        self.emptied.notify_all();
    }

    /// Puts a clip in. With [`Overflow::Block`] it waits for room.
    ///
    /// # Errors
    /// When the queue is closed or the camera has left, also while it waits.
    pub fn push(&self, clip: Clip, overflow: Overflow) -> Result<(), Closed> {
        let mut inner = self.lock();
        let full = |i: &mut Inner| {
            overflow == Overflow::Block && i.takes(&clip.camera) && i.held(&clip.camera) >= self.per_camera
        };
        inner = self.emptied.wait_while(inner, full).unwrap_or_else(PoisonError::into_inner);
        if !inner.takes(&clip.camera) {
            return Err(Closed);
        }
        inner.push(clip, self.per_camera);
        drop(inner);
        self.filled.notify_all();
        Ok(())
    }

    /// Waits for a clip, then up to `linger` for more, and takes at most `max`: the oldest of each
    /// waiting camera in turn. None when the queue is closed and empty.
    ///
    /// A camera that loses clips is owed its turns even when its last clip is in the batch: one of
    /// lower priority that would overtake it waits for the next batch, or priorities would mean
    /// nothing to a batch with room for all. So a batch may be smaller than `max` while clips wait.
    pub fn pop_batch(&self, max: NonZeroUsize, linger: Duration) -> Option<Vec<Queued>> {
        let unpoisoned = PoisonError::into_inner;
        let mut inner = self.lock();
        loop {
            inner = self.filled.wait_while(inner, |i| i.waiting == 0 && !i.closed).unwrap_or_else(unpoisoned);
            if !inner.closed && inner.waiting < max.get() {
                let more = |i: &mut Inner| i.waiting < max.get() && !i.closed;
                inner = self
                    .filled
                    .wait_timeout_while(inner, linger, more)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
            let batch = inner.batch(max.get());
            if !batch.is_empty() {
                drop(inner);
                self.emptied.notify_all();
                return Some(batch);
            }
            if inner.closed {
                return None;
            }
        }
    }

    /// Takes nothing more; what is in can still be popped. Wakes everyone who waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    /// Gives up the clips that are in, counts them as dropped, and says how many they were.
    pub fn discard(&self) -> usize {
        let mut inner = self.lock();
        for lane in inner.cameras.values_mut() {
            lane.dropped += lane.clips.len() as u64;
            lane.clips.clear();
        }
        std::mem::take(&mut inner.waiting)
    }

    /// Clips that are in.
    pub fn len(&self) -> usize {
        self.lock().waiting
    }

    /// No clip is in.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long the clip that has waited longest has been in.
    pub fn age(&self) -> Duration {
        let inner = self.lock();
        let firsts = inner.cameras.values().filter_map(|lane| Some(lane.clips.front()?.1));
        firsts.min().map_or(Duration::ZERO, |first| first.elapsed())
    }

    /// Clips that made room for newer ones since the start, by camera.
    pub fn dropped(&self) -> BTreeMap<CameraId, u64> {
        self.lock().cameras.iter().map(|(camera, lane)| (camera.clone(), lane.dropped)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn takes(&self, camera: &CameraId) -> bool {
        !self.closed && self.cameras.get(camera).is_none_or(|lane| !lane.left)
    }

    fn held(&self, camera: &CameraId) -> usize {
        self.cameras.get(camera).map_or(0, |lane| lane.clips.len())
    }

    fn push(&mut self, clip: Clip, per_camera: usize) {
        let lane = self.cameras.entry(clip.camera.clone()).or_default();
        if lane.clips.is_empty() {
            lane.place = lane.place.max(self.place);
            lane.since = self.count;
            self.count += 1;
        }
        lane.clips.push_back((clip, Instant::now()));
        self.waiting += 1;
        if lane.clips.len() > per_camera {
            lane.clips.pop_front();
            lane.dropped += 1;
            lane.dropped_since_last += 1;
            lane.losing = LOSING;
            self.waiting -= 1;
        }
    }

    fn batch(&mut self, max: usize) -> Vec<Queued> {
        let losing = self.cameras.iter().filter(|(_, lane)| lane.losing > 0 && !lane.clips.is_empty());
        let losing: Vec<CameraId> = losing.map(|(camera, _)| camera.clone()).collect();
        let mut batch = Vec::new();
        while batch.len() < max {
            let Some(queued) = self.pop(&losing) else { break };
            batch.push(queued);
        }
        batch
    }

    /// The clip whose turn it is. None of a camera that would overtake one of higher priority that
    /// is `losing` clips.
    fn pop(&mut self, losing: &[CameraId]) -> Option<Queued> {
        let owed: Vec<(u64, u64)> =
            losing.iter().filter_map(|c| self.cameras.get(c)).map(|lane| (lane.step, lane.place)).collect();
        let may = |lane: &Lane| owed.iter().all(|(step, place)| *step >= lane.step || lane.place <= *place);
        let waiting = self.cameras.values_mut().filter(|lane| !lane.clips.is_empty() && may(lane));
        let lane = waiting.min_by_key(|lane| lane.rank())?;
        let (clip, queued_at) = lane.clips.pop_front()?;
        let dropped_before = std::mem::take(&mut lane.dropped_since_last);
        lane.losing = lane.losing.saturating_sub(1);
        self.place = lane.place;
        lane.place += lane.step;
        lane.since = self.count;
        self.count += 1;
        self.waiting -= 1;
        Some(Queued { clip, queued_at, dropped_before })
    }
}
