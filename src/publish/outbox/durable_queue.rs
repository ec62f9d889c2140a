//! The outbox itself: one mutex for the disk, one for the bookkeeping.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    database::Writer,
    folder::{self, OpenError, Opened},
    ledger::{Ledger, SPILL_BYTES},
    message::{InFlight, Message, Snapshot},
    migrations,
    row::{Item, Key, Row, Table},
    status::{Limits, Status, Storage},
};
use crate::{camera::CameraId, ownership::user, sqlite::Migration};

/// How long a disk that failed is left alone.
pub(super) const RETRY: Duration = Duration::from_secs(2);

/// Another process uses the state directory.
#[derive(Debug, thiserror::Error)]
#[error(
    "another camscribe uses the state directory {}: stop that one, or give this one a node.state_dir of its own",
    .0.display()
)]
pub struct InUse(PathBuf);

/// A bounded first-in-first-out queue of messages that survives the process.
pub struct Outbox {
    /// Locked while something is written; always locked before `ledger`.
    disk: Mutex<Option<Disk>>,
    /// The bookkeeping. Never locked while something is written, so that the network need not wait for
    /// the disk.
    ledger: Mutex<Ledger>,
    appended: Notify,
    /// What the disk remembered of each camera's alerts when it was opened.
    alerts: BTreeMap<CameraId, Bytes>,
    _lock: Option<File>,
}

pub(super) struct Disk {
    pub writer: Writer,
    folder: PathBuf,
    /// When the last write failed, while rows that it did not take wait in memory.
    pub failed: Option<Instant>,
}

impl Disk {
    fn is_resting(&self) -> bool {
        self.failed.is_some_and(|at| at.elapsed() < RETRY)
    }
}

impl Outbox {
    /// An empty outbox in memory. Its content ends with the process. It holds at most 32 MiB of events
    /// and 32 MiB of snapshots, even if `limits` allow more.
    pub fn in_memory(limits: Limits) -> Self {
        Self::without_disk(limits, "no state directory is used".into(), None)
    }

    /// As [`Outbox::in_memory`], while no other process may use `folder`, which is made if it is missing.
    ///
    /// # Errors
    /// When another process uses the folder.
    pub fn beside(folder: &Path, limits: Limits) -> Result<Self, InUse> {
        let lock = match folder::hold(folder) {
            Ok(lock) => Some(lock),
            Err(OpenError::InUse) => return Err(InUse(folder.into())),
            Err(OpenError::Unusable(why)) => {
                let folder = folder.display();
                tracing::error!(
                    "the state directory {folder} cannot be used ({why}): let camscribe write there"
                );
                None
            }
        };
        if folder::has_database(folder) {
            tracing::warn!(
                "what may wait in the outbox in {} stays there: it is delivered when outbox.storage is \"disk\" again",
                folder.display()
            );
        }
        Ok(Self::without_disk(limits, "outbox.storage is \"memory\"".into(), lock))
    }

    fn without_disk(limits: Limits, why: String, lock: Option<File>) -> Self {
        let limits =
            Limits { events: limits.events.min(SPILL_BYTES), snapshots: limits.snapshots.min(SPILL_BYTES) };
        let ledger = Ledger::new(limits, Storage::Memory { why }, None, Vec::new());
        Self {
            disk: Mutex::new(None),
            ledger: Mutex::new(ledger),
            appended: Notify::new(),
            alerts: BTreeMap::new(),
            _lock: lock,
        }
    }

    /// The outbox in `folder`, with every event that was not delivered when it was last used. If the
    /// folder cannot be used, an error is logged, and the outbox is in memory until the next start.
    ///
    /// # Errors
    /// When another process uses the folder.
    pub fn open(folder: &Path, limits: Limits) -> Result<Self, InUse> {
        Self::open_with(folder, limits, &migrations::ALL)
    }

    /// As [`Outbox::open`], with these migrations.
    pub(super) fn open_with(folder: &Path, limits: Limits, migrations: &[Migration]) -> Result<Self, InUse> {
        let Opened { writer, reader, contents, alerts, lock } = match folder::open(folder, migrations) {
            Ok(opened) => opened,
            Err(OpenError::InUse) => return Err(InUse(folder.into())),
            Err(OpenError::Unusable(why)) => {
                let folder = folder.display();
                tracing::error!(
                    "the state directory {folder} cannot be used ({why}): descriptions wait for the broker in \
                     memory, and those that wait are lost when camscribe ends; let {} write there, make room, or \
                     set node.state_dir, and start it again",
                    user()
                );
                return Ok(Self::without_disk(limits, format!("{folder} cannot be used: {why}"), None));
            }
        };
        let ledger = Ledger::new(limits, Storage::Disk, Some(reader), contents);
        Ok(Self {
            disk: Mutex::new(Some(Disk { writer, folder: folder.into(), failed: None })),
            ledger: Mutex::new(ledger),
            appended: Notify::new(),
            alerts,
            _lock: Some(lock),
        })
    }

    /// Adds a message. Its event is on disk when this returns, unless the disk fails; its snapshot with the next
    /// [`Outbox::flush`], unless the broker has it by then. When the outbox is full, the oldest waiting events are
    /// dropped and counted. A message that is larger than the whole outbox is dropped and counted itself.
    pub fn append(&self, message: Message) {
        let mut disk = self.disk();
        if let Some(disk) = &mut *disk
            && disk.failed.is_some()
            && !disk.is_resting()
        {
            self.catch_up(disk);
        }
        let (events, snapshots): (Vec<_>, Vec<_>) =
            self.ledger().admit(message).into_iter().partition(|((table, _), _)| *table == Table::Events);
        // Before the event, which then can be taken at once.
        self.ledger().spill(snapshots);
        let left = match &mut *disk {
            // A new row must not overtake the rows that wait in memory.
            Some(disk) if !self.ledger().has_spilled_events() => self.write(disk, events),
            _ => events,
        };
        self.ledger().spill(left);
        drop(disk);
        self.appended.notify_one();
    }

