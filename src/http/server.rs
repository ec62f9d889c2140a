//! The port that the server listens on, and the router that joins all groups of routes.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::{
    connection_limit::LimitedListener,
    status::{self, StatusSource},
};

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for metrics and health: {cause}; choose another http.listen, or \"\" for none"
)]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// Listens on `address`.
///
/// # Errors
/// When another program uses the port, or this machine does not have the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let failed = |cause| BindError { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    tracing::info!("metrics and health at http://{bound}/metrics, /healthz and /readyz");
    Ok(listener)
}

/// Answers requests until the task is aborted.
pub async fn serve(listener: TcpListener, status: StatusSource) {
    let router = status::router(status);
    if let Err(error) = axum::serve(LimitedListener::new(listener), router).await {
        tracing::error!("the HTTP server stopped, metrics and health are no longer served: {error}");
    }
}
