//! The state directory: who uses it, and the database in it.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use chrono::Utc;
use rustix::fs::{FlockOperation, flock};
use tokio_util::bytes::Bytes;

use super::{
    database::{self, CameraRows, Reader, Writer},
    fault::Fault,
    migrations::{self, Migration},
};
use crate::{camera::CameraId, ownership::give_to_owner_of};

/// The database's name in its folder.
const DATABASE: &str = "outbox.db";
/// Locked for as long as a process uses the folder.
const LOCK: &str = "lock";

/// Why a folder cannot hold an outbox.
#[derive(Debug)]
pub(super) enum OpenError {
    /// Another process uses it.
    InUse,
    /// The reason, for people.
    Unusable(String),
}

/// An opened database.
pub(super) struct Opened {
    pub writer: Writer,
    pub reader: Reader,
    /// What the database holds, without payloads: events by camera, then each snapshot.
    pub contents: Vec<CameraRows>,
    /// What is remembered of the alerts of each camera.
    pub alerts: BTreeMap<CameraId, Bytes>,
    /// No other process can open the folder until this is dropped.
    pub lock: File,
}

/// Opens the database in `folder`, and creates folder and database if they do not exist. A database of
/// an older layout is migrated. A database that is damaged, another program's or of a newer layout is
/// renamed, and a new one takes its place.
///
/// # Errors
/// When another process uses the folder, or when the file system fails.
pub(super) fn open(folder: &Path, migrations: &[Migration]) -> Result<Opened, OpenError> {
    let unusable = |error: io::Error| OpenError::Unusable(error.to_string());
    let lock = hold(folder)?;
    let file = folder.join(DATABASE);
    let opened = match open_database(&file, migrations) {
        Err(fault @ (Fault::Damaged(_) | Fault::Newer { .. })) => {
            move_aside(&file, &fault).map_err(unusable)?;
            open_database(&file, migrations)
        }
        opened => opened,
    };
    match opened {
        Ok((writer, reader, contents, alerts)) => Ok(Opened { writer, reader, contents, alerts, lock }),
        Err(fault) => Err(OpenError::Unusable(fault.to_string())),
    }
}

/// Makes the folder if it is missing, and keeps other processes out of it until the lock is dropped.
///
/// # Errors
/// As [`open`].
pub(super) fn hold(folder: &Path) -> Result<File, OpenError> {
    // Nobody but the user that camscribe runs as may see what the cameras see.
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| OpenError::Unusable(error.to_string()))?;
    lock(folder)
}

/// Whether another process uses the folder. Nothing is written.
pub fn is_in_use(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join(LOCK)) else { return false };
    flock(&lock, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::WOULDBLOCK)
}

/// Whether there is a database in the folder.
pub(super) fn has_database(folder: &Path) -> bool {
    folder.join(DATABASE).exists()
}

fn lock(folder: &Path) -> Result<File, OpenError> {
    let unusable = |error: io::Error| OpenError::Unusable(error.to_string());
    let file = folder.join(LOCK);
    let lock = create(&file).map_err(OpenError::Unusable)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse),
        Err(error) => Err(unusable(error.into())),
    }
}

/// A writer, a reader, and what the database holds: as [`Opened`] has it.
type Database = (Writer, Reader, Vec<CameraRows>, BTreeMap<CameraId, Bytes>);

/// Opens a writer and a reader. A file that does not exist is created with mode 0600.
fn open_database(file: &Path, migrations: &[Migration]) -> Result<Database, Fault> {
    // SQLite takes an empty file for a new database, and its mode for the files beside it.
    create(file).map_err(Fault::Unusable)?;
    let mut connection = database::connect(file)?;
    database::check(&connection)?;
    migrations::migrate(&mut connection, migrations)?;
    let reader = Reader::new(database::connect(file)?)?;
    let contents = reader.contents()?;
    let alerts = reader.alerts()?;
    Ok((Writer::new(connection), reader, contents, alerts))
}

/// Opens a file for writing, and makes it if it is missing.
///
/// # Errors
/// Names the file and says why it cannot be written.
fn create(file: &Path) -> Result<File, String> {
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(file);
    let opened = opened.and_then(|opened| {
        let folder = file.parent().unwrap_or(Path::new(""));
        give_to_owner_of(folder, &opened).map(|()| opened)
    });
    opened.map_err(|error| format!("{}: {error}", file.display()))
}

/// Renames a database that cannot be used, and logs why and what to do.
fn move_aside(file: &Path, fault: &Fault) -> io::Result<()> {
    let newer = matches!(fault, Fault::Newer { .. });
    let time = Utc::now().format("%Y%m%dT%H%M%S%.3fZ");
    let kept = with_suffix(file, &format!(".{}-{time}", if newer { "newer" } else { "damaged" }));
    std::fs::rename(file, &kept)?;
    // What SQLite keeps beside the database.
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(with_suffix(file, suffix), with_suffix(&kept, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    let (file, kept) = (file.display(), kept.display());
    if newer {
        tracing::error!(
            "the outbox {file} was written by a newer camscribe ({fault}): it is kept as {kept}, and a new one \
             is begun; to deliver the descriptions in it, run the newer version with the file under its old name"
        );
    } else {
        tracing::error!(
            "the outbox {file} is damaged ({fault}): it is kept as {kept}, and a new one is begun; the \
             descriptions that waited in it are not delivered"
        );
    }
    Ok(())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
