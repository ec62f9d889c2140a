//! `[log]`: what is written to standard error, and how.

use super::{
    key::{Key, Kind, names},
    section::Section,
};
use crate::logging::Format;

const FORMATS: [(&str, Format); 4] =
    [("auto", Format::Auto), ("text", Format::Text), ("json", Format::Json), ("journal", Format::Journal)];
const LEVELS: [(&str, &str); 5] =
    [("error", "error"), ("warn", "warn"), ("info", "info"), ("debug", "debug"), ("trace", "trace")];

pub const KEYS: &[Key] = &[
    Key::new(
        "format",
        Kind::Choice(&names(&FORMATS)),
        "auto",
        "The format of log lines: text, json (an object a line), journal (systemd's, with the fields CAMERA and CLIP), \
         or auto: journal where systemd reads standard error, else text",
    ),
    Key::new(
        "level",
        Kind::Choice(&names(&LEVELS)),
        "info",
        "The least important lines that are logged; debug has the descriptions; RUST_LOG goes before it",
    ),
];

/// `[log]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// The format of log lines.
    pub format: Format,
    /// The least important lines that are logged: `error` to `trace`.
    pub level: &'static str,
}

impl LogSettings {
    /// The settings of a checked section.
    pub(super) fn read(section: &Section) -> Self {
        Self { format: section.choice("format", &FORMATS), level: section.choice("level", &LEVELS) }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("log", KEYS))
    }
}
