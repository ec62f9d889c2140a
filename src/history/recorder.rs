//! The thread that writes the history.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use rusqlite::ErrorCode;
use rustix::fs::statvfs;
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{
    error::HistoryError,
    hooks::{MayStay, Outboxed},
    layout::FILE,
    reader::Reader,
    record::{Record, Row, made},
    status::{Limits, State, Status},
    writer::Writer,
};
use crate::event::Event;

/// The most records in one transaction.
const BATCH: usize = 32;
/// The same of those that wait in the outbox, which have no frames.
const BACKLOG: usize = 256;
/// How long a disk that failed, or is full, is left alone.
const RETRY: Duration = Duration::from_secs(5);
/// How often it writes, and looks for events that are too old and frames that are not to be seen any more.
const TICK: Duration = Duration::from_millis(500);
/// How long it may forget at a time, before it looks after new events again.
const BUDGET: Duration = Duration::from_millis(200);
/// How often it looks for events in the outbox that nobody has handed over.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// How often the room on the disk is asked for.
const ROOM_INTERVAL: Duration = Duration::from_secs(2);

/// What the thread is given.
pub(super) enum Work {
    /// An event, and the bytes of its frames.
    Record(Box<Record>, usize),
}

/// What the thread and those who use the history share.
pub(super) struct Shared {
    status: Mutex<Status>,
    /// Of frames that wait.
    pub bytes_waiting: AtomicUsize,
    /// Events wait in the outbox that were not handed over.
    is_behind: AtomicBool,
    /// How many were not handed over since that was last asked.
    missed: AtomicU64,
    pub may_stay: Mutex<Option<MayStay>>,
    pub reader: Mutex<Option<Reader>>,
}

impl Default for Shared {
    fn default() -> Self {
        let status = Status {
            state: State::Opening,
            events: 0,
            bytes: 0,
            oldest: None,
            dropped_events: 0,
            dropped_frames: 0,
        };
        Self {
            status: Mutex::new(status),
            bytes_waiting: AtomicUsize::default(),
            is_behind: AtomicBool::new(true),
            missed: AtomicU64::new(0),
            may_stay: Mutex::default(),
            reader: Mutex::default(),
        }
    }
}

impl Shared {
    pub fn status(&self) -> MutexGuard<'_, Status> {
        // Nothing panics while the lock is held.
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which frames may be kept. `None`: nobody has said it yet.
    pub fn may_stay(&self) -> Option<MayStay> {
        self.may_stay.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An event was not handed over. It waits in the outbox, but its frames are gone.
    pub fn missed(&self, has_frames: bool) {
        self.missed.fetch_add(1, Ordering::Relaxed);
        self.is_behind.store(true, Ordering::Relaxed);
        self.status().dropped_frames += u64::from(has_frames);
    }
}

/// What comes within a tick, so that the disk is synced once for all of it: nothing is lost meanwhile, since the outbox
/// has it.
fn gather(work: &Receiver<Work>, is_open: &mut bool) -> Vec<Work> {
    let until = Instant::now() + TICK;
    let mut records = Vec::new();
    while records.len() < BATCH {
        match work.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(record) => records.push(record),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => {
                *is_open = false;
                break;
            }
        }
    }
    records
}

/// What tells the file from another one of its name. `None`: there is none.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    let file = fs::metadata(folder.join(FILE)).ok()?;
    Some((file.dev(), file.ino()))
}

/// The thread.
pub(super) struct Recorder {
    folder: PathBuf,
    limits: Limits,
    outboxed: Outboxed,
    shared: Arc<Shared>,
    writer: Option<Writer>,
    /// When it last failed, and is therefore left alone.
    failed: Option<Instant>,
    /// Those that wait in the outbox are being written: the last one so far.
    backlog: Option<Uuid>,
    /// Events that the outbox did not keep, and that could not be written.
    lost: u64,
    /// When the room on the disk was last asked for.
    asked_room: Option<Instant>,
    /// Which file is open.
    identity: Option<(u64, u64)>,
    /// The file is to be checked when it is opened.
    is_suspect: bool,
    /// Whether the outbox was last on disk.
    was_durable: bool,
    /// When events in the outbox were last looked for.
    looked: Option<Instant>,
    /// It was stopped, and has written nothing since.
    is_stopped: bool,
    /// Something was forgotten that may still be in the log.
    is_to_erase: bool,
    /// Changes when another process has written.
    version: Option<i64>,
    /// Which frames were last deleted: those of which this is false.
    applied: Option<MayStay>,
}

impl Recorder {
    pub fn new(folder: PathBuf, limits: Limits, outboxed: Outboxed, shared: Arc<Shared>) -> Self {
        Self {
            folder,
            limits,
            outboxed,
            shared,
            writer: None,
            failed: None,
            backlog: None,
            lost: 0,
            asked_room: None,
            identity: None,
            is_suspect: false,
            was_durable: true,
            looked: None,
            is_stopped: false,
            is_to_erase: false,
            version: None,
            applied: None,
        }
    }

