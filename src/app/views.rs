//! What of each camera's picture may be seen now. Clips may wait for the model while that changes: what they show is then
//! no longer to be seen.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use crate::{camera::CameraId, clip::Clip, config::Config, view::View};

/// The views of the configured cameras.
#[derive(Default)]
pub struct Views(RwLock<BTreeMap<CameraId, Option<Arc<View>>>>);

/// The views as they are as long as this value lives.
pub struct CurrentViews<'a>(RwLockReadGuard<'a, BTreeMap<CameraId, Option<Arc<View>>>>);

impl Views {
    /// Sets the views of all cameras. Returns those that had another one before.
    pub fn set(&self, config: &Config) -> Vec<CameraId> {
        let new: BTreeMap<_, _> =
            config.cameras.iter().map(|(id, camera)| (id.clone(), camera.view.clone())).collect();
        let mut views = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let is_other =
            |(id, view): &(&CameraId, &Option<Arc<View>>)| views.get(*id).unwrap_or(&None) != *view;
        let others = new.iter().filter(is_other).map(|(id, _)| id.clone()).collect();
        *views = new;
        others
    }

    /// The views now. [`Views::set`] waits until this is dropped.
    pub fn current(&self) -> CurrentViews<'_> {
        CurrentViews(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl CurrentViews<'_> {
    /// Whether a clip shows what may be seen, as far as its camera is configured.
    pub fn allow(&self, clip: &Clip) -> bool {
        self.0.get(&clip.camera).is_none_or(|view| *view == clip.view)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(camera: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, format!("[cameras.porch]\nuri = \"test://shapes\"\n{camera}")).unwrap();
        crate::config::load(Some(&file)).unwrap().config
    }

    #[test]
    fn a_camera_that_is_seen_otherwise_than_before_is_told() {
        let views = Views::default();
        let (plain, masked) = (config(""), config("masks.street = \"0,0 1,0 1,0.4\"\n"));
        let porch: Vec<CameraId> = vec!["porch".parse().unwrap()];
        assert_eq!(views.set(&plain), []);
        assert_eq!(views.set(&masked), porch);
        assert_eq!(views.set(&masked), []);
        assert_eq!(views.set(&config("crop = \"0,0 1,0.4\"\n")), porch);
        assert_eq!(views.set(&plain), porch);
        // At a start, what was before is not known.
        assert_eq!(Views::default().set(&masked), porch);
    }
}
