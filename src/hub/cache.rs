//! Where models lie on this machine.
//!
//! Our own cache is `<folder>/models/<organisation>--<name>/`. It holds `<commit>/` with the files of a
//! complete model, `<commit>.partial/` while a model is being downloaded, and `refs/<revision>` with the
//! commit that a branch or tag meant when it was last pulled.
//!
//! The Hugging Face cache, which Python's `huggingface_hub` fills, is
//! `<folder>/models--<organisation>--<name>/`. It holds `snapshots/<commit>/` with the files, usually as
//! links into `blobs/`, and `refs/<revision>`. It is read and never written. A download that was
//! interrupted leaves a snapshot with some of its files.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{error::HubError, id};

/// The folders in which models are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelCaches {
    /// Our own cache: models are pulled into it.
    pub own: PathBuf,
    /// The Hugging Face cache, if there is a place for one.
    pub hugging_face: Option<PathBuf>,
}

impl ModelCaches {
    /// The folders that the environment names.
    ///
    /// Our own is `$CACHE_DIRECTORY` (set by systemd), else `$XDG_CACHE_HOME/camscribe`, else
    /// `~/.cache/camscribe`. The Hugging Face cache is `$HF_HUB_CACHE`, else `$HF_HOME/hub`, else
    /// `huggingface/hub` in `$XDG_CACHE_HOME` or `~/.cache`.
    ///
    /// # Errors
    /// When the environment gives no folder for our own cache.
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(|name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from_variables(get: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, HubError> {
        let user_cache = || {
            let xdg = get("XDG_CACHE_HOME").filter(|path| path.is_absolute());
            xdg.or_else(|| get("HOME").map(|home| home.join(".cache")))
        };
        // systemd joins several directories by colons.
        let systemd = get("CACHE_DIRECTORY").and_then(|list| env::split_paths(&list).next());
        let own = systemd.or_else(|| Some(user_cache()?.join("camscribe"))).ok_or_else(|| {
            HubError::Environment(
                "there is no folder for models: set HOME, XDG_CACHE_HOME or CACHE_DIRECTORY".into(),
            )
        })?;
        let hf_home = || get("HF_HOME").or_else(|| Some(user_cache()?.join("huggingface")));
        let hugging_face = get("HF_HUB_CACHE").or_else(|| Some(hf_home()?.join("hub")));
        Ok(Self { own, hugging_face })
    }

    /// The folder of all commits of a model in our own cache.
    pub(super) fn repository(&self, model: &str) -> PathBuf {
        self.own.join("models").join(model.replace('/', "--"))
    }

    /// The complete model at `commit` in our own cache, if it is there.
    pub(super) fn pulled(&self, model: &str, commit: &str) -> Option<PathBuf> {
        Some(self.repository(model).join(commit)).filter(|path| path.is_dir())
    }

    /// The snapshot at `commit` in the Hugging Face cache, if there is one. It may be incomplete.
    pub(super) fn snapshot(&self, model: &str, commit: &str) -> Option<PathBuf> {
        Some(self.hugging_face_repository(model)?.join("snapshots").join(commit)).filter(|path| path.is_dir())
    }

    /// The commits that `revision` means on this machine: in our own cache, then in the Hugging Face cache.
    pub(super) fn commits(&self, model: &str, revision: &str) -> Vec<String> {
        if id::is_commit(revision) {
            return vec![revision.into()];
        }
        // Names of revisions were checked: none leads out of its folder.
        let theirs = self.hugging_face_repository(model).map(|folder| folder.join("refs").join(revision));
        let files = [Some(reference(&self.repository(model), revision)), theirs];
        let commits = files.into_iter().flatten().filter_map(|file| fs::read_to_string(file).ok());
        commits.map(|commit| commit.trim().to_owned()).filter(|commit| id::is_commit(commit)).collect()
    }

    fn hugging_face_repository(&self, model: &str) -> Option<PathBuf> {
        Some(self.hugging_face.as_ref()?.join(format!("models--{}", model.replace('/', "--"))))
    }
}

/// The file in our own cache that holds the commit of a branch or tag.
pub fn reference(repository: &Path, revision: &str) -> PathBuf {
    repository.join("refs").join(id::escape(revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches(variables: &[(&str, &str)]) -> Option<(String, Option<String>)> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into());
        let text = |path: PathBuf| path.into_os_string().into_string().unwrap();
        let caches = ModelCaches::from_variables(get).ok()?;
        Some((text(caches.own), caches.hugging_face.map(text)))
    }

    #[test]
    fn the_environment_names_the_folders() {
        for (variables, own, hugging_face) in [
            (&[("HOME", "/h")][..], "/h/.cache/camscribe", Some("/h/.cache/huggingface/hub")),
            (&[("HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/x/camscribe", Some("/x/huggingface/hub")),
            (
                &[("HOME", "/h"), ("XDG_CACHE_HOME", "x")],
                "/h/.cache/camscribe",
                Some("/h/.cache/huggingface/hub"),
            ),
            (&[("HOME", "/h"), ("HF_HOME", "/f")], "/h/.cache/camscribe", Some("/f/hub")),
            (&[("HOME", "/h"), ("HF_HOME", "/f"), ("HF_HUB_CACHE", "/c")], "/h/.cache/camscribe", Some("/c")),
            (&[("CACHE_DIRECTORY", "/v/a:/v/b")], "/v/a", None),
            (&[("CACHE_DIRECTORY", "/v"), ("HF_HUB_CACHE", "/c")], "/v", Some("/c")),
        ] {
            let expected = (own.to_owned(), hugging_face.map(str::to_owned));
            assert_eq!(caches(variables), Some(expected), "{variables:?}");
        }
        assert_eq!(caches(&[("HF_HOME", "/f")]), None);
    }
}