    /// What was remembered of each camera's alerts when the outbox was opened: [`Message::alerts`] of its last event
    /// that had them.
    pub fn alerts(&self) -> &BTreeMap<CameraId, Bytes> {
        &self.alerts
    }

    /// The first events that the history has not confirmed, later than the event `after` (nil: all): at most `most`.
    /// Those that are not on disk are not among them.
    pub fn unrecorded(&self, after: Uuid, most: usize) -> Vec<(Uuid, Bytes)> {
        self.ledger().unrecorded(after, most)
    }

    /// Whether new events are stored on disk.
    pub fn is_on_disk(&self) -> bool {
        self.ledger().storage == Storage::Disk
    }

    /// There is no history: nothing is kept for it any more.
    pub fn forget_unrecorded(&self) {
        if let Some(disk) = &mut *self.disk()
            && let Err(error) = disk.writer.forget_unrecorded()
        {
            tracing::warn!("what was kept for a history stays in the outbox: {error}");
        }
    }

    /// Events that the history will not get, since too many waited for it, since the start.
    pub fn unrecorded_dropped(&self) -> u64 {
        self.disk().as_ref().map_or(0, |disk| disk.writer.unrecorded_dropped)
    }

    /// The history has these events. Their copies leave the disk with the next write.
    pub fn recorded(&self, ids: &[Uuid]) {
        self.ledger().recorded(ids);
    }

    /// Waits until something was appended since the last wait. For one waiter.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The oldest waiting event. It is in flight from now on.
    pub fn take(&self) -> Option<InFlight> {
        self.ledger().take()
    }

    /// Removes an event that the broker has acknowledged.
    ///
    /// The row leaves the disk with the next write, at the latest with [`Outbox::flush`]. A process
    /// that dies before that delivers the event again with the same id, which QoS 1 allows.
    pub fn acknowledge(&self, row: Row) {
        self.ledger().settle(row);
    }

    /// Removes and counts an event that the broker refuses for good.
    pub fn dead_letter(&self, row: Row) {
        self.ledger().dead_letter(row);
    }

    /// After a lost connection: every unacknowledged event waits again, in order.
    pub fn rewind(&self) {
        self.ledger().rewind();
    }

    /// The newest snapshot of `camera` that was not delivered.
    pub fn snapshot(&self, camera: &CameraId) -> Option<Snapshot> {
        self.ledger().snapshot(camera)
    }

    /// Removes the snapshots of the cameras for which `wanted` is false.
    pub fn keep_snapshots(&self, wanted: impl Fn(&CameraId) -> bool) {
        self.ledger().keep_snapshots(wanted);
    }

    /// Removes the snapshot of the event `id`: the broker has it, or refuses it for good.
    pub fn forget_snapshot(&self, id: Uuid) {
        self.ledger().forget_snapshot(id);
    }

    /// Brings the disk up to date: deletes acknowledged rows, and writes rows that wait in memory since
    /// the disk failed. Call it about once a second. It blocks on the disk.
    pub fn flush(&self) {
        if let Some(disk) = &mut *self.disk()
            && !disk.is_resting()
        {
            self.catch_up(disk);
        }
    }

    /// No event waits or is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of events that are not acknowledged.
    pub fn len(&self) -> usize {
        self.ledger().len()
    }

    /// How full the outbox is and what it lost.
    pub fn status(&self) -> Status {
        self.ledger().status()
    }

    /// Writes items that come after all rows on disk. Returns the items that the disk did not take.
    fn write(&self, disk: &mut Disk, items: Vec<(Key, Item)>) -> Vec<(Key, Item)> {
        let batch = self.ledger().batch(items);
        match disk.writer.write(&batch) {
            Ok(()) => {
                self.ledger().settled(&batch);
                Vec::new()
            }
            Err(error) => {
                self.write_failed(disk, &error);
                batch.insert
            }
        }
    }

    /// Writes until nothing is left to write or the disk fails.
    fn catch_up(&self, disk: &mut Disk) {
        loop {
            let batch = self.ledger().pending();
            if batch.is_empty() {
                break;
            }
            if let Err(error) = disk.writer.write(&batch) {
                return self.write_failed(disk, &error);
            }
            self.ledger().written(&batch);
        }
        if disk.failed.take().is_some() {
            self.ledger().storage = Storage::Disk;
            tracing::warn!("the outbox in {} takes descriptions again", disk.folder.display());
        }
    }

    fn write_failed(&self, disk: &mut Disk, error: &rusqlite::Error) {
        let folder = disk.folder.display();
        if disk.failed.replace(Instant::now()).is_none() {
            tracing::error!(
                "the outbox in {folder} cannot be written ({error}): new descriptions wait in memory, and are \
                 lost if camscribe ends before the disk takes them; is the disk full? camscribe keeps trying"
            );
        }
        self.ledger().storage = Storage::Memory { why: format!("{folder} cannot be written: {error}") };
    }

    pub(super) fn disk(&self) -> MutexGuard<'_, Option<Disk>> {
        // Nothing panics while the lock is held, so a poisoned lock guards whole data.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        // As above.
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
