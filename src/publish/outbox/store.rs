//! The outbox's database: two tables of payloads in one SQLite file, and the folder that holds it.
//!
//! One connection writes, another reads, so that a message can be taken while another is being
//! written: in WAL mode neither waits for the other. A write is on disk when it returns.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::Utc;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{FlockOperation, flock};
use tokio_util::bytes::Bytes;
use uuid::Uuid;

use super::{Item, Key, Row, Table};
use crate::camera::CameraId;

/// The database's name in its folder.
const FILE: &str = "outbox.db";
/// Held locked for as long as a process uses the folder.
const LOCK: &str = "lock";
/// "camo": marks the file as an outbox of camscribe's.
const APPLICATION: i32 = 0x6361_6d6f;
/// Of the tables below. Another number is another layout.
const LAYOUT: i32 = 1;
/// The write-ahead log shrinks back to this after it has grown, bytes.
const LOG_BYTES: u32 = 16 << 20;
/// Nobody else writes: only a person with a database tool can be in the way.
const BUSY: Duration = Duration::from_secs(5);

/// What to add and what to remove, in one go.
#[derive(Debug, Default)]
pub(super) struct Change {
    pub add: Vec<(Key, Item)>,
    pub gone: Vec<Key>,
}

/// Why a folder cannot hold an outbox.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another process uses it.
    InUse,
    /// In words.
    Unusable(String),
}

/// Why a database cannot be opened or read.
#[derive(Debug)]
pub(super) enum Fault {
    /// Its content is not what it should be.
    Damaged(String),
    Unusable(String),
}

/// An opened outbox.
pub(super) struct Opened {
    pub store: Store,
    pub reader: Reader,
    /// What it holds, payloads left out: events by camera, then snapshots one by one.
    pub found: Vec<Found>,
    /// The folder is ours until this is dropped.
    pub lock: File,
}

/// Rows of one camera.
pub(super) struct Found {
    pub table: Table,
    pub camera: CameraId,
    pub rows: u64,
    /// Of their payloads.
    pub bytes: u64,
    /// The last of them.
    pub last: Row,
    /// The last of them that is a description.
    pub description: Option<Row>,
    /// The id of a snapshot.
    pub id: Uuid,
}

/// What is known of an event that cannot be read.
pub(super) struct Outline {
    pub row: Row,
    pub camera: CameraId,
    /// Of its payload.
    pub bytes: u64,
}

/// Opens the outbox in `folder`, and makes both if they are not there. A damaged one is renamed and
/// a new one is begun.
pub(super) fn open(folder: &Path) -> Result<Opened, OpenError> {
    let unusable = |error: io::Error| OpenError::Unusable(error.to_string());
    // What cameras see is nobody else's business.
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(folder.join(LOCK))
        .map_err(unusable)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse),
        Err(error) => return Err(unusable(error.into())),
    }
    let file = folder.join(FILE);
    let opened = match database(&file) {
        Err(Fault::Damaged(why)) => {
            let kept = put_away(&file).map_err(unusable)?;
            tracing::error!(
                "the outbox {} is damaged ({why}): it is kept as {}, and a new one is begun; the descriptions \
                 that waited in it are not delivered",
                file.display(),
                kept.display()
            );
            database(&file)
        }
        other => other,
    };
    match opened {
        Ok((store, reader, found)) => Ok(Opened { store, reader, found, lock }),
        Err(Fault::Damaged(why) | Fault::Unusable(why)) => Err(OpenError::Unusable(why)),
    }
}

/// Renames a database and what SQLite keeps beside it.
fn put_away(file: &Path) -> io::Result<PathBuf> {
    let with = |path: &Path, ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let kept = with(file, &format!(".damaged-{}", Utc::now().format("%Y%m%dT%H%M%S%.3fZ")));
    std::fs::rename(file, &kept)?;
    for ending in ["-wal", "-shm"] {
        match std::fs::rename(with(file, ending), with(&kept, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(kept)
}

fn database(file: &Path) -> Result<(Store, Reader, Vec<Found>), Fault> {
    // SQLite takes an empty file for a new database, and its mode for the files beside it.
    let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
    made.map_err(|error| Fault::Unusable(error.to_string()))?;
    let writer = connect(file)?;
    check(&writer)?;
    let reader = connect(file)?;
    reader.pragma_update(None, "query_only", true)?;
    let reader = Reader(reader);
    let found = reader.found()?;
    Ok((Store(writer), reader, found))
}

fn connect(file: &Path) -> Result<Connection, Fault> {
    // Each connection stands behind a mutex of ours.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Unusable("its file system does not allow a write-ahead log".into()));
    }
    // FULL: every commit waits until the log is on disk (https://www.sqlite.org/pragma.html#pragma_synchronous).
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    Ok(connection)
}

/// Makes sure that the database is whole and an outbox; an empty one becomes one.
fn check(writer: &Connection) -> Result<(), Fault> {
    let verdict: String = writer.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Fault::Damaged(verdict));
    }
    let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let tables: i64 = writer.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (number("application_id")?, number("user_version")?, tables) {
        (APPLICATION, LAYOUT, _) => {}
        (0, 0, 0) => create(writer)?,
        (APPLICATION, layout, _) => {
            return Err(Fault::Damaged(format!("its layout is {layout}, and this version reads {LAYOUT}")));
        }
        _ => return Err(Fault::Damaged("it is some other program's database".into())),
    }
    Ok(())
}

