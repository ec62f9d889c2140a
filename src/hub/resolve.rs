//! Finding a model on this machine, without any network.

use std::path::PathBuf;

use super::{
    builtin,
    cache::ModelCaches,
    error::HubError,
    files,
    id::{self, check_revision},
};

/// Where a model's files lie on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelDir {
    /// The folder with the files.
    pub path: PathBuf,
    /// The name that was looked for: a hub id or a directory.
    pub id: String,
    /// The commit that the revision means here; empty for a directory and for the built-in model.
    pub revision: String,
}

/// Returns where the model `id` lies: a directory as it is, the model inside the program, or a model of
/// the caches that the environment names.
///
/// # Errors
/// [`HubError::NotPulled`] when no cache has it, [`HubError::Incomplete`] when files are missing,
/// [`HubError::BadId`] when no model can have that name.
pub fn resolve(id: &str, revision: &str) -> Result<ModelDir, HubError> {
    if id != builtin::NAME && id::is_directory(id) {
        id::check_id(id)?;
        return Ok(ModelDir { path: id.into(), id: id.into(), revision: String::new() });
    }
    find(&ModelCaches::from_env()?, id, revision)
}

/// As [`resolve`], for a name that is not a directory, in these caches. Our own cache goes first: its
/// files were checked against their hashes.
///
/// # Errors
/// As [`resolve`].
pub fn find(caches: &ModelCaches, id: &str, revision: &str) -> Result<ModelDir, HubError> {
    if id == builtin::NAME {
        let path = builtin::unpack(&caches.own)
            .map_err(|e| HubError::disk("unpack the model into", &caches.own, e))?;
        return Ok(ModelDir { path, id: id.into(), revision: String::new() });
    }
    id::check_hub_id(id)?;
    check_revision(revision)?;
    let named = || if revision == "main" { id.into() } else { format!("{id}@{revision}") };
    let mut incomplete = None;
    for commit in caches.commits(id, revision) {
        let found = |path| ModelDir { path, id: id.into(), revision: commit.clone() };
        if let Some(path) = caches.pulled(id, &commit) {
            return Ok(found(path));
        }
        let Some(path) = caches.snapshot(id, &commit) else { continue };
        match files::missing(id, &path)? {
            None => return Ok(found(path)),
            Some(file) => incomplete = Some(HubError::Incomplete { id: named(), path, file }),
        }
    }
    Err(incomplete.unwrap_or_else(|| HubError::NotPulled(named())))
}
