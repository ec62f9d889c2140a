//! Files in PEM form: certificates and keys.

use std::{
    fs::{self, File},
    io::Read,
    path::Path,
};

use super::{diagnostic::Diagnostics, section::Section};

/// The most bytes of a certificate file that are read: more than any bundle of authorities has.
const MAX_BYTES: u64 = 4 << 20;

/// Checks that the file at `path` holds a PEM block whose first line ends in `label`, such as `CERTIFICATE-----`.
///
/// # Errors
/// What is wrong with the file.
pub fn check(path: &Path, label: &str) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a file".into());
    }
    let mut file = File::open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.windows(label.len()).any(|part| part == label.as_bytes()) {
        return Ok(());
    }
    Err(format!("holds no PEM block that ends in {label}"))
}

/// Adds an error where only one of two keys is set that name a certificate and its key. `why` ends its text.
pub fn check_pair(section: &Section, names: [&str; 2], why: &str, diagnostics: &mut Diagnostics) {
    let [certificate, key] = names;
    for (set, other) in [(certificate, key), (key, certificate)] {
        if section.optional(set).is_some() && section.optional(other).is_none() {
            diagnostics.error(&section.entry(set).location, format!("needs {other} beside it: {why}"));
        }
    }
}