fn create(writer: &Connection) -> rusqlite::Result<()> {
    let mut sql = String::from("BEGIN;");
    for table in [Table::Events, Table::Snapshots] {
        let name = table.name();
        // The index holds all that is asked for at the start: no payload has to be read then.
        sql += &format!(
            "CREATE TABLE {name} (row INTEGER PRIMARY KEY, camera TEXT NOT NULL, id BLOB NOT NULL, \
             description INTEGER NOT NULL, bytes INTEGER NOT NULL, payload BLOB NOT NULL) STRICT;
             CREATE INDEX {name}_by_camera ON {name} (camera, row, description, bytes, id);"
        );
    }
    sql += &format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {LAYOUT}; COMMIT;");
    writer.execute_batch(&sql)
}

/// The connection that writes.
pub(super) struct Store(Connection);

impl Store {
    /// Makes `change` whole or not at all; it is on disk when this returns.
    pub fn write(&mut self, change: &Change) -> rusqlite::Result<()> {
        let transaction = self.0.transaction()?;
        for (table, row) in &change.gone {
            let sql = format!("DELETE FROM {} WHERE row = ?", table.name());
            transaction.prepare_cached(&sql)?.execute([row.0])?;
        }
        for ((table, row), Item { camera, id, description, payload }) in &change.add {
            // A commit that failed may have left the very same row.
            let sql = format!("INSERT OR REPLACE INTO {} VALUES (?, ?, ?, ?, ?, ?)", table.name());
            let bytes = payload.len() as i64;
            transaction.prepare_cached(&sql)?.execute(params![
                row.0,
                camera.as_str(),
                id.as_bytes(),
                description,
                bytes,
                &payload[..]
            ])?;
        }
        transaction.commit()
    }
}

/// The connection that reads what is written.
pub(super) struct Reader(Connection);

impl Reader {
    /// The first row of `table` from `from` on.
    pub fn first(&self, table: Table, from: Row) -> Result<Option<(Row, Item)>, Fault> {
        let sql = format!(
            "SELECT row, camera, id, description, payload FROM {} WHERE row >= ? ORDER BY row LIMIT 1",
            table.name()
        );
        let mut statement = self.0.prepare_cached(&sql)?;
        let found = statement.query_row([from.0], |row| {
            let payload = Bytes::from(row.get::<_, Vec<u8>>(4)?);
            let item = Item { camera: camera(row, 1)?, id: id(row, 2)?, description: row.get(3)?, payload };
            Ok((Row(row.get(0)?), item))
        });
        Ok(found.optional()?)
    }

    /// What the index says of the first event from `from` on: it may be whole where the row is not.
    pub fn outline(&self, from: Row) -> rusqlite::Result<Option<Outline>> {
        let sql = "SELECT row, camera, bytes FROM events INDEXED BY events_by_camera WHERE row >= ? \
                   ORDER BY row LIMIT 1";
        let mut statement = self.0.prepare_cached(sql)?;
        let found = statement.query_row([from.0], |row| {
            let bytes = row.get::<_, i64>(2)?.unsigned_abs();
            Ok(Outline { row: Row(row.get(0)?), camera: camera(row, 1)?, bytes })
        });
        found.optional()
    }

    fn found(&self) -> rusqlite::Result<Vec<Found>> {
        let events = "SELECT camera, count(*), sum(bytes), max(row), max(id), \
                      max(CASE WHEN description THEN row END) FROM events GROUP BY camera";
        let snapshots = "SELECT camera, 1, bytes, row, id, row FROM snapshots ORDER BY camera, row";
        let mut all = Vec::new();
        for (table, sql) in [(Table::Events, events), (Table::Snapshots, snapshots)] {
            let mut statement = self.0.prepare(sql)?;
            let rows = statement.query_map([], |row| {
                Ok(Found {
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
    text.parse().map_err(|error| foreign(column, error))
}

fn id(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<Uuid> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|error| foreign(column, error))
}

fn foreign(column: usize, error: impl std::error::Error + Send + Sync + 'static) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Blob, Box::new(error))
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Damaged(why) | Self::Unusable(why)) = self;
        f.write_str(why)
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let why = error.to_string();
        match error.sqlite_error_code() {
            // Unknown: a table or a column is not there.
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt | ErrorCode::Unknown) | None => {
                Self::Damaged(why)
            }
            Some(_) => Self::Unusable(why),
        }
    }
}

#[cfg(test)]
impl Store {
    /// Makes the disk full (or not, any more) as far as SQLite can see.
    pub fn set_full(&self, full: bool) {
        let pages: u32 = self.0.pragma_query_value(None, "page_count", |row| row.get(0)).expect("a number");
        let most = if full { pages } else { u32::MAX - 1 };
        self.0.query_row(&format!("PRAGMA max_page_count = {most}"), [], |_| Ok(())).expect("set");
    }

    /// Damages rows so that they cannot be read.
    pub fn spoil(&self, rows: std::ops::RangeInclusive<i64>) {
        let sql = "UPDATE events SET id = x'00' WHERE row BETWEEN ? AND ?";
        self.0.execute(sql, [rows.start(), rows.end()]).expect("spoilt");
    }
}
