//! The `[mqtt]` section: the broker's address, how to log in and to whom to listen, checked.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use url::Url;

use super::{Mqtt, MqttVersion, Tls, build::login, mistake::Report, value::Section};

/// Far above any bundle of certificates.
const MAX_PEM_BYTES: u64 = 4 << 20;

/// Builds [`Mqtt`] from its checked section; relative files are taken from `folder`.
pub fn build(section: &Section, folder: &Path, report: &mut Report) -> Mqtt {
    let (host, port, secure) = match address(section.text("url")) {
        Ok(address) => address,
        Err(why) => {
            report.mistake(&section.entry("url").place, why);
            (String::new(), 0, true)
        }
    };
    let mut file = |name, marker| pem(section, name, marker, secure, folder, report);
    let ca_file = file("ca_file", "CERTIFICATE-----");
    let cert = file("client_cert_file", "CERTIFICATE-----");
    let key = file("client_key_file", "PRIVATE KEY-----");
    for (has, other) in [("client_cert_file", "client_key_file"), ("client_key_file", "client_cert_file")] {
        if section.optional(has).is_some() && section.optional(other).is_none() {
            report
                .mistake(&section.entry(has).place, format!("needs {other} beside it: a client shows both"));
        }
    }
    for (name, may_be_empty) in [("topic_prefix", false), ("discovery_prefix", true)] {
        let prefix = section.text(name);
        if let Err(why) = check_prefix(prefix)
            && !(may_be_empty && prefix.is_empty())
        {
            report.mistake(&section.entry(name).place, why);
        }
    }
    Mqtt {
        host,
        port,
        version: match section.text("version") {
            "5" => MqttVersion::V5,
            "3.1.1" => MqttVersion::V311,
            _ => MqttVersion::Auto,
        },
        tls: secure.then(|| Tls { ca_file, client_cert_and_key: cert.zip(key) }),
        login: login(section, report),
        topic_prefix: section.text("topic_prefix").into(),
        discovery_prefix: section.optional("discovery_prefix").map(Into::into),
        commands: section.bool("commands"),
    }
}

/// Host (an IPv6 address without its brackets), port, and whether TLS is spoken.
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

fn pem(
    section: &Section,
    name: &str,
    marker: &str,
    secure: bool,
    folder: &Path,
    report: &mut Report,
) -> Option<PathBuf> {
    let path = folder.join(section.optional(name)?);
    let place = &section.entry(name).place;
    if !secure {
        report
            .mistake(place, "is for TLS, but mqtt.url begins with mqtt://: write mqtts:// or remove the key");
        return None;
    }
    if let Err(why) = holds(&path, marker) {
        report.mistake(place, format!("{} {why}", path.display()));
    }
    Some(path)
}

fn holds(path: &Path, marker: &str) -> Result<(), String> {
    let unreadable = |e: std::io::Error| format!("cannot be read: {e}");
    let mut file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err("is not a file".into());
    }
    let mut bytes = Vec::new();
    file.by_ref().take(MAX_PEM_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.windows(marker.len()).any(|part| part == marker.as_bytes()) {
        return Ok(());
    }
    Err(format!("holds no PEM block that ends in {marker}"))
}

/// Whether topics may begin with `prefix`, one or more levels that no broker or subscriber reads as
/// something else; if not, what is wrong with it.
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
