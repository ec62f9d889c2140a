//! A limit on open connections, so that a client that opens thousands cannot use up the file descriptors that cameras
//! and broker need. A new connection takes the place of the one that has been silent for the longest time, so that
//! clients which say nothing keep nobody out. A connection whose question is being answered is never the one.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{self, Instant, Sleep},
};
use tokio_util::sync::CancellationToken;

/// A client that takes nothing of its answer for this long is left alone.
const WRITE_LIMIT: Duration = Duration::from_secs(60);

/// The open connections.
pub(super) struct Connections {
    most: usize,
    started: Instant,
    open: Vec<Weak<Connection>>,
}

/// What is known of a connection.
pub(super) struct Connection {
    listening_since: Instant,
    /// When something was read last, milliseconds since `listening_since`.
    last_read: AtomicU64,
    /// Questions to the model that are being answered.
    questions: AtomicUsize,
    /// Another connection needs the place.
    evicted: CancellationToken,
}

impl Connections {
    /// None yet, of at most `most`.
    pub fn new(most: usize) -> Self {
        Self { most, started: Instant::now(), open: Vec::new() }
    }

    /// Takes a new connection in, in place of another one where there are too many. None: all are busy.
    pub fn admit(&mut self) -> Option<Arc<Connection>> {
        self.open.retain(|connection| connection.strong_count() > 0);
        let open = self.open.iter().filter_map(Weak::upgrade);
        let open: Vec<_> = open.filter(|connection| !connection.evicted.is_cancelled()).collect();
        if open.len() >= self.most {
            let idle = open.iter().filter(|connection| !connection.is_busy());
            idle.min_by_key(|connection| connection.last_read.load(Ordering::Relaxed))?.evicted.cancel();
        }
        let connection = Arc::new(Connection {
            listening_since: self.started,
            last_read: AtomicU64::new(0),
            questions: AtomicUsize::new(0),
            evicted: CancellationToken::new(),
        });
        connection.note_read();
        self.open.push(Arc::downgrade(&connection));
        Some(connection)
    }
}

impl Connection {
    fn note_read(&self) {
        let millis = self.listening_since.elapsed().as_millis();
        self.last_read.store(u64::try_from(millis).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn is_busy(&self) -> bool {
        self.questions.load(Ordering::Relaxed) > 0
    }

    /// Waits until another connection needs the place.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Keeps the connection from being evicted for as long as the value lives.
    pub fn hold(self: Arc<Self>) -> Held {
        self.questions.fetch_add(1, Ordering::Relaxed);
        Held(self)
    }
}

/// See [`Connection::hold`].
pub(super) struct Held(Arc<Connection>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.note_read();
        self.0.questions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A stream that takes note of what is read, and fails when what is written is not taken.
pub(super) struct WatchedStream<S> {
    stream: S,
    connection: Arc<Connection>,
    write_limit: Duration,
    /// Elapses when nothing could be written for too long. None while writing goes on.
    stuck: Option<Pin<Box<Sleep>>>,
}

impl<S> WatchedStream<S> {
    /// `stream`, of `connection`.
    pub fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self { stream, connection, write_limit: WRITE_LIMIT, stuck: None }
    }

    /// Fails if writing has been `pending` for too long.
    fn watch<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        let limit = self.write_limit;
        let stuck = self.stuck.get_or_insert_with(|| Box::pin(time::sleep(limit)));
        match stuck.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WatchedStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        to: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if read.is_ready() {
            self.connection.note_read();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WatchedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, from);
        self.watch(written, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_silent_connection_gives_its_place_unless_it_is_being_answered() {
        let mut connections = Connections::new(2);
        let (first, second) = (connections.admit().unwrap(), connections.admit().unwrap());
        first.last_read.store(1, Ordering::Relaxed);
        second.last_read.store(2, Ordering::Relaxed);
        let held = Arc::clone(&first).hold();
        let third = connections.admit().unwrap();
        assert!(second.evicted.is_cancelled() && !first.evicted.is_cancelled());
        let also_held = Arc::clone(&third).hold();
        assert!(connections.admit().is_none());
        drop(also_held);
        let _fourth = connections.admit().unwrap();
        assert!(third.evicted.is_cancelled());
        drop(held);
        first.last_read.store(0, Ordering::Relaxed);
        assert!(connections.admit().is_some() && first.evicted.is_cancelled());
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_left_alone() {
        use tokio::io::AsyncWriteExt;
        let connection = Connections::new(1).admit().unwrap();
        let (near, _far) = tokio::io::duplex(16);
        let write_limit = Duration::from_millis(20);
        let mut stream = WatchedStream { stream: near, connection, write_limit, stuck: None };
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
