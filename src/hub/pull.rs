//! A whole model from the hub: its listing, the space for it, each file in turn, and only then the name under
//! which it is found.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{
    cache::{ModelCaches, reference},
    client::HubClient,
    download,
    error::HubError,
    files, id,
    listing::{self, Listing},
    progress::PullProgress,
};

/// The space that is left free on the disk, in bytes.
const MARGIN: u64 = 64 << 20;

/// A complete model on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The folder with its files.
    pub path: PathBuf,
    /// The commit that the revision means on the hub now.
    pub commit: String,
    /// The size of all files together.
    pub bytes: u64,
}

/// Where a pulled model goes.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Into our own cache. A model that is complete in the Hugging Face cache is used where it is.
    Cache(&'a ModelCaches),
    /// Into this folder, its files side by side.
    Folder(&'a Path),
}

impl HubClient {
    /// Downloads the model `model` at `revision`, so that [`resolve`](super::resolve()) finds it, or into a
    /// folder. Files that are here already are not downloaded again.
    ///
    /// # Errors
    /// When it cannot be downloaded. What has arrived stays, and the next pull resumes there.
    pub fn pull(
        &self,
        model: &str,
        revision: &str,
        target: Target<'_>,
        progress: &mut dyn FnMut(PullProgress<'_>),
    ) -> Result<Pulled, HubError> {
        id::check_hub_id(model)?;
        id::check_revision(revision)?;
        let listing = listing::fetch(self, model, revision, progress)?;
        let bytes = listing.files.iter().map(|file| file.size).sum();
        let path = match target {
            Target::Folder(folder) => {
                let _lock = lock(folder, progress)?;
                self.fetch_all(model, &listing, folder, progress)?;
                folder.to_owned()
            }
            Target::Cache(caches) => {
                let repository = caches.repository(model);
                let _lock = lock(&repository, progress)?;
                let path = match in_hugging_face_cache(caches, model, &listing)? {
                    Some(snapshot) => snapshot,
                    None => self.fill_cache(model, &listing, &repository, progress)?,
                };
                if revision != listing.commit {
                    write_reference(&repository, revision, &listing.commit)?;
                }
                path
            }
        };
        Ok(Pulled { path, commit: listing.commit, bytes })
    }

    /// Downloads a model into our own cache and returns its folder.
    fn fill_cache(
        &self,
        model: &str,
        listing: &Listing,
        repository: &Path,
        progress: &mut dyn FnMut(PullProgress<'_>),
    ) -> Result<PathBuf, HubError> {
        let done = repository.join(&listing.commit);
        if done.is_dir() {
            return Ok(done);
        }
        let partial = repository.join(format!("{}.partial", listing.commit));
        fs::create_dir_all(&partial).map_err(|e| HubError::disk("create", &partial, e))?;
        self.fetch_all(model, listing, &partial, progress)?;
        let in_place = || {
            fs::rename(&partial, &done)?;
            File::open(repository)?.sync_all()
        };
        in_place().map_err(|e| HubError::disk("write", &done, e))?;
        Ok(done)
    }

    /// Downloads the files of a model into `folder`.
    fn fetch_all(
        &self,
        model: &str,
        listing: &Listing,
        folder: &Path,
        progress: &mut dyn FnMut(PullProgress<'_>),
    ) -> Result<(), HubError> {
        let needed = listing.files.iter().map(|file| download::missing_bytes(file, folder)).sum();
        check_space(folder, needed)?;
        for file in &listing.files {
            let url = self.file_url(model, &listing.commit, &file.name);
            download::fetch(self, &url, file, folder, progress)?;
        }
        match files::missing_weights(model, folder)? {
            Some(file) => {
                Err(HubError::Damaged(format!("{model} names the weights {file:?} and does not have them")))
            }
            None => Ok(()),
        }
    }
}

/// Returns the folder in the Hugging Face cache that holds every file of `listing`, checked against its
/// hash; none where our own cache has the model, or where a file is missing or differs.
fn in_hugging_face_cache(
    caches: &ModelCaches,
    model: &str,
    listing: &Listing,
) -> Result<Option<PathBuf>, HubError> {
    if caches.pulled(model, &listing.commit).is_some() {
        return Ok(None);
    }
    let Some(snapshot) = caches.snapshot(model, &listing.commit) else { return Ok(None) };
    for file in &listing.files {
        if !download::is_intact(&snapshot.join(&file.name), file)? {
            return Ok(None);
        }
    }
    Ok(files::missing_weights(model, &snapshot)?.is_none().then_some(snapshot))
}

/// Locks a folder against other pulls until the returned file is dropped. The system unlocks it when the
/// process dies.
fn lock(folder: &Path, progress: &mut dyn FnMut(PullProgress<'_>)) -> Result<File, HubError> {
    let mut locked = || {
        fs::create_dir_all(folder)?;
        let handle = File::open(folder)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(PullProgress::Waiting);
                handle.lock()?;
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        Ok(handle)
    };
    locked().map_err(|e| HubError::disk("use the folder", folder, e))
}

/// # Errors
/// When the disk of `folder` has too little space for `needed` more bytes.
fn check_space(folder: &Path, needed: u64) -> Result<(), HubError> {
    let Ok(disk) = rustix::fs::statvfs(folder) else { return Ok(()) };
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    if needed == 0 || needed.saturating_add(MARGIN) <= free {
        return Ok(());
    }
    let mib = |bytes: u64| bytes.div_ceil(1 << 20);
    let what = format!(
        "the model needs {} MiB more on the disk of {}, where {} MiB are free",
        mib(needed),
        folder.display(),
        mib(free)
    );
    Err(HubError::Disk { what, source: io::ErrorKind::StorageFull.into() })
}

/// Records which commit `revision` means.
fn write_reference(repository: &Path, revision: &str, commit: &str) -> Result<(), HubError> {
    let path = reference(repository, revision);
    let part = path.with_added_extension("part");
    let write = || {
        let folder = repository.join("refs");
        fs::create_dir_all(&folder)?;
        let mut file = File::create(&part)?;
        file.write_all(commit.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        // A new name is durable only once its folder is.
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| HubError::disk("write", &path, e))
}
