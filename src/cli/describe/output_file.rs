//! The file of `describe --output`.

use std::{
    fs::{File, Metadata},
    io::{self, Write},
    path::Path,
};

/// A file that is truncated only when the first byte is written, so that a run that fails before that leaves its
/// content alone.
pub struct TruncateOnFirstWrite {
    file: File,
    /// Whether the first write has happened.
    written: bool,
}

impl TruncateOnFirstWrite {
    /// Opens or creates a file.
    ///
    /// # Errors
    /// When it cannot be opened for writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().write(true).create(true).truncate(false).open(path)?;
        Ok(Self { file, written: false })
    }

    /// The metadata of the file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn metadata(&self) -> io::Result<Metadata> {
        self.file.metadata()
    }
}

impl Write for TruncateOnFirstWrite {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A pipe or terminal cannot be truncated.
        if !std::mem::replace(&mut self.written, true) && self.file.metadata()?.is_file() {
            self.file.set_len(0)?;
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
