//! Property tests of the outbox: random operations in random order, in memory and on disk, with a full
//! disk and with restarts, compared with a simple model.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Instant,
};

use proptest::prelude::*;
use tempfile::TempDir;
use uuid::Uuid;

use super::{InFlight, Limits, Message, Outbox, Storage, durable_queue::RETRY, row::cost};
use crate::{camera::CameraId, event::EventKind};

#[derive(Clone, Debug)]
enum Op {
    Append { camera: u8, size: usize, snapshot: Option<usize> },
    Take,
    AcknowledgeOldest,
    DeadLetterOldest,
    ForgetSnapshot { camera: u8 },
    Rewind,
    Flush,
    DiskFull(bool),
    Restart,
}

fn op(disk: bool) -> BoxedStrategy<Op> {
    let snapshot = prop::option::of(0usize..1500);
    let common = prop_oneof![
        10 => (0u8..3, 0usize..700, snapshot)
            .prop_map(|(camera, size, snapshot)| Op::Append { camera, size, snapshot }),
        8 => Just(Op::Take),
        4 => Just(Op::AcknowledgeOldest),
        2 => Just(Op::DeadLetterOldest),
        1 => (0u8..3).prop_map(|camera| Op::ForgetSnapshot { camera }),
        2 => Just(Op::Rewind),
    ];
    if !disk {
        return common.boxed();
    }
    prop_oneof![
        25 => common,
        2 => Just(Op::Flush),
        2 => any::<bool>().prop_map(Op::DiskFull),
        1 => Just(Op::Restart),
    ]
    .boxed()
}

const LIMITS: Limits = Limits { events: 3000, snapshots: 4000 };

fn camera(number: u8) -> CameraId {
    format!("cam{number}").parse().expect("a good name")
}

fn message(number: u8, size: usize, snapshot: Option<usize>) -> Message {
    Message {
        camera: camera(number),
        id: Uuid::now_v7(),
        kind: EventKind::Description,
        event: vec![b'x'; size].into(),
        snapshot: snapshot.map(|size| vec![0xd8; size].into()),
        alerts: None,
        is_recorded: false,
    }
}

fn total(counts: &BTreeMap<CameraId, u64>) -> u64 {
    counts.values().sum()
}

fn all(outbox: &Outbox) -> Vec<InFlight> {
    std::iter::from_fn(|| outbox.take()).collect()
}

/// An outbox, and what must hold for it.
struct Model {
    outbox: Outbox,
    folder: Option<TempDir>,
    /// Ids in the order in which they were appended.
    order: HashMap<Uuid, usize>,
    newest_snapshot: HashMap<CameraId, Uuid>,
    in_flight: Vec<InFlight>,
    delivered: HashSet<Uuid>,
    dead_lettered: u64,
    /// Counted before the last restart, when the outbox starts to count from 0.
    dropped_before: u64,
    dead_lettered_before: u64,
}

