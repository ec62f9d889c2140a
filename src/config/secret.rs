//! Secrets: text that is never shown, and the files that hold it. Logins, which have one.

use std::{env, fmt, fs, os::unix::fs::PermissionsExt, path::Path};

use serde::{Serialize, Serializer};

use super::text_file;

/// The longest file of a secret that is read: longer than any password that a camera or broker takes.
const MAX_BYTES: u64 = 4096;
/// What some editors put before a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Text that shows as `***` wherever it is printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A secret with this text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the client that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("***")
    }
}

/// A user name and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: Secret,
}

/// Whether a key such as `password_file` names a credential: a file that the service manager has passed at the start.
pub fn is_credential(name: &str) -> bool {
    !Path::new(name).is_absolute() && !name.contains('/') && name != ".." && name != "."
}

/// Reads the secret that a key such as `password_file` names: in the file `name` if it is an absolute path, else in the credential of this
/// name, under `$CREDENTIALS_DIRECTORY`. Otherwise as [`read`].
///
/// # Errors
/// What is wrong with `name`, without repeating it: somebody may have written the secret there. What is wrong with
/// the file.
pub fn find(name: &str) -> Result<(Secret, Vec<String>), String> {
    if Path::new(name).is_absolute() {
        return read(Path::new(name));
    }
    if !is_credential(name) {
        return Err("is neither an absolute path nor a plain file name: write the whole path".into());
    }
    let Some(directory) = env::var_os("CREDENTIALS_DIRECTORY").filter(|d| !d.is_empty()) else {
        return Err("is not an absolute path, and there is no $CREDENTIALS_DIRECTORY to look in: write the \
                    whole path, or pass the file with systemd's LoadCredential= and restart the service"
            .into());
    };
    let path = Path::new(&directory).join(name);
    if path.try_exists().is_ok_and(|exists| !exists) {
        return Err(
            "is no credential that the service manager has passed, which it does at the start only: add \
                    LoadCredential= for it to the service's unit, and restart the service"
                .into(),
        );
    }
    read(&path)
}

/// Reads the secret in the file at `path`, without the line end behind it. The second value warns of what is
/// probably not meant, a line each.
///
/// # Errors
/// Names the file and says why it cannot be used.
pub fn read(path: &Path) -> Result<(Secret, Vec<String>), String> {
    let shown = path.display();
    let text = text_file::read(path, MAX_BYTES).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(format!("{shown} is empty: it should hold the secret"));
    }
    if secret.starts_with(BYTE_ORDER_MARK) {
        return Err(format!("{shown} begins with a byte order mark: save it as UTF-8 without one"));
    }
    if secret.contains(char::is_control) {
        return Err(format!("{shown} holds more than one line: it should hold the secret alone"));
    }
    let readable = readable_by_all(path);
    let has_blanks = secret.trim() != secret;
    let blanks = has_blanks
        .then(|| format!("{shown} begins or ends with a blank, which counts as a part of the secret"));
    Ok((Secret::new(secret), readable.into_iter().chain(blanks).collect()))
}

/// A warning, if every user can read the file at `path`.
pub fn readable_by_all(path: &Path) -> Option<String> {
    let is_readable = fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o004 != 0);
    is_readable.then(|| format!("every user can read {}: run chmod o-r on it", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_shows_itself_nowhere() {
        let secret = Secret::new("hunter2");
        let shown =
            format!("{secret} {secret:?} {:#?} {}", Some(&secret), serde_json::to_string(&secret).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn what_an_editor_has_added_to_a_password_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let told = |content: &str| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            read(&path).map(|(secret, warnings)| (secret.expose().to_owned(), warnings.join("; ")))
        };
        assert_eq!(told("hunter2\r\n"), Ok(("hunter2".into(), String::new())));
        assert!(told("\u{feff}hunter2\n").is_err_and(|why| why.contains("byte order mark")));
        let (secret, warning) = told("hunter2 \n").unwrap();
        assert!(secret == "hunter2 " && warning.contains("ends with a blank"), "{warning}");
    }
}
