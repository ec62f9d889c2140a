//! Secrets: text that is never shown, and the files that hold it. Logins, which have one.

use std::{
    env, fmt,
    fs::{self, File},
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde::{Serialize, Serializer};

/// The longest password file that is read: longer than any password that a camera or broker takes.
const MAX_BYTES: u64 = 4096;

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

/// The path of a `password_file`: `name` itself if it is absolute, else under `$CREDENTIALS_DIRECTORY`.
///
/// # Errors
/// What is wrong with `name`, without repeating it: somebody may have written the password there.
pub fn locate(name: &str) -> Result<PathBuf, String> {
    if Path::new(name).is_absolute() {
        return Ok(name.into());
    }
    if name.contains('/') || name == ".." || name == "." {
        return Err("is neither an absolute path nor a plain file name: write the whole path".into());
    }
    match env::var_os("CREDENTIALS_DIRECTORY").filter(|d| !d.is_empty()) {
        Some(directory) => Ok(Path::new(&directory).join(name)),
        None => Err("is not an absolute path, and there is no $CREDENTIALS_DIRECTORY to look in: write the \
                     whole path, or pass the file with systemd's LoadCredential="
            .into()),
    }
}

/// Reads the secret in the file at `path`, without the line end behind it. The second value is a warning
/// if every user can read the file.
///
/// # Errors
/// Names the file and says why it cannot be used.
pub fn read(path: &Path) -> Result<(Secret, Option<String>), String> {
    let shown = path.display();
    let meta = fs::metadata(path).map_err(|e| format!("{shown} cannot be read: {e}"))?;
    if !meta.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let mut text = String::new();
    File::open(path)
        .and_then(|f| f.take(MAX_BYTES + 1).read_to_string(&mut text))
        .map_err(|e| format!("{shown} cannot be read: {e}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("{shown} is longer than {MAX_BYTES} bytes: it should hold one password"));
    }
    let secret = text.strip_suffix('\n').unwrap_or(&text);
    let secret = secret.strip_suffix('\r').unwrap_or(secret);
    if secret.is_empty() {
        return Err(format!("{shown} is empty: it should hold the password"));
    }
    if secret.contains(char::is_control) {
        return Err(format!("{shown} holds more than one line: it should hold the password alone"));
    }
    let warning = (meta.permissions().mode() & 0o004 != 0)
        .then(|| format!("every user can read {shown}: run chmod o-r on it"));
    Ok((Secret::new(secret), warning))
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
}
