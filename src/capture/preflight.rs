//! Checks a source by the file system before a pipeline is built. GStreamer would say less, and
//! decodebin of GStreamer 1.22 sometimes says nothing about an MP4 file without its index.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::error::CaptureError;
use crate::config::{Origin, Source};

/// Looks for reasons not to build a pipeline.
///
/// # Errors
/// If a file or device is absent or cannot be read, or if a file is certainly not playable.
pub(super) fn preflight(source: &Source) -> Result<(), CaptureError> {
    match source.origin() {
        Origin::File(path) => check_file(path),
        Origin::Device(device) if !device.exists() => Err(CaptureError::NoDevice(source.to_string())),
        Origin::Device(_) | Origin::Network(_) | Origin::Synthetic(_) => Ok(()),
    }
}

fn check_file(path: &Path) -> Result<(), CaptureError> {
    let unreadable = |cause: io::Error| match cause.kind() {
        io::ErrorKind::NotFound => CaptureError::NoFile(path.into()),
        _ => CaptureError::Unreadable { path: path.into(), cause },
    };
    let meta = fs::metadata(path).map_err(unreadable)?;
    if meta.is_dir() {
        return Err(unreadable(io::ErrorKind::IsADirectory.into()));
    }
    // Only GStreamer may open what is not a regular file: bytes that are read from a pipe are gone, and a
    // pipe may make its reader wait.
    if !meta.is_file() {
        return Ok(());
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let shown = path.display().to_string();
    match meta.len() {
        0 => Err(CaptureError::NotMedia(shown)),
        length if lacks_index(&mut file, length).map_err(unreadable)? => Err(CaptureError::NoIndex(shown)),
        _ => Ok(()),
    }
}

/// Whether this is an MP4 or QuickTime file (ISO 14496-12, section 4.2: boxes of length, type and
/// content) that ends before the box with its index.
fn lacks_index(file: &mut File, length: u64) -> io::Result<bool> {
    let mut at = 0;
    while at + 8 <= length {
        let mut head = [0; 16];
        file.seek(SeekFrom::Start(at))?;
        let available = if at + 16 <= length { 16 } else { 8 };
        file.read_exact(&mut head[..available])?;
        let (short, kind) = (u32::from_be_bytes([head[0], head[1], head[2], head[3]]), &head[4..8]);
        if at == 0 && kind != b"ftyp" || kind == b"moov" || kind == b"moof" {
            return Ok(false);
        }
        let size = match short {
            0 => length - at,
            1 => u64::from_be_bytes([
                head[8], head[9], head[10], head[11], head[12], head[13], head[14], head[15],
            ]),
            short => u64::from(short),
        };
        at = at.saturating_add(size.max(8));
    }
    Ok(at > 0)
}
