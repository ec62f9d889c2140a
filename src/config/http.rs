//! `[http]`: the port for the page, metrics, health checks and questions to the model, and who may use it.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    login, pem,
    secret::{self, Secret},
    section::Section,
};

/// The shortest token that cannot be guessed, in characters: 16 of base64 hold 96 bits.
const GOOD_TOKEN: usize = 16;

pub const KEYS: &[Key] = &[
    Key::new("listen", Kind::Text, "127.0.0.1:9180", "The IP address and port to listen on; empty: none"),
    Key::new(
        "token_file",
        Kind::Text,
        "",
        "The file that holds the token that clients have to send; empty: none is asked for",
    ),
    Key::new(
        "tls_cert_file",
        Kind::Text,
        "",
        "The PEM file of the server's certificate chain; empty: no TLS",
    ),
    Key::new("tls_key_file", Kind::Text, "", "The PEM file of the certificate's private key"),
    Key::new("api", Kind::Bool, "false", "Whether clients may put questions to the model at /v1"),
    Key::new(
        "api_share",
        Kind::Fraction(0.05, 1.0),
        "0.25",
        "The share of the model's time that clients get while cameras want all of it",
    ),
];

/// `[http]`
#[derive(Clone, Debug, PartialEq)]
pub struct HttpSettings {
    /// The address to listen on; `None`: none.
    pub listen: Option<SocketAddr>,
    /// What clients have to send; `None`: nothing, which only a loopback address allows.
    pub token: Option<Secret>,
    /// The PEM files of the certificate chain and of its key; `None`: no TLS.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Whether clients may put questions to the model.
    pub api: bool,
    /// The share of the model's time that clients get while cameras want all of it.
    pub api_share: f64,
}

impl HttpSettings {
    /// The settings of a checked section; relative files are taken from `folder`.
    pub(super) fn read(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let listen = section.optional("listen").and_then(|text| {
            let why = "write an IP address and a port, such as 127.0.0.1:9180, or \"\" for none";
            let error = |_| diagnostics.error(&section.entry("listen").location, format!("{text:?}: {why}"));
            text.parse::<SocketAddr>().map_err(error).ok()
        });
        let open = listen.filter(|address| !address.ip().to_canonical().is_loopback());
        let has_token_file = section.optional("token_file").is_some();
        if let Some(address) = open.filter(|_| !has_token_file) {
            let why = "lets other machines in without asking for anything: set http.token_file, or listen on \
                       loopback, such as 127.0.0.1:9180";
            diagnostics.error(&section.entry("listen").location, format!("{address} {why}"));
        }
        let api = section.bool("api");
        if api && section.optional("listen").is_none() {
            let why = "needs http.listen, which is \"\": clients would find nobody";
            diagnostics.error(&section.entry("api").location, why);
        }
        Self {
            listen,
            token: token(section, open.is_some(), diagnostics),
            tls: tls(section, folder, diagnostics),
            api,
            api_share: section.fraction("api_share"),
        }
    }

    /// These settings as far as `other` can change them while camscribe runs. Only the token can, and not beside the
    /// address: it is for the one that it was set with, and may be missing for loopback.
    #[must_use]
    pub fn kept_beside(&self, other: &Self) -> Self {
        let token = if self.listen == other.listen { &other.token } else { &self.token };
        Self { token: token.clone(), ..self.clone() }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("http", KEYS), Path::new(""), &mut Diagnostics::default())
    }
}

/// The token in `token_file`. `is_open`: other machines can try to guess it.
fn token(section: &Section, is_open: bool, diagnostics: &mut Diagnostics) -> Option<Secret> {
    let token = login::secret(section, "token_file", diagnostics)?;
    let location = &section.entry("token_file").location;
    if !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        diagnostics
            .error(location, "names a file whose token holds a space or a character that is not ASCII");
    } else if (1..GOOD_TOKEN).contains(&token.expose().len()) {
        let why = format!(
            "names a file whose token has fewer than {GOOD_TOKEN} characters and can be guessed: `openssl rand -hex \
             32` makes a better one"
        );
        if is_open {
            diagnostics.error(location, why);
        } else {
            diagnostics.warning(location, why);
        }
    }
    Some(token)
}

/// The files of certificate and key.
fn tls(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> Option<(PathBuf, PathBuf)> {
    let mut file = |name, label| {
        let path = folder.join(section.optional(name)?);
        if let Err(why) = pem::check(&path, label) {
            diagnostics.error(&section.entry(name).location, format!("{} {why}", path.display()));
        }
        Some(path)
    };
    let (certificate, key) =
        (file("tls_cert_file", "CERTIFICATE-----"), file("tls_key_file", "PRIVATE KEY-----"));
    pem::check_pair(section, ["tls_cert_file", "tls_key_file"], "a server needs both", diagnostics);
    if let Some(warning) = key.as_deref().and_then(secret::readable_by_all) {
        diagnostics.warning(&section.entry("tls_key_file").location, warning);
    }
    certificate.zip(key)
}
