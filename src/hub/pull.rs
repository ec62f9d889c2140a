//! A whole model from the hub: what it consists of, room for it, each file in turn, and only then
//! the name under which it is found.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    HubError,
    client::Hub,
    download, id,
    listing::{self, Listing},
    reference, repository,
};

/// Left free on the disk, for everybody else.
const MARGIN: u64 = 64 << 20;

/// What happens while a model is pulled.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// Another camscribe pulls the same model: its end is awaited.
    Waiting,
    /// A file begins to come; it is `size` bytes long.
    File { name: &'a str, size: u64 },
    /// So many bytes of it are here, those of earlier runs included.
    Bytes(u64),
    /// The connection failed, and is tried again after `pause`.
    Again { why: &'a str, pause: Duration },
}

/// A model that is here as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The folder that holds its files.
    pub path: PathBuf,
    /// The commit that the revision means on the hub now.
    pub commit: String,
    /// Of all files together.
    pub bytes: u64,
}

impl Hub {
    /// Brings the model `id` at `revision` into `folder`, or into the cache at `cache` where
    /// [`resolve`](super::resolve) finds it. Files that are here already do not come again.
    ///
    /// # Errors
    /// When it cannot be had; what has come so far stays, and the next pull goes on from there.
    pub fn pull(
        &self,
        model: &str,
        revision: &str,
        into: Target<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Pulled, HubError> {
        id::check_hub_id(model)?;
        id::check_revision(revision)?;
        let listing = listing::fetch(self, model, revision, progress)?;
        let bytes = listing.files.iter().map(|file| file.size).sum();
        let path = match into {
            Target::Folder(folder) => {
                let _lock = lock(folder, progress)?;
                self.fetch_all(model, &listing, folder, progress)?;
                folder.to_owned()
            }
            Target::Cache(cache) => {
                let repository = repository(cache, model);
                let _lock = lock(&repository, progress)?;
                let path = self.fill_cache(model, &listing, &repository, progress)?;
                if revision != listing.commit {
                    refer(&repository, revision, &listing.commit)?;
                }
                path
            }
        };
        Ok(Pulled { path, commit: listing.commit, bytes })
    }

    fn fill_cache(
        &self,
        model: &str,
        listing: &Listing,
        repository: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
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

    fn fetch_all(
        &self,
        model: &str,
        listing: &Listing,
        folder: &Path,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<(), HubError> {
        let needed = listing.files.iter().map(|file| download::missing(file, folder)).sum();
        check_room(folder, needed)?;
        for file in &listing.files {
            let url = self.file_url(model, &listing.commit, &file.name);
            download::fetch(self, &url, file, folder, progress)?;
        }
        check_shards(model, folder)
    }
}

/// Where a pulled model goes.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// Into the cache at this place.
    Cache(&'a Path),
    /// Into this folder, its files side by side.
    Folder(&'a Path),
}

/// Holds the folder against other pulls until it is dropped; the system lets go of it when a
/// process dies.
fn lock(folder: &Path, progress: &mut dyn FnMut(Progress<'_>)) -> Result<File, HubError> {
    let mut locked = || {
        fs::create_dir_all(folder)?;
        let handle = File::open(folder)?;
        match handle.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(Progress::Waiting);
                handle.lock()?;
            }
            Err(TryLockError::Error(e)) => return Err(e),
        }
        Ok(handle)
    };
    locked().map_err(|e| HubError::disk("use the folder", folder, e))
}

fn check_room(folder: &Path, needed: u64) -> Result<(), HubError> {
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

/// Whether each file that the weights' index names has come.
fn check_shards(model: &str, folder: &Path) -> Result<(), HubError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join("model.safetensors.index.json");
    if folder.join("model.safetensors").is_file() {
        return Ok(());
    }
    let text = fs::read(&path).map_err(|e| HubError::disk("read", &path, e))?;
    let index: Index = serde_json::from_slice(&text)
        .map_err(|e| HubError::Damaged(format!("the index of {model}'s weights cannot be read: {e}")))?;
    match index.weight_map.values().find(|shard| !id::is_name(shard) || !folder.join(shard).is_file()) {
        Some(shard) => {
            Err(HubError::Damaged(format!("{model} names the weights {shard:?} and does not have them")))
        }
        None => Ok(()),
    }
}

/// Notes which commit `revision` means.
fn refer(repository: &Path, revision: &str, commit: &str) -> Result<(), HubError> {
    let path = reference(repository, revision);
    let part = path.with_added_extension("part");
    let write = || {
        let folder = repository.join("refs");
        fs::create_dir_all(&folder)?;
        let mut file = File::create(&part)?;
        file.write_all(commit.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &path)?;
        // The name is not on disk before its folder is.
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| HubError::disk("write", &path, e))
}
