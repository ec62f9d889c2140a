//! The queue between the cameras and the model, and beside it the one of clients' requests.
//!
//! Every camera pushes its finished clips; worker threads pop batches. The queue is bounded per camera: a
//! live camera that is ahead of the model loses its own oldest clip, a file waits. The queue is fair: a
//! batch takes the oldest clip of each waiting camera in turn, so that a busy camera cannot starve a quiet
//! one.
//!
//! Turns follow stride scheduling: a turn advances the camera's pass by its stride, which is inversely
//! proportional to its priority, and the camera with the lowest pass has the next turn. So a camera of
//! priority 3 gets three turns for each turn of a camera of priority 1. Priorities matter only while the
//! model cannot keep up: otherwise every clip gets its turn.
//!
//! Clips of live cameras go before those of files, which lose nothing by waiting. While clips of both wait, files have
//! one turn after [`LIVE_TURNS`] of live cameras.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroUsize,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;

use crate::{answer::Part, camera::CameraId, clip::Clip, request::Request};

/// Clips of one camera that wait for the model: one to be taken next, and one behind it. More would only
/// make descriptions older.
pub const CLIPS_PER_CAMERA: NonZeroUsize = NonZeroUsize::new(2).unwrap();

/// Most requests of clients that wait.
pub const REQUESTS_WAITING: usize = 64;

/// Turns of live cameras after which a file has one.
pub const LIVE_TURNS: u32 = 8;

/// What a push does when its camera has as many clips in the queue as it may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Overflow {
    /// Drops the camera's oldest clip and counts it: for live sources, which cannot wait.
    #[default]
    DropOldest,
    /// Blocks the pushing thread: for files, which lose nothing by it.
    Block,
}

/// A clip that was popped.
#[derive(Debug)]
pub struct Queued {
    /// The clip.
    pub clip: Clip,
    /// When it was pushed.
    pub queued_at: Instant,
    /// How many clips of its camera were dropped since the last one that was popped.
    pub dropped_before: u64,
}

/// A request of a client.
#[derive(Debug)]
pub struct Asked {
    /// What is asked.
    pub request: Request,
    /// Gets the answer. When its receiver is dropped, nobody wants the answer any more.
    pub reply: UnboundedSender<Part>,
    /// It goes before those that are not. Whoever asks so bounds how many such requests there are.
    pub is_urgent: bool,
}

/// As many requests wait as may.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{REQUESTS_WAITING} requests wait already")]
pub struct Busy;

/// How much the model can take now.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Clips and requests together.
    pub total: usize,
    /// Clips.
    pub clips: usize,
    /// Requests, if no clip waits.
    pub asked: usize,
    /// Requests, if clips wait.
    pub asked_beside_clips: usize,
}

impl Room {
    /// Room for so many clips or requests.
    pub fn of(total: usize) -> Self {
        Self { total, clips: total, asked: total, asked_beside_clips: total }
    }
}

/// What was taken out of the queue.
#[derive(Debug, Default)]
pub struct Batch {
    /// The oldest clip of each waiting camera in turn; those of files after the others.
    pub clips: Vec<Queued>,
    /// The oldest requests.
    pub asked: Vec<Asked>,
}

impl Batch {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.clips.is_empty() && self.asked.is_empty()
    }
}

/// The queue is closed, or the camera is not registered any more: no clip is accepted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the clip queue accepts no more clips")]
pub struct Closed;

/// A bounded queue of clips that is fair to cameras.
#[derive(Debug)]
pub struct ClipQueue {
    per_camera: usize,
    inner: Mutex<Inner>,
    /// A clip was pushed, or the queue was closed.
    pushed: Condvar,
    /// A clip was popped, a camera was unregistered, or the queue was closed.
    popped: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    cameras: BTreeMap<CameraId, CameraQueue>,
    /// The pass of the live camera, and of the file, that had the last turn. An idle one starts from here when its next
    /// clip comes, so that it accumulates no credit.
    pass: BTreeMap<Overflow, u64>,
    /// Turns of live cameras since clips of files wait, or since a file had the last turn.
    live_turns: u32,
    /// Counts pushes and turns. Of cameras with the same pass, the one that has waited longest is next.
    count: u64,
    waiting: usize,
    asked: VecDeque<Asked>,
    closed: bool,
}

