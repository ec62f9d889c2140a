//! The database: two tables of payloads in one SQLite file, one of what is remembered of alerts, and one of
//! events that the history has not confirmed.
//!
//! One connection writes, another reads, so that a message can be taken while another is being
//! written: in WAL mode neither waits for the other. A write is on disk when it returns.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::row::{Item, Key, Row, Table};
use crate::{camera::CameraId, sqlite::Fault};

/// The values of `synchronous`, in WAL mode (<https://www.sqlite.org/pragma.html#pragma_synchronous>). Every commit waits
/// until the log is on disk.
const SYNCED: &str = "full";
/// The log is on disk with the next synced commit. A crash of the process loses nothing; after a loss of power, what was
/// deleted may be there again.
const UNSYNCED: &str = "normal";
/// The most events that wait for the history. It may be stopped for long; then those that came first are forgotten.
pub(super) const MAX_UNRECORDED: i64 = 10_000;

/// Rows to insert, rows to delete, and alerts to remember, in one transaction.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub insert: Vec<(Key, Item)>,
    pub delete: Vec<Key>,
    /// What is remembered of the alerts of cameras from now on.
    pub alerts: Vec<(CameraId, Bytes)>,
    /// Events that the history has.
    pub recorded: Vec<Uuid>,
}

impl Batch {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.insert.is_empty() && self.delete.is_empty() && self.alerts.is_empty() && self.recorded.is_empty()
    }
}

/// A summary of the rows of one camera in one table.
pub(super) struct CameraRows {
    pub table: Table,
    pub camera: CameraId,
    /// The number of rows.
    pub rows: u64,
    /// The size of their payloads.
    pub bytes: u64,
    /// The last row.
    pub last: Row,
    /// The last row that is a description.
    pub description: Option<Row>,
    /// The id of a snapshot.
    pub id: Uuid,
}

/// What the index knows of an event whose row cannot be read.
pub(super) struct RowMeta {
    pub row: Row,
    pub camera: CameraId,
    /// The size of its payload.
    pub bytes: u64,
}

/// The connection that writes.
pub(super) struct Writer {
    connection: Connection,
    /// Events that the history has not confirmed.
    unrecorded: i64,
    /// Those that were forgotten before it did, since the start.
    pub unrecorded_dropped: u64,
}

impl Writer {
    pub fn new(connection: Connection) -> rusqlite::Result<Self> {
        let unrecorded = connection.query_row("SELECT count(*) FROM unrecorded", [], |row| row.get(0))?;
        Ok(Self { connection, unrecorded, unrecorded_dropped: 0 })
    }

    /// Deletes the events that the history has not confirmed.
    pub fn forget_unrecorded(&mut self) -> rusqlite::Result<()> {
        self.connection.execute("DELETE FROM unrecorded", [])?;
        self.unrecorded = 0;
        Ok(())
    }

    /// Writes the whole batch or nothing of it. What it inserts is on disk when this returns.
    pub fn write(&mut self, batch: &Batch) -> rusqlite::Result<()> {
        // What was delivered need not be gone before a loss of power: its id tells it from what is new.
        let adds = !batch.insert.is_empty() || !batch.alerts.is_empty();
        let synchronous = if adds { SYNCED } else { UNSYNCED };
        self.connection.pragma_update(None, "synchronous", synchronous)?;
        let transaction = self.connection.transaction()?;
        let (mut unrecorded, mut dropped) = (self.unrecorded, 0);
        for (table, row) in &batch.delete {
            let sql = format!("DELETE FROM {} WHERE row = ?", table.name());
            transaction.prepare_cached(&sql)?.execute([row.0])?;
        }
        for ((table, row), Item { camera, id, description, payload, is_recorded }) in &batch.insert {
            // REPLACE: a commit that failed may have left the very same row.
            let sql = format!(
                "INSERT OR REPLACE INTO {} (row, camera, id, description, bytes, payload) \
                 VALUES (?, ?, ?, ?, ?, ?)",
                table.name()
            );
            let bytes = payload.len() as i64;
            transaction.prepare_cached(&sql)?.execute(params![
                row.0,
                camera.as_str(),
                id.as_bytes(),
                description,
                bytes,
                &payload[..]
            ])?;
            if *is_recorded {
                let sql = "INSERT OR IGNORE INTO unrecorded (id, payload) VALUES (?, ?)";
                let added = transaction.prepare_cached(sql)?.execute(params![id.as_bytes(), &payload[..]])?;
                unrecorded += added as i64;
            }
        }
        for id in &batch.recorded {
            let sql = "DELETE FROM unrecorded WHERE id = ?";
            unrecorded -= transaction.prepare_cached(sql)?.execute([id.as_bytes()])? as i64;
        }
        if unrecorded > MAX_UNRECORDED {
            // Ids are UUIDv7: the smallest came first.
            let sql = "DELETE FROM unrecorded WHERE id IN (SELECT id FROM unrecorded ORDER BY id LIMIT ?)";
            let excess = transaction.execute(sql, [unrecorded - MAX_UNRECORDED])?;
            unrecorded -= excess as i64;
            dropped += excess as u64;
        }
        for (camera, alerts) in &batch.alerts {
            let sql = "INSERT OR REPLACE INTO alerts (camera, states) VALUES (?, ?)";
            transaction.prepare_cached(sql)?.execute(params![camera.as_str(), &alerts[..]])?;
        }
        transaction.commit()?;
        self.unrecorded = unrecorded;
        self.unrecorded_dropped += dropped;
        Ok(())
    }
}

