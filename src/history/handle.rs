//! The history as others use it: records in, pages out.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::Ordering,
        mpsc::{self, SyncSender, TrySendError},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    error::HistoryError,
    hooks::{MayStay, Outboxed},
    reader::Reader,
    record::{Evidence, Record},
    recorder::{Recorder, Shared, Work},
    status::{Limits, State, Status},
};

/// The most records that wait to be written.
const MOST_WAITING: usize = 64;
/// The most pixels of frames that wait to be written, bytes.
const MOST_BYTES_WAITING: usize = 128 << 20;

/// The history, and the thread that writes it.
pub struct History {
    work: Mutex<Option<SyncSender<Work>>>,
    shared: Arc<Shared>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

impl History {
    /// Opens the history in `folder`, on a thread of its own: what is wrong with it holds nothing up.
    ///
    /// # Errors
    /// When the system cannot create a thread.
    pub fn start(folder: &Path, limits: Limits, outboxed: Outboxed) -> std::io::Result<Self> {
        let (work, received) = mpsc::sync_channel(MOST_WAITING);
        let shared = Arc::new(Shared::default());
        let recorder = Recorder::new(folder.into(), limits, outboxed, Arc::clone(&shared));
        let run = move || recorder.run(&received);
        let thread = thread::Builder::new().name("history".into()).spawn(run)?;
        Ok(Self { work: Mutex::new(Some(work)), shared, thread: Mutex::new(Some(thread)) })
    }

    /// Whether frames of so many bytes would be taken now.
    pub fn has_room_for(&self, bytes: usize) -> bool {
        let waiting = self.shared.bytes_waiting.load(Ordering::Relaxed);
        self.shared.status().state == State::On && waiting + bytes <= MOST_BYTES_WAITING
    }

    /// Counts an event whose frames were to be kept, and could not.
    pub fn miss_frames(&self) {
        self.shared.status().dropped_frames += 1;
    }

    /// Takes an event that is in the outbox already. Never waits: where too many wait, the event comes from the outbox
    /// later, without its frames.
    pub fn record(&self, record: Record) {
        let bytes = record.evidence.as_ref().map_or(0, Evidence::bytes);
        self.shared.bytes_waiting.fetch_add(bytes, Ordering::Relaxed);
        let work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = work.as_ref().map(|work| work.try_send(Work::Record(Box::new(record), bytes)));
        if let None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_))) = sent {
            self.shared.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
            self.shared.missed(bytes > 0);
        }
    }

    /// From now on only frames of which `may_stay` is true are kept; others are deleted soon.
    pub fn keep_frames(&self, may_stay: MayStay) {
        *self.shared.may_stay.lock().unwrap_or_else(PoisonError::into_inner) = Some(may_stay);
    }

    /// How it is doing.
    pub fn status(&self) -> Status {
        self.shared.status().clone()
    }

    /// Reads.
    ///
    /// # Errors
    /// When it is not open, and those of `read`.
    pub fn read<T>(&self, read: impl FnOnce(&Reader) -> Result<T, HistoryError>) -> Result<T, HistoryError> {
        let reader = self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner);
        read(reader.as_ref().ok_or(HistoryError::Closed)?)
    }

    /// Writes what waits, for at most `limit`, and closes the file.
    pub fn close(&self, limit: Duration) {
        let until = Instant::now() + limit;
        drop(self.work.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        while !thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10));
        }
        if !thread.is_finished() {
            tracing::warn!("the history is still being written; what it lacks it gets at the next start");
        } else if thread.join().is_err() {
            tracing::error!("the history ended by a fault");
        }
    }
}