impl Model {
    fn new(folder: Option<TempDir>) -> Self {
        let outbox = match &folder {
            Some(folder) => Outbox::open(folder.path(), LIMITS).expect("it is ours"),
            None => Outbox::in_memory(LIMITS),
        };
        Self {
            outbox,
            folder,
            order: HashMap::new(),
            newest_snapshot: HashMap::new(),
            in_flight: Vec::new(),
            delivered: HashSet::new(),
            dead_lettered: 0,
            dropped_before: 0,
            dead_lettered_before: 0,
        }
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Append { camera, size, snapshot } => {
                let message = message(camera, size, snapshot);
                let before = total(&self.outbox.status().dropped);
                self.order.insert(message.id, self.order.len());
                let (id, camera) = (message.id, message.camera.clone());
                let room = LIMITS.events - self.in_flight.iter().map(|t| cost(t.event.len())).sum::<u64>();
                self.outbox.append(message);
                if cost(size) > room {
                    prop_assert!(total(&self.outbox.status().dropped) > before);
                } else if snapshot.is_some() {
                    self.newest_snapshot.insert(camera, id);
                }
            }
            Op::Take => {
                if let Some(taken) = self.outbox.take() {
                    if let Some(last) = self.in_flight.last() {
                        prop_assert!(self.order[&last.id] < self.order[&taken.id]);
                    }
                    prop_assert!(!self.delivered.contains(&taken.id));
                    self.in_flight.push(taken);
                }
            }
            Op::AcknowledgeOldest if !self.in_flight.is_empty() => {
                let taken = self.in_flight.remove(0);
                self.outbox.acknowledge(taken.row);
                prop_assert!(self.delivered.insert(taken.id));
            }
            Op::DeadLetterOldest if !self.in_flight.is_empty() => {
                self.outbox.dead_letter(self.in_flight.remove(0).row);
                self.dead_lettered += 1;
            }
            Op::AcknowledgeOldest | Op::DeadLetterOldest => {}
            Op::ForgetSnapshot { camera: number } => {
                if let Some(snapshot) = self.outbox.snapshot(&camera(number)) {
                    self.outbox.forget_snapshot(snapshot.id);
                    prop_assert!(self.outbox.snapshot(&camera(number)).is_none());
                }
            }
            Op::Rewind => {
                self.outbox.rewind();
                self.in_flight.clear();
            }
            Op::Flush => self.flush(),
            Op::DiskFull(full) => self.set_full(full),
            Op::Restart => self.restart(),
        }
        Ok(())
    }

    fn flush(&self) {
        if let Some(disk) = &mut *self.outbox.disk()
            && disk.failed.is_some()
        {
            disk.failed = Instant::now().checked_sub(RETRY);
        }
        self.outbox.flush();
    }

    fn set_full(&self, full: bool) {
        if let Some(disk) = &*self.outbox.disk() {
            disk.writer.set_full(full);
        }
    }

    fn restart(&mut self) {
        self.set_full(false);
        self.flush();
        let status = self.outbox.status();
        self.dropped_before += total(&status.dropped);
        self.dead_lettered_before += total(&status.dead_lettered);
        self.in_flight.clear();
        let folder = self.folder.take();
        let memory = Outbox::in_memory(LIMITS);
        drop(std::mem::replace(&mut self.outbox, memory));
        self.outbox = Outbox::open(folder.as_ref().expect("on disk").path(), LIMITS).expect("it is ours");
        self.folder = folder;
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let status = self.outbox.status();
        prop_assert!(status.bytes <= LIMITS.events, "holds {} bytes", status.bytes);
        prop_assert!(status.snapshot_bytes <= LIMITS.snapshots, "holds {} bytes", status.snapshot_bytes);
        prop_assert_eq!(self.dead_lettered_before + total(&status.dead_lettered), self.dead_lettered);
        let known = status.rows as u64
            + self.dropped_before
            + total(&status.dropped)
            + self.dead_lettered
            + self.delivered.len() as u64;
        prop_assert_eq!(self.order.len() as u64, known);
        for camera in (0..3).map(camera) {
            if let Some(snapshot) = self.outbox.snapshot(&camera) {
                prop_assert_eq!(Some(&snapshot.id), self.newest_snapshot.get(&camera));
            }
        }
        Ok(())
    }

    fn check_what_is_left(&self) -> Result<(), TestCaseError> {
        self.outbox.rewind();
        let left = all(&self.outbox);
        prop_assert_eq!(left.len(), self.outbox.len());
        prop_assert!(left.windows(2).all(|w| self.order[&w[0].id] < self.order[&w[1].id]));
        prop_assert!(left.iter().all(|t| !self.delivered.contains(&t.id)));
        let last = |i: usize| left[i + 1..].iter().all(|later| later.camera != left[i].camera);
        prop_assert!(left.iter().enumerate().all(|(i, t)| !t.newest || last(i)));
        Ok(())
    }
}