/// The connection that reads.
pub(super) struct Reader(Connection);

impl Reader {
    pub fn new(connection: Connection) -> rusqlite::Result<Self> {
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self(connection))
    }

    /// The first row of `table` that is `from` or later.
    pub fn first(&self, table: Table, from: Row) -> Result<Option<(Row, Item)>, Fault> {
        let sql = format!(
            "SELECT row, camera, id, description, payload FROM {} WHERE row >= ? ORDER BY row LIMIT 1",
            table.name()
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let found = statement.query_row([from.0], |row| {
            let payload = Bytes::from(row.get::<_, Vec<u8>>(4)?);
            let (camera, id) = (camera(row, 1)?, id(row, 2)?);
            let item = Item { camera, id, description: row.get(3)?, payload, is_recorded: false };
            Ok((Row(row.get(0)?), item))
        });
        Ok(found.optional()?)
    }

    /// What the index says of the first event that is `from` or later. It may be readable where the
    /// row is not.
    pub fn meta(&self, from: Row) -> rusqlite::Result<Option<RowMeta>> {
        let sql = "SELECT row, camera, bytes FROM events INDEXED BY events_by_camera WHERE row >= ? \
                   ORDER BY row LIMIT 1";
        let mut statement = self.0.prepare_cached(sql)?;
        let found = statement.query_row([from.0], |row| {
            let bytes = row.get::<_, i64>(2)?.unsigned_abs();
            Ok(RowMeta { row: Row(row.get(0)?), camera: camera(row, 1)?, bytes })
        });
        found.optional()
    }

    /// What is remembered of the alerts of each camera.
    pub fn alerts(&self) -> rusqlite::Result<BTreeMap<CameraId, Bytes>> {
        let mut statement = self.0.prepare("SELECT camera, states FROM alerts")?;
        let rows = statement.query_map([], |row| Ok((camera(row, 0)?, row.get::<_, Vec<u8>>(1)?.into())))?;
        rows.collect()
    }

    /// The first events that the history has not confirmed: at most `most` of those that are later than `after`.
    pub fn unrecorded(&self, after: Uuid, most: usize) -> rusqlite::Result<Vec<(Uuid, Bytes)>> {
        let sql = "SELECT id, payload FROM unrecorded WHERE id > ? ORDER BY id LIMIT ?";
        let mut statement = self.0.prepare_cached(sql)?;
        let rows = statement.query_map(params![after.as_bytes(), most as i64], |row| {
            Ok((id(row, 0)?, row.get::<_, Vec<u8>>(1)?.into()))
        })?;
        rows.collect()
    }

    /// A summary of all rows: events by camera, then each snapshot.
    pub fn contents(&self) -> rusqlite::Result<Vec<CameraRows>> {
        let events = "SELECT camera, count(*), sum(bytes), max(row), max(id), \
                      max(CASE WHEN description THEN row END) FROM events GROUP BY camera";
        let snapshots = "SELECT camera, 1, bytes, row, id, row FROM snapshots ORDER BY camera, row";
        let mut all = Vec::new();
        for (table, sql) in [(Table::Events, events), (Table::Snapshots, snapshots)] {
            let mut statement = self.0.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(CameraRows {
                    table,
                    camera: camera(row, 0)?,
                    rows: row.get::<_, i64>(1)?.unsigned_abs(),
                    bytes: row.get::<_, i64>(2)?.unsigned_abs(),
                    last: Row(row.get(3)?),
                    description: row.get::<_, Option<i64>>(5)?.map(Row),
                    id: id(row, 4)?,
                })
            })?;
            for row in rows {
                all.push(row?);
            }
        }
        Ok(all)
    }
}

fn camera(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<CameraId> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| invalid(column, error))
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| invalid(column, error))
}

fn invalid(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}

#[cfg(test)]
impl Writer {
    /// Makes SQLite see a full disk, or one with room again.
    pub fn set_full(&self, full: bool) {
        let pages: u32 =
            self.connection.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
        let most = if full { pages } else { u32::MAX - 1 };
        self.connection.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).expect("set");
    }

    /// Damages rows so that they cannot be read.
    pub fn corrupt(&self, rows: std::ops::RangeInclusive<i64>) {
        let sql = "UPDATE events SET id = x'00' WHERE row BETWEEN ? AND ?";
        self.connection.execute(sql, [rows.start(), rows.end()]).expect("updated");
    }
}