    /// Writes what it is given until nothing more can come.
    pub fn run(mut self, work: &Receiver<Work>) {
        let mut is_open = true;
        while is_open {
            self.make_ready();
            let records = gather(work, &mut is_open);
            if !records.is_empty() {
                self.write(records);
            }
            self.note_missed();
            self.catch_up();
            self.hide();
            self.trim();
            self.erase();
            self.shared.status().dropped_events = self.lost + (self.outboxed.dropped)();
        }
        self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Opens the file if it is not open, and looks whether there is room.
    fn make_ready(&mut self) {
        if self.failed.is_some_and(|at| at.elapsed() < RETRY) {
            return;
        }
        if self.writer.is_none() {
            let opened = Writer::open(&self.folder, self.is_suspect).and_then(|writer| {
                let contents = writer.contents().map_err(|error| error.to_string())?;
                let reader = Reader::open(&self.folder).map_err(|fault| fault.to_string())?;
                Ok((writer, contents, reader))
            });
            let (writer, contents, reader) = match opened {
                Ok(opened) => opened,
                Err(why) => return self.fail(&why),
            };
            (self.writer, self.is_suspect) = (Some(writer), false);
            self.identity = identity(&self.folder);
            *self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
            let mut status = self.shared.status();
            (status.events, status.oldest, status.bytes) = contents;
        }
        let is_due = self.asked_room.is_none_or(|at| at.elapsed() >= ROOM_INTERVAL);
        if is_due || self.failed.is_some() {
            self.asked_room = Some(Instant::now());
            if identity(&self.folder) != self.identity {
                self.close();
                return self
                    .fail("its file was removed or replaced while it was in use, and another one is begun");
            }
            let free = statvfs(&self.folder).map(|it| (it.f_blocks > 0).then(|| it.f_bavail * it.f_frsize));
            if let Ok(Some(free)) = free
                && free < self.limits.least_free
            {
                let why = format!(
                    "its disk has {} MiB left, and {} stay free for other things",
                    free >> 20,
                    self.limits.least_free >> 20
                );
                return self.fail(&why);
            }
        }
        self.failed = None;
        self.shared.status().state = State::On;
    }

    fn fail(&mut self, why: &str) {
        self.failed = Some(Instant::now());
        if !std::mem::replace(&mut self.is_stopped, true) {
            tracing::error!(
                "the history in {} is stopped ({why}): events go to the broker all the same, and wait for it without \
                 their frames; camscribe keeps trying",
                self.folder.display()
            );
        }
        self.shared.status().state = State::Stopped { why: why.to_owned() };
        self.shared.is_behind.store(true, Ordering::Relaxed);
    }

    /// Writes records, or leaves them in the outbox.
    fn write(&mut self, records: Vec<Work>) {
        let count = records.len() as u64;
        let bytes: usize = records.iter().map(|Work::Record(_, bytes)| bytes).sum();
        let with_frames = records.iter().filter(|Work::Record(_, bytes)| *bytes > 0).count() as u64;
        let may_stay = self.shared.may_stay();
        let row = |Work::Record(mut record, _)| {
            let camera = &record.event.camera;
            let is_seen = |view: &str| may_stay.as_ref().is_none_or(|may_stay| may_stay(camera, view));
            record.evidence = record.evidence.filter(|evidence| is_seen(&evidence.view));
            Row::new(*record)
        };
        let mut kept = 0;
        let is_written = self.failed.is_none() && {
            let rows: Vec<_> = records.into_iter().map(row).collect();
            kept = rows.iter().filter(|row| row.evidence.is_some()).count() as u64;
            self.add(&rows)
        };
        self.shared.bytes_waiting.fetch_sub(bytes, Ordering::Relaxed);
        if is_written {
            // Those that cannot be encoded, or show what is hidden now.
            self.shared.status().dropped_frames += with_frames - kept;
        } else {
            self.shared.is_behind.store(true, Ordering::Relaxed);
            self.lost += if (self.outboxed.is_durable)() { 0 } else { count };
            self.shared.status().dropped_frames += with_frames;
        }
    }

    /// Takes note of what was not handed over, and of an outbox that is on disk again: it may have written events there that
    /// were in its memory.
    fn note_missed(&mut self) {
        let is_durable = (self.outboxed.is_durable)();
        let missed = self.shared.missed.swap(0, Ordering::Relaxed);
        if !is_durable {
            self.lost += missed;
        }
        let is_due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_INTERVAL);
        if is_durable && (!self.was_durable || is_due) {
            self.looked = Some(Instant::now());
            self.shared.is_behind.store(true, Ordering::Relaxed);
        }
        self.was_durable = is_durable;
    }