/// The clips of one camera.
#[derive(Debug)]
struct CameraQueue {
    clips: VecDeque<(Clip, Instant)>,
    /// That of the last push: of a live camera, or of a file.
    overflow: Overflow,
    /// By how much a turn advances the pass.
    stride: u64,
    pass: u64,
    /// [`Inner::count`] when the camera began to wait.
    waiting_since: u64,
    dropped: u64,
    dropped_since_last: u64,
    /// The camera counts as backlogged for this many more turns.
    backlogged: u32,
    unregistered: bool,
}

/// For how many turns a camera counts as backlogged after it has lost a clip. A backlogged camera does not
/// lose a clip before every batch.
const BACKLOG_TURNS: u32 = 20;

/// The stride of priority 1. Every priority divides it: it is the least common multiple of 1 to 10.
const STRIDE1: u64 = 2520;

impl Default for CameraQueue {
    fn default() -> Self {
        Self {
            clips: VecDeque::new(),
            overflow: Overflow::default(),
            stride: STRIDE1,
            pass: 0,
            waiting_since: 0,
            dropped: 0,
            dropped_since_last: 0,
            backlogged: 0,
            unregistered: false,
        }
    }
}

impl CameraQueue {
    /// The camera with the lowest rank has the next turn.
    fn rank(&self) -> (u64, u64) {
        (self.pass, self.waiting_since)
    }

    fn is_file(&self) -> bool {
        self.overflow == Overflow::Block
    }
}

impl ClipQueue {
    /// An empty queue that holds at most `per_camera` clips of each camera.
    pub fn new(per_camera: NonZeroUsize) -> Self {
        Self {
            per_camera: per_camera.get(),
            inner: Mutex::default(),
            pushed: Condvar::new(),
            popped: Condvar::new(),
        }
    }

    /// Registers a camera, or registers it again. `priority`: how many turns it gets for each turn of a
    /// camera of priority 1; from 1 to 10. A camera that was never registered has priority 1.
    pub fn register(&self, camera: &CameraId, priority: u64) {
        let mut inner = self.lock();
        let queue = inner.cameras.entry(camera.clone()).or_default();
        queue.stride = STRIDE1 / priority.clamp(1, 10);
        queue.unregistered = false;
    }

    /// Accepts no more clips of a camera. A push that blocks returns [`Closed`]. Clips that are in the
    /// queue stay in it.
    pub fn unregister(&self, camera: &CameraId) {
        self.lock().cameras.entry(camera.clone()).or_default().unregistered = true;
        self.popped.notify_all();
    }

    /// Adds a clip. With [`Overflow::Block`] it waits until the camera has fewer clips than it may have.
    ///
    /// # Errors
    /// If the queue is closed or the camera is unregistered, also while it waits.
    pub fn push(&self, clip: Clip, overflow: Overflow) -> Result<(), Closed> {
        let mut inner = self.lock();
        let must_wait = |i: &mut Inner| {
            overflow == Overflow::Block && i.accepts(&clip.camera) && i.held(&clip.camera) >= self.per_camera
        };
        inner = self.popped.wait_while(inner, must_wait).unwrap_or_else(PoisonError::into_inner);
        if !inner.accepts(&clip.camera) {
            return Err(Closed);
        }
        inner.push(clip, overflow, self.per_camera);
        drop(inner);
        self.pushed.notify_all();
        Ok(())
    }

    /// Adds a client's request.
    ///
    /// # Errors
    /// If too many requests wait or the queue is closed.
    pub fn ask(&self, asked: Asked) -> Result<(), Busy> {
        let mut inner = self.lock();
        inner.forget_the_gone();
        if inner.closed || !asked.is_urgent && inner.asked.len() >= REQUESTS_WAITING {
            return Err(Busy);
        }
        let place = if asked.is_urgent { inner.first_patient() } else { inner.asked.len() };
        inner.asked.insert(place, asked);
        drop(inner);
        self.pushed.notify_all();
        Ok(())
    }

