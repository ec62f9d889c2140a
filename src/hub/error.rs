//! Why a model could not be found or downloaded.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::id::BadId;

/// Why a model could not be found or downloaded: one sentence, with its causes as sources.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name cannot be the name of a model or revision.
    #[error(transparent)]
    BadId(#[from] BadId),
    /// The model is in no cache of this machine.
    #[error("the model {0} is not on this machine: run camscribe pull {0}")]
    NotPulled(String),
    /// The model is in the Hugging Face cache, but not all of its files are.
    #[error(
        "the model {id} in {} is incomplete, it lacks {file}: run camscribe pull {id}, or finish its download",
        path.display()
    )]
    Incomplete {
        /// The model.
        id: String,
        /// Its folder in the cache.
        path: PathBuf,
        /// The first file that is missing.
        file: String,
    },
    /// An environment variable cannot be used.
    #[error("{0}")]
    Environment(String),
    /// The hub answered and refused.
    #[error("{0}")]
    Refused(String),
    /// The hub did not answer, or broke off its answer, in every attempt.
    #[error("{what}: {cause}")]
    Network {
        /// What was asked for.
        what: String,
        /// Why the last attempt failed.
        cause: String,
    },
    /// The downloaded data differs from what the hub had announced.
    #[error("{0}")]
    Damaged(String),
    /// A file or folder of this machine cannot be used.
    #[error("{what}")]
    Disk {
        /// What could not be done, with advice.
        what: String,
        /// Why.
        source: io::Error,
    },
}

impl HubError {
    /// The error of an operation on `path`, with advice where the disk is full.
    pub(super) fn disk(operation: &str, path: &Path, source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let hint =
            if full { ": the disk is full; free some space and run the same command again" } else { "" };
        Self::Disk { what: format!("cannot {operation} {}{hint}", path.display()), source }
    }
}