    /// Writes some of the events that wait in the outbox, if there are any.
    fn catch_up(&mut self) {
        if self.failed.is_some() {
            return;
        }
        // What is missed from now on is looked for again.
        if self.shared.is_behind.swap(false, Ordering::Relaxed) {
            self.backlog = Some(Uuid::nil());
        }
        let Some(after) = self.backlog else { return };
        let waiting = (self.outboxed.waiting)(after, BACKLOG);
        self.backlog = waiting.last().map(|(id, _)| *id);
        let record = |(id, event): &(Uuid, Bytes)| {
            let event: Event = serde_json::from_slice(event)
                .inspect_err(|error| tracing::error!(%id, "an event is not for the history: {error}"))
                .ok()?;
            Some(Row::new(Record { event, evidence: None }))
        };
        let rows: Vec<_> = waiting.iter().filter_map(record).collect();
        if self.add(&rows) {
            // Those that are no events, too.
            let ids: Vec<_> = waiting.iter().map(|(id, _)| *id).collect();
            (self.outboxed.recorded)(&ids);
        }
    }

    fn add(&mut self, rows: &[Row]) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        if rows.is_empty() {
            return true;
        }
        match writer.add(rows) {
            Ok(added) => {
                if std::mem::take(&mut self.is_stopped) {
                    tracing::warn!("the history in {} takes events again", self.folder.display());
                }
                let ids: Vec<_> = rows.iter().map(|row| row.id).collect();
                (self.outboxed.recorded)(&ids);
                let mut status = self.shared.status();
                status.events += added;
                status.oldest = status.oldest.or_else(|| made(*ids.first()?));
                true
            }
            Err(error) => {
                self.fail_on(&error);
                false
            }
        }
    }

    /// The file cannot be used for now. It is opened anew, since a damaged one is set aside then.
    fn fail_on(&mut self, error: &rusqlite::Error) {
        self.close();
        self.is_suspect =
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        self.fail(&error.to_string());
    }

    /// Closes the file.
    fn close(&mut self) {
        (self.writer, self.version) = (None, None);
        self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// Deletes some of the frames that are not to be seen any more.
    fn hide(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let Some(may_stay) = self.shared.may_stay() else { return };
        if self.applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, &may_stay)) {
            return;
        }
        let until = Instant::now() + BUDGET;
        while Instant::now() < until {
            match writer.forget_frames(&*may_stay) {
                Ok(None) => {
                    self.applied = Some(may_stay);
                    return;
                }
                Ok(Some((camera, frames))) => {
                    tracing::info!(%camera, frames, "frames are deleted that show what is hidden now");
                    self.is_to_erase = true;
                }
                Err(error) => return self.fail_on(&error),
            }
        }
    }

    /// Forgets some of what is too old or too much.
    fn trim(&mut self) {
        let Some(writer) = &mut self.writer else { return };
        let Limits { keep, max_bytes, .. } = self.limits;
        let oldest = TimeDelta::from_std(keep).ok().and_then(|keep| Utc::now().checked_sub_signed(keep));
        let until = Instant::now() + BUDGET;
        let mut trim = || {
            // Another process, such as `camscribe history forget`, has written.
            let version = writer.version()?;
            if self.version.replace(version).is_some_and(|before| before != version) {
                self.shared.status().events = writer.contents()?.0;
                self.is_to_erase = true;
            }
            let mut forgotten = 0;
            while Instant::now() < until {
                let old = oldest.filter(|oldest| matches!(writer.oldest(), Ok(Some(made)) if made < *oldest));
                let events = match old {
                    Some(oldest) => writer.forget_before(oldest)?.events,
                    None if writer.bytes()? > max_bytes => writer.forget_oldest()?.events,
                    None => 0,
                };
                if events == 0 {
                    break;
                }
                forgotten += events;
            }
            Ok::<_, rusqlite::Error>((forgotten, writer.bytes()?, writer.oldest()?))
        };
        match trim() {
            Ok((forgotten, bytes, oldest)) => {
                self.is_to_erase |= forgotten > 0;
                let mut status = self.shared.status();
                status.events = status.events.saturating_sub(forgotten);
                (status.bytes, status.oldest) = (bytes, oldest);
            }
            Err(error) => self.fail_on(&error),
        }
    }

    /// Overwrites what was forgotten in the log, too, as soon as nobody reads.
    fn erase(&mut self) {
        if !self.is_to_erase {
            return;
        }
        let Some(writer) = &self.writer else { return };
        match writer.erase() {
            Ok(is_erased) => self.is_to_erase = !is_erased,
            Err(HistoryError::Database(error)) => self.fail_on(&error),
            Err(HistoryError::Closed) => {}
        }
    }
}
