//! Log lines: on standard error for people or as JSON, or in systemd's journal. Standard output is for results. A line
//! that cannot be written, because a disk is full or nobody reads, is lost and changes nothing.

mod journal;

use std::{
    env::{self, VarError},
    fmt,
    fs::File,
    io::{self, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::OnceLock,
};

use chrono::{SecondsFormat, Utc};
use serde_json::json;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{LevelFilter, ParseError},
    fmt::time::ChronoLocal,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// The levels of libraries that log too much.
const LIBRARY_LEVELS: &str = "rumqttd=error,rumqttc=warn,tokenizers=error";

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// [`Self::Journal`] where systemd reads standard error, else [`Self::Text`].
    Auto,
    /// A line for people.
    Text,
    /// A JSON object a line.
    Json,
    /// The journal's own protocol, with fields.
    Journal,
}

impl Format {
    fn resolved(self) -> Self {
        match self {
            Self::Auto if goes_to_journal() => Self::Journal,
            Self::Auto => Self::Text,
            stated => stated,
        }
    }
}

/// The format that [`init`] was called with.
static FORMAT: OnceLock<Format> = OnceLock::new();

/// Starts logging, from the level `level` on: `error` to `trace`. `RUST_LOG` goes before it (`debug`,
/// `camscribe::capture=trace`, …). A second call does nothing.
pub fn init(level: &str, format: Format) {
    let usual = format!("{level},{LIBRARY_LEVELS}");
    let stated = match env::var(EnvFilter::DEFAULT_ENV) {
        Ok(text) => stated_filter(&text, &usual),
        Err(VarError::NotPresent) => Ok(EnvFilter::new(&usual)),
        Err(VarError::NotUnicode(_)) => Err("it is not UTF-8".into()),
    };
    let (filter, mistake) = match stated {
        Ok(filter) => (filter, None),
        Err(mistake) => (EnvFilter::new(&usual), Some(mistake)),
    };
    let format = *FORMAT.get_or_init(|| format.resolved());
    let _ = tracing_subscriber::registry().with(lines(format)).with(filter).try_init();
    if let Some(mistake) = mistake {
        tracing::warn!("RUST_LOG is not used: {mistake}; write for instance RUST_LOG=debug");
    }
}

/// The filter that `RUST_LOG` states. What names no level for everything is added to `usual`.
///
/// # Errors
/// What is wrong with it.
fn stated_filter(text: &str, usual: &str) -> Result<EnvFilter, String> {
    let parts = || text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    // A mistyped level would be taken for the name of a module.
    let is_module = |part: &str| part.contains(['=', '[', ':']) || part == env!("CARGO_PKG_NAME");
    if let Some(other) = parts().find(|part| !is_level(part) && !is_module(part)) {
        return Err(format!("{other:?} is none of error, warn, info, debug and trace"));
    }
    let base = if parts().any(is_level) { "" } else { usual };
    let all: Vec<_> = Some(base).into_iter().chain(parts()).filter(|part| !part.is_empty()).collect();
    all.join(",").parse().map_err(|error: ParseError| error.to_string())
}

/// Writes events in a format.
fn lines(format: Format) -> Box<dyn Layer<Registry> + Send + Sync> {
    // The layer would say on standard error that it cannot write there, and panic.
    let layer = tracing_subscriber::fmt::layer().log_internal_errors(false).with_writer(io::stderr);
    match format {
        Format::Journal => Box::new(journal::Journal),
        Format::Json => Box::new(layer.json().flatten_event(true)),
        Format::Text | Format::Auto => {
            let layer = layer.with_timer(ChronoLocal::new("%H:%M:%S%.3f".into())).with_target(false);
            Box::new(layer.with_ansi(io::stderr().is_terminal()))
        }
    }
}

/// Whether systemd reads standard error into its journal: it says which file its journal reads (systemd.exec(5)).
fn goes_to_journal() -> bool {
    let Ok(stated) = env::var("JOURNAL_STREAM") else { return false };
    let file = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    file.and_then(|it| it.metadata()).is_ok_and(|it| stated == format!("{}:{}", it.dev(), it.ino()))
}

/// Writes about an error that ends the command to standard error.
pub fn tell_error(text: impl fmt::Display) {
    if FORMAT.get() == Some(&Format::Json) {
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
        let (level, message) = ("ERROR", text.to_string());
        return tell(json!({ "timestamp": timestamp, "level": level, "message": message }));
    }
    let priority = if goes_to_journal() { "<3>" } else { "" };
    text.to_string().lines().for_each(|line| tell(format_args!("{priority}{line}")));
}

/// Writes a line to standard error for the person at the keyboard.
pub fn tell(line: impl fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_log_silences_nothing_by_mistake() {
        let filter = |text| stated_filter(text, "info,rumqttc=warn").map(|filter| filter.to_string());
        for (text, wanted) in [
            ("", "rumqttc=warn,info"),
            (" , ", "rumqttc=warn,info"),
            ("debug", "debug"),
            ("off", "off"),
            ("camscribe::capture=trace", "camscribe::capture=trace,rumqttc=warn,info"),
            ("camscribe", "camscribe=trace,rumqttc=warn,info"),
            ("warn, rumqttc=debug", "rumqttc=debug,warn"),
        ] {
            let (mut got, mut parts): (Vec<_>, Vec<_>) = (
                filter(text).unwrap().split(',').map(str::to_owned).collect(),
                wanted.split(',').map(str::to_owned).collect(),
            );
            got.sort();
            parts.sort();
            assert_eq!(got, parts, "{text}");
        }
        for (text, why) in [
            ("debg", "\"debg\" is none of error"),
            ("info,verbose", "\"verbose\" is none"),
            ("camscribe=loud", ""),
        ] {
            assert!(filter(text).unwrap_err().contains(why), "{text}");
        }
    }
}
