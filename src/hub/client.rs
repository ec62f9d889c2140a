//! HTTP with the hub: one request at a time. Redirects are followed here, so that the token is sent to the
//! hub's own address and nowhere else. Answers that refuse become error texts.
//!
//! Written by hand: the crate `hf-hub` neither resumes a download nor checks hashes.

use std::{env, fmt};

use ureq::{
    Agent, Body,
    http::{HeaderMap, Response, header},
    tls::{Certificate, RootCerts, TlsConfig},
};
use url::Url;

use super::{
    error::HubError,
    id,
    progress::PullProgress,
    retry::{Failure, RetryPolicy},
};

/// The hub that is used when `HF_ENDPOINT` is not set.
const ENDPOINT: &str = "https://huggingface.co";
/// More redirects than any hub needs.
const MAX_REDIRECTS: usize = 6;

/// A server that models are downloaded from.
pub struct HubClient {
    agent: Agent,
    endpoint: Url,
    /// Secret: `Debug` does not show it.
    token: Option<String>,
    policy: RetryPolicy,
}

impl fmt::Debug for HubClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HubClient({})", self.endpoint)
    }
}

/// The byte from which on a file is requested.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResumeAt<'a> {
    pub byte: u64,
    /// The strong ETag of the answer that the earlier bytes came with. If the file has another one by now,
    /// the server sends it from its start.
    pub etag: Option<&'a str>,
}

impl HubClient {
    /// A client for the hub at `HF_ENDPOINT` with the token `HF_TOKEN`.
    ///
    /// # Errors
    /// When one of the two variables cannot be used.
    pub fn from_env() -> Result<Self, HubError> {
        let set = |name: &str| match env::var(name) {
            Ok(value) => Ok(Some(value.trim().to_owned()).filter(|v| !v.is_empty())),
            Err(env::VarError::NotPresent) => Ok(None),
            Err(env::VarError::NotUnicode(_)) => {
                Err(HubError::Environment(format!("{name} is not UTF-8 text")))
            }
        };
        let endpoint = set("HF_ENDPOINT")?;
        Self::new(endpoint.as_deref().unwrap_or(ENDPOINT), set("HF_TOKEN")?, RetryPolicy::default())
    }

    /// A client for the hub at `endpoint`, an `http://` or `https://` address.
    ///
    /// # Errors
    /// When the address or the token cannot be used.
    pub fn new(endpoint: &str, token: Option<String>, policy: RetryPolicy) -> Result<Self, HubError> {
        let endpoint = Url::parse(endpoint.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .filter(|url| url.username().is_empty() && url.password().is_none() && url.query().is_none())
            .ok_or_else(|| {
                HubError::Environment("HF_ENDPOINT is not an address such as https://hub.example".into())
            })?;
        if token.as_ref().is_some_and(|t| !t.bytes().all(|b| b.is_ascii_graphic())) {
            return Err(HubError::Environment("HF_TOKEN holds characters that a token cannot have".into()));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("camscribe/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(policy.connect))
            .timeout_connect(Some(policy.connect))
            .timeout_recv_response(Some(policy.connect))
            .timeout_per_read(Some(policy.stall))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()).build());
        if is_loopback(&endpoint) {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().new_agent(), endpoint, token, policy })
    }

    /// The URL of the description of a model at a revision, with the sizes and hashes of its files.
    pub(super) fn listing_url(&self, model: &str, revision: &str) -> String {
        let revision = id::escape(revision);
        format!("{}/api/models/{model}/revision/{revision}?blobs=true", self.base())
    }

    /// The URL of a file.
    pub(super) fn file_url(&self, model: &str, commit: &str, name: &str) -> String {
        format!("{}/{model}/resolve/{commit}/{name}", self.base())
    }

    fn base(&self) -> &str {
        self.endpoint.as_str().trim_end_matches('/')
    }

    /// The hub's host, for messages.
    pub(super) fn name(&self) -> &str {
        self.endpoint.host_str().unwrap_or_default()
    }

    /// Calls `attempt` as [`RetryPolicy::run`] does.
    ///
    /// # Errors
    /// As [`RetryPolicy::run`].
    pub(super) fn retry<T>(
        &self,
        what: &str,
        progress: &mut dyn FnMut(PullProgress<'_>),
        received: impl Fn() -> u64,
        attempt: impl FnMut(&mut dyn FnMut(PullProgress<'_>)) -> Result<T, Failure>,
    ) -> Result<T, HubError> {
        self.policy.run(&format!("{what} from {}", self.name()), progress, received, attempt)
    }

    /// Requests `url`, follows redirects and returns the final answer, whatever its status.
    ///
    /// # Errors
    /// A sentence about the network or about a redirect that is refused.
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
            let answer = request.call().map_err(|e| network_error(&e, &url))?;
            if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            let next = header_text(answer.headers(), "location").and_then(|to| url.join(to).ok());
            let next = next.filter(|next| matches!(next.scheme(), "http" | "https"));
            let Some(next) = next else { return Err("the server redirects to an invalid address".into()) };
            if url.scheme() == "https" && next.scheme() == "http" {
                return Err("the server redirects from https to http, which is not safe".into());
            }
            url = next;
        }
        Err(format!("the server redirects more than {MAX_REDIRECTS} times"))
    }

    /// Checks the status of an answer to a request for `what`.
    ///
    /// # Errors
    /// A failure with a sentence for the user, when the answer is not a success.
    pub(super) fn check_status(&self, what: &str, answer: &Response<Body>) -> Result<(), Failure> {
        let host = self.name();
        let code = header_text(answer.headers(), "x-error-code").unwrap_or_default();
        let refused = |why: String| Err(Failure::Final(HubError::Refused(why)));
        match (answer.status().as_u16(), code) {
            (200..=299, _) => Ok(()),
            (404, "RevisionNotFound") => {
                refused(format!("{host} has no such revision of the model: {what}; check its spelling"))
            }
            (404, _) => refused(format!("{host} has no {what}: check the spelling of model and revision")),
            (401, _) if self.token.is_none() => refused(format!(
                "{host} does not show {what} without a token: check its spelling; if it is private or gated, \
                 set HF_TOKEN"
            )),
            (401, _) => refused(format!("{host} does not accept the token in HF_TOKEN for {what}")),
            (403, _) => refused(format!(
                "{host} forbids access to {what}: accept the model's licence on its page there, and set \
                 HF_TOKEN to a token with read access"
            )),
            (status @ (408 | 425 | 429 | 500..=599), _) => Err(Failure::Transient {
                why: format!("{host} answers {status} for {what}"),
                retry_after: header_text(answer.headers(), "retry-after").and_then(|s| s.parse().ok()),
            }),
            (status, _) => refused(format!("{host} answers {status} for {what}")),
        }
    }
}

/// The value of a header, if it is there and is text.
pub(super) fn header_text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// The certificate authorities that this machine trusts, private ones included. A machine without any gets
/// those that Mozilla trusts.
fn root_certificates() -> RootCerts {
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

/// The text of a network error. It leaves out the query of the URL, which may hold a signature after a
/// redirect.
fn network_error(error: &ureq::Error, url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match error {
        ureq::Error::HostNotFound => format!("the host {host} is unknown, or there is no network"),
        ureq::Error::ConnectionFailed => format!("cannot connect to {host}"),
        ureq::Error::Timeout(_) => format!("{host} does not answer"),
        ureq::Error::Io(e) => format!("the connection to {host} broke: {e}"),
        other => format!("{host}: {other}"),
    }
}
