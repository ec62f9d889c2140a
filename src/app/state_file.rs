//! Small JSON files in the state directory.

use std::{fs, io, os::unix::fs::OpenOptionsExt, path::Path};

use anyhow::Context;
use chrono::Utc;
use serde::{Serialize, de::DeserializeOwned};

use crate::ownership::give_to_owner_of;

/// Returns the value in `file`, or the default if there is no such file.
///
/// # Errors
/// When the file cannot be read or holds something else.
pub fn read<T: DeserializeOwned + Default>(file: &Path) -> anyhow::Result<T> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        text => text.with_context(|| file.display().to_string())?,
    };
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

/// Renames `file` if it was not this `error` of the system that kept it from being read: it is damaged then, and what
/// is written next must not replace it. Returns where it is kept, as the end of a sentence.
pub fn set_aside(file: &Path, error: &anyhow::Error) -> String {
    if error.downcast_ref::<io::Error>().is_some() {
        return String::new();
    }
    let mut kept = file.as_os_str().to_owned();
    kept.push(format!(".damaged-{}", Utc::now().format("%Y%m%dT%H%M%S%.3fZ")));
    match fs::rename(file, &kept) {
        Ok(()) => format!("; the file is kept as {}", Path::new(&kept).display()),
        Err(error) => format!("; the file cannot be renamed: {error}"),
    }
}

/// Writes `value` to `file`, which only its owner may read. After a loss of power the file holds the old value or
/// the new one.
///
/// # Errors
/// When the file cannot be written.
pub fn write(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    let context = || new.display().to_string();
    // A file that a crash has left keeps its mode.
    let _ = fs::remove_file(&new);
    let created = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let mut open = created.with_context(context)?;
    let folder = file.parent().context("a file without a folder")?;
    give_to_owner_of(folder, &open).with_context(context)?;
    serde_json::to_writer(&mut open, value).with_context(context)?;
    open.sync_all().with_context(context)?;
    fs::rename(&new, file).with_context(context)?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())
}
