//! What waits to be delivered: the channel between the model thread and the network.
//!
//! Finished descriptions come in from the model thread; the publisher takes the oldest, keeps each
//! until the broker has acknowledged it, and starts over with all that is left when a connection is
//! lost. Bounded: when it is full the oldest waiting message makes room, and is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use crate::{
    event::{Event, EventKind},
    frame::CameraId,
};

/// What a row costs beside its payloads: an estimate of the map entry, the ids and the counters.
const ROW_OVERHEAD: usize = 256;

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

    fn bytes(&self) -> usize {
        ROW_OVERHEAD + self.event.len() + self.snapshot.as_ref().map_or(0, Bytes::len)
    }
}

/// Names a message in the outbox. Later messages have greater rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row(u64);

/// A message that is being delivered.
#[derive(Clone, Debug)]
pub struct Taken {
    /// What to call it when its fate is known.
    pub row: Row,
    /// The message.
    pub message: Arc<Message>,
    /// It is a description, and no later one of the same camera waits.
    pub newest: bool,
}

/// How full the outbox is and what it lost.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Messages that are not acknowledged.
    pub rows: usize,
    /// What they take.
    pub bytes: usize,
    /// Messages that made room for newer ones, by camera, since the start.
    pub dropped: BTreeMap<CameraId, u64>,
    /// Messages that the broker will not take, by camera, since the start.
    pub set_aside: BTreeMap<CameraId, u64>,
}

/// A bounded first-in-first-out store of messages.
#[derive(Debug)]
pub struct Outbox {
    max_bytes: usize,
    inner: Mutex<Inner>,
    appended: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// In flight below `cursor`, waiting from there on.
    rows: BTreeMap<Row, Arc<Message>>,
    cursor: Row,
    next: Row,
    bytes: usize,
    dropped: BTreeMap<CameraId, u64>,
    set_aside: BTreeMap<CameraId, u64>,
}

impl Outbox {
    /// An empty outbox that never holds more than `max_bytes`, payloads and bookkeeping together.
    pub fn new(max_bytes: usize) -> Self {
        Self { max_bytes, inner: Mutex::default(), appended: Notify::new() }
    }

    /// Takes a message in; never waits. When there is no room, the oldest waiting messages go, and
    /// are counted; so is one that is larger than the whole outbox.
    pub fn append(&self, message: Message) {
        let mut inner = self.lock();
        let bytes = message.bytes();
        if bytes > self.max_bytes {
            *inner.dropped.entry(message.camera).or_default() += 1;
            return;
        }
        let row = inner.next;
        inner.next = Row(row.0 + 1);
        inner.bytes += bytes;
        inner.rows.insert(row, Arc::new(message));
        while inner.bytes > self.max_bytes {
            // Those in flight may be with the broker already: the oldest of the others goes.
            let Some((&oldest, _)) = inner.rows.range(inner.cursor..).next() else { break };
            if let Some(gone) = inner.remove(oldest) {
                *inner.dropped.entry(gone.camera.clone()).or_default() += 1;
            }
        }
        drop(inner);
        self.appended.notify_one();
    }

    /// Waits until something was appended since the last wait. For one waiter.
    pub async fn appended(&self) {
        self.appended.notified().await;
    }

    /// The oldest waiting message, which is in flight from now on.
    pub fn take(&self) -> Option<Taken> {
        let mut inner = self.lock();
        let (&row, message) = inner.rows.range(inner.cursor..).next()?;
        let message = Arc::clone(message);
        let after = Row(row.0 + 1);
        let described = |m: &Message| m.camera == message.camera && m.kind == EventKind::Description;
        let newest = described(&message) && !inner.rows.range(after..).any(|(_, later)| described(later));
        inner.cursor = after;
        Some(Taken { row, message, newest })
    }

    /// The broker has it: forget it.
    pub fn acknowledge(&self, row: Row) {
        self.lock().remove(row);
    }

    /// The broker will never take it: forget it, and count it.
    pub fn set_aside(&self, row: Row) {
        let mut inner = self.lock();
        if let Some(message) = inner.remove(row) {
            *inner.set_aside.entry(message.camera.clone()).or_default() += 1;
        }
    }

    /// The connection is lost: everything that is not acknowledged waits again, in order.
    pub fn rewind(&self) {
        self.lock().cursor = Row(0);
    }

    /// Nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Messages that are not acknowledged.
    pub fn len(&self) -> usize {
        self.lock().rows.len()
    }

