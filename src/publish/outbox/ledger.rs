//! The bookkeeping of the outbox: which rows wait, are in flight or are to be deleted; what they cost,
//! and what was lost.
//!
//! Payloads stay on disk, or in the spill. What is kept here is bounded by the number of cameras, by
//! the number of messages in flight, and by what was acknowledged since the last write.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use chrono::DateTime;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    database::{Batch, CameraRows, Reader, RowMeta},
    message::{InFlight, Message, Snapshot},
    row::{Item, Key, ROW_OVERHEAD, Row, Table, cost},
    spill::Spill,
    status::{Limits, Status, Storage},
};
use crate::{camera::CameraId, event::EventKind, sqlite::Fault};

/// The largest cost of either table in memory, bytes.
pub(super) const SPILL_BYTES: u64 = 32 << 20;
/// The most rows in one transaction: enough to make the wait for the disk small for each.
const BATCH: usize = 1000;
/// The most payload bytes in one transaction.
const BATCH_BYTES: u64 = 4 << 20;
/// The most damaged rows that one call skips, because each takes a while. The next call goes on.
const MAX_SKIPPED: usize = 1000;
/// The most events of which it is remembered that the history has them.
const MAX_RECORDED: usize = 10_000;

pub(super) struct Ledger {
    limits: Limits,
    pub storage: Storage,
    /// `None`: there is no disk.
    reader: Option<Reader>,
    /// Damaged rows. They are skipped and stay in the file.
    unreadable: BTreeSet<Row>,
    /// The last read from the disk failed.
    read_failed: bool,
    /// Rows that the disk did not take. The events among them come after all events on disk.
    spill: Spill,
    /// Rows to delete from the disk with the next write.
    deleted: BTreeSet<Key>,
    /// Events before this row are in flight, acknowledged or dropped. Events from this row on wait.
    cursor: Row,
    next: Row,
    rows: usize,
    bytes: u64,
    /// Taken since the last rewind and not acknowledged: camera and cost.
    in_flight: BTreeMap<Row, (CameraId, u64)>,
    /// The last description of each camera.
    newest: BTreeMap<CameraId, Row>,
    /// The one snapshot of each camera.
    snapshots: BTreeMap<CameraId, SnapshotMeta>,
    snapshot_bytes: u64,
    /// What is to be remembered of the alerts of cameras, and is not on disk yet.
    alerts: BTreeMap<CameraId, Bytes>,
    /// Events that the history has confirmed, and whose copies are still on disk.
    recorded: BTreeSet<Uuid>,
    dropped: BTreeMap<CameraId, u64>,
    dropped_snapshots: BTreeMap<CameraId, u64>,
    dead_lettered: BTreeMap<CameraId, u64>,
    /// Events are being dropped, which was logged.
    overflowing: bool,
}

struct SnapshotMeta {
    row: Row,
    id: Uuid,
    cost: u64,
}

impl Ledger {
    /// The bookkeeping of what is on disk already: `contents`.
    pub fn new(limits: Limits, storage: Storage, reader: Option<Reader>, contents: Vec<CameraRows>) -> Self {
        let mut ledger = Self {
            limits,
            storage,
            reader,
            unreadable: BTreeSet::new(),
            read_failed: false,
            spill: Spill::default(),
            deleted: BTreeSet::new(),
            cursor: Row::FIRST,
            next: Row::FIRST,
            rows: 0,
            bytes: 0,
            in_flight: BTreeMap::new(),
            newest: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            snapshot_bytes: 0,
            alerts: BTreeMap::new(),
            recorded: BTreeSet::new(),
            dropped: BTreeMap::new(),
            dropped_snapshots: BTreeMap::new(),
            dead_lettered: BTreeMap::new(),
            overflowing: false,
        };
        for CameraRows { table, camera, rows, bytes, last, description, id } in contents {
            ledger.next = ledger.next.max(last.next());
            match table {
                Table::Events => {
                    ledger.rows += rows as usize;
                    ledger.bytes += bytes + rows * cost(0);
                    ledger.newest.extend(description.map(|row| (camera, row)));
                }
                Table::Snapshots => {
                    let snapshot = SnapshotMeta { row: last, id, cost: bytes + cost(0) };
                    ledger.replace_snapshot(camera, snapshot);
                }
            }
        }
        ledger
    }

