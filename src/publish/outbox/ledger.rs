//! What is in the outbox and how it stands: which rows wait, are in flight, are gone; what they cost
//! and what was lost. Payloads stay where they are; what is kept here is bounded by the number of
//! cameras and of messages in flight, and by what was acknowledged since the last write.

use std::collections::{BTreeMap, BTreeSet};

use chrono::DateTime;
use uuid::Uuid;

use super::{
    Item, Key, Limits, MEMORY_BYTES, Message, Place, ROW_OVERHEAD, Row, Snapshot, Status, Table, Taken, cost,
    memory::Memory,
    store::{Change, Fault, Found, Outline, Reader},
};
use crate::{camera::CameraId, event::EventKind};

/// Rows that are written or removed in one go: enough to make light of the wait for the disk.
const BATCH: usize = 1000;
/// Payload bytes that are written in one go.
const BATCH_BYTES: u64 = 4 << 20;
/// So many damaged rows are passed over in one go, for each takes a while: the next look goes on.
const DAMAGED: usize = 1000;

pub(super) struct Ledger {
    limits: Limits,
    pub place: Place,
    /// None: everything is in memory.
    reader: Option<Reader>,
    /// Damaged rows: passed over. They stay where they are.
    unreadable: BTreeSet<Row>,
    /// The disk could not be read the last time.
    blind: bool,
    /// What the disk did not take. Its events come after all those on disk.
    memory: Memory,
    /// On disk, but of no interest any more.
    gone: BTreeSet<Key>,
    /// Events below were taken, those from here on wait.
    cursor: Row,
    next: Row,
    rows: usize,
    bytes: u64,
    /// Taken since the last rewind and not acknowledged: camera and cost.
    flying: BTreeMap<Row, (CameraId, u64)>,
    /// The last description of each camera.
    newest: BTreeMap<CameraId, Row>,
    /// The one snapshot of each camera.
    snapshots: BTreeMap<CameraId, Shot>,
    snapshot_bytes: u64,
    dropped: BTreeMap<CameraId, u64>,
    dropped_snapshots: BTreeMap<CameraId, u64>,
    set_aside: BTreeMap<CameraId, u64>,
}

struct Shot {
    row: Row,
    id: Uuid,
    cost: u64,
}

impl Ledger {
    pub fn new(limits: Limits, place: Place, reader: Option<Reader>, found: Vec<Found>) -> Self {
        let mut ledger = Self {
            limits,
            place,
            reader,
            unreadable: BTreeSet::new(),
            blind: false,
            memory: Memory::default(),
            gone: BTreeSet::new(),
            cursor: Row::FIRST,
            next: Row::FIRST,
            rows: 0,
            bytes: 0,
            flying: BTreeMap::new(),
            newest: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            snapshot_bytes: 0,
            dropped: BTreeMap::new(),
            dropped_snapshots: BTreeMap::new(),
            set_aside: BTreeMap::new(),
        };
        for Found { table, camera, rows, bytes, last, description, id } in found {
            ledger.next = ledger.next.max(last.next());
            match table {
                Table::Events => {
                    ledger.rows += rows as usize;
                    ledger.bytes += bytes + rows * cost(0);
                    ledger.newest.extend(description.map(|row| (camera, row)));
                }
                Table::Snapshots => {
                    let shot = Shot { row: last, id, cost: bytes + cost(0) };
                    ledger.replace_snapshot(camera, shot);
                }
            }
        }
        ledger
    }

