//! A listener with a limit on open connections, so that a client that opens thousands cannot use up the file
//! descriptors that cameras and broker need. A new connection takes the place of the one that has been silent for the
//! longest time, so that clients which say nothing keep nobody out. A connection without requests for a while is
//! closed.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::{self, Instant, Sleep},
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The limit. Monitoring of one machine needs far fewer.
const MAX_CONNECTIONS: usize = 32;
/// A connection is closed when nothing was read for this long. Scrapers ask more often.
const IDLE_LIMIT: Duration = Duration::from_secs(120);
/// The longest life of a connection, so that one that sends a byte now and then does not stay for ever. Scrapers
/// connect again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// See the module.
pub(super) struct LimitedListener {
    listener: TcpListener,
    started: Instant,
    open: Vec<Weak<Slot>>,
}

/// What the listener knows of a connection.
struct Slot {
    /// When something was read last, milliseconds since the listener began.
    last_read: AtomicU64,
    /// Another connection needs the place.
    evicted: CancellationToken,
}

impl LimitedListener {
    pub fn new(listener: TcpListener) -> Self {
        Self { listener, started: Instant::now(), open: Vec::new() }
    }

    /// Makes room for one more connection.
    fn make_room(&mut self) {
        self.open.retain(|slot| slot.strong_count() > 0);
        let open = self.open.iter().filter_map(Weak::upgrade).filter(|slot| !slot.evicted.is_cancelled());
        let open: Vec<Arc<Slot>> = open.collect();
        if open.len() >= MAX_CONNECTIONS
            && let Some(silent) = open.iter().min_by_key(|slot| slot.last_read.load(Ordering::Relaxed))
        {
            silent.evicted.cancel();
        }
    }
}

impl Listener for LimitedListener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.make_room();
        let slot = Arc::new(Slot { last_read: AtomicU64::new(0), evicted: CancellationToken::new() });
        let connection = Connection {
            stream,
            idle: Box::pin(time::sleep(IDLE_LIMIT)),
            end: Instant::now() + MAX_AGE,
            evicted: Box::pin(slot.evicted.clone().cancelled_owned()),
            slot,
            listening_since: self.started,
        };
        connection.note_read();
        self.open.push(Arc::downgrade(&connection.slot));
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that gives its place back when it ends.
pub(super) struct Connection {
    stream: TcpStream,
    /// Elapses when nothing was read for too long.
    idle: Pin<Box<Sleep>>,
    /// When it is closed in any case.
    end: Instant,
    /// Ends when another connection needs the place.
    evicted: Pin<Box<WaitForCancellationFutureOwned>>,
    slot: Arc<Slot>,
    listening_since: Instant,
}

impl Connection {
    fn note_read(&self) {
        let millis = self.listening_since.elapsed().as_millis();
        self.slot.last_read.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Fails if another connection needs the place.
    fn poll_evicted(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.evicted.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_evicted(cx)?;
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if read.is_ready() {
            self.note_read();
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
        self.poll_evicted(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
