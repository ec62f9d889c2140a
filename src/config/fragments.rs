//! The fragments of the configuration: the files of `conf.d` beside the main file, for what a fleet has in common
//! and what is a box's own.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
};

use super::diagnostic::{Diagnostics, Location};

/// The folder of the fragments.
const FOLDER: &str = "conf.d";

/// The fragments beside `main`, in the order of their names. Hidden files are left out, and those that do not end in
/// `.toml`. `None`: the folder cannot be read, which is in `diagnostics`.
pub fn beside(main: &Path, diagnostics: &mut Diagnostics) -> Option<Vec<PathBuf>> {
    let folder = main.parent().unwrap_or(Path::new("")).join(FOLDER);
    match list(&folder) {
        Ok(files) => Some(files),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Vec::new()),
        Err(error) => {
            let location = Location::WholeFile { file: folder.display().to_string() };
            diagnostics.error(&location, format!("cannot be read: {error}"));
            None
        }
    }
}

fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let is_fragment = |path: &PathBuf| {
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        !hidden && path.extension() == Some(OsStr::new("toml"))
    };
    let paths = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = paths.collect::<io::Result<Vec<_>>>()?;
    files.retain(is_fragment);
    files.sort();
    Ok(files)
}
