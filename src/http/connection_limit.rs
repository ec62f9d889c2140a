//! A listener with a limit on open connections, so that a client that opens thousands cannot use up the file
//! descriptors that cameras and broker need. Further connections wait until one is closed. A connection
//! without requests for a while is closed.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{self, Instant, Sleep},
};

/// The limit. Monitoring of one machine needs far fewer.
const MAX_CONNECTIONS: usize = 32;
/// A connection is closed when nothing was read for this long. Scrapers ask more often.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// The longest life of a connection, so that one that sends a byte now and then does not hold its permit for
/// ever. Scrapers connect again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// See the module.
pub(super) struct LimitedListener {
    listener: TcpListener,
    permits: Arc<Semaphore>,
}

impl LimitedListener {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, permits: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The semaphore is never closed, so there always is a permit.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Instant::now() + MAX_AGE;
        (Connection { stream, idle: Box::pin(time::sleep(IDLE_LIMIT)), end, _permit: permit }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that returns its permit when it ends.
pub(super) struct Connection {
    stream: TcpStream,
    /// Elapses when nothing was read for too long.
    idle: Pin<Box<Sleep>>,
    /// When it is closed in any case.
    end: Instant,
    _permit: Option<OwnedSemaphorePermit>,
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if read.is_ready() {
            let next = (Instant::now() + IDLE_LIMIT).min(self.end);
            self.idle.as_mut().reset(next);
        } else if self.idle.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
