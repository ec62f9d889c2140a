//! The port that the server listens on, its connections, and the router that joins all groups of routes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router, middleware};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time,
};

use super::{
    access::{self, Access},
    cameras::{self, CameraSource},
    connections::{Connection, Connections, WatchedStream},
    events::{self, EventsSource},
    exchange,
    live::{self, LiveSource},
    login,
    node::{self, NodeSource},
    openai::{self, ApiSource},
    openapi, page,
    status::{self, StatusSource},
    unread,
};
use crate::metrics::Metrics;

/// How many connections may be open: more than may be told what happens, so that there is always a place for metrics and
/// health.
const MAX_CONNECTIONS: usize = live::MAX_STREAMS * 3;
/// The same where clients put questions to the model: also more than may wait for an answer at a time.
const MAX_CONNECTIONS_WITH_API: usize = MAX_CONNECTIONS + openai::MAX_QUESTIONS * 2;
/// A connection is closed when no request came for this long, or one did not come to the end of its head.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// After this time a connection is closed once its request is answered, so that no client stays for ever.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long the start of TLS may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// The pause after a failure to accept a connection, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} for HTTP: {cause}; choose another http.listen, or \"\" for none")]
pub struct BindError {
    address: SocketAddr,
    cause: io::Error,
}

/// What is served, and to whom.
pub struct Server {
    /// Knows about metrics and health.
    pub status: StatusSource,
    /// Knows how the node is doing.
    pub node: NodeSource,
    /// Knows the cameras, and answers questions about them.
    pub cameras: CameraSource,
    /// Knows the history.
    pub events: EventsSource,
    /// Tells what happens.
    pub live: LiveSource,
    /// Answers questions to the model. None: nobody may ask.
    pub api: Option<ApiSource>,
    /// Who may come in, and how.
    pub access: Arc<Access>,
    /// Where requests are counted.
    pub metrics: Arc<Metrics>,
}

/// Listens on `address` for `server`.
///
/// # Errors
/// When another program uses the port, or this machine does not have the address.
pub async fn bind(address: SocketAddr, server: &Server) -> Result<TcpListener, BindError> {
    let failed = |cause| BindError { address, cause };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let scheme = if server.access.has_tls() { "https" } else { "http" };
    tracing::info!("the page is at {scheme}://{bound}/");
    tracing::info!("metrics and health at {scheme}://{bound}/metrics, /healthz and /readyz");
    if server.api.is_some() {
        tracing::info!("questions to the model at {scheme}://{bound}/v1");
    }
    Ok(listener)
}

/// Answers requests until the task is aborted.
pub async fn serve(listener: TcpListener, server: Server) {
    let Server { status, node, cameras, events, live, api, access, metrics } = server;
    let most = if api.is_some() { MAX_CONNECTIONS_WITH_API } else { MAX_CONNECTIONS };
    let mut connections = Connections::new(most);
    let router = status::router(status)
        .merge(page::router())
        .merge(login::router(Arc::clone(&access)))
        .merge(node::router(node, Arc::clone(&access)))
        .merge(cameras::router(cameras))
        .merge(events::router(events))
        .merge(live::router(live, Arc::clone(&access)))
        .merge(openapi::router())
        .merge(openai::router(api))
        .layer(middleware::from_fn_with_state(Arc::clone(&access), access::check))
        .layer(middleware::map_response(access::guard))
        .layer(middleware::from_fn(unread::discard))
        .layer(middleware::from_fn_with_state(metrics, exchange::note));
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    if let Some(connection) = connections.admit() {
                        tasks.spawn(serve_one(stream, connection, router.clone(), Arc::clone(&access)));
                    }
                }
                // The client has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!("cannot accept a connection to HTTP: {error}");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
}

/// Serves a connection until its end. Its errors are the client's, and nobody needs to know of them.
async fn serve_one(stream: TcpStream, connection: Arc<Connection>, router: Router, access: Arc<Access>) {
    let serve = async {
        match access.tls_acceptor() {
            Some(acceptor) => {
                if let Ok(Ok(stream)) = time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                    serve_stream(stream, Arc::clone(&connection), router).await;
                }
            }
            None => serve_stream(stream, Arc::clone(&connection), router).await,
        }
    };
    tokio::select! {
        () = serve => {}
        () = connection.evicted() => {}
    }
}

async fn serve_stream(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    connection: Arc<Connection>,
    router: Router,
) {
    let stream = TokioIo::new(WatchedStream::new(stream, Arc::clone(&connection)));
    let service = TowerToHyperService::new(router.layer(Extension(connection)));
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_LIMIT)
        .serve_connection(stream, service);
    tokio::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        () = time::sleep(MAX_AGE) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}