    /// Counts a message in and makes room for it. Gives what of it is to be stored.
    pub fn admit(&mut self, message: Message) -> Vec<(Key, Item)> {
        let Message { camera, id, kind, event, snapshot } = message;
        let size = cost(event.len());
        // Those in flight may be with the broker already: the oldest of the others goes.
        while size <= self.limits.events && self.bytes + size > self.limits.events {
            let Some((row, oldest)) = self.first(self.cursor) else { break };
            self.drop_event(row, &oldest);
            // Nothing is left before it: the next look need not pass over what was dropped.
            self.cursor = row.next();
        }
        if self.bytes + size > self.limits.events {
            *self.dropped.entry(camera).or_default() += 1;
            return Vec::new();
        }
        let row = self.next;
        self.next = row.next();
        self.rows += 1;
        self.bytes += size;
        let description = kind == EventKind::Description;
        if description {
            self.newest.insert(camera.clone(), row);
        }
        let item = Item { camera: camera.clone(), id, description, payload: event };
        let mut items = vec![((Table::Events, row), item)];
        if let Some(jpeg) = snapshot {
            let size = cost(jpeg.len());
            if size > self.limits.snapshots {
                *self.dropped_snapshots.entry(camera).or_default() += 1;
                return items;
            }
            self.replace_snapshot(camera.clone(), Shot { row, id, cost: size });
            while self.snapshot_bytes > self.limits.snapshots {
                self.drop_oldest_snapshot();
            }
            items.push(((Table::Snapshots, row), Item { camera, id, description, payload: jpeg }));
        }
        items
    }

    /// Keeps in memory what the disk does not take.
    pub fn keep(&mut self, items: Vec<(Key, Item)>) {
        for (key, item) in items {
            // A snapshot may have lost its point while the disk was tried.
            if !self.gone.remove(&key) {
                self.memory.insert(key, item);
            }
        }
        while self.memory.bytes(Table::Events) > MEMORY_BYTES {
            let Some((row, item)) = self.memory.first(Table::Events, self.cursor) else { break };
            let item = item.clone();
            self.drop_event(row, &item);
        }
        while self.memory.bytes(Table::Snapshots) > MEMORY_BYTES {
            let Some((_, item)) = self.memory.first(Table::Snapshots, Row::FIRST) else { break };
            let camera = item.camera.clone();
            *self.dropped_snapshots.entry(camera.clone()).or_default() += 1;
            self.remove_snapshot(&camera);
        }
    }

    pub fn has_events_in_memory(&self) -> bool {
        self.memory.first(Table::Events, Row::FIRST).is_some()
    }

    pub fn take(&mut self) -> Option<Taken> {
        let (row, Item { camera, id, payload, .. }) = self.first(self.cursor)?;
        self.cursor = row.next();
        self.flying.insert(row, (camera.clone(), cost(payload.len())));
        let newest = self.newest.get(&camera) == Some(&row);
        Some(Taken { row, camera, id, event: payload, newest })
    }

    /// Forgets an event that is in flight, and says whose it was.
    pub fn settle(&mut self, row: Row) -> Option<CameraId> {
        let (camera, cost) = self.flying.remove(&row)?;
        self.rows -= 1;
        self.bytes -= cost;
        self.remove((Table::Events, row));
        Some(camera)
    }

    pub fn set_aside(&mut self, row: Row) {
        if let Some(camera) = self.settle(row) {
            *self.set_aside.entry(camera).or_default() += 1;
        }
    }

    pub fn rewind(&mut self) {
        self.cursor = Row::FIRST;
        self.flying.clear();
    }

    pub fn snapshot(&mut self, camera: &CameraId) -> Option<Snapshot> {
        let row = self.snapshots.get(camera)?.row;
        let item = match self.memory.first(Table::Snapshots, row) {
            Some((found, item)) if found == row => item.clone(),
            // One that cannot be read is missed until there is a newer one.
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
        let camera = self.snapshots.iter().find(|(_, shot)| shot.id == id).map(|(camera, _)| camera.clone());
        if let Some(camera) = camera {
            self.remove_snapshot(&camera);
        }
    }

    pub fn len(&self) -> usize {
        self.rows
    }

    pub fn status(&mut self) -> Status {
        // The id is a UUIDv7: it holds the time.
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
            set_aside: self.set_aside.clone(),
            place: self.place.clone(),
        }
    }

    /// What is to be removed from the disk.
    pub fn gone(&self) -> Vec<Key> {
        self.gone.iter().take(BATCH).copied().collect()
    }

