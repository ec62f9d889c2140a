//! `[mqtt]`: the broker that descriptions are published to.

use std::path::{Path, PathBuf};

use url::Url;

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind, names},
    login, pem,
    secret::Login,
    section::Section,
};

const VERSIONS: [(&str, MqttVersion); 3] =
    [("auto", MqttVersion::Auto), ("5", MqttVersion::V5), ("3.1.1", MqttVersion::V311)];

pub const KEYS: &[Key] = &[
    Key::new(
        "url",
        Kind::Text,
        "mqtt://localhost:1883",
        "The broker: mqtt://host:port, or mqtts://host:port for TLS",
    ),
    Key::new(
        "version",
        Kind::Choice(&names(&VERSIONS)),
        "auto",
        "The MQTT version; auto: 5, or 3.1.1 with a broker that does not support 5",
    ),
    Key::new("username", Kind::Text, "", "The user name at the broker; empty: no login"),
    Key::new(
        "password_file",
        Kind::Text,
        "",
        "The file that holds the password, by absolute path or by name in $CREDENTIALS_DIRECTORY",
    ),
    Key::new(
        "ca_file",
        Kind::Text,
        "",
        "The PEM file of the authorities that may certify the broker; empty: those of the system",
    ),
    Key::new("client_cert_file", Kind::Text, "", "The PEM file of the client certificate; empty: none"),
    Key::new("client_key_file", Kind::Text, "", "The PEM file of the client certificate's private key"),
    Key::new("topic_prefix", Kind::Text, "camscribe", "The first levels of every topic"),
    Key::new(
        "discovery_prefix",
        Kind::Text,
        "homeassistant",
        "The first levels of the topics of Home Assistant's discovery; empty: no discovery",
    ),
    Key::new(
        "commands",
        Kind::Bool,
        "true",
        "Whether subscribers may switch cameras on and off, change their prompts, and ask what they show",
    ),
    Key::new(
        "response_topics",
        Kind::List,
        "",
        "The topics that answers to questions may go to, where MQTT 5 names one; empty: <topic_prefix>/reply/#",
    ),
];

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttSettings {
    /// Name or address of the broker; an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The MQTT version.
    pub version: MqttVersion,
    /// `None`: no TLS.
    pub tls: Option<Tls>,
    /// `None`: no login.
    pub login: Option<Login>,
    /// The first level or levels of every topic, without a slash at either end.
    pub topic_prefix: String,
    /// The first level or levels of the discovery topics; `None`: no discovery.
    pub discovery_prefix: Option<String>,
    /// Whether subscribers may switch cameras, change their prompts, and ask what they show.
    pub commands: bool,
    /// The filters of the topics that answers to questions may go to.
    pub response_topics: Vec<String>,
}

/// An MQTT version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 5, or 3.1.1 with a broker that does not support 5.
    Auto,
    /// 5.
    V5,
    /// 3.1.1.
    V311,
}

/// TLS between client and broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the client certificate and of its key.
    pub client_cert_and_key: Option<(PathBuf, PathBuf)>,
}

impl MqttSettings {
    /// The settings of a checked section; relative files are taken from `folder`.
    pub(super) fn read(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let (host, port, secure) = address(section.text("url")).unwrap_or_else(|why| {
            diagnostics.error(&section.entry("url").location, why);
            (String::new(), 0, true)
        });
        check_prefixes(section, diagnostics);
        let tls = tls(section, secure, folder, diagnostics);
        Self {
            host,
            port,
            version: section.choice("version", &VERSIONS),
            tls,
            login: login::read(section, diagnostics),
            topic_prefix: section.text("topic_prefix").into(),
            discovery_prefix: section.optional("discovery_prefix").map(Into::into),
            commands: section.bool("commands"),
            response_topics: response_topics(section, diagnostics),
        }
    }
}

impl Default for MqttSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("mqtt", KEYS), Path::new(""), &mut Diagnostics::default())
    }
}

/// Adds an error for each prefix that cannot begin a topic.
fn check_prefixes(section: &Section, diagnostics: &mut Diagnostics) {
    for (name, may_be_empty) in [("topic_prefix", false), ("discovery_prefix", true)] {
        let prefix = section.text(name);
        if let Err(why) = check_prefix(prefix)
            && !(may_be_empty && prefix.is_empty())
        {
            diagnostics.error(&section.entry(name).location, why);
        }
    }
}

