//! The state directory: who uses it, and the database in it.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tokio_util::bytes::Bytes;

use super::{
    database::{CameraRows, Reader, Writer},
    migrations,
};
use crate::{
    camera::CameraId,
    sqlite::{self, Migration},
};

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
    let lock = hold(folder)?;
    let file = folder.join(DATABASE);
    let opened = sqlite::open(&file, &migrations::kind(migrations), |connection| {
        let reader = Reader::new(sqlite::connect(&file)?)?;
        let (contents, alerts) = (reader.contents()?, reader.alerts()?);
        Ok((Writer::new(connection)?, reader, contents, alerts))
    });
    let (writer, reader, contents, alerts) = opened.map_err(OpenError::Unusable)?;
    Ok(Opened { writer, reader, contents, alerts, lock })
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
    let lock = sqlite::create(&file).map_err(OpenError::Unusable)?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse),
        Err(error) => Err(unusable(error.into())),
    }
}
