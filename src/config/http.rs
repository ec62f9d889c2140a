//! `[http]`: metrics for Prometheus and health checks.

use std::net::SocketAddr;

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    section::Section,
};

pub const KEYS: &[Key] =
    &[Key::new("listen", Kind::Text, "127.0.0.1:9180", "The IP address and port to listen on; empty: none")];

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// The address that serves metrics and health checks; `None`: none does.
    pub listen: Option<SocketAddr>,
}

impl HttpSettings {
    /// The settings of a checked section.
    pub(super) fn read(section: &Section, diagnostics: &mut Diagnostics) -> Self {
        let listen = section.optional("listen").and_then(|text| {
            let why = "write an IP address and a port, such as 127.0.0.1:9180, or \"\" for none";
            let error = |_| diagnostics.error(&section.entry("listen").location, format!("{text:?}: {why}"));
            text.parse().map_err(error).ok()
        });
        Self { listen }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("http", KEYS), &mut Diagnostics::default())
    }
}