    /// Counts a message and drops the oldest events to make room for it, each camera's newest description last: readers
    /// that come later depend on it. Returns the rows to store: none, an event, or an event and its snapshot.
    pub fn admit(&mut self, message: Message) -> Vec<(Key, Item)> {
        let Message { camera, id, kind, event, snapshot, alerts, is_recorded } = message;
        self.alerts.extend(alerts.map(|alerts| (camera.clone(), alerts)));
        let size = cost(event.len());
        // Events in flight may be with the broker already: the oldest waiting event is dropped.
        while size <= self.limits.events && self.bytes + size > self.limits.events {
            let superseded = (kind != EventKind::Unchanged).then_some(&camera);
            let Some((row, oldest)) = self.first_to_drop(superseded) else { break };
            self.drop_event(row, &oldest);
        }
        if self.bytes + size > self.limits.events {
            *self.dropped.entry(camera).or_default() += 1;
            return Vec::new();
        }
        let row = self.next;
        self.next = row.next();
        self.rows += 1;
        self.bytes += size;
        let description = kind != EventKind::Unchanged;
        if description {
            self.newest.insert(camera.clone(), row);
        }
        let item = Item { camera: camera.clone(), id, description, payload: event, is_recorded };
        let mut items = vec![((Table::Events, row), item)];
        if let Some(jpeg) = snapshot {
            let size = cost(jpeg.len());
            if size > self.limits.snapshots {
                *self.dropped_snapshots.entry(camera).or_default() += 1;
                return items;
            }
            self.replace_snapshot(camera.clone(), SnapshotMeta { row, id, cost: size });
            while self.snapshot_bytes > self.limits.snapshots {
                self.drop_oldest_snapshot();
            }
            let item = Item { camera, id, description, payload: jpeg, is_recorded: false };
            items.push(((Table::Snapshots, row), item));
        }
        items
    }

    /// Keeps in memory what the disk does not take. Drops the oldest rows if that is too much.
    pub fn spill(&mut self, items: Vec<(Key, Item)>) {
        for (key, item) in items {
            // A snapshot may have been replaced while the disk was tried.
            if !self.deleted.remove(&key) {
                self.spill.insert(key, item);
            }
        }
        while self.spill.bytes(Table::Events) > SPILL_BYTES {
            let newest = &self.newest;
            let is_newest = |row: Row, item: &Item| newest.get(&item.camera) == Some(&row);
            let spill = &self.spill;
            let mut waiting = iter::successors(spill.first(Table::Events, self.cursor), |(row, _)| {
                spill.first(Table::Events, row.next())
            });
            let oldest =
                waiting.clone().find(|(row, item)| !is_newest(*row, item)).or_else(|| waiting.next());
            let Some((row, item)) = oldest.map(|(row, item)| (row, item.clone())) else { break };
            self.drop_event(row, &item);
        }
        while self.spill.bytes(Table::Snapshots) > SPILL_BYTES {
            let Some((_, item)) = self.spill.first(Table::Snapshots, Row::FIRST) else { break };
            let camera = item.camera.clone();
            *self.dropped_snapshots.entry(camera.clone()).or_default() += 1;
            self.remove_snapshot(&camera);
        }
    }

    pub fn has_spilled_events(&self) -> bool {
        self.spill.first(Table::Events, Row::FIRST).is_some()
    }

    pub fn take(&mut self) -> Option<InFlight> {
        let (row, Item { camera, id, payload, .. }) = self.first(self.cursor)?;
        self.cursor = row.next();
        self.in_flight.insert(row, (camera.clone(), cost(payload.len())));
        let newest = self.newest.get(&camera) == Some(&row);
        Some(InFlight { row, camera, id, event: payload, newest })
    }

    /// Removes an event that is in flight. Returns its camera.
    pub fn settle(&mut self, row: Row) -> Option<CameraId> {
        let (camera, cost) = self.in_flight.remove(&row)?;
        self.overflowing &= self.bytes > self.limits.events / 10 * 9;
        self.rows -= 1;
        self.bytes -= cost;
        self.remove((Table::Events, row));
        Some(camera)
    }

    pub fn dead_letter(&mut self, row: Row) {
        if let Some(camera) = self.settle(row) {
            *self.dead_lettered.entry(camera).or_default() += 1;
        }
    }

    pub fn rewind(&mut self) {
        self.cursor = Row::FIRST;
        self.in_flight.clear();
    }

