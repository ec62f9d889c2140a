//! What of each camera's picture may be seen now. Clips may wait for the model while that changes, and pictures for the
//! broker: what they show is then no longer to be seen. The views are kept in the state directory, so that a change while
//! camscribe did not run is noticed, too.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
};

use super::state_file;
use crate::{camera::CameraId, config::Config, view::View};

/// The file's name in the state directory.
const FILE: &str = "views.json";

/// The views of the configured cameras.
type ByCamera = BTreeMap<CameraId, Option<Arc<View>>>;

/// The views of the configured cameras, and the file that they are kept in.
#[derive(Default)]
pub struct Views {
    /// None without a state directory.
    file: Option<PathBuf>,
    now: RwLock<ByCamera>,
}

/// The views as they are as long as this value lives.
pub struct CurrentViews<'a>(RwLockReadGuard<'a, ByCamera>);

impl Views {
    /// No camera's yet.
    pub fn new(state_dir: Option<&Path>) -> Self {
        Self { file: state_dir.map(|folder| folder.join(FILE)), now: RwLock::default() }
    }

    /// Sets the views of all cameras at the start. Returns those cameras of which pictures of another view may be left
    /// from the last process.
    pub fn start(&self, config: &Config) -> Vec<CameraId> {
        self.set(config);
        let kept = self.file.as_deref().map(state_file::read::<BTreeMap<String, String>>);
        let kept = kept.unwrap_or_else(|| Ok(BTreeMap::new())).unwrap_or_else(|error| {
            tracing::warn!("the file of the last views cannot be read; snapshots are made anew: {error:#}");
            BTreeMap::new()
        });
        let now = self.current();
        let is_other = |(id, view): &(&CameraId, &Option<Arc<View>>)| {
            let before = kept.get(&id.to_string()).map(String::as_str).unwrap_or_default();
            view_text(view.as_deref()) != before
        };
        now.0.iter().filter(is_other).map(|(id, _)| id.clone()).collect()
    }

    /// Sets the views of all cameras. Returns those cameras that had another one before.
    pub fn set(&self, config: &Config) -> Vec<CameraId> {
        let new: ByCamera =
            config.cameras.iter().map(|(id, camera)| (id.clone(), camera.view.clone())).collect();
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = |(id, view): &(&CameraId, &Option<Arc<View>>)| now.get(*id).unwrap_or(&None) != *view;
        let others = new.iter().filter(is_other).map(|(id, _)| id.clone()).collect();
        *now = new;
        others
    }

    /// The views now. [`Views::set`] waits until this is dropped.
    pub fn current(&self) -> CurrentViews<'_> {
        CurrentViews(self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps the views for the next process: no picture of another view is left here or at the broker.
    pub fn keep(&self) {
        let in_part = |(id, view): (&CameraId, &Option<Arc<View>>)| {
            view.as_deref().map(|view| (id.to_string(), view_text(Some(view))))
        };
        let kept: BTreeMap<String, String> = self.current().0.iter().filter_map(in_part).collect();
        if let Some(file) = &self.file
            && let Err(error) = state_file::write(file, &kept)
        {
            tracing::warn!("the views of the cameras cannot be kept: {error:#}");
        }
    }
}

impl CurrentViews<'_> {
    /// Whether what was seen of a camera through `view` may still be seen, as far as the camera is configured.
    pub fn allow(&self, camera: &CameraId, view: &Option<Arc<View>>) -> bool {
        self.0.get(camera).is_none_or(|now| now == view)
    }

    /// Whether a picture of a camera that was seen through a view with these [`View::lines`] hides all that is hidden now,
    /// as far as the camera is configured.
    pub fn cover(&self, camera: &CameraId, lines: &str) -> bool {
        self.0.get(camera).and_then(Option::as_deref).is_none_or(|view| view.is_within(lines))
    }
}

/// A text that is another one for another view; empty for the whole picture.
fn view_text(view: Option<&View>) -> String {
    view.map(|view| format!("{view:?}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(folder: &Path, camera: &str) -> Config {
        let file = folder.join("c.toml");
        fs::write(&file, format!("[cameras.porch]\nuri = \"test://shapes\"\n{camera}")).unwrap();
        crate::config::load(Some(&file)).unwrap().config
    }

    #[test]
    fn a_camera_that_is_seen_otherwise_than_before_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (plain, masked, cropped) = (
            config(folder.path(), ""),
            config(folder.path(), "masks.street = \"0,0 1,0 1,0.4\"\n"),
            config(folder.path(), "crop = \"0,0 1,0.4\"\n"),
        );
        let porch: CameraId = "porch".parse().unwrap();
        let only_porch = vec![porch.clone()];
        let views = Views::new(Some(folder.path()));
        assert_eq!(views.start(&plain), []);
        assert_eq!(views.set(&masked), only_porch);
        assert_eq!(views.set(&masked), []);
        assert!(views.current().allow(&porch, &masked.cameras[&porch].view));
        assert!(
            !views.current().allow(&porch, &None) && views.current().allow(&"gate".parse().unwrap(), &None)
        );
        assert_eq!(views.set(&cropped), only_porch);

        // In the next process: of what was kept, not of what was set last.
        views.keep();
        views.set(&masked);
        let next = || Views::new(Some(folder.path()));
        assert_eq!(next().start(&cropped), []);
        assert_eq!(next().start(&masked), only_porch);
        assert_eq!(next().start(&plain), only_porch);
        // Without a file, or with a damaged one, all that are seen in part.
        fs::write(folder.path().join(FILE), "?").unwrap();
        assert_eq!(next().start(&cropped), only_porch);
        assert_eq!(Views::new(None).start(&cropped), only_porch);
        assert_eq!(Views::new(None).start(&plain), []);
    }
}
