//! Small files in the state directory: what is kept beyond the process, as JSON.

use std::{fs, io, path::Path};

use anyhow::Context;
use serde::{Serialize, de::DeserializeOwned};

/// What `file` holds; the default if there is no such file.
///
/// # Errors
/// When it cannot be read or holds something else.
pub fn read<T: DeserializeOwned + Default>(file: &Path) -> anyhow::Result<T> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(T::default()),
        text => text.with_context(|| file.display().to_string())?,
    };
    serde_json::from_slice(&text).with_context(|| file.display().to_string())
}

/// Puts `value` into `file`: the old one or the new one is there, whenever the power goes.
///
/// # Errors
/// When it cannot be written.
pub fn write(file: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let new = file.with_extension("new");
    let context = || new.display().to_string();
    let mut open = fs::File::create(&new).with_context(context)?;
    serde_json::to_writer(&mut open, value).with_context(context)?;
    open.sync_all().with_context(context)?;
    fs::rename(&new, file).with_context(context)?;
    let folder = file.parent().context("a file without a folder")?;
    fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(|| folder.display().to_string())
}
