//! The file of a database: made, opened, and renamed when it cannot be used.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::Utc;
use rusqlite::{Connection, OpenFlags};

use super::{fault::Fault, kind::Kind, migrations::migrate};
use crate::ownership::give_to_owner_of;

/// The write-ahead log is truncated to this size after it has grown, bytes.
const WAL_BYTES: u32 = 16 << 20;
/// How long to wait for a lock. Hardly anybody else writes: a person with another tool, or a command of camscribe.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Opens a database, made with mode 0600 if there is none, and brings it to its newest layout; `read` reads what its owner
/// needs of it. One that is damaged, another program's or of a newer layout is renamed, and a new one takes its place.
///
/// # Errors
/// Why neither works.
pub fn open<T>(
    file: &Path,
    kind: &Kind<'_>,
    read: impl Fn(Connection) -> Result<T, Fault>,
) -> Result<T, String> {
    let attempt = || -> Result<T, Fault> {
        // SQLite takes an empty file for a new database, and its mode for the files beside it.
        create(file).map_err(Fault::Unusable)?;
        let mut connection = begin(file, kind.before)?;
        if kind.is_checked {
            check(&connection)?;
        }
        migrate(&mut connection, kind)?;
        read(connection)
    };
    let opened = match attempt() {
        Err(fault @ (Fault::Damaged(_) | Fault::Newer { .. })) => {
            move_aside(file, kind, &fault).map_err(|error| error.to_string())?;
            attempt()
        }
        opened => opened,
    };
    opened.map_err(|fault| fault.to_string())
}

/// Opens a connection to a database that exists.
///
/// # Errors
/// When the file cannot be opened or the file system does not support a write-ahead log.
pub fn connect(file: &Path) -> Result<Connection, Fault> {
    begin(file, "")
}

fn begin(file: &Path, before: &str) -> Result<Connection, Fault> {
    // Each connection is behind a mutex, or one thread's.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.execute_batch(before)?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Unusable("its file system does not allow a write-ahead log".into()));
    }
    // Every commit waits until the log is on disk (<https://www.sqlite.org/pragma.html#pragma_synchronous>).
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES)?;
    Ok(connection)
}

/// Checks that the pages of the file are whole.
fn check(connection: &Connection) -> Result<(), Fault> {
    let result: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if result == "ok" { Ok(()) } else { Err(Fault::Damaged(result)) }
}

/// Opens a file for writing, and makes it if it is missing: only its owner may read it. Root gives one that it makes to the
/// owner of its folder, and none that was there: a link could lead anywhere.
///
/// # Errors
/// Names the file and says why it cannot be written.
pub fn create(file: &Path) -> Result<File, String> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    let opened = match made {
        Ok(made) => give_to_owner_of(file.parent().unwrap_or(Path::new("")), &made).map(|()| made),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            OpenOptions::new().write(true).open(file)
        }
        Err(error) => Err(error),
    };
    opened.map_err(|error| format!("{}: {error}", file.display()))
}

/// Renames a database that cannot be used, and logs why and what to do.
fn move_aside(file: &Path, kind: &Kind<'_>, fault: &Fault) -> io::Result<()> {
    let is_newer = matches!(fault, Fault::Newer { .. });
    let time = Utc::now().format("%Y%m%dT%H%M%S%.3fZ");
    let kept = with_suffix(file, &format!(".{}-{time}", if is_newer { "newer" } else { "damaged" }));
    std::fs::rename(file, &kept)?;
    // What SQLite keeps beside the database.
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(with_suffix(file, suffix), with_suffix(&kept, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let (name, file, kept) = (kind.name, file.display(), kept.display());
    if is_newer {
        tracing::error!(
            "{name} {file} was written by a newer camscribe ({fault}): it is kept as {kept}, and a new one is begun; {}",
            kind.when_newer
        );
    } else {
        tracing::error!(
            "{name} {file} is damaged ({fault}): it is kept as {kept}, and a new one is begun; {}",
            kind.when_damaged
        );
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