    /// Waits for a clip or a request, then up to `linger` for more. Returns as many as there is room for: requests,
    /// and the oldest clip of each waiting camera in turn, live ones first. Returns `None` when the queue is closed and
    /// empty.
    ///
    /// The turns of a backlogged camera count even if its last clip is in the batch: a camera of lower
    /// priority that would overtake it waits for the next batch. Otherwise priorities would mean nothing to
    /// a batch that could hold a clip of every camera. So a batch may be smaller than the room while clips
    /// wait.
    pub fn pop_batch(&self, room: Room, linger: Duration) -> Option<Batch> {
        let unpoisoned = PoisonError::into_inner;
        let mut inner = self.lock();
        loop {
            let nothing = |i: &mut Inner| i.waiting == 0 && i.asked.is_empty() && !i.closed;
            inner = self.pushed.wait_while(inner, nothing).unwrap_or_else(unpoisoned);
            let incomplete =
                |i: &mut Inner| i.waiting < room.clips && i.waiting + i.asked.len() < room.total && !i.closed;
            inner = self
                .pushed
                .wait_timeout_while(inner, linger, incomplete)
                .unwrap_or_else(|e| e.into_inner())
                .0;
            let batch = inner.take(room, &BTreeSet::new());
            if !batch.is_empty() {
                drop(inner);
                self.popped.notify_all();
                return Some(batch);
            }
            if inner.closed {
                return None;
            }
        }
    }

    /// What waits now, without the clips of these cameras, as far as there is room for it.
    pub fn pop_waiting(&self, room: Room, except: &BTreeSet<CameraId>) -> Batch {
        let mut inner = self.lock();
        let batch = inner.take(room, except);
        drop(inner);
        if !batch.is_empty() {
            self.popped.notify_all();
        }
        batch
    }

