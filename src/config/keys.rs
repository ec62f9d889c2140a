//! Every key of the configuration, once: its name, what it may hold and its default. The parser,
//! the effective configuration that `check` prints and the test that holds the reference file
//! against the code all read this table.

use std::time::Duration;

use super::{DEFAULT_MODEL, DEFAULT_PROMPT, DEFAULT_REVISION};

/// One key of one section.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its name within the section.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What it holds when nobody sets it, written as in an environment variable; `None`: it must be set.
    pub default: Option<&'static str>,
}

/// What a key may hold, bounds included.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Text; its meaning is checked where the [`Config`](super::Config) is built.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number from .0 to .1.
    Int(u64, u64),
    /// Text such as `8s`, from .0 to .1.
    Duration(Duration, Duration),
    /// Text such as `512MiB`, from .0 to .1, in bytes.
    Size(u64, u64),
    /// One of these words.
    Choice(&'static [&'static str]),
}

const fn key(name: &'static str, kind: Kind, default: &'static str) -> Key {
    Key { name, kind, default: Some(default) }
}

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

/// Most turns that a camera can have where another has one.
pub const MAX_PRIORITY: u64 = 10;

/// `[node]`
pub const NODE: &[Key] = &[key("id", Kind::Text, ""), key("state_dir", Kind::Text, "")];

/// `[model]`
pub const MODEL: &[Key] = &[
    key("id", Kind::Text, DEFAULT_MODEL),
    key("revision", Kind::Text, DEFAULT_REVISION),
    key("device", Kind::Text, "auto"),
    key("dtype", Kind::Choice(&["auto", "f32", "bf16", "f16", "q8"]), "auto"),
    key("kernels", Kind::Choice(&["candle", "own", "graphs"]), "graphs"),
    key("max_batch", Kind::Int(1, 64), "16"),
    key("linger", Kind::Duration(Duration::ZERO, SECOND.saturating_mul(10)), "20ms"),
];

/// `[mqtt]`
pub const MQTT: &[Key] = &[
    key("url", Kind::Text, "mqtt://localhost:1883"),
    key("version", Kind::Choice(&["auto", "5", "3.1.1"]), "auto"),
    key("username", Kind::Text, ""),
    key("password_file", Kind::Text, ""),
    key("ca_file", Kind::Text, ""),
    key("client_cert_file", Kind::Text, ""),
    key("client_key_file", Kind::Text, ""),
    key("topic_prefix", Kind::Text, "camscribe"),
    key("discovery_prefix", Kind::Text, "homeassistant"),
    key("commands", Kind::Bool, "true"),
];

/// `[outbox]`
pub const OUTBOX: &[Key] = &[
    key("max_bytes", Kind::Size(MIB, MIB << 20), "512MiB"),
    key("snapshot_bytes", Kind::Size(MIB, MIB << 20), "128MiB"),
];

/// `[http]`
pub const HTTP: &[Key] = &[key("listen", Kind::Text, "127.0.0.1:9180")];

/// The one key that every camera must have itself and that `[defaults]` cannot hold.
pub const URI: Key = Key { name: "uri", kind: Kind::Text, default: None };

/// `[defaults]`, and `[cameras.<id>]` besides [`URI`].
pub const CAMERA: &[Key] = &[
    key("enabled", Kind::Bool, "true"),
    key("username", Kind::Text, ""),
    key("password_file", Kind::Text, ""),
    key("pipeline", Kind::Text, ""),
    key("transport", Kind::Choice(&["tcp", "udp", "auto"]), "tcp"),
    key("window", Kind::Duration(Duration::from_millis(500), SECOND.saturating_mul(3600)), "8s"),
    key("stride", Kind::Duration(Duration::from_millis(100), SECOND.saturating_mul(86_400)), "8s"),
    key("frames", Kind::Int(1, 64), "8"),
    key("min_frames", Kind::Int(1, 64), "2"),
    key("prompt", Kind::Text, DEFAULT_PROMPT),
    key("max_tokens", Kind::Int(1, 2048), "96"),
    key("sampling", Kind::Choice(&["auto", "rate", "keyframes"]), "auto"),
    key("priority", Kind::Int(1, MAX_PRIORITY), "1"),
    key("change_threshold", Kind::Int(0, 255), "10"),
    key("heartbeat", Kind::Duration(SECOND, SECOND.saturating_mul(86_400)), "10m"),
];

/// `[cameras.<id>]`: everything a camera may hold.
pub fn camera() -> Vec<Key> {
    [&[URI], CAMERA].concat()
}

/// The sections whose keys are fixed.
pub const SECTIONS: &[(&str, &[Key])] = &[
    ("node", NODE),
    ("model", MODEL),
    ("mqtt", MQTT),
    ("outbox", OUTBOX),
    ("http", HTTP),
    ("defaults", CAMERA),
];

/// The section that holds a table per camera.
pub const CAMERAS: &str = "cameras";

/// What to say about a key or section that people look for and that is not there.
pub fn not_here(path: &str) -> Option<&'static str> {
    let name = path.rsplit('.').next().unwrap_or(path);
    Some(match (path, name) {
        ("defaults.uri", _) => "each camera needs a uri of its own: write it under [cameras.<id>]",
        (_, "password") => {
            "passwords do not stand in the configuration: put it into a file of its own, readable only for \
             camscribe, and name that file with password_file"
        }
        _ => return None,
    })
}
