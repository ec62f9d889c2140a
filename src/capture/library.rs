//! Pipeline descriptions by name: those that camscribe brings along, and those that the user has put
//! into a folder of their own. A name comes in, a gst-launch text goes out.

use std::{
    collections::BTreeSet,
    fs,
    io::Read,
    path::{Path, PathBuf},
};

/// Built in: `pipelines/NAME.txt` of the source tree.
const SHIPPED: [(&str, &str); 8] = [
    ("file", include_str!("../../pipelines/file.txt")),
    ("file-nvdec", include_str!("../../pipelines/file-nvdec.txt")),
    ("rtsp", include_str!("../../pipelines/rtsp.txt")),
    ("rtsp-jetson", include_str!("../../pipelines/rtsp-jetson.txt")),
    ("rtsp-nvdec", include_str!("../../pipelines/rtsp-nvdec.txt")),
    ("shapes", include_str!("../../pipelines/shapes.txt")),
    ("test", include_str!("../../pipelines/test.txt")),
    ("v4l2", include_str!("../../pipelines/v4l2.txt")),
];

/// Longest pipeline description that is read.
const LIMIT: u64 = 64 * 1024;

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
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
    /// Its file is not a short text.
    #[error("pipeline file {}: longer than 64 KiB", .0.display())]
    TooLong(PathBuf),
    /// GStreamer does not understand it.
    #[error("pipeline {name:?}: {why}")]
    Syntax {
        /// Which pipeline.
        name: String,
        /// In GStreamer's words.
        why: String,
    },
    /// It uses an element that is not installed.
    #[error(
        "pipeline {name:?}: GStreamer has no element {element:?}; it may be in the Debian package {package}"
    )]
    NoElement {
        /// Which pipeline.
        name: String,
        /// The element.
        element: String,
        /// Where it probably is.
        package: &'static str,
    },
    /// It lacks one of the two elements that camscribe works with.
    #[error("pipeline {name:?} has no {wanted}: add name={element} to the right element")]
    Lacks {
        /// Which pipeline.
        name: String,
        /// What the element is for.
        wanted: &'static str,
        /// How it has to be called.
        element: &'static str,
    },
    /// Its source element cannot be told what to play.
    #[error("pipeline {name:?}: its source {element:?} cannot play {what}")]
    WrongSource {
        /// Which pipeline.
        name: String,
        /// The kind of element.
        element: String,
        /// Masked.
        what: String,
    },
}

/// The gst-launch text of a pipeline. One in `folder` goes before a shipped one of the same name.
pub(super) fn text(name: &str, folder: Option<&Path>) -> Result<String, PipelineError> {
    let sensible = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
    let own = folder.filter(|_| sensible).map(|f| f.join(format!("{name}.txt"))).filter(|p| p.exists());
    let text = match (own, SHIPPED.iter().find(|(n, _)| *n == name)) {
        (Some(path), _) => read(&path)?,
        (None, Some((_, text))) => (*text).to_owned(),
        (None, None) => return Err(PipelineError::Unknown { name: name.into(), known: known(folder) }),
    };
    let kept = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    Ok(kept.collect::<Vec<_>>().join(" "))
}

fn read(path: &Path) -> Result<String, PipelineError> {
    let mut text = String::new();
    let file = fs::File::open(path).and_then(|f| f.take(LIMIT + 1).read_to_string(&mut text));
    file.map_err(|cause| PipelineError::Unreadable { path: path.into(), cause })?;
    if text.len() as u64 > LIMIT { Err(PipelineError::TooLong(path.into())) } else { Ok(text) }
}

fn known(folder: Option<&Path>) -> String {
    let mut names: BTreeSet<String> = SHIPPED.iter().map(|(name, _)| (*name).to_owned()).collect();
    let entries = folder.and_then(|f| fs::read_dir(f).ok()).into_iter().flatten().flatten();
    let files = entries.map(|e| e.path()).filter(|p| p.extension().is_some_and(|x| x == "txt"));
    names.extend(files.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())));
    names.into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PIPELINES;

    #[test]
    fn what_the_configuration_takes_for_shipped_is_shipped() {
        assert_eq!(SHIPPED.map(|(name, _)| name), PIPELINES);
    }
}