fn holds(disk: bool, ops: Vec<Op>) -> Result<(), TestCaseError> {
    let mut model = Model::new(disk.then(|| TempDir::new().expect("a folder")));
    for op in ops {
        model.apply(op)?;
        model.check()?;
    }
    model.check_what_is_left()?;
    if disk {
        model.restart();
        model.check()?;
        model.check_what_is_left()?;
    }
    Ok(())
}

proptest! {
    #[test]
    fn in_memory_every_loss_is_counted_and_events_keep_their_order(
        ops in prop::collection::vec(op(false), 1..120),
    ) {
        holds(false, ops)?;
    }
}

proptest! {
    // Each write waits for the disk, so there are fewer cases.
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn on_disk_every_loss_is_counted_with_a_full_disk_and_restarts(
        ops in prop::collection::vec(op(true), 1..80),
    ) {
        holds(true, ops)?;
    }
}

#[test]
fn a_full_outbox_drops_the_oldest_waiting_message_and_counts_it() {
    let outbox = Outbox::in_memory(Limits { events: 3 * cost(100), snapshots: 0 });
    let ids: Vec<Uuid> = (0..5)
        .map(|_| {
            let message = message(1, 100, None);
            let id = message.id;
            outbox.append(message);
            id
        })
        .collect();
    assert_eq!(total(&outbox.status().dropped), 2);
    assert_eq!(all(&outbox).iter().map(|t| t.id).collect::<Vec<_>>(), ids[2..]);
}

#[test]
fn a_full_outbox_keeps_the_newest_description_of_each_camera() {
    let outbox = Outbox::in_memory(Limits { events: 3 * cost(100), snapshots: 1 << 20 });
    let append = |camera, snapshot| {
        let message = message(camera, 100, snapshot);
        let id = message.id;
        outbox.append(message);
        id
    };
    let kept = append(1, Some(10));
    let others: Vec<Uuid> = (0..5).map(|_| append(2, None)).collect();
    let ids: Vec<Uuid> = all(&outbox).iter().map(|t| t.id).collect();
    assert_eq!(ids, [kept, others[3], others[4]]);
    assert_eq!(outbox.snapshot(&camera(1)).map(|it| it.id), Some(kept));
    assert_eq!(outbox.status().dropped, BTreeMap::from([(camera(2), 3)]));
}

#[test]
fn a_message_in_flight_is_not_dropped_for_a_newer_one() {
    let outbox = Outbox::in_memory(Limits { events: 2 * cost(100), snapshots: 0 });
    outbox.append(message(1, 100, None));
    outbox.append(message(1, 100, None));
    let in_flight = outbox.take().expect("two wait");
    outbox.append(message(1, 100, None));
    outbox.rewind();
    assert_eq!(outbox.take().expect("two wait").row, in_flight.row);
    assert_eq!(total(&outbox.status().dropped), 1);
}

#[test]
fn a_message_larger_than_the_outbox_is_dropped_alone_and_counted() {
    let outbox = Outbox::in_memory(Limits { events: 1000, snapshots: 1000 });
    outbox.append(message(1, 100, Some(10)));
    outbox.append(message(2, 5000, Some(10)));
    // A snapshot that is too large is dropped alone: neither its event nor another snapshot is.
    outbox.append(message(2, 100, Some(5000)));
    assert_eq!(outbox.len(), 2);
    let once = BTreeMap::from([(camera(2), 1)]);
    assert_eq!((outbox.status().dropped, outbox.status().dropped_snapshots), (once.clone(), once));
    assert!(outbox.snapshot(&camera(1)).is_some());
}

