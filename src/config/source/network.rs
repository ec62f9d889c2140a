//! The address of a network camera.

use std::{borrow::Cow, fmt};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use url::{Position, Url};

use super::{error::BadSource, mask::mask};
use crate::config::secret::{Login, Secret};

/// The URL of a network camera, without user name and password.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkAddress {
    url: Url,
    port: u16,
}

impl NetworkAddress {
    /// Reads an `rtsp://` or `rtsps://` URL and takes the credentials out of it.
    ///
    /// # Errors
    /// If `text` is no such URL with a host, or may show a part of a password where it is printed.
    pub fn parse(text: &str) -> Result<(Self, Option<Login>), BadSource> {
        let bad = |why: &str| BadSource(format!("{:?} {why}", mask(text)));
        if text.contains(char::is_whitespace) {
            return Err(bad("holds a space: write %20 where one is meant"));
        }
        let text = &*escape_login(text);
        let advice = match text.contains('@') {
            true => "; write a password with special characters into password_file, and username beside it",
            false => "",
        };
        let mut url = Url::parse(text).map_err(|e| bad(&format!("is not a URL: {e}{advice}")))?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(bad(&format!("names no host: write {}://host/path", url.scheme())));
        }
        if url[Position::BeforePath..].contains('@') {
            // Most likely a password with a slash in it, which would show wherever the path does.
            return Err(bad(&format!("holds an @ behind the host: write %40 for it{advice}")));
        }
        let decoded = |part: &str| {
            let text = percent_decode_str(part)
                .decode_utf8()
                .map_err(|_| bad("has credentials that are not UTF-8"))?;
            if text.contains(char::is_control) {
                Err(bad("has a control character in its credentials"))
            } else {
                Ok(text.into_owned())
            }
        };
        let login = match (url.username(), url.password()) {
            ("", None) => None,
            (user, password) => {
                let password = Secret::new(decoded(password.unwrap_or_default())?);
                Some(Login { username: decoded(user)?, password })
            }
        };
        let cleared = url.set_username("").and_then(|()| url.set_password(None));
        cleared.map_err(|()| bad("has credentials that cannot be taken out of it"))?;
        let default_port = match url.scheme() {
            "rtsp" => 554,
            "rtsps" => 322,
            _ => return Err(bad("is no rtsp:// or rtsps:// address")),
        };
        let port = url.port().unwrap_or(default_port);
        Ok((Self { url, port }, login))
    }

    /// The whole URL. Not for logs: path and query may hold a password.
    pub fn as_str(&self) -> &str {
        self.url.as_str()
    }

    /// The URL up to its path, and from its path on. Not for logs.
    pub fn split_before_path(&self) -> (&str, &str) {
        (&self.url[..Position::BeforePath], &self.url[Position::BeforePath..])
    }

    /// Whether the camera is spoken to over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.url.scheme() == "rtsps"
    }

    /// Host (an IPv6 address without its brackets) and port that the camera listens at.
    pub fn host_port(&self) -> (String, u16) {
        (self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).into(), self.port)
    }
}

/// What a password may hold that ends the host of a URL, or that a URL may not hold.
const SPECIAL: &AsciiSet =
    &CONTROLS.add(b'#').add(b'/').add(b'?').add(b'@').add(b':').add(b'\\').add(b'[').add(b']');

/// Escapes a login with special characters, such as `rtsp://user:pa/ss#1@host/path`, where it can be told from
/// host, port and path: where what seems to be a port is no number.
fn escape_login(text: &str) -> Cow<'_, str> {
    let escaped = || {
        let (scheme, rest) = text.split_once("://")?;
        let (login, rest) = rest.rsplit_once('@')?;
        let (user, password) = login.split_once(':')?;
        let seems_port = password.split(['/', '?', '#']).next().unwrap_or_default();
        let is_login = !seems_port.contains('@') && seems_port.parse::<u16>().is_err();
        if seems_port.len() == password.len() || !is_login || user.starts_with('[') {
            return None;
        }
        let escape = |part| utf8_percent_encode(part, SPECIAL);
        Some(format!("{scheme}://{}:{}@{rest}", escape(user), escape(password)))
    };
    escaped().map_or(Cow::Borrowed(text), Cow::Owned)
}

/// The URL, masked.
impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(self.url.as_str()))
    }
}

/// The URL, masked.
impl fmt::Debug for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkAddress({self})")
    }
}
