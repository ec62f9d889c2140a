//! `/api/live`: what happens, as it happens, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).

use std::{
    collections::{HashSet, VecDeque},
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::{Body, Bytes},
    extract::State,
    http::{
        HeaderMap,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        mpsc::{Sender, channel, error::SendError},
    },
    time::{Instant, sleep_until, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use uuid::Uuid;

use super::{access::Access, api_error::ApiError, connections::Connection};

/// The most clients that are told at a time.
pub(super) const MAX_STREAMS: usize = 64;
/// Messages that a slow client may be behind. After that it is told that it missed some.
const MESSAGES_WAITING: usize = 256;
/// Messages that are kept for those who come back.
const RECENT: usize = 256;
/// A comment is sent when there was nothing else for this long, so that proxies do not give up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A stream ends after this long, and its client comes again at once: with the token of then.
const MAX_AGE: Duration = Duration::from_secs(600);
/// How long a client waits before it comes again, as its browser is told.
const RECONNECT: &[u8] = b"retry: 2000\n\n";
/// What tells a client that it missed something.
const RESET: &[u8] = b"event: reset\ndata: {}\n\n";
/// The header by which a client says what it has seen last.
const LAST_EVENT_ID: &str = "last-event-id";

/// A message, and the id of the event that it is about, if it is about one.
pub type Message = (Option<Uuid>, Bytes);

/// Returns the events that came after this one from the history. `None`: it does not know that event or is behind, or there
/// were too many.
pub type EventsAfter = Box<dyn Fn(Uuid) -> Option<Vec<Message>> + Send + Sync>;

/// What happens: messages in, streams of clients out.
pub struct Live {
    messages: broadcast::Sender<Message>,
    /// The last messages.
    recent: Mutex<VecDeque<Message>>,
    streams: AtomicUsize,
}

impl Default for Live {
    fn default() -> Self {
        let messages = broadcast::Sender::new(MESSAGES_WAITING);
        Self { messages, recent: Mutex::default(), streams: AtomicUsize::new(0) }
    }
}

impl Live {
    /// Tells all clients. `id`: of the event that it is about, if it is about one. `json` has no line breaks.
    pub fn tell(&self, kind: &str, id: Option<Uuid>, json: &str) {
        let message = (id, message(kind, id, json));
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.push_back(message.clone());
        if recent.len() > RECENT {
            recent.pop_front();
        }
        // In the order of `recent`. Without a client nobody is told.
        let _ = self.messages.send(message);
    }

    /// The messages from now on, and the last ones before.
    fn join(&self) -> (broadcast::Receiver<Message>, Vec<Message>) {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        (self.messages.subscribe(), recent.iter().cloned().collect())
    }
}

/// The messages that a client missed who saw the event `last` as the last one. `recent` are the last messages, `after`
/// knows earlier events. `None`: nobody knows.
fn missed(last: Uuid, recent: Vec<Message>, after: &EventsAfter) -> Option<Vec<Message>> {
    if let Some(seen) = recent.iter().position(|(id, _)| *id == Some(last)) {
        return Some(recent.into_iter().skip(seen + 1).collect());
    }
    let mut missed = after(last)?;
    // Some are told before they are in the history.
    let known: HashSet<_> = missed.iter().filter_map(|(id, _)| *id).collect();
    missed.extend(recent.into_iter().filter(|(id, _)| id.is_some_and(|id| !known.contains(&id))));
    Some(missed)
}

/// An event of a stream.
pub fn message(kind: &str, id: Option<Uuid>, json: &str) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    format!("event: {kind}\n{id}data: {json}\n\n").into()
}

/// What is told, and what knows what was told before.
pub struct LiveSource {
    /// What is told.
    pub live: Arc<Live>,
    /// Knows events that were told longer ago.
    pub after: EventsAfter,
}

/// The routes of this module. `access` knows when the token changes.
pub(super) fn router(source: LiveSource, access: Arc<Access>) -> Router {
    Router::new()
        .route("/api/live", get(stream))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state((Arc::new(source), access))
}

/// A place among the streams.
struct Place(Arc<LiveSource>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.live.streams.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn stream(
    State((source, access)): State<(Arc<LiveSource>, Arc<Access>)>,
    Extension(connection): Extension<Arc<Connection>>,
    headers: HeaderMap,
) -> Response {
    let taken = source.live.streams.fetch_add(1, Ordering::Relaxed);
    let place = Place(Arc::clone(&source));
    if taken >= MAX_STREAMS {
        return ApiError::busy(format!(
            "{MAX_STREAMS} clients watch already: close a page, or come again later"
        ))
        .into_response();
    }
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let (messages, recent) = source.live.join();
    let missed = match last {
        None => Some(Vec::new()),
        Some(last) => {
            let source = Arc::clone(&source);
            let missed = move || missed(last, recent, &source.after);
            tokio::task::spawn_blocking(missed).await.unwrap_or_default()
        }
    };
    let (events, receiver) = channel(1);
    let mut token_changes = access.token_changes();
    tokio::spawn(async move {
        let (_place, _held) = (place, connection.hold());
        let client = events.clone();
        tokio::select! {
            _ = send(missed, messages, events) => {}
            () = client.closed() => {}
            // Whoever has the new one comes again.
            _ = token_changes.changed() => {}
            () = sleep_until(Instant::now() + MAX_AGE) => {}
        }
    });
    // X-Accel-Buffering: as proxies such as nginx call the buffering that would hold messages back.
    let headers = [
        (CONTENT_TYPE.as_str(), "text/event-stream"),
        (CACHE_CONTROL.as_str(), "no-store"),
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

type Chunk = Result<Bytes, Infallible>;

async fn send(
    missed: Option<Vec<Message>>,
    mut messages: broadcast::Receiver<Message>,
    events: Sender<Chunk>,
) -> Result<(), SendError<Chunk>> {
    let reset = || Bytes::from_static(RESET);
    events.send(Ok(Bytes::from_static(RECONNECT))).await?;
    // Those of them that are told meanwhile come a second time.
    let mut sent = HashSet::new();
    for (id, message) in missed.unwrap_or_else(|| vec![(None, reset())]) {
        sent.extend(id);
        events.send(Ok(message)).await?;
    }
    loop {
        let chunk = match timeout(KEEP_ALIVE, messages.recv()).await {
            Ok(Ok((Some(id), _))) if sent.remove(&id) => continue,
            Ok(Ok((_, message))) => message,
            Ok(Err(RecvError::Lagged(_))) => reset(),
            Ok(Err(RecvError::Closed)) => return Ok(()),
            Err(_) => Bytes::from_static(b": waiting\n\n"),
        };
        events.send(Ok(chunk)).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_back_gets_what_was_missed_and_who_missed_too_much_is_told() {
        let live = Live::default();
        let ids: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
        for id in &ids {
            live.tell("event", Some(*id), "{}");
            live.tell("camera", None, "{}");
        }
        let of = |kind, id| (id, message(kind, id, "{}"));
        let nobody: EventsAfter = Box::new(|_| None);
        let (mut messages, recent) = live.join();
        let told = missed(ids[1], recent.clone(), &nobody).unwrap();
        assert_eq!(told, [of("camera", None), of("event", Some(ids[2])), of("camera", None)]);
        assert!(missed(Uuid::nil(), recent.clone(), &nobody).is_none());
        // From the history, as far as that is.
        let (first, second) = (ids[0], ids[1]);
        let history: EventsAfter =
            Box::new(move |_| Some([first, second].map(|id| of("event", Some(id))).into()));
        let told = missed(Uuid::nil(), recent, &history).unwrap();
        assert_eq!(told, [0, 1, 2].map(|number: usize| of("event", Some(ids[number]))));
        live.tell("node", None, "{}");
        assert_eq!(messages.recv().await.unwrap(), of("node", None));
        for _ in 0..=MESSAGES_WAITING {
            live.tell("node", None, "{}");
        }
        let (events, mut sent) = channel(4);
        let sending = tokio::spawn(send(None, messages, events));
        let mut chunks = Vec::new();
        for _ in 0..3 {
            chunks.push(sent.recv().await.unwrap().unwrap());
        }
        sending.abort();
        assert_eq!(
            chunks,
            [Bytes::from_static(RECONNECT), Bytes::from_static(RESET), Bytes::from_static(RESET)]
        );
    }
}
