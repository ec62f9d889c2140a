//! The videos below a folder.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::io::Errno;

use crate::capture;

/// What was found below folders.
#[derive(Default)]
pub struct Found {
    /// Files that look like videos, and files that cannot be read, in order of their names.
    pub videos: Vec<PathBuf>,
    /// Files that are no videos.
    pub passed_over: Vec<PathBuf>,
    /// Folders that could not be read, and why.
    pub unreadable: Vec<(String, String)>,
    /// Device and inode of the folders that were searched: links may lead to one again.
    searched: BTreeSet<(u64, u64)>,
}

impl Found {
    /// Searches a folder and those below it. Hidden files and folders are left out. Returns whether it was not searched
    /// before.
    pub fn search(&mut self, folder: &Path) -> bool {
        let identity = fs::metadata(folder).map(|it| (it.dev(), it.ino()));
        if identity.is_ok_and(|it| !self.searched.insert(it)) {
            return false;
        }
        let names = fs::read_dir(folder).and_then(|entries| {
            entries.map(|entry| Ok(entry?.file_name())).collect::<std::io::Result<BTreeSet<_>>>()
        });
        let names = names.unwrap_or_else(|why| {
            let why = format!("the folder cannot be read: {why}");
            self.unreadable.push((folder.display().to_string(), why));
            BTreeSet::new()
        });
        for name in names.iter().filter(|name| !name.as_bytes().starts_with(b".")) {
            self.look_at(folder.join(name));
        }
        true
    }

    fn look_at(&mut self, path: PathBuf) {
        match fs::metadata(&path) {
            Ok(it) if it.is_dir() => drop(self.search(&path)),
            // What cannot be read may be a video: it is told when its turn comes.
            Ok(it) if it.is_file() && capture::is_video(&path).unwrap_or(true) => self.videos.push(path),
            // Such as pipes.
            Ok(_) => self.passed_over.push(path),
            // A link that leads nowhere, or in a circle.
            Err(why) if matches!(Errno::from_io_error(&why), Some(Errno::NOENT | Errno::LOOP)) => {
                self.passed_over.push(path);
            }
            Err(why) => {
                self.unreadable.push((path.display().to_string(), format!("it cannot be read: {why}")))
            }
        }
    }
}
