//! Models by hub id: [`resolve`] finds one on this machine without any network, [`Hub::pull`]
//! brings one here, every byte of it checked.
//!
//! The cache is `<cache>/models/<organisation>--<name>/`, and in it `<commit>/` for the files of a
//! model that is here as a whole, `<commit>.partial/` for one that is on its way, and
//! `refs/<revision>` for the commit that a branch or tag meant when it was last pulled.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

mod builtin;
mod client;
mod download;
mod id;
mod listing;
mod pull;

pub use builtin::{NAME as BUILTIN, PROMPT as BUILTIN_PROMPT};
pub use client::{Hub, Patience};
pub use id::{BadId, check_hub_id, check_id, check_revision};
pub use pull::{Progress, Pulled, Target};

/// Where a model's files lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    /// The folder that holds them.
    pub path: PathBuf,
    /// What it was asked for by: a hub id, or a directory.
    pub id: String,
    /// The commit that the revision means here; empty for a directory.
    pub revision: String,
}

/// Why a model could not be found or brought here: one sentence, causes under it.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The name means nothing.
    #[error(transparent)]
    BadId(#[from] BadId),
    /// It has not been pulled.
    #[error("the model {0} is not on this machine: run camscribe pull {0}")]
    NotHere(String),
    /// The environment says something that cannot be used.
    #[error("{0}")]
    Setting(String),
    /// The hub answered, and it is no.
    #[error("{0}")]
    Refused(String),
    /// The hub did not answer, or stopped answering, however often it was asked.
    #[error("{what}: {cause}")]
    Network { what: String, cause: String },
    /// What came is not what the hub had announced.
    #[error("{0}")]
    Damaged(String),
    /// This machine's disk.
    #[error("{what}")]
    Disk { what: String, source: io::Error },
}

impl HubError {
    fn disk(what: &str, path: &Path, source: io::Error) -> Self {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let hint = if full { ": the disk is full; make room and run the same command again" } else { "" };
        Self::Disk { what: format!("cannot {what} {}{hint}", path.display()), source }
    }
}

/// Finds a model without any network: a directory as it is, the model inside the program, or what
/// was pulled into the cache.
///
/// # Errors
/// [`HubError::NotHere`] says to pull it; [`HubError::BadId`] that there can be no such model.
pub fn resolve(id: &str, revision: &str) -> Result<ModelDir, HubError> {
    if id != builtin::NAME && id::is_directory(id) {
        check_id(id)?;
        return Ok(ModelDir { path: id.into(), id: id.into(), revision: String::new() });
    }
    find(&cache_dir()?, id, revision)
}

/// As [`resolve`], for a name that is no directory, in the cache at `cache`.
///
/// # Errors
/// As [`resolve`].
pub fn find(cache: &Path, id: &str, revision: &str) -> Result<ModelDir, HubError> {
    if id == builtin::NAME {
        let path = builtin::unpack(cache).map_err(|e| HubError::disk("unpack the model into", cache, e))?;
        return Ok(ModelDir { path, id: id.into(), revision: String::new() });
    }
    id::check_hub_id(id)?;
    check_revision(revision)?;
    let repository = repository(cache, id);
    let known = if id::is_commit(revision) {
        Some(revision.into())
    } else {
        fs::read_to_string(reference(&repository, revision)).ok().filter(|commit| id::is_commit(commit))
    };
    let here =
        known.map(|commit| ModelDir { path: repository.join(&commit), id: id.into(), revision: commit });
    here.filter(|model| model.path.is_dir()).ok_or_else(|| {
        HubError::NotHere(if revision == "main" { id.into() } else { format!("{id}@{revision}") })
    })
}

/// Where pulled models lie: under `$CACHE_DIRECTORY` (systemd's), else `$XDG_CACHE_HOME/camscribe`,
/// else `~/.cache/camscribe`.
///
/// # Errors
/// When none of them is set.
pub fn cache_dir() -> Result<PathBuf, HubError> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    // systemd joins several directories by colons.
    let own = set("CACHE_DIRECTORY").and_then(|list| env::split_paths(&list).next());
    let xdg = || set("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || set("HOME").map(|home| Path::new(&home).join(".cache"));
    own.or_else(|| Some(xdg().or_else(home)?.join("camscribe"))).ok_or_else(|| {
        HubError::Setting("there is no folder for models: set HOME, XDG_CACHE_HOME or CACHE_DIRECTORY".into())
    })
}

/// The folder of all commits of a model.
fn repository(cache: &Path, id: &str) -> PathBuf {
    cache.join("models").join(id.replace('/', "--"))
}

/// The file that holds the commit of a branch or tag.
fn reference(repository: &Path, revision: &str) -> PathBuf {
    repository.join("refs").join(id::escape(revision))
}
