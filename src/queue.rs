//! Between the cameras and the model: clips wait here.
//!
//! Every camera pushes its finished clips; the model thread pops batches. Bounded per camera: a
//! live camera that is ahead of the model loses its own oldest clip, a file waits. Fair: a batch
//! takes the oldest clip of each waiting camera in turn, so a busy camera cannot starve a quiet one.

use std::{
    collections::{BTreeMap, VecDeque},
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{clip::Clip, frame::CameraId};

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

/// The queue is closed: it takes nothing more.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clip queue is closed")]
pub struct Closed;

/// A bounded queue of clips, fair to cameras.
#[derive(Debug)]
pub struct ClipQueue {
    per_camera: usize,
    inner: Mutex<Inner>,
    /// A clip came in, or the queue was closed.
    filled: Condvar,
    /// A clip went out, or the queue was closed.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    cameras: BTreeMap<CameraId, Lane>,
    /// Cameras with clips, in the order of their turns.
    turns: VecDeque<CameraId>,
    waiting: usize,
    closed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    clips: VecDeque<(Clip, Instant)>,
    dropped: u64,
    dropped_since_last: u64,
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

    /// Puts a clip in. With [`Overflow::Block`] it waits for room or for the queue to close.
    pub fn push(&self, clip: Clip, overflow: Overflow) -> Result<(), Closed> {
        let mut inner = self.lock();
        while overflow == Overflow::Block && !inner.closed && inner.held(&clip.camera) >= self.per_camera {
            inner = self.emptied.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        if inner.closed {
            return Err(Closed);
        }
        inner.push(clip, self.per_camera);
        drop(inner);
        self.filled.notify_all();
        Ok(())
    }

    /// Waits for a clip, then up to `linger` for more, and takes at most `max`: the oldest of each
    /// waiting camera in turn. None when the queue is closed and empty.
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
            let batch: Vec<Queued> = std::iter::from_fn(|| inner.pop()).take(max.get()).collect();
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
    fn held(&self, camera: &CameraId) -> usize {
        self.cameras.get(camera).map_or(0, |lane| lane.clips.len())
    }

    fn push(&mut self, clip: Clip, per_camera: usize) {
        let camera = clip.camera.clone();
        let lane = self.cameras.entry(camera.clone()).or_default();
        if lane.clips.is_empty() {
            self.turns.push_back(camera);
        }
        lane.clips.push_back((clip, Instant::now()));
        self.waiting += 1;
        if lane.clips.len() > per_camera {
            lane.clips.pop_front();
            lane.dropped += 1;
            lane.dropped_since_last += 1;
            self.waiting -= 1;
        }
    }

    fn pop(&mut self) -> Option<Queued> {
        let camera = self.turns.pop_front()?;
        let lane = self.cameras.get_mut(&camera)?;
        let (clip, queued_at) = lane.clips.pop_front()?;
        let dropped_before = std::mem::take(&mut lane.dropped_since_last);
        self.waiting -= 1;
        if !lane.clips.is_empty() {
            self.turns.push_back(camera);
        }
        Some(Queued { clip, queued_at, dropped_before })
    }
}
