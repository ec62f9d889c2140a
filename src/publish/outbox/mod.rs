//! What waits to be delivered: the channel between the model thread and the network.
//!
//! Finished descriptions come in from the model thread and are on disk before it goes on; the
//! publisher takes the oldest, keeps each until the broker has acknowledged it, and starts over with
//! all that is left when a connection is lost. What the disk does not take waits in memory, in order,
//! until it does.
//!
//! Bounded: when it is full the oldest waiting message makes room, and is counted. Of a camera's
//! snapshots only the newest is ever published, so only the newest is kept; they have a bound of
//! their own, and an event outlives the loss of its snapshot.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use self::{
    ledger::Ledger,
    store::{Change, OpenError, Opened, Store},
};
use crate::{
    camera::CameraId,
    event::{Event, EventKind},
};

mod ledger;
mod memory;
mod store;
#[cfg(test)]
mod tests;

/// What a row costs beside its payload: an estimate of the ids, the index and the page's slack.
const ROW_OVERHEAD: u64 = 256;
/// The most of either table that waits in memory, bytes.
const MEMORY_BYTES: u64 = 32 << 20;
/// A disk that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(2);

/// The most that waits, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of events, bookkeeping included.
    pub events: u64,
    /// Of snapshots.
    pub snapshots: u64,
}

/// One description on its way out. It says nothing about topics or protocols.
#[derive(Clone, Debug)]
pub struct Message {
    /// Which camera it is about.
    pub camera: CameraId,
    /// The event's id.
    pub id: Uuid,
    /// What kind of event it is: only a description becomes the camera's latest.
    pub kind: EventKind,
    /// The event as JSON.
    pub event: Bytes,
    /// A frame that the model saw, as JPEG.
    pub snapshot: Option<Bytes>,
}

impl Message {
    /// The message that carries `event`, and `snapshot` (a JPEG) if there is one.
    pub fn new(event: &Event, snapshot: Option<Vec<u8>>) -> Result<Self, serde_json::Error> {
        Ok(Self {
            camera: event.camera.clone(),
            id: event.id,
            kind: event.kind,
            event: serde_json::to_vec(event)?.into(),
            snapshot: snapshot.map(Bytes::from),
        })
    }
}

/// Names a message in the outbox. Later messages have greater rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(i64);

impl Row {
    const FIRST: Self = Self(0);
    const LAST: Self = Self(i64::MAX);

    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// An event that is being delivered.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What to call it when its fate is known.
    pub row: Row,
    /// Which camera it is about.
    pub camera: CameraId,
    /// Its id.
    pub id: Uuid,
    /// The event as JSON.
    pub event: Bytes,
    /// It is the last description of its camera.
    pub newest: bool,
}

/// A frame that the model saw, not yet delivered.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Of the event that it belongs to.
    pub id: Uuid,
    /// The picture.
    pub jpeg: Bytes,
}

/// Where the outbox lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// All that waits is on disk.
    Disk,
    /// New messages wait in memory, and are lost if the process ends before the broker has them.
    Memory {
        /// In words.
        why: String,
    },
}

/// How full the outbox is and what it lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Events that are not acknowledged.
    pub rows: usize,
    /// What they take.
    pub bytes: u64,
    /// When the oldest of them was made.
    pub oldest: Option<DateTime<Utc>>,
    /// What the snapshots that are not acknowledged take.
    pub snapshot_bytes: u64,
    /// Events that made room for newer ones, by camera, since the start.
    pub dropped: BTreeMap<CameraId, u64>,
    /// Snapshots that made room for other cameras', by camera, since the start. One that a newer of
    /// its own camera replaces is not missed and not counted.
    pub dropped_snapshots: BTreeMap<CameraId, u64>,
    /// Events that the broker will not take, by camera, since the start.
    pub set_aside: BTreeMap<CameraId, u64>,
    /// Where it lives.
    pub place: Place,
}

