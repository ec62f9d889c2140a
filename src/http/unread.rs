//! What clients still send when they are answered already. A connection that is closed before all of it was read is
//! reset, and many clients then never come to the answer. So it is read and thrown away, within bounds.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    extract::Request,
    http::{StatusCode, header::EXPECT},
    middleware::Next,
    response::Response,
};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// How much is read, in bytes, and for how long.
#[derive(Clone, Copy)]
struct Bounds {
    bytes: usize,
    time: Duration,
}

/// Of who may ask: twice what a body may have, as long as it may take.
const OF_CLIENT: Bounds = Bounds { bytes: 128 << 20, time: Duration::from_secs(300) };
/// Of anybody else, and of who was too slow: a question with some images.
const OF_STRANGER: Bounds = Bounds { bytes: 8 << 20, time: Duration::from_secs(5) };
/// Who sends nothing for this long has read the answer.
const PAUSE: Duration = Duration::from_secs(5);

/// Reads what a request still holds once it is answered. The answer goes ahead of that.
pub(super) async fn discard(request: Request, next: Next) -> Response {
    let is_api = request.uri().path().starts_with("/v1/");
    // It is sent on only if something reads it.
    let waits_for_reader = request.headers().contains_key(EXPECT);
    let (rest, mut unread) = oneshot::channel();
    let request =
        request.map(|body| Body::new(Returned { body, was_read: !waits_for_reader, rest: Some(rest) }));
    let response = next.run(request).await;
    let was_let_in = is_api
        && !matches!(
            response.status(),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::REQUEST_TIMEOUT
        );
    if let Ok(body) = unread.try_recv() {
        // It ends with the connection, too.
        tokio::spawn(read_away(body, if was_let_in { OF_CLIENT } else { OF_STRANGER }));
    }
    response
}

async fn read_away(mut body: Body, bounds: Bounds) {
    let end = Instant::now() + bounds.time;
    let mut left = bounds.bytes;
    while let Ok(Some(Ok(frame))) = timeout_at(end.min(Instant::now() + PAUSE), body.frame()).await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// A body that is handed back when its reader has had enough.
struct Returned {
    body: Body,
    was_read: bool,
    rest: Option<oneshot::Sender<Body>>,
}

impl HttpBody for Returned {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.was_read = true;
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Returned {
    fn drop(&mut self) {
        if self.was_read
            && !self.body.is_end_stream()
            && let Some(rest) = self.rest.take()
        {
            let _ = rest.send(std::mem::take(&mut self.body));
        }
    }
}
