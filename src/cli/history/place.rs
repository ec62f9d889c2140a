//! Where the history is: in the state directory of a configuration, or in one that is named.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use rustix::fs::{Access, access};

use super::args::PlaceArgs;
use crate::{
    config::{self, ModelSettings},
    history::{FILE, Reader, Writer},
    ownership::user,
};

/// A history that exists.
pub struct Place {
    folder: PathBuf,
    /// The model of the configuration, or the usual settings where none was read.
    pub model: ModelSettings,
}

impl Place {
    /// Finds the history. A configuration is not read where the state directory alone is named.
    ///
    /// # Errors
    /// [`config::ConfigError`]; when there is no history, or this user may not use it.
    pub fn find(args: &PlaceArgs) -> anyhow::Result<Self> {
        let place = match &args.state_dir {
            Some(folder) if args.config.is_none() => {
                Self { folder: folder.clone(), model: ModelSettings::default() }
            }
            named => {
                let config = config::load_for_broker(args.config.as_deref())?.config;
                let folder = named.clone().or(config.node.state_dir).context("node.state_dir is not set")?;
                Self { folder, model: config.model }
            }
        };
        check(&place.file())?;
        Ok(place)
    }

    /// Opens the history for reading.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub fn reader(&self) -> anyhow::Result<Reader> {
        Reader::open(&self.folder)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("the history {} cannot be read", self.file().display()))
    }

    /// Opens the history for writing.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn writer(&self) -> anyhow::Result<Writer> {
        Writer::open_existing(&self.folder)
            .map_err(anyhow::Error::msg)
            .with_context(|| format!("the history {} cannot be written", self.file().display()))
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }
}

/// Checks that the history is there and may be used. Those who read it write, too: SQLite notes beside the file who
/// does.
fn check(file: &Path) -> anyhow::Result<()> {
    let shown = file.display();
    let refused = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => anyhow::anyhow!(
            "there is no history, since {shown} does not exist: camscribe run keeps one in its node.state_dir \
             unless history.keep is \"0s\"; name that folder with --state-dir, or its configuration with --config"
        ),
        io::ErrorKind::PermissionDenied => anyhow::anyhow!(
            "the user {} may not use the history {shown}: run the command as root, or as the user of the service with \
             sudo -u camscribe",
            user()
        ),
        io::ErrorKind::ReadOnlyFilesystem => anyhow::anyhow!(
            "the history {shown} is on a disk that is mounted read-only, where SQLite cannot open it: copy it, with \
             the files beside it whose names begin the same, and name the folder of the copy with --state-dir"
        ),
        _ => anyhow::Error::new(error).context(format!("the history {shown} cannot be used")),
    };
    if !fs::metadata(file).map_err(refused)?.is_file() {
        bail!("{shown} is no file, so it cannot be a history: name the state directory with --state-dir");
    }
    access(file, Access::READ_OK | Access::WRITE_OK).map_err(|error| refused(error.into()))
}
