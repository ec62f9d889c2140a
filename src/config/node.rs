//! `[node]`: this camscribe.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    section::Section,
};

/// The state directory where neither the configuration nor systemd names one.
const STATE_DIR: &str = "/var/lib/camscribe";

pub const KEYS: &[Key] = &[
    Key::new("id", Kind::Text, "", "The name, one level of every topic; empty: the name of the host"),
    Key::new(
        "state_dir",
        Kind::Text,
        "",
        "The directory for what must outlive the process; empty: $STATE_DIRECTORY, else /var/lib/camscribe",
    ),
];

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSettings {
    /// One level of a topic: 1 to 64 of `A-Z`, `a-z`, `0-9`, `_` and `-`.
    pub id: String,
    /// The directory for what must outlive the process; `None`: nothing is kept.
    pub state_dir: Option<PathBuf>,
}

impl NodeSettings {
    /// The settings of a checked section; a relative directory is taken from `folder`.
    pub(super) fn read(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let id = section.optional("id").map_or_else(default_node_id, Into::into);
        if id.len() > 64 || !id.chars().all(is_node_id_char) {
            let why = "cannot be a level of a topic: use 1 to 64 of A-Z, a-z, 0-9, '_' and '-'";
            diagnostics.error(&section.entry("id").location, format!("{id:?} {why}"));
        }
        Self { id, state_dir: Some(state_dir(section, folder)) }
    }
}

/// The configured directory, else the first that systemd made for the service, else [`STATE_DIR`].
fn state_dir(section: &Section, folder: &Path) -> PathBuf {
    if let Some(path) = section.optional("state_dir") {
        return folder.join(path);
    }
    let given = env::var_os("STATE_DIRECTORY");
    let first = given.as_deref().and_then(|all| env::split_paths(all).next());
    first.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| STATE_DIR.into())
}

/// The name of the host, with `-` for each character that a node id cannot have.
pub fn default_node_id() -> String {
    let host = gethostname::gethostname();
    let host: String = host.to_string_lossy().chars().take(64).collect();
    let id = host.replace(|c| !is_node_id_char(c), "-");
    if id.is_empty() { "camscribe".into() } else { id }
}

/// Home Assistant takes no other characters in the topics of its discovery.
fn is_node_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}
