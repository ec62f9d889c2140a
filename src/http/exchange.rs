//! What is told of each request once it is over: counters, and a line in the log at debug. Of what was asked and
//! answered it tells sizes only.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::Next,
    response::Response,
};

use crate::{
    event::Tokens,
    metrics::{Metrics, Refusal, Route, StatusClass},
};

/// The longest path that is logged, in characters.
const MAX_PATH: usize = 100;

/// A request and its answer. It is over when the last one who has it drops it: the route, or what sends the answer.
pub(super) struct Exchange {
    metrics: Arc<Metrics>,
    method: Method,
    path: String,
    started: Instant,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    /// None: the client went away before.
    status: Option<StatusCode>,
    has_begun: bool,
    tokens: Option<Tokens>,
}

/// Takes note of a request.
pub(super) async fn note(State(metrics): State<Arc<Metrics>>, mut request: Request, next: Next) -> Response {
    let exchange = Arc::new(Exchange {
        metrics,
        method: request.method().clone(),
        path: request.uri().path().to_owned(),
        started: Instant::now(),
        noted: Mutex::default(),
    });
    request.extensions_mut().insert(Arc::clone(&exchange));
    let response = next.run(request).await;
    exchange.noted().status = Some(response.status());
    response
}

impl Exchange {
    /// Takes note of the first token of the answer.
    pub fn began(&self) {
        if !std::mem::replace(&mut self.noted().has_begun, true) {
            self.metrics.clients.began(self.started.elapsed());
        }
    }

    /// Takes note of the whole answer.
    pub fn answered(&self, tokens: Tokens) {
        self.noted().tokens = Some(tokens);
        self.metrics.clients.answered(tokens, self.started.elapsed());
    }

    fn noted(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let (path, millis) = (self.path.as_str(), self.started.elapsed().as_millis());
        let Noted { status, tokens, .. } = *self.noted();
        self.metrics.clients.request(route(path), class(status), status.and_then(refusal));
        let shown: String = path.chars().take(MAX_PATH).collect();
        let status = status.map_or_else(|| "gone".to_owned(), |status| status.as_u16().to_string());
        let method = &self.method;
        match tokens {
            Some(Tokens { prompt, generated, .. }) => tracing::debug!(
                "HTTP: {method} {shown}: {status} after {millis} ms, {prompt} tokens of the question, {generated} of \
                 the answer"
            ),
            None => tracing::debug!("HTTP: {method} {shown}: {status} after {millis} ms"),
        }
    }
}

fn route(path: &str) -> Route {
    match path {
        "/v1/chat/completions" => Route::Chat,
        "/v1/decisions" => Route::Decisions,
        "/metrics" | "/healthz" | "/readyz" => Route::Status,
        path if path == "/v1/models" || path.starts_with("/v1/models/") => Route::Models,
        _ => Route::Other,
    }
}

fn class(status: Option<StatusCode>) -> StatusClass {
    match status {
        None => StatusClass::Gone,
        Some(status) if status.is_server_error() => StatusClass::ServerError,
        Some(status) if status.is_client_error() => StatusClass::ClientError,
        Some(_) => StatusClass::Success,
    }
}

fn refusal(status: StatusCode) -> Option<Refusal> {
    Some(match status {
        StatusCode::UNAUTHORIZED => Refusal::Unauthorised,
        StatusCode::FORBIDDEN => Refusal::Forbidden,
        StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
        StatusCode::REQUEST_TIMEOUT => Refusal::TooSlow,
        StatusCode::TOO_MANY_REQUESTS => Refusal::Busy,
        StatusCode::SERVICE_UNAVAILABLE => Refusal::Unavailable,
        status if status.is_server_error() => Refusal::Failed,
        status if status.is_client_error() => Refusal::Invalid,
        _ => return None,
    })
}