/// The state directory belongs to another process.
#[derive(Debug, thiserror::Error)]
#[error(
    "another camscribe uses the state directory {}: stop that one, or give this one a node.state_dir of its own",
    .0.display()
)]
pub struct InUse(PathBuf);

/// One of the two first-in-first-out stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    Events,
    Snapshots,
}

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Snapshots => "snapshots",
        }
    }
}

/// Names a payload. A snapshot has the row of its event.
type Key = (Table, Row);

/// What a row holds.
#[derive(Clone, Debug)]
struct Item {
    camera: CameraId,
    id: Uuid,
    /// It is a description, or a picture of what was described.
    description: bool,
    payload: Bytes,
}

/// What a payload of so many bytes is counted as.
fn cost(payload: usize) -> u64 {
    ROW_OVERHEAD + payload as u64
}

/// A bounded first-in-first-out store of messages.
pub struct Outbox {
    /// Held while something is written; always taken before `ledger`.
    disk: Mutex<Option<Disk>>,
    /// What there is and how it stands. Never held while something is written, so that the network
    /// need not wait for the disk.
    ledger: Mutex<Ledger>,
    appended: Notify,
    _lock: Option<File>,
}

struct Disk {
    store: Store,
    folder: PathBuf,
    /// When it last took something amiss, if what it did not take still waits in memory.
    failed: Option<Instant>,
}

impl Disk {
    fn is_resting(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < RETRY)
    }
}

impl Outbox {
    /// An empty outbox in memory: what it holds ends with the process. Never more than 32 MiB of
    /// events and as much of snapshots.
    pub fn in_memory(limits: Limits) -> Self {
        Self::without_disk(limits, "no state directory is used".into())
    }

    fn without_disk(limits: Limits, why: String) -> Self {
        let limits =
            Limits { events: limits.events.min(MEMORY_BYTES), snapshots: limits.snapshots.min(MEMORY_BYTES) };
        let ledger = Ledger::new(limits, Place::Memory { why }, None, Vec::new());
        Self { disk: Mutex::new(None), ledger: Mutex::new(ledger), appended: Notify::new(), _lock: None }
    }