    /// How many clips and how many requests wait.
    pub fn waiting(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.waiting, inner.asked.len())
    }

    /// Whether any camera is registered, or was.
    pub fn serves_cameras(&self) -> bool {
        !self.lock().cameras.is_empty()
    }

    /// Accepts no more clips. What is in the queue can still be popped. Wakes every waiting thread.
    pub fn close(&self) {
        self.lock().closed = true;
        self.pushed.notify_all();
        self.popped.notify_all();
    }

    /// Drops all clips and requests in the queue, and counts the clips as dropped. Returns how many clips they were.
    pub fn discard(&self) -> usize {
        let mut inner = self.lock();
        inner.asked.clear();
        for queue in inner.cameras.values_mut() {
            queue.dropped += queue.clips.len() as u64;
            queue.clips.clear();
        }
        std::mem::take(&mut inner.waiting)
    }

    /// How many clips are in the queue.
    pub fn len(&self) -> usize {
        self.lock().waiting
    }

    /// Whether nothing is accepted any more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Whether no clip is in the queue.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long the oldest clip has been in the queue; zero if the queue is empty.
    pub fn age(&self) -> Duration {
        let inner = self.lock();
        let oldest = inner.cameras.values().filter_map(|queue| Some(queue.clips.front()?.1)).min();
        oldest.map_or(Duration::ZERO, |oldest| oldest.elapsed())
    }

    /// How many clips were dropped since the start, by camera.
    pub fn dropped(&self) -> BTreeMap<CameraId, u64> {
        self.lock().cameras.iter().map(|(camera, queue)| (camera.clone(), queue.dropped)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn accepts(&self, camera: &CameraId) -> bool {
        !self.closed && self.cameras.get(camera).is_none_or(|queue| !queue.unregistered)
    }

    fn held(&self, camera: &CameraId) -> usize {
        self.cameras.get(camera).map_or(0, |queue| queue.clips.len())
    }

    fn push(&mut self, clip: Clip, overflow: Overflow, per_camera: usize) {
        let queue = self.cameras.entry(clip.camera.clone()).or_default();
        let changes_sides = queue.overflow != overflow;
        if changes_sides {
            // What it had as the other is nothing to its new rivals.
            (queue.overflow, queue.pass, queue.backlogged) = (overflow, 0, 0);
        }
        if queue.clips.is_empty() || changes_sides {
            queue.pass = queue.pass.max(self.pass.get(&overflow).copied().unwrap_or_default());
            queue.waiting_since = self.count;
            self.count += 1;
        }
        queue.clips.push_back((clip, Instant::now()));
        self.waiting += 1;
        if queue.clips.len() > per_camera {
            queue.clips.pop_front();
            queue.dropped += 1;
            queue.dropped_since_last += 1;
            queue.backlogged = BACKLOG_TURNS;
            self.waiting -= 1;
        }
    }

    /// Forgets requests whose answers nobody wants any more.
    fn forget_the_gone(&mut self) {
        self.asked.retain(|asked| !asked.reply.is_closed());
    }

    /// The place of the first request that is not urgent.
    fn first_patient(&self) -> usize {
        self.asked.iter().position(|asked| !asked.is_urgent).unwrap_or(self.asked.len())
    }

    fn take(&mut self, room: Room, except: &BTreeSet<CameraId>) -> Batch {
        self.forget_the_gone();
        let asked = if self.waiting == 0 { room.asked } else { room.asked_beside_clips };
        let asked = asked.min(room.total).min(self.asked.len());
        let asked: Vec<Asked> = self.asked.drain(..asked).collect();
        Batch { clips: self.clips(room.clips.min(room.total - asked.len()), except), asked }
    }

    /// At most `max` clips, of other cameras than these.
    fn clips(&mut self, max: usize, except: &BTreeSet<CameraId>) -> Vec<Queued> {
        let backlogged =
            self.cameras.iter().filter(|(_, queue)| queue.backlogged > 0 && !queue.clips.is_empty());
        let backlogged: Vec<CameraId> = backlogged.map(|(camera, _)| camera.clone()).collect();
        let mut batch = Vec::new();
        while batch.len() < max {
            let Some(queued) = self.pop(&backlogged, except) else { break };
            batch.push(queued);
        }
        batch
    }

    /// The next clip of other cameras than `except`. Never one of a camera that would overtake a `backlogged` camera of
    /// higher priority, nor of a file before its turn.
    fn pop(&mut self, backlogged: &[CameraId], except: &BTreeSet<CameraId>) -> Option<Queued> {
        let entitled: Vec<(u64, u64)> = backlogged
            .iter()
            .filter_map(|c| self.cameras.get(c))
            .map(|queue| (queue.stride, queue.pass))
            .collect();
        let may = |queue: &CameraQueue| {
            entitled.iter().all(|(stride, pass)| *stride >= queue.stride || queue.pass <= *pass)
        };
        let a_file_waits = self.cameras.values().any(|queue| queue.is_file() && !queue.clips.is_empty());
        let mut waiting: Vec<&mut CameraQueue> = self
            .cameras
            .iter_mut()
            .filter(|(camera, queue)| !queue.clips.is_empty() && !except.contains(*camera))
            .map(|(_, queue)| queue)
            .collect();
        let files = waiting.iter().filter(|queue| queue.is_file()).count();
        let is_files_turn = files > 0 && (files == waiting.len() || self.live_turns >= LIVE_TURNS);
        // No file loses clips, so none is owed turns.
        waiting.retain(|queue| queue.is_file() == is_files_turn && (is_files_turn || may(queue)));
        let queue = waiting.into_iter().min_by_key(|queue| queue.rank())?;
        let (clip, queued_at) = queue.clips.pop_front()?;
        let dropped_before = std::mem::take(&mut queue.dropped_since_last);
        self.live_turns = if is_files_turn || !a_file_waits { 0 } else { self.live_turns + 1 };
        queue.backlogged = queue.backlogged.saturating_sub(1);
        self.pass.insert(queue.overflow, queue.pass);
        queue.pass += queue.stride;
        queue.waiting_since = self.count;
        self.count += 1;
        self.waiting -= 1;
        Some(Queued { clip, queued_at, dropped_before })
    }
}
