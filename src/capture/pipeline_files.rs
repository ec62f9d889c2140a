//! Pipeline descriptions by name: those that come with camscribe, and those that the user has put into a
//! folder. A name goes in, gst-launch text comes out.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use crate::config::shipped_pipelines;

/// Longest pipeline file that is read.
const MAX_BYTES: u64 = 64 * 1024;

/// A pipeline description that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// There is no pipeline of this name.
    #[error("there is no pipeline {name:?}; there are: {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// Its file cannot be read.
    #[error("pipeline file {}: cannot be read", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        cause: std::io::Error,
    },
    /// Its file is not a short text.
    #[error("pipeline file {}: longer than 64 KiB", .0.display())]
    TooLong(PathBuf),
    /// GStreamer does not understand it.
    #[error("{pipeline}: {why}")]
    Syntax {
        /// What messages call it.
        pipeline: String,
        /// In GStreamer's words.
        why: String,
    },
    /// It uses an element that is not installed.
    #[error("{pipeline}: GStreamer has no element {element:?}; it may be in the Debian package {package}")]
    NoElement {
        /// What messages call it.
        pipeline: String,
        /// The element.
        element: String,
        /// The Debian package that probably has it.
        package: &'static str,
    },
    /// It has no element of a name that camscribe needs.
    #[error("{pipeline}: {lack}")]
    Lacks {
        /// What messages call it.
        pipeline: String,
        /// What it has not, and what to write.
        lack: &'static str,
    },
    /// Its source element cannot play the source.
    #[error("{pipeline}: its source {element:?} cannot play {what}")]
    WrongSource {
        /// What messages call it.
        pipeline: String,
        /// Factory name of the element.
        element: String,
        /// The source, masked.
        what: String,
    },
}

/// Returns the gst-launch text of a pipeline, without comments. A file in `folder` takes precedence over a
/// shipped pipeline of the same name.
///
/// # Errors
/// If there is no such pipeline, or its file cannot be read.
pub(super) fn text(name: &str, folder: Option<&Path>) -> Result<String, PipelineError> {
    let text = match (own_file(name, folder), shipped_pipelines().get(name)) {
        (Some(path), _) => read(&path)?,
        (None, Some(text)) => (*text).to_owned(),
        (None, None) => return Err(PipelineError::Unknown { name: name.into(), known: known(folder) }),
    };
    let kept = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(kept.collect::<Vec<_>>().join(" "))
}

/// What messages call a pipeline: its file if that is in `folder`, else its name.
pub(super) fn title(name: &str, folder: Option<&Path>) -> String {
    match own_file(name, folder) {
        Some(path) => format!("pipeline file {}", path.display()),
        None => format!("pipeline {name:?}"),
    }
}

/// Whether a pipeline is a file in `folder`.
pub(super) fn is_own(name: &str, folder: Option<&Path>) -> bool {
    own_file(name, folder).is_some()
}

fn own_file(name: &str, folder: Option<&Path>) -> Option<PathBuf> {
    let valid = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    folder.filter(|_| valid).map(|f| f.join(format!("{name}.txt"))).filter(|p| p.exists())
}

fn read(path: &Path) -> Result<String, PipelineError> {
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text));
    file.map_err(|cause| PipelineError::Unreadable { path: path.into(), cause })?;
    if text.len() as u64 > MAX_BYTES { Err(PipelineError::TooLong(path.into())) } else { Ok(text) }
}

/// Names of the pipelines that exist, for error messages.
fn known(folder: Option<&Path>) -> String {
    let mut names: BTreeSet<String> = shipped_pipelines().into_keys().map(Into::into).collect();
    let entries = folder.and_then(|f| fs::read_dir(f).ok()).into_iter().flatten().flatten();
    let files = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "txt"));
    names.extend(files.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())));
    names.into_iter().collect::<Vec<_>>().join(", ")
}
