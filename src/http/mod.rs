//! What other programs ask this one over HTTP: `/metrics`, `/healthz`, `/readyz`. It only carries
//! answers; who knows them hands them in as [`Pages`].

use std::{io, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use self::few::Few;
use crate::metrics;

mod few;

/// Yes, or why not.
pub type Verdict = Result<(), String>;

/// Who answers.
pub struct Pages {
    /// All metrics, as text. May wait for a lock.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// Whether this process does its work. Must not wait.
    pub health: Box<dyn Fn() -> Verdict + Send + Sync>,
    /// Whether clips are being described. Must not wait.
    pub ready: Box<dyn Fn() -> Verdict + Send + Sync>,
}

/// The port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for metrics and health: {cause}; choose another http.listen, or \"\" for none"
)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Takes the port.
///
/// # Errors
/// When another program has it, or this machine has no such address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = |cause| BindError { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics and health at http://{bound}/metrics, /healthz and /readyz");
    Ok(listener)
}

/// Answers for ever.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let router = Router::new()
        .route("/metrics", get(page))
        .route("/healthz", get(|State(pages): State<Arc<Pages>>| async move { verdict((pages.health)()) }))
        .route("/readyz", get(|State(pages): State<Arc<Pages>>| async move { verdict((pages.ready)()) }))
        .with_state(Arc::new(pages));
    if let Err(error) = axum::serve(Few::new(listener), router).await {
        tracing::error!("metrics and health are no longer answered: {error}");
    }
}

async fn page(State(pages): State<Arc<Pages>>) -> Response {
    match tokio::task::spawn_blocking(move || (pages.metrics)()).await {
        Ok(page) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], page).into_response(),
        Err(fault) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{fault}\n")).into_response(),
    }
}

fn verdict(verdict: Verdict) -> Response {
    match verdict {
        Ok(()) => "ok\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}
