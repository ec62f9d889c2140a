//! Cameras that the broker may still keep something of: those that there are, and those that were
//! removed while nobody could tell it. Kept beyond the process, so that a camera which was taken out of
//! the configuration while camscribe did not run, or while the broker was away, leaves no ghost in
//! Home Assistant.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::state;
use crate::frame::CameraId;

/// In the state directory.
const FILE: &str = "cameras.json";

/// See above.
#[derive(Debug)]
pub struct Former {
    /// None: nothing is kept beyond the process.
    file: Option<PathBuf>,
    told: BTreeSet<CameraId>,
}

impl Former {
    /// Those that an earlier process told of.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let file = state_dir.map(|folder| folder.join(FILE));
        let told = file.as_deref().map_or_else(BTreeSet::new, |file| {
            state::read(file).unwrap_or_else(|error| {
                tracing::error!("which cameras there were is forgotten: {error:#}");
                BTreeSet::new()
            })
        });
        Self { file, told }
    }

    /// These are told of from now on.
    pub fn tell<'a>(&mut self, cameras: impl IntoIterator<Item = &'a CameraId>) {
        let before = self.told.len();
        self.told.extend(cameras.into_iter().cloned());
        if self.told.len() > before {
            self.write();
        }
    }

    /// Those that were told of and are not among `cameras`.
    pub fn without<'a>(&self, cameras: impl IntoIterator<Item = &'a CameraId>) -> BTreeSet<CameraId> {
        let there: BTreeSet<_> = cameras.into_iter().collect();
        self.told.iter().filter(|camera| !there.contains(camera)).cloned().collect()
    }

    /// The broker has forgotten all but these.
    pub fn forget_others<'a>(&mut self, cameras: impl IntoIterator<Item = &'a CameraId>) {
        let there: BTreeSet<_> = cameras.into_iter().cloned().collect();
        if there != self.told {
            self.told = there;
            self.write();
        }
    }

    fn write(&self) {
        if let Some(file) = &self.file
            && let Err(error) = state::write(file, &self.told)
        {
            tracing::warn!("which cameras there are will not outlive this process: {error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> BTreeSet<CameraId> {
        names.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_camera_that_is_gone_is_remembered_until_the_broker_has_forgotten_it() {
        let state = tempfile::tempdir().unwrap();
        let read = || Former::read(Some(state.path()));
        read().tell(&ids(&["a", "b"]));
        for _ in 0..2 {
            let mut former = read();
            former.tell(&ids(&["b", "c"]));
            assert_eq!(former.without(&ids(&["b", "c"])), ids(&["a"]));
        }
        read().forget_others(&ids(&["b", "c"]));
        assert_eq!(read().without(&ids(&["b", "c"])), ids(&[]));
        std::fs::write(state.path().join(FILE), "{").unwrap();
        assert_eq!(read().without(&ids(&[])), ids(&[]));
    }
}
