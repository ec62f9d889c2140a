//! The connection that writes: what is added, and what is forgotten.

use std::{path::Path, time::Duration};

use chrono::{DateTime, Utc};
use rusqlite::{
    Connection, OptionalExtension, Transaction, TransactionBehavior, params, params_from_iter, types::Value,
};

use super::{
    error::HistoryError,
    layout::{FILE, KIND},
    record::{Record, Row},
    selection::Selection,
};
use crate::{
    camera::CameraId,
    sqlite::{self, Fault, Kind},
};

/// The most events that are forgotten in one transaction, so that others need not wait for long: what is overwritten goes
/// through the log, which needs room on the disk.
const CHUNK: usize = 32;
/// The same of frames.
const FRAMES_CHUNK: usize = 64;
/// The most pages that are given back to the file system at a time.
const VACUUM_PAGES: u32 = 2000;

/// What was forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Forgotten {
    /// Events.
    pub events: u64,
    /// Frames.
    pub frames: u64,
}

/// The connection that writes.
pub struct Writer(Connection);

impl Writer {
    /// Opens the history in `folder`, and makes one if there is none. `is_checked`: all of the file is.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open(folder: &Path, is_checked: bool) -> Result<Self, String> {
        sqlite::open(&folder.join(FILE), &Kind { is_checked, ..KIND }, Self::new)
    }

    /// Opens the history in `folder`, which is there already.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn open_existing(folder: &Path) -> Result<Self, String> {
        let open = || {
            let connection = sqlite::connect(&folder.join(FILE))?;
            sqlite::check_kind(&connection, &KIND)?;
            Self::new(connection)
        };
        open().map_err(|fault| fault.to_string())
    }

    fn new(connection: Connection) -> Result<Self, Fault> {
        connection.pragma_update(None, "secure_delete", "on")?;
        connection.pragma_update(None, "temp_store", "memory")?;
        connection.execute_batch("CREATE TEMP TABLE IF NOT EXISTS doomed (row INTEGER PRIMARY KEY)")?;
        Ok(Self(connection))
    }

    /// Adds events with their frames, all or none. What is there already stays as it is.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&mut self, records: Vec<Record>) -> Result<u64, HistoryError> {
        let rows: Vec<_> = records.into_iter().map(Row::new).collect();
        Ok(self.add(&rows)?)
    }

    /// Adds events with their frames, all or none. An event that is there already is left as it is, but gets the frames
    /// that it lacks. Returns how many are new.
    pub(super) fn add(&mut self, rows: &[Row]) -> rusqlite::Result<u64> {
        let transaction = begin(&mut self.0)?;
        let mut added = 0;
        for row in rows {
            added += u64::from(add(&transaction, row)?);
        }
        transaction.commit()?;
        Ok(added)
    }

    /// The number of events, when the oldest was made, and the size of all that is held, bytes.
    pub(super) fn contents(&self) -> rusqlite::Result<(u64, Option<DateTime<Utc>>, u64)> {
        let count = self.0.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0))?;
        Ok((count.unsigned_abs(), self.oldest()?, self.bytes()?))
    }

    /// A number that is another one after another connection has written.
    pub(super) fn version(&self) -> rusqlite::Result<i64> {
        self.0.pragma_query_value(None, "data_version", |row| row.get(0))
    }

    /// When the oldest event was made.
    pub(super) fn oldest(&self) -> rusqlite::Result<Option<DateTime<Utc>>> {
        let sql = "SELECT made FROM events ORDER BY row LIMIT 1";
        let made = self.0.query_row(sql, [], |row| row.get(0)).optional()?;
        Ok(made.and_then(DateTime::from_timestamp_millis))
    }

    /// The size of all that is held, bytes.
    pub(super) fn bytes(&self) -> rusqlite::Result<u64> {
        let pragma = |name| self.0.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let pages = pragma("page_count")? - pragma("freelist_count")?;
        Ok((pages * pragma("page_size")?).unsigned_abs())
    }

    /// Forgets the oldest events that were made before `oldest`: at most a chunk of them.
    pub(super) fn forget_before(&mut self, oldest: DateTime<Utc>) -> rusqlite::Result<Forgotten> {
        // In the order in which they came, so that nothing more than the first that stays is read.
        let sql = format!(
            "INSERT INTO doomed SELECT row FROM (SELECT row, made FROM events ORDER BY row LIMIT {CHUNK}) \
             WHERE made < ?"
        );
        Ok(self.forget_chunk(&sql, &[oldest.timestamp_millis().into()])?.0)
    }

    /// Forgets the oldest events: a chunk of them.
    pub(super) fn forget_oldest(&mut self) -> rusqlite::Result<Forgotten> {
        let sql = format!("INSERT INTO doomed SELECT row FROM events ORDER BY row LIMIT {CHUNK}");
        Ok(self.forget_chunk(&sql, &[])?.0)
    }

    /// Forgets the selected events with their frames. What is deleted is overwritten, in the log too with
    /// [`Writer::erase`].
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn forget(&mut self, selection: &Selection) -> Result<Forgotten, HistoryError> {
        let (conditions, values): (Vec<_>, Vec<_>) = selection.conditions().into_iter().unzip();
        let conditions: String = conditions.iter().map(|condition| format!(" AND {condition}")).collect();
        let sql = format!(
            "INSERT INTO doomed SELECT row FROM events WHERE events.row > ?{conditions} ORDER BY row LIMIT {CHUNK}"
        );
        let (mut all, mut last) = (Forgotten::default(), 0);
        loop {
            let values: Vec<Value> = [last.into()].into_iter().chain(values.clone()).collect();
            let (chunk, newest) = self.forget_chunk(&sql, &values)?;
            if chunk.events == 0 {
                break;
            }
            last = newest;
            all.events += chunk.events;
            all.frames += chunk.frames;
        }
        self.shrink(u32::MAX)?;
        Ok(all)
    }

    /// Empties the log, so that nothing of what was forgotten is left there either. Returns false while that cannot be,
    /// because somebody reads the history.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn erase(&self) -> Result<bool, HistoryError> {
        // Nobody is waited for.
        self.0.busy_timeout(Duration::ZERO)?;
        let is_busy = self.0.query_row("PRAGMA wal_checkpoint(truncate)", [], |row| row.get::<_, bool>(0));
        self.0.busy_timeout(sqlite::BUSY_TIMEOUT)?;
        Ok(!is_busy?)
    }

    /// Forgets some frames of which `may_stay` is false: by camera, and what of its picture they show. Their events stay.
    /// `None`: there are no more.
    pub(super) fn forget_frames(
        &mut self,
        may_stay: impl Fn(&CameraId, &str) -> bool,
    ) -> rusqlite::Result<Option<(CameraId, u64)>> {
        let views: Vec<(String, String)> = {
            let mut statement = self.0.prepare_cached("SELECT DISTINCT camera, view FROM evidence")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect::<Result<_, _>>()?
        };
        let hidden = views.into_iter().find_map(|(name, view)| {
            let camera = name.parse::<CameraId>().ok()?;
            (!may_stay(&camera, &view)).then_some((camera, view))
        });
        let Some((camera, view)) = hidden else { return Ok(None) };
        let of = params![camera.as_str(), view];
        let transaction = begin(&mut self.0)?;
        let sql = format!(
            "DELETE FROM frames WHERE frame IN (SELECT frame FROM frames JOIN evidence ON evidence.event = frames.event \
             WHERE evidence.camera = ? AND evidence.view = ? LIMIT {FRAMES_CHUNK})"
        );
        let frames = transaction.execute(&sql, of)?;
        if frames < FRAMES_CHUNK {
            transaction.execute("DELETE FROM evidence WHERE camera = ? AND view = ?", of)?;
        }
        transaction.commit()?;
        Ok(Some((camera, frames as u64)))
    }

    /// Gives pages that are not used any more back to the file system.
    pub(super) fn shrink(&self, pages: u32) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        Ok(())
    }

    /// Forgets the events whose rows `choose` puts into the table `doomed`. Also returns the last of these rows.
    fn forget_chunk(&mut self, choose: &str, values: &[Value]) -> rusqlite::Result<(Forgotten, i64)> {
        let transaction = begin(&mut self.0)?;
        transaction.execute("DELETE FROM doomed", [])?;
        if transaction.execute(choose, params_from_iter(values))? == 0 {
            return Ok((Forgotten::default(), 0));
        }
        let last = transaction.query_row("SELECT max(row) FROM doomed", [], |row| row.get(0))?;
        transaction.execute_batch(
            "INSERT INTO search (search, rowid, words, camera) SELECT 'delete', row, words, camera FROM events \
             WHERE words <> '' AND row IN (SELECT row FROM doomed);
             DELETE FROM evidence WHERE event IN (SELECT row FROM doomed);
             DELETE FROM transitions WHERE event IN (SELECT row FROM doomed);",
        )?;
        let delete = |sql| transaction.execute(sql, []).map(|rows| rows as u64);
        let frames = delete("DELETE FROM frames WHERE event IN (SELECT row FROM doomed)")?;
        let events = delete("DELETE FROM events WHERE row IN (SELECT row FROM doomed)")?;
        transaction.commit()?;
        self.shrink(VACUUM_PAGES)?;
        Ok((Forgotten { events, frames }, last))
    }
}