    /// How full it is and what it lost.
    pub fn status(&self) -> Status {
        let inner = self.lock();
        Status {
            rows: inner.rows.len(),
            bytes: inner.bytes,
            dropped: inner.dropped.clone(),
            set_aside: inner.set_aside.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing can panic while the lock is held, so what it guards is whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn remove(&mut self, row: Row) -> Option<Arc<Message>> {
        let message = self.rows.remove(&row)?;
        self.bytes -= message.bytes();
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Append { camera: u8, size: usize },
        Take,
        AcknowledgeOldest,
        SetAsideOldest,
        Rewind,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            5 => (0u8..3, 0usize..700).prop_map(|(camera, size)| Op::Append { camera, size }),
            4 => Just(Op::Take),
            2 => Just(Op::AcknowledgeOldest),
            1 => Just(Op::SetAsideOldest),
            1 => Just(Op::Rewind),
        ]
    }

    fn message(camera: u8, size: usize) -> Message {
        Message {
            camera: format!("cam{camera}").parse().expect("a good name"),
            id: Uuid::now_v7(),
            kind: EventKind::Description,
            event: vec![b'x'; size].into(),
            snapshot: None,
        }
    }

    fn total(counts: &BTreeMap<CameraId, u64>) -> u64 {
        counts.values().sum()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_but_what_is_counted_and_each_camera_keeps_its_order(
            ops in prop::collection::vec(op(), 1..120),
        ) {
            const MAX: usize = 3000;
            let outbox = Outbox::new(MAX);
            let mut order: HashMap<Uuid, usize> = HashMap::new();
            let mut flying: Vec<Taken> = Vec::new();
            let mut delivered: HashSet<Uuid> = HashSet::new();
            let mut set_aside = 0;
            for op in ops {
                match op {
                    Op::Append { camera, size } => {
                        let message = message(camera, size);
                        order.insert(message.id, order.len());
                        outbox.append(message);
                    }
                    Op::Take => if let Some(taken) = outbox.take() {
                        if let Some(last) = flying.last() {
                            prop_assert!(order[&last.message.id] < order[&taken.message.id]);
                        }
                        prop_assert!(!delivered.contains(&taken.message.id));
                        flying.push(taken);
                    },
                    Op::AcknowledgeOldest => if !flying.is_empty() {
                        let taken = flying.remove(0);
                        outbox.acknowledge(taken.row);
                        prop_assert!(delivered.insert(taken.message.id));
                    },
                    Op::SetAsideOldest => if !flying.is_empty() {
                        outbox.set_aside(flying.remove(0).row);
                        set_aside += 1;
                    },
                    Op::Rewind => { outbox.rewind(); flying.clear(); }
                }
                let status = outbox.status();
                prop_assert!(status.bytes <= MAX, "holds {} bytes", status.bytes);
                prop_assert_eq!(total(&status.set_aside), set_aside);
                prop_assert_eq!(
                    order.len() as u64,
                    status.rows as u64 + total(&status.dropped) + set_aside + delivered.len() as u64
                );
            }
            outbox.rewind();
            let left: Vec<_> = std::iter::from_fn(|| outbox.take()).collect();
            prop_assert!(left.windows(2).all(|w| order[&w[0].message.id] < order[&w[1].message.id]));
            let mut newest = HashMap::new();
            for taken in &left {
                newest.insert(taken.message.camera.clone(), taken.row);
            }
            prop_assert!(left.iter().all(|t| t.newest == (newest[&t.message.camera] == t.row)));
        }
    }

    #[test]
    fn a_full_outbox_drops_the_oldest_waiting_message_and_counts_it() {
        let outbox = Outbox::new(3 * (ROW_OVERHEAD + 100));
        let ids: Vec<Uuid> = (0..5)
            .map(|_| {
                let message = message(1, 100);
                let id = message.id;
                outbox.append(message);
                id
            })
            .collect();
        assert_eq!(total(&outbox.status().dropped), 2);
        let kept: Vec<Uuid> = std::iter::from_fn(|| outbox.take()).map(|t| t.message.id).collect();
        assert_eq!(kept, ids[2..]);
    }

    #[test]
    fn an_event_without_news_does_not_take_the_place_of_the_newest_description() {
        let outbox = Outbox::new(1 << 20);
        outbox.append(message(1, 100));
        outbox.append(Message { kind: EventKind::Unchanged, ..message(1, 100) });
        let newest: Vec<bool> = std::iter::from_fn(|| outbox.take()).map(|t| t.newest).collect();
        assert_eq!(newest, [true, false]);
    }

    #[test]
    fn a_message_in_flight_is_not_dropped_for_a_newer_one() {
        let outbox = Outbox::new(2 * (ROW_OVERHEAD + 100));
        outbox.append(message(1, 100));
        outbox.append(message(1, 100));
        let flying = outbox.take().expect("two wait");
        outbox.append(message(1, 100));
        outbox.rewind();
        assert_eq!(outbox.take().expect("two wait").row, flying.row);
        assert_eq!(total(&outbox.status().dropped), 1);
    }

    #[test]
    fn a_message_larger_than_the_whole_outbox_is_counted_and_leaves_the_others_alone() {
        let outbox = Outbox::new(1000);
        outbox.append(message(1, 100));
        outbox.append(message(2, 5000));
        assert_eq!(outbox.len(), 1);
        assert_eq!(outbox.status().dropped, BTreeMap::from([("cam2".parse().expect("a good name"), 1)]));
    }
}