    /// The outbox in `folder`, with all that was not delivered when it was last used. If the folder
    /// cannot be used, that is said, and the outbox is one in memory until the next start.
    ///
    /// # Errors
    /// When another process uses the folder.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, InUse> {
        let Opened { store, reader, found, lock } = match store::open(folder) {
            Ok(opened) => opened,
            Err(OpenError::InUse) => return Err(InUse(folder.into())),
            Err(OpenError::Unusable(why)) => {
                let folder = folder.display();
                tracing::error!(
                    "the state directory {folder} cannot be used ({why}): descriptions wait for the broker in \
                     memory, and those that wait are lost when camscribe ends; let camscribe write there, or \
                     set node.state_dir, and start it again"
                );
                return Ok(Self::without_disk(limits, format!("{folder} cannot be used: {why}")));
            }
        };
        let ledger = Ledger::new(limits, Place::Disk, Some(reader), found);
        Ok(Self {
            disk: Mutex::new(Some(Disk { store, folder: folder.into(), failed: None })),
            ledger: Mutex::new(ledger),
            appended: Notify::new(),
            _lock: Some(lock),
        })
    }

    /// Takes a message in: it is on disk when this returns, unless the disk fails. When there is no
    /// room, the oldest waiting events go, and are counted; so is one that is larger than the whole
    /// outbox.
    pub fn append(&self, message: Message) {
        let mut disk = self.disk();
        if let Some(disk) = &mut *disk
            && disk.failed.is_some()
            && !disk.is_resting()
        {
            self.catch_up(disk);
        }
        let items = self.ledger().admit(message);
        let left = match &mut *disk {
            // What came earlier must not be overtaken.
            Some(disk) if !self.ledger().has_events_in_memory() => self.put(disk, items),
            _ => items,
        };
        self.ledger().keep(left);
        drop(disk);
        self.appended.notify_one();
    }

    /// Waits until something was appended since the last wait. For one waiter.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The oldest waiting event, which is in flight from now on.
    pub fn take(&self) -> Option<Taken> {
        self.ledger().take()
    }

    /// The broker has it: forget it.
    ///
    /// The row leaves the disk with the next write, at the latest when [`Outbox::tend`] is called. A
    /// process that dies before delivers it again under the same id, which QoS 1 allows.
    pub fn acknowledge(&self, row: Row) {
        self.ledger().settle(row);
    }

    /// The broker will never take it: forget it, and count it.
    pub fn set_aside(&self, row: Row) {
        self.ledger().set_aside(row);
    }

    /// The connection is lost: everything that is not acknowledged waits again, in order.
    pub fn rewind(&self) {
        self.ledger().rewind();
    }

    /// The newest snapshot of `camera` that was not delivered.
    pub fn snapshot(&self, camera: &CameraId) -> Option<Snapshot> {
        self.ledger().snapshot(camera)
    }

    /// Forgets the snapshots of other cameras than are wanted: those that there are no more.
    pub fn keep_snapshots(&self, wanted: impl Fn(&CameraId) -> bool) {
        self.ledger().keep_snapshots(wanted);
    }

    /// The broker has the snapshot of this event, or will never take it.
    pub fn forget_snapshot(&self, id: Uuid) {
        self.ledger().forget_snapshot(id);
    }

    /// Brings the disk up to date: takes off it what the broker has, and moves to it what waits in
    /// memory since it failed. May wait for the disk; to be called every second or so.
    pub fn tend(&self) {
        if let Some(disk) = &mut *self.disk()
            && !disk.is_resting()
        {
            self.catch_up(disk);
        }
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Events that are not acknowledged.
    pub fn len(&self) -> usize {
        self.ledger().len()
    }

    /// How full it is and what it lost.
    pub fn status(&self) -> Status {
        self.ledger().status()
    }

    /// Writes items that come after all that is on disk; gives those that it did not take.
    fn put(&self, disk: &mut Disk, items: Vec<(Key, Item)>) -> Vec<(Key, Item)> {
        let mut change = Change { add: items, gone: self.ledger().gone() };
        let Err(error) = disk.store.write(&change) else {
            self.ledger().written(&change.gone);
            return Vec::new();
        };
        self.failed(disk, &error);
        let (events, snapshots) = change.add.into_iter().partition(|((table, _), _)| *table == Table::Events);
        change.add = events;
        let snapshots: Vec<_> = snapshots;
        // There may be room for the words, if not for the picture.
        if !snapshots.is_empty() && disk.store.write(&change).is_ok() {
            self.ledger().written(&change.gone);
            return snapshots;
        }
        change.add.into_iter().chain(snapshots).collect()
    }

    /// Writes until nothing is left to write or the disk fails.
    fn catch_up(&self, disk: &mut Disk) {
        loop {
            let change = self.ledger().pending();
            if change.add.is_empty() && change.gone.is_empty() {
                break;
            }
            if let Err(error) = disk.store.write(&change) {
                return self.failed(disk, &error);
            }
            self.ledger().moved(&change);
        }
        if disk.failed.take().is_some() {
            self.ledger().place = Place::Disk;
            tracing::warn!("the outbox in {} takes descriptions again", disk.folder.display());
        }
    }

    fn failed(&self, disk: &mut Disk, error: &rusqlite::Error) {
        let folder = disk.folder.display();
        if disk.failed.replace(Instant::now()).is_none() {
            tracing::error!(
                "the outbox in {folder} cannot be written ({error}): what it does not take waits in memory, and \
                 is lost if camscribe ends before; is the disk full? It is tried again until it works"
            );
        }
        self.ledger().place = Place::Memory { why: format!("{folder} cannot be written: {error}") };
    }

    fn disk(&self) -> MutexGuard<'_, Option<Disk>> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // As above.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