/// The filters of `response_topics`, or the usual one.
fn response_topics(section: &Section, diagnostics: &mut Diagnostics) -> Vec<String> {
    let filters = section.list("response_topics").to_vec();
    for filter in &filters {
        // A wildcard is a level of its own, and # the last one.
        let levels = || filter.strip_suffix("/#").unwrap_or(filter).split('/');
        let fixed: Vec<&str> = levels().filter(|level| *level != "+").collect();
        if filter != "#"
            && !fixed.is_empty()
            && let Err(why) = check_prefix(&fixed.join("/"))
        {
            let why = format!("{why}, with + for one level and /# at the end for all below");
            diagnostics.error(&section.entry("response_topics").location, why);
        }
    }
    if filters.is_empty() { vec![format!("{}/reply/#", section.text("topic_prefix"))] } else { filters }
}

/// The certificates; `None` if the connection is not `secure`, where naming any is an error.
fn tls(section: &Section, secure: bool, folder: &Path, diagnostics: &mut Diagnostics) -> Option<Tls> {
    let mut file = |name, label| {
        let path = folder.join(section.optional(name)?);
        let checked = if secure {
            pem::check(&path, label).map_err(|why| format!("{} {why}", path.display()))
        } else {
            Err("is for TLS, but mqtt.url begins with mqtt://: write mqtts:// or remove the key".into())
        };
        if let Err(why) = checked {
            diagnostics.error(&section.entry(name).location, why);
        }
        Some(path)
    };
    let ca_file = file("ca_file", "CERTIFICATE-----");
    let cert = file("client_cert_file", "CERTIFICATE-----");
    let key = file("client_key_file", "PRIVATE KEY-----");
    pem::check_pair(section, ["client_cert_file", "client_key_file"], "a client shows both", diagnostics);
    secure.then(|| Tls { ca_file, client_cert_and_key: cert.zip(key) })
}

/// Host (an IPv6 address without its brackets), port, and whether the scheme means TLS.
fn address(text: &str) -> Result<(String, u16, bool), String> {
    const FORM: &str = "write mqtt://host:port, or mqtts://host:port for TLS";
    if text.contains('@') {
        return Err("holds credentials: write them with mqtt.username and mqtt.password_file instead".into());
    }
    let bad = |why: String| format!("{text:?} {why}: {FORM}");
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(bad("holds a space".into()));
    }
    let (scheme, _) = text.split_once("://").ok_or_else(|| bad("has no scheme".into()))?;
    let secure = match scheme {
        "mqtt" => false,
        "mqtts" => true,
        other => return Err(bad(format!("has the unknown scheme {other:?}"))),
    };
    let url = Url::parse(text).map_err(|e| bad(format!("is not an address ({e})")))?;
    let host = url.host_str().filter(|h| !h.is_empty()).ok_or_else(|| bad("names no host".into()))?;
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(bad("has something behind host and port".into()));
    }
    let port = url.port().unwrap_or(if secure { 8883 } else { 1883 });
    if port == 0 {
        return Err(bad("has the port 0".into()));
    }
    Ok((host.trim_matches(['[', ']']).into(), port, secure))
}

/// Checks that topics can begin with `prefix`: one or more levels without wildcards, spaces or `$`.
///
/// # Errors
/// What is wrong with the prefix, and what to write.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    let why = match prefix {
        "" => "is empty",
        p if p.len() > 128 => "is longer than 128 bytes",
        p if p.contains(['+', '#']) => "holds a wildcard (+ or #)",
        p if p.contains('$') => "holds $, with which brokers begin topics of their own",
        p if p.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            "holds a space or a control character"
        }
        p if p.split('/').any(str::is_empty) => {
            "holds an empty level (a slash at its start or end, or two together)"
        }
        _ => return Ok(()),
    };
    Err(format!("{prefix:?} {why}: write levels joined by single slashes, such as \"home/cameras\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_scheme_a_host_and_perhaps_a_port() {
        assert_eq!(address("mqtt://localhost"), Ok(("localhost".into(), 1883, false)));
        assert_eq!(address("mqtts://broker.example/"), Ok(("broker.example".into(), 8883, true)));
        assert_eq!(address("mqtt://[2001:db8::1]:2883"), Ok(("2001:db8::1".into(), 2883, false)));
        for text in [
            "localhost:1883",
            "http://x",
            "mqtt://",
            "mqtt://h:0",
            "mqtt://h:70000",
            "mqtt://h/a",
            "mqtt://h h",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }
}
