//! `/metrics`, `/healthz` and `/readyz`.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{ACCEPT, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};

use crate::{lifecycle::HealthStatus, metrics::TextFormat};

/// The functions that know the answers.
pub struct StatusSource {
    /// Returns all metrics as text of this format. May block on a lock.
    pub metrics: Box<dyn Fn(TextFormat) -> String + Send + Sync>,
    /// Whether this process works. Must not block.
    pub health: Box<dyn Fn() -> HealthStatus + Send + Sync>,
    /// Whether clips are being described. Must not block.
    pub ready: Box<dyn Fn() -> HealthStatus + Send + Sync>,
}

/// The routes of this module.
pub(super) fn router(source: StatusSource) -> Router {
    type Source = State<Arc<StatusSource>>;
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|State(source): Source| async move { answer((source.health)()) }))
        .route("/readyz", get(|State(source): Source| async move { answer((source.ready)()) }))
        .with_state(Arc::new(source))
}

async fn metrics_page(State(source): State<Arc<StatusSource>>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let format = TextFormat::accepted(accept);
    match tokio::task::spawn_blocking(move || (source.metrics)(format)).await {
        Ok(page) => ([(CONTENT_TYPE, format.content_type())], page).into_response(),
        Err(panic) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{panic}\n")).into_response(),
    }
}

/// 200, or 503 with the reason.
fn answer(status: HealthStatus) -> Response {
    match status {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