/// Begins a transaction that writes, and waits until nobody else does: one that began to read first would fail at once.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

/// Adds an event, or the frames that it lacks. Returns whether it is new.
fn add(transaction: &Transaction<'_>, row: &Row) -> rusqlite::Result<bool> {
    let sql = "INSERT OR IGNORE INTO events (id, camera, at, made, kind, words, event) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let values = params![row.id.as_bytes(), row.camera, row.at, row.made, row.kind, row.words, row.event];
    let is_new = transaction.prepare_cached(sql)?.execute(values)? == 1;
    let number: i64 = if is_new {
        transaction.last_insert_rowid()
    } else {
        let sql = "SELECT row FROM events WHERE id = ?";
        transaction.prepare_cached(sql)?.query_row([row.id.as_bytes()], |found| found.get(0))?
    };
    if is_new {
        if !row.words.is_empty() {
            let sql = "INSERT INTO search (rowid, words, camera) VALUES (?, ?, ?)";
            transaction.prepare_cached(sql)?.execute(params![number, row.words, row.camera])?;
        }
        for (alert, is_on) in &row.transitions {
            let sql = "INSERT INTO transitions (event, camera, alert, is_on, at) VALUES (?, ?, ?, ?, ?)";
            transaction.prepare_cached(sql)?.execute(params![number, row.camera, alert, is_on, row.at])?;
        }
    }
    if let Some(evidence) = &row.evidence {
        let sql = "INSERT OR IGNORE INTO evidence (event, camera, view, is_lossless, replay) VALUES (?, ?, ?, ?, ?)";
        let values = params![number, row.camera, evidence.view, evidence.is_lossless, evidence.replay];
        if transaction.prepare_cached(sql)?.execute(values)? == 1 {
            for (place, picture) in evidence.pictures.iter().enumerate() {
                let sql = "INSERT INTO frames (event, number, offset_us, width, height, picture) \
                           VALUES (?, ?, ?, ?, ?, ?)";
                let offset = i64::try_from(picture.offset.as_micros()).unwrap_or(i64::MAX);
                transaction.prepare_cached(sql)?.execute(params![
                    number,
                    place as i64,
                    offset,
                    picture.width,
                    picture.height,
                    picture.bytes
                ])?;
            }
        }
    }
    Ok(is_new)
}

#[cfg(test)]
impl Writer {
    /// Makes SQLite see a full disk, or one with room again.
    pub fn set_full(&self, full: bool) {
        let pages: u32 = self.0.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
        let most = if full { pages } else { u32::MAX - 1 };
        self.0.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).expect("set");
    }
}
