//! Names of models and revisions. A valid name is safe in a URL and in the name of a folder.

use std::path::Path;

use super::builtin;

/// A text that cannot be the name of a model or revision.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadId(String);

/// Whether `id` means a directory rather than a model on the hub: it begins with `/` or `.`. A folder that happens
/// to have the name of a model never takes its place.
pub fn is_directory(id: &str) -> bool {
    id.starts_with(['/', '.'])
}

/// Checks a name of a model: a directory that exists and begins with `/` or `.`, `organisation/name`, or the name of the model inside
/// the program.
///
/// # Errors
/// A sentence with the name and what to write instead.
pub fn check_id(id: &str) -> Result<(), BadId> {
    if id == builtin::NAME {
        return Ok(());
    }
    if is_directory(id) {
        return match Path::new(id).is_dir() {
            true => Ok(()),
            false => Err(BadId(format!(
                "{id:?} is not a directory: write one, or a hub id such as organisation/name"
            ))),
        };
    }
    check_hub_id(id)
}

/// Checks a name of a model on the hub: `organisation/name`.
///
/// # Errors
/// A sentence with the name and what to write instead.
pub fn check_hub_id(id: &str) -> Result<(), BadId> {
    let mut parts = id.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(organisation), Some(name), None)
            if is_path_component(organisation) && is_path_component(name) =>
        {
            Ok(())
        }
        _ => Err(BadId(format!(
            "{id:?} is not the name of a model: write a hub id such as organisation/name, or a directory that \
             begins with / or ./, or {:?} for the small one inside this program",
            builtin::NAME
        ))),
    }
}

/// Checks a name of a branch, tag or commit.
///
/// # Errors
/// A sentence with the name and what is allowed.
pub fn check_revision(revision: &str) -> Result<(), BadId> {
    if revision.len() <= 128 && revision.split('/').all(is_path_component) {
        return Ok(());
    }
    Err(BadId(format!("{revision:?} is not a revision: write a branch, tag or commit, such as main")))
}

/// Escapes a revision so that it is one component of a path or URL. No valid revision contains `%`.
pub fn escape(revision: &str) -> String {
    revision.replace('/', "%2F")
}

/// Whether a text is safe as one component of a path or URL.
pub fn is_path_component(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    (1..=96).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(allowed)
        && !text.contains("..")
}

/// Whether a text is a commit: 40 lower-case hexadecimal digits.
pub fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        assert!(check_id("HuggingFaceTB/SmolVLM2-500M-Video-Instruct").is_ok());
        assert!(check_id(env!("CARGO_MANIFEST_DIR")).is_ok());
        for id in ["", "a", "a/b/c", "a/..", "a/.b", "a b/c", "a/b?c", "a/b@c", "/no/such/folder", "..", "a/"]
        {
            assert!(check_id(id).is_ok() == (is_directory(id) && Path::new(id).is_dir()), "{id}");
        }
        assert!(Path::new("src/hub").is_dir() && !is_directory("src/hub"), "it may be a model on the hub");
        for revision in ["main", "v1.0", "refs/pr/3", "0123456789012345678901234567890123456789"] {
            assert!(check_revision(revision).is_ok(), "{revision}");
        }
        for revision in ["", "a//b", "../x", "a/../b", "a b", "main?x"] {
            assert!(check_revision(revision).is_err(), "{revision}");
        }
    }
}
