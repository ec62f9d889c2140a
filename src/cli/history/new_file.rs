//! Files that only their owner can read, and that appear as a whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    process,
};

use anyhow::Context;

use super::super::usage::UsageError;

/// A file that gets its name when it is whole. What is left of one that is dropped before is deleted.
pub struct NewFile {
    /// Its content.
    pub content: BufWriter<File>,
    part: PathBuf,
    name: PathBuf,
}

impl NewFile {
    /// Begins a file; one that has this name is replaced at the end.
    ///
    /// # Errors
    /// [`UsageError`] if `name` is something other than a file; when none can be made in its folder.
    pub fn begin(name: &Path) -> anyhow::Result<Self> {
        if fs::metadata(name).is_ok_and(|it| !it.is_file()) {
            let why = format!("{} is no regular file: name another one with --output", name.display());
            return Err(UsageError(why).into());
        }
        let mut part = name.as_os_str().to_owned();
        part.push(format!(".{}.part", process::id()));
        let part = PathBuf::from(part);
        let file = create(&part).with_context(|| format!("{} cannot be made", part.display()))?;
        Ok(Self { content: BufWriter::new(file), part, name: name.into() })
    }

    /// Gives the file its name, once it is on disk.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<()> {
        self.content.flush()?;
        self.content.get_ref().sync_all()?;
        fs::rename(&self.part, &self.name)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // A finished one has no such name any more.
        let _ = fs::remove_file(&self.part);
    }
}

/// Makes a file with mode 0600 that was not there.
///
/// # Errors
/// When it was, or cannot be made.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Writes a small file with mode 0600 into a folder that is made, with mode 0700, if it is not there.
///
/// # Errors
/// When the file is there already, or cannot be written.
pub fn write_into(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    create(&folder.join(name))?.write_all(bytes)
}