    pub fn snapshot(&mut self, camera: &CameraId) -> Option<Snapshot> {
        let row = self.snapshots.get(camera)?.row;
        let item = match self.spill.first(Table::Snapshots, row) {
            Some((found, item)) if found == row => item.clone(),
            // A snapshot that cannot be read is skipped.
            _ => {
                self.reader.as_ref()?.first(Table::Snapshots, row).ok()?.filter(|(found, _)| *found == row)?.1
            }
        };
        Some(Snapshot { id: item.id, jpeg: item.payload })
    }

    pub fn keep_snapshots(&mut self, wanted: impl Fn(&CameraId) -> bool) {
        let others: Vec<_> = self.snapshots.keys().filter(|camera| !wanted(camera)).cloned().collect();
        others.iter().for_each(|camera| self.remove_snapshot(camera));
    }

    pub fn forget_snapshot(&mut self, id: Uuid) {
        let camera =
            self.snapshots.iter().find(|(_, snapshot)| snapshot.id == id).map(|(camera, _)| camera.clone());
        if let Some(camera) = camera {
            self.remove_snapshot(&camera);
        }
    }

    /// The history has these events.
    pub fn recorded(&mut self, ids: &[Uuid]) {
        if self.reader.is_some() {
            self.recorded.extend(ids);
        }
        // While the disk takes nothing. What is forgotten here is recorded a second time, which changes nothing.
        while self.recorded.len() > MAX_RECORDED {
            self.recorded.pop_first();
        }
    }

