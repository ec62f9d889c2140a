//! HTTP with the hub: one request at a time, redirects followed by hand so that the token goes to
//! the hub's own address and nowhere else, answers turned into words.

use std::{env, fmt, time::Duration};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, header},
    tls::{Certificate, RootCerts, TlsConfig},
};
use url::Url;

use super::{HubError, id};

/// Where models come from when `HF_ENDPOINT` names no other place.
const ENDPOINT: &str = "https://huggingface.co";
/// More redirects than any hub makes.
const MAX_REDIRECTS: usize = 6;

/// A place that models come from.
pub struct Hub {
    agent: Agent,
    endpoint: Url,
    /// Never shown: there is no `Debug` of it.
    token: Option<String>,
    pub(super) patience: Patience,
}

/// How long to wait for the network, and how often to try again.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a connection, and for the head of an answer.
    pub connect: Duration,
    /// Without a single byte while a file comes.
    pub stall: Duration,
    /// Before the second try; doubles from try to try.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
    /// Tries in a row that brought no new byte before it is given up.
    pub tries: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            tries: 6,
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({})", self.endpoint)
    }
}

/// From which byte on a file is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumeAt<'a> {
    pub byte: u64,
    /// The strong ETag under which the bytes before it came: if it is another by now, the server
    /// sends the file from its start.
    pub etag: Option<&'a str>,
}

impl Hub {
    /// The hub that `HF_ENDPOINT` and `HF_TOKEN` name.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn from_env() -> Result<Self, HubError> {
        let set = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|v| !v.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => Err(HubError::Setting(format!("{name} is not UTF-8 text"))),
        };
        let endpoint = set("HF_ENDPOINT")?;
        Self::new(endpoint.as_deref().unwrap_or(ENDPOINT), set("HF_TOKEN")?, Patience::default())
    }

    /// The hub at `endpoint`, an `http(s)://` address.
    ///
    /// # Errors
    /// When address or token cannot be used.
    pub fn new(endpoint: &str, token: Option<String>, patience: Patience) -> Result<Self, HubError> {
        let endpoint = Url::parse(endpoint.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .filter(|url| url.username().is_empty() && url.password().is_none() && url.query().is_none())
            .ok_or_else(|| {
                HubError::Setting("HF_ENDPOINT is not an address such as https://hub.example".into())
            })?;
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(HubError::Setting("HF_TOKEN holds characters that no token has".into()));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("camscribe/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.connect))
            .timeout_per_read(Some(patience.stall))
            .tls_config(TlsConfig::builder().root_certs(roots()).build());
        if is_loopback(&endpoint) {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().new_agent(), endpoint, token, patience })
    }

    /// The address of what the hub knows about a model at a revision, sizes and hashes included.
    pub(super) fn listing_url(&self, model: &str, revision: &str) -> String {
        let revision = id::escape(revision);
        format!("{}/api/models/{model}/revision/{revision}?blobs=true", self.base())
    }

    /// The address of a file.
    pub(super) fn file_url(&self, model: &str, commit: &str, name: &str) -> String {
        format!("{}/{model}/resolve/{commit}/{name}", self.base())
    }

    fn base(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// For sentences: where this hub is.
    pub(super) fn name(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }

    /// Whether it was given a token.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Asks for `url`, follows redirects, and returns whatever answer stands at their end.
    pub(super) fn get(&self, url: &str, from: Option<ResumeAt<'_>>) -> Result<Response<Body>, String> {
        let mut url = Url::parse(url).map_err(|e| e.to_string())?;
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(url.as_str());
            if let Some(token) = self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(ResumeAt { byte, etag }) = from {
                request = request.header(header::RANGE, format!("bytes={byte}-"));
                if let Some(etag) = etag {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            let answer = request.call().map_err(|e| in_words(&e, &url))?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = text(answer.headers(), "location").and_then(|to| url.join(to).ok());
            let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
            let Some(next) = next else { return Err("the server redirects to nowhere".into()) };
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err("the server redirects from https to http, which is not safe".into());
            }
            url = next;
        }
        Err(format!("the server redirects more than {MAX_REDIRECTS} times"))
    }
}

/// A header's text, if it is there and is text.
pub(super) fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The authorities that this machine trusts, private ones included; on a machine that has none,
/// those that Mozilla trusts.
fn roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs().certs;
    if found.is_empty() {
        return RootCerts::WebPki;
    }
    found.iter().map(|cert| Certificate::from_der(cert.as_ref()).to_owned()).into()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// What a person can do something about, without the address's query: a redirect's may hold a signature.
fn in_words(error: &ureq::Error, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match error {
        ureq::Error::HostNotFound => format!("there is no host {host}, or no network"),
        ureq::Error::ConnectionFailed => format!("cannot connect to {host}"),
        ureq::Error::Timeout(_) => format!("{host} does not answer"),
        ureq::Error::Io(e) => format!("the connection to {host} broke: {e}"),
        other => format!("{host}: {other}"),
    }
}
