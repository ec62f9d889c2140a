//! Checks a source by the file system before a pipeline is built. GStreamer would say less, and
//! decodebin of GStreamer 1.22 sometimes says nothing about an MP4 file without its index.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{error::CaptureError, mp4};
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
    let file = File::open(path).map_err(unreadable)?;
    let shown = path.display().to_string();
    match meta.len() {
        0 => Err(CaptureError::NotMedia(shown)),
        _ if mp4::lacks_index(&file).map_err(unreadable)? => Err(CaptureError::NoIndex(shown)),
        _ => Ok(()),
    }
}