#[test]
fn each_camera_keeps_its_newest_snapshot_and_the_oldest_of_all_is_dropped_first() {
    let outbox = Outbox::in_memory(Limits { events: 1 << 20, snapshots: 2 * cost(100) });
    let mut ids = Vec::new();
    for number in [1, 2, 2, 3] {
        let message = message(number, 10, Some(100));
        ids.push(message.id);
        outbox.append(message);
    }
    assert_eq!([1, 2, 3].map(|number| outbox.snapshot(&camera(number)).is_some()), [false, true, true]);
    assert_eq!(outbox.snapshot(&camera(2)).expect("kept").id, ids[2]);
    // The first of camera 2 was replaced, not lost.
    assert_eq!(outbox.status().dropped_snapshots, BTreeMap::from([(camera(1), 1)]));
    assert_eq!(outbox.len(), 4);
}

#[test]
fn an_event_of_kind_unchanged_does_not_replace_the_newest_description() {
    let folder = TempDir::new().expect("a folder");
    let outbox = Outbox::open(folder.path(), LIMITS).expect("it is ours");
    outbox.append(message(1, 100, None));
    outbox.append(Message { kind: EventKind::Unchanged, ..message(1, 100, None) });
    let newest = |outbox: &Outbox| all(outbox).iter().map(|taken| taken.newest).collect::<Vec<_>>();
    assert_eq!(newest(&outbox), [true, false]);
    drop(outbox);
    let outbox = Outbox::open(folder.path(), LIMITS).expect("it is ours");
    assert_eq!(newest(&outbox), [true, false]);
}

/// An outbox on disk with `count` messages, of which `rows` are corrupt, and the ids of all.
fn corrupted(folder: &TempDir, count: usize, rows: std::ops::RangeInclusive<i64>) -> (Outbox, Vec<Uuid>) {
    let outbox = Outbox::open(folder.path(), Limits { events: 1 << 20, snapshots: 0 }).expect("it is ours");
    let messages: Vec<_> = (0..count).map(|_| message(1, 100, None)).collect();
    let ids = messages.iter().map(|message| message.id).collect();
    messages.into_iter().for_each(|message| outbox.append(message));
    outbox.disk().as_ref().expect("on disk").writer.corrupt(rows);
    (outbox, ids)
}

#[test]
fn a_corrupt_row_is_dead_lettered_and_blocks_no_other() {
    let folder = TempDir::new().expect("a folder");
    let (outbox, ids) = corrupted(&folder, 6, 2..=3);
    for _ in 0..2 {
        let taken: Vec<_> = all(&outbox).iter().map(|t| t.id).collect();
        assert_eq!(taken, [ids[0], ids[1], ids[4], ids[5]]);
        assert_eq!((outbox.len(), total(&outbox.status().dead_lettered)), (4, 2));
        outbox.rewind();
    }
    all(&outbox).iter().for_each(|taken| outbox.acknowledge(taken.row));
    outbox.flush();
    assert_eq!((outbox.len(), outbox.status().bytes, outbox.status().storage), (0, 0, Storage::Disk));
}

#[test]
fn corrupt_rows_are_dead_lettered_once_wherever_they_are() {
    let folder = TempDir::new().expect("a folder");
    let (outbox, ids) = corrupted(&folder, 5, 3..=4);
    let in_flight = outbox.take().expect("readable");
    // A row in flight is not dead-lettered when it becomes unreadable.
    outbox.disk().as_ref().expect("on disk").writer.corrupt(0..=0);
    assert!(outbox.status().oldest.is_some());
    assert_eq!((outbox.len(), total(&outbox.status().dead_lettered)), (5, 0));
    assert_eq!(all(&outbox).iter().map(|t| t.id).collect::<Vec<_>>(), ids[1..3]);
    assert_eq!((outbox.len(), total(&outbox.status().dead_lettered)), (3, 2));
    outbox.acknowledge(in_flight.row);
    outbox.rewind();
    let later = message(1, 100, None);
    let id = later.id;
    outbox.append(later);
    let left: Vec<_> = all(&outbox).iter().map(|t| t.id).collect();
    assert_eq!(left, [ids[1], ids[2], id]);
    assert_eq!((outbox.len(), total(&outbox.status().dead_lettered)), (3, 2));
}
