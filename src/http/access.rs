//! Who may come in: the token, the names under which browsers may ask for this server, and TLS.
//!
//! A page in a browser of this machine can send requests to loopback, and by DNS rebinding even read the answers. So
//! whoever has no token must ask for this machine by a name of its own (`Host`), and what a page of another origin asks
//! (`Origin`) is refused.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            AUTHORIZATION, CONTENT_SECURITY_POLICY, COOKIE as COOKIE_HEADER, HOST, ORIGIN,
            X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
        },
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use rustls::ServerConfig;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::{
    api_error::ApiError,
    page,
    tls::{ServerTlsError, server_config},
};
use crate::config::Secret;

/// How the name of the cookie of who is logged in begins. The port follows: browsers send a cookie to all ports of a host,
/// and each may be another node's.
pub(super) const COOKIE: &str = "camscribe-";
/// Begins what is hashed for the cookie's value, which is worth nothing elsewhere.
const COOKIE_CONTEXT: &str = "camscribe login\n";

/// What an answer may load that is no page.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

/// Who may come in, and how. Token and certificate may change while the server runs.
pub struct Access {
    /// What clients have to send; none: nothing.
    token: RwLock<Option<Secret>>,
    /// Changes with the token.
    token_changes: watch::Sender<()>,
    /// Only this machine can connect.
    is_loopback: bool,
    /// The cookie of who is logged in.
    pub(super) cookie_name: String,
    tls: Option<Tls>,
}

struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    config: RwLock<Arc<ServerConfig>>,
}

impl Access {
    /// Access to a server at `address`, for who has the token if there is one. `tls` are the PEM files of certificate
    /// and key.
    ///
    /// # Errors
    /// When certificate and key cannot be used.
    pub fn new(
        address: SocketAddr,
        token: Option<Secret>,
        tls: Option<(PathBuf, PathBuf)>,
    ) -> Result<Self, ServerTlsError> {
        let tls = tls.map(|(certificate, key)| {
            let config = RwLock::new(Arc::new(server_config(&certificate, &key)?));
            Ok::<_, ServerTlsError>(Tls { certificate, key, config })
        });
        let is_loopback = address.ip().to_canonical().is_loopback();
        let cookie_name = format!("{COOKIE}{}", address.port());
        let token_changes = watch::Sender::new(());
        Ok(Self { token: RwLock::new(token), token_changes, is_loopback, cookie_name, tls: tls.transpose()? })
    }

    /// Takes another token, and reads certificate and key again, which may have been renewed.
    pub fn refresh(&self, token: Option<Secret>) {
        let old = std::mem::replace(
            &mut *self.token.write().unwrap_or_else(PoisonError::into_inner),
            token.clone(),
        );
        if old != token {
            tracing::info!("HTTP asks for another token from now on");
            self.token_changes.send_replace(());
        }
        let Some(tls) = &self.tls else { return };
        match server_config(&tls.certificate, &tls.key) {
            Ok(config) => *tls.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config),
            Err(error) => tracing::error!("the certificate of HTTP stays as it was: {error}"),
        }
    }

    pub(super) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// What begins TLS; none: there is none.
    pub(super) fn tls_acceptor(&self) -> Option<TlsAcceptor> {
        let config = self.tls.as_ref()?.config.read().unwrap_or_else(PoisonError::into_inner);
        Some(TlsAcceptor::from(Arc::clone(&config)))
    }

    /// What a browser sends that is logged in.
    pub(super) fn sent_cookie<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let all = headers.get_all(COOKIE_HEADER).into_iter().filter_map(|value| value.to_str().ok());
        let mut cookies =
            all.flat_map(|value| value.split(';')).filter_map(|cookie| cookie.trim().split_once('='));
        cookies.find(|(name, _)| *name == self.cookie_name).map(|(_, value)| value)
    }

    /// Tells when the token has changed, from now on.
    pub(super) fn token_changes(&self) -> watch::Receiver<()> {
        self.token_changes.subscribe()
    }

    /// Whether a token is asked for.
    pub(super) fn asks_for_token(&self) -> bool {
        self.token.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// The cookie's value for who sends this token. `None`: it is wrong, or none is asked for.
    pub(super) fn cookie_for(&self, sent: &str) -> Option<String> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let token = token.as_ref()?.expose();
        is_same(sent.trim(), token).then(|| cookie(token))
    }

    /// Refuses a request that may not come in.
    fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), ApiError> {
        if matches!(path, "/healthz" | "/readyz") {
            return Ok(());
        }
        if !is_same_origin(method, headers) {
            let why = "a page of another origin asks, which is not allowed";
            return Err(ApiError::forbidden(why));
        }
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        let is_right = |token: &Secret| {
            sent_token(headers).is_some_and(|sent| is_same(sent, token.expose()))
                || self.sent_cookie(headers).is_some_and(|sent| is_same(sent, &cookie(token.expose())))
        };
        // The page itself shows nothing, and asks for the token.
        let is_page = page::is_of_page(path) || matches!(path, "/api/login" | "/api/logout");
        let is_open = is_page || self.is_loopback && (token.is_none() || path == "/metrics");
        match token.as_ref() {
            Some(token) if is_right(token) => Ok(()),
            // Any name will do for the page where a token guards what it shows.
            Some(_) if is_page => Ok(()),
            _ if is_open && names_this_machine(headers) => Ok(()),
            _ if is_open => Err(ApiError::forbidden(
                "the name in the header Host is none of this machine's loopback: ask for localhost or 127.0.0.1, or set \
                 http.token_file, with which any name will do",
            )),
            _ => Err(ApiError::unauthorised()),
        }
    }
}