    /// See [`Reader::unrecorded`].
    pub fn unrecorded(&self, after: Uuid, most: usize) -> Vec<(Uuid, Bytes)> {
        let found = self.reader.as_ref().and_then(|reader| reader.unrecorded(after, most).ok());
        found.unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn status(&mut self) -> Status {
        // The id is a UUIDv7, which holds the time.
        let made = |id: Uuid| {
            let (seconds, nanoseconds) = id.get_timestamp()?.to_unix();
            DateTime::from_timestamp(seconds.try_into().ok()?, nanoseconds)
        };
        Status {
            rows: self.rows,
            bytes: self.bytes,
            oldest: self.first(Row::FIRST).and_then(|(_, item)| made(item.id)),
            snapshot_bytes: self.snapshot_bytes,
            dropped: self.dropped.clone(),
            dropped_snapshots: self.dropped_snapshots.clone(),
            dead_lettered: self.dead_lettered.clone(),
            storage: self.storage.clone(),
        }
    }

    /// Rows to delete from the disk: at most a batch of them.
    fn to_delete(&self) -> Vec<Key> {
        self.deleted.iter().take(BATCH).copied().collect()
    }

    /// A batch that inserts these items: with what is to be deleted, and what is to be remembered.
    pub fn batch(&self, insert: Vec<(Key, Item)>) -> Batch {
        let alerts = self.alerts.iter().map(|(camera, alerts)| (camera.clone(), alerts.clone())).collect();
        let recorded = self.recorded.iter().take(BATCH).copied().collect();
        Batch { insert, delete: self.to_delete(), alerts, recorded }
    }

    /// What the disk lacks and what is to be deleted from it: at most a batch of each.
    pub fn pending(&self) -> Batch {
        self.batch(self.spill.oldest(BATCH, BATCH_BYTES))
    }

    /// The disk has deleted and remembers what the batch says.
    pub fn settled(&mut self, batch: &Batch) {
        for key in &batch.delete {
            self.deleted.remove(key);
        }
        for id in &batch.recorded {
            self.recorded.remove(id);
        }
        for (camera, alerts) in &batch.alerts {
            if self.alerts.get(camera) == Some(alerts) {
                self.alerts.remove(camera);
            }
        }
    }

    /// The disk has written a batch of [`Ledger::pending`].
    pub fn written(&mut self, batch: &Batch) {
        self.settled(batch);
        for (key, _) in &batch.insert {
            // A row that was acknowledged or dropped meanwhile is deleted with the next write.
            if self.spill.remove(*key).is_none() {
                self.deleted.insert(*key);
            }
        }
    }

    /// The oldest waiting event, unless it is its camera's newest description and others wait that are not. That of
    /// `superseded` is not its newest any more.
    fn first_to_drop(&mut self, superseded: Option<&CameraId>) -> Option<(Row, Item)> {
        let oldest = self.first(self.cursor)?;
        let mut candidate = Some(oldest.clone());
        while let Some((row, item)) = candidate {
            if self.newest.get(&item.camera) != Some(&row) || superseded == Some(&item.camera) {
                if row == oldest.0 {
                    // No event waits before this one: the next search need not start earlier.
                    self.cursor = row.next();
                }
                return Some((row, item));
            }
            candidate = self.first(row.next());
        }
        self.cursor = oldest.0.next();
        Some(oldest)
    }

    /// The first event that is `from` or later and not deleted.
    fn first(&mut self, from: Row) -> Option<(Row, Item)> {
        self.first_on_disk(from)
            .or_else(|| self.spill.first(Table::Events, from).map(|(row, item)| (row, item.clone())))
    }

    /// The same, of the events on disk. Damaged rows are skipped. Returns `None` while the disk cannot be
    /// read at all.
    fn first_on_disk(&mut self, from: Row) -> Option<(Row, Item)> {
        let (mut after, mut skipped) = (from, 0);
        while skipped < MAX_SKIPPED {
            // Rows that are not wanted are not read.
            while self.deleted.contains(&(Table::Events, after)) || self.unreadable.contains(&after) {
                after = after.next();
            }
            let reader = self.reader.as_ref()?;
            let found = reader.first(Table::Events, after);
            let meta = match &found {
                Err(Fault::Damaged(_)) => reader.meta(after).ok().flatten(),
                _ => None,
            };
            match (found, meta) {
                (Ok(Some((row, _))), _) if self.deleted.contains(&(Table::Events, row)) => after = row.next(),
                (Ok(found), _) => {
                    self.read_failed = false;
                    return found;
                }
                (Err(_), Some(meta)) => {
                    (after, skipped) = (meta.row.next(), skipped + 1);
                    self.skip(meta);
                }
                (Err(fault), None) => {
                    if !std::mem::replace(&mut self.read_failed, true) {
                        tracing::error!(
                            "the outbox cannot be read ({fault}): descriptions on disk wait until it can"
                        );
                    }
                    return None;
                }
            }
        }
        None
    }

    /// Counts a damaged row, once.
    fn skip(&mut self, RowMeta { row, camera, bytes }: RowMeta) {
        let known = self.deleted.contains(&(Table::Events, row)) || self.in_flight.contains_key(&row);
        if known || !self.unreadable.insert(row) {
            return;
        }
        tracing::error!(%camera, "an event in the outbox cannot be read: it is skipped and stays in the file");
        self.rows -= 1;
        self.bytes -= ROW_OVERHEAD + bytes;
        *self.dead_lettered.entry(camera).or_default() += 1;
    }

    fn drop_event(&mut self, row: Row, item: &Item) {
        if !std::mem::replace(&mut self.overflowing, true) {
            tracing::warn!(
                "the outbox is full: the oldest descriptions are dropped, until the broker takes some; \
                 outbox.max_bytes fit on disk, at most {} MiB in memory",
                SPILL_BYTES >> 20
            );
        }
        *self.dropped.entry(item.camera.clone()).or_default() += 1;
        self.rows -= 1;
        self.bytes -= cost(item.payload.len());
        self.remove((Table::Events, row));
    }

    fn drop_oldest_snapshot(&mut self) {
        let oldest = self.snapshots.iter().min_by_key(|(_, snapshot)| snapshot.row);
        let Some(camera) = oldest.map(|(camera, _)| camera.clone()) else { return };
        *self.dropped_snapshots.entry(camera.clone()).or_default() += 1;
        self.remove_snapshot(&camera);
    }

    fn replace_snapshot(&mut self, camera: CameraId, snapshot: SnapshotMeta) {
        self.remove_snapshot(&camera);
        self.snapshot_bytes += snapshot.cost;
        self.snapshots.insert(camera, snapshot);
    }

    fn remove_snapshot(&mut self, camera: &CameraId) {
        if let Some(snapshot) = self.snapshots.remove(camera) {
            self.snapshot_bytes -= snapshot.cost;
            self.remove((Table::Snapshots, snapshot.row));
        }
    }

    /// Removes a row from memory now, or from the disk with the next write.
    fn remove(&mut self, key: Key) {
        if self.spill.remove(key).is_none() && self.reader.is_some() {
            self.deleted.insert(key);
        }
    }
}