    /// All that the disk lacks and should not have: a batch of it.
    pub fn pending(&self) -> Change {
        Change { add: self.memory.oldest(BATCH, BATCH_BYTES), gone: self.gone() }
    }

    /// These are removed from the disk.
    pub fn written(&mut self, gone: &[Key]) {
        for key in gone {
            self.gone.remove(key);
        }
    }

    /// What [`Ledger::pending`] gave is done.
    pub fn moved(&mut self, change: &Change) {
        self.written(&change.gone);
        for (key, _) in &change.add {
            // Acknowledged or dropped while it was being written.
            if self.memory.remove(*key).is_none() {
                self.gone.insert(*key);
            }
        }
    }

    /// The first event from `from` on that is not gone.
    fn first(&mut self, from: Row) -> Option<(Row, Item)> {
        self.first_on_disk(from)
            .or_else(|| self.memory.first(Table::Events, from).map(|(row, item)| (row, item.clone())))
    }

    /// The same, of those on disk. Rows that are damaged are passed over; where it is the disk that is in
    /// trouble, they wait until it is not.
    fn first_on_disk(&mut self, from: Row) -> Option<(Row, Item)> {
        let (mut after, mut damaged) = (from, 0);
        while damaged < DAMAGED {
            // What is not wanted is not read either.
            while self.gone.contains(&(Table::Events, after)) || self.unreadable.contains(&after) {
                after = after.next();
            }
            let reader = self.reader.as_ref()?;
            let found = reader.first(Table::Events, after);
            let outline = match &found {
                Err(Fault::Damaged(_)) => reader.outline(after).ok().flatten(),
                _ => None,
            };
            match (found, outline) {
                (Ok(Some((row, _))), _) if self.gone.contains(&(Table::Events, row)) => after = row.next(),
                (Ok(found), _) => {
                    self.blind = false;
                    return found;
                }
                (Err(_), Some(outline)) => {
                    (after, damaged) = (outline.row.next(), damaged + 1);
                    self.pass_over(outline);
                }
                (Err(fault), None) => {
                    if !std::mem::replace(&mut self.blind, true) {
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

    fn pass_over(&mut self, Outline { row, camera, bytes }: Outline) {
        let known = self.gone.contains(&(Table::Events, row)) || self.flying.contains_key(&row);
        if known || !self.unreadable.insert(row) {
            return;
        }
        tracing::error!(%camera, "an event in the outbox cannot be read: it is set aside, and stays in the file");
        self.rows -= 1;
        self.bytes -= ROW_OVERHEAD + bytes;
        *self.set_aside.entry(camera).or_default() += 1;
    }

    fn drop_event(&mut self, row: Row, item: &Item) {
        *self.dropped.entry(item.camera.clone()).or_default() += 1;
        self.rows -= 1;
        self.bytes -= cost(item.payload.len());
        self.remove((Table::Events, row));
    }

    fn drop_oldest_snapshot(&mut self) {
        let oldest = self.snapshots.iter().min_by_key(|(_, shot)| shot.row);
        let Some(camera) = oldest.map(|(camera, _)| camera.clone()) else { return };
        *self.dropped_snapshots.entry(camera.clone()).or_default() += 1;
        self.remove_snapshot(&camera);
    }

    fn replace_snapshot(&mut self, camera: CameraId, shot: Shot) {
        self.remove_snapshot(&camera);
        self.snapshot_bytes += shot.cost;
        self.snapshots.insert(camera, shot);
    }

    fn remove_snapshot(&mut self, camera: &CameraId) {
        if let Some(shot) = self.snapshots.remove(camera) {
            self.snapshot_bytes -= shot.cost;
            self.remove((Table::Snapshots, shot.row));
        }
    }

    /// From memory now, or from the disk with the next write.
    fn remove(&mut self, key: Key) {
        if self.memory.remove(key).is_none() && self.reader.is_some() {
            self.gone.insert(key);
        }
    }
}