/// Lets a request in, or answers why not.
pub(super) async fn check(State(access): State<Arc<Access>>, request: Request, next: Next) -> Response {
    match access.check(request.method(), request.uri().path(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => {
            if error.status() == StatusCode::UNAUTHORIZED {
                tracing::debug!("HTTP: a request without the right token");
            }
            error.into_response()
        }
    }
}

/// Keeps browsers from taking an answer for something else, and pages of other origins from showing it.
pub(super) async fn guard(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-resource-policy", HeaderValue::from_static("same-origin"));
    headers.entry(CONTENT_SECURITY_POLICY).or_insert(HeaderValue::from_static(NOTHING));
    response
}

/// What a client sends as its token.
fn sent_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// The value of the cookie of who knows this token. With another token it is another one.
fn cookie(token: &str) -> String {
    let hash = Sha256::new().chain_update(COOKIE_CONTEXT).chain_update(token).finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares in a time that tells nothing of how much is the same.
fn is_same(sent: &str, token: &str) -> bool {
    let hash = |text: &str| <[u8; 32]>::from(Sha256::digest(text));
    hash(sent).ct_eq(&hash(token)).into()
}

/// Whether the header `Host` names this machine. HTTP/1.0, which no browser speaks, has no such header.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else {
        return false;
    };
    let name = authority.host();
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// Whether the request comes from no page, or from one of this server; or it opens a page.
fn is_same_origin(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // A picture or a script in a page of another origin is asked for without an Origin.
    let site = text("sec-fetch-site").map(str::to_ascii_lowercase);
    let is_foreign = matches!(site.as_deref(), Some("cross-site" | "same-site"));
    if is_foreign && !(text("sec-fetch-mode") == Some("navigate") && method.is_safe()) {
        return false;
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let of_page = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    let Some((scheme, of_page)) = of_page.filter(|_| headers.get_all(ORIGIN).iter().count() == 1) else {
        return false;
    };
    let default = if scheme == "https" { ":443" } else { ":80" };
    let plain = |host: &str| host.strip_suffix(default).unwrap_or(host).to_ascii_lowercase();
    // A proxy may ask by another name, and says by which it was asked. No page of another origin can set that header.
    let asked = [text(HOST.as_str()), text("x-forwarded-host")];
    asked.into_iter().flatten().any(|asked| plain(of_page) == plain(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, token: Option<&str>) -> Access {
        Access::new(address.parse().unwrap(), token.map(Secret::new), None).unwrap()
    }

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(access: &Access, path: &str, list: &[(&'static str, &str)]) -> u16 {
        access
            .check(&Method::GET, path, &headers(list))
            .map_or_else(|error| error.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_token_is_asked_for_everything_but_health_and_metrics_on_loopback() {
        let (near, far) =
            (access("127.0.0.1:1", Some("s3cret-token")), access("0.0.0.0:1", Some("s3cret-token")));
        let host = ("host", "localhost:1");
        for (path, on_loopback, elsewhere) in
            [("/healthz", 200, 200), ("/readyz", 200, 200), ("/metrics", 200, 401), ("/v1/models", 401, 401)]
        {
            assert_eq!(status(&near, path, &[host]), on_loopback, "{path}");
            assert_eq!(status(&far, path, &[host]), elsewhere, "{path}");
            let right = ("authorization", "bearer s3cret-token");
            assert_eq!(status(&far, path, &[("host", "cam.example"), right]), 200, "{path}");
        }
        for wrong in
            ["Bearer s3cret-toke", "Bearer s3cret-token2", "Bearer", "Basic s3cret-token", "s3cret-token"]
        {
            assert_eq!(status(&far, "/v1/models", &[host, ("authorization", wrong)]), 401, "{wrong}");
        }
        far.refresh(Some(Secret::new("another")));
        assert_eq!(status(&far, "/metrics", &[host, ("authorization", "Bearer s3cret-token")]), 401);
        assert_eq!(status(&far, "/metrics", &[host, ("authorization", "Bearer another")]), 200);
    }

    #[test]
    fn without_a_token_only_names_of_loopback_are_served() {
        let access = access("127.0.0.1:1", None);
        for (host, wanted) in [
            ("localhost", 200),
            ("LOCALHOST:9180", 200),
            ("127.0.0.1:9180", 200),
            ("127.8.9.1", 200),
            ("[::1]:9180", 200),
            ("evil.example", 403),
            ("localhost.evil.example", 403),
            ("192.0.2.1", 403),
            ("127.0.0.1.evil.example", 403),
            ("a b", 403),
        ] {
            assert_eq!(status(&access, "/v1/models", &[("host", host)]), wanted, "{host}");
            assert_eq!(status(&access, "/metrics", &[("host", host)]), wanted, "{host}");
            assert_eq!(status(&access, "/healthz", &[("host", host)]), 200, "{host}");
        }
        assert_eq!(status(&access, "/metrics", &[]), 200);
    }

    #[test]
    fn pages_of_another_origin_are_refused_with_and_without_a_token() {
        let access = access("127.0.0.1:1", Some("t"));
        let right = ("authorization", "Bearer t");
        for (origin, host, wanted) in [
            ("http://localhost:9180", "localhost:9180", 200),
            ("https://cam.example", "cam.example", 200),
            ("https://cam.example:443", "CAM.example", 200),
            ("http://localhost:3000", "localhost:9180", 403),
            ("http://evil.example", "localhost:9180", 403),
            ("null", "localhost:9180", 403),
        ] {
            assert_eq!(
                status(&access, "/v1/models", &[right, ("host", host), ("origin", origin)]),
                wanted,
                "{origin}"
            );
        }
    }
}
