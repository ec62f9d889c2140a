//! Answers as they are made: a stream of server-sent events.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{Sender, channel, error::SendError},
    time,
};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    super::api_error::ApiError,
    answer::Answer,
    documents::{Head, delta},
};
use crate::answer::Part;

/// Events that wait for a slow client. When there are more, the answer waits, too.
const EVENTS_WAITING: usize = 16;
/// A comment is sent when there was nothing else for this long, so that proxies do not give up.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What the events of an answer hold.
pub struct Style {
    pub head: Head,
    /// The probabilities of tokens.
    pub has_scores: bool,
    /// At the end, the number of tokens.
    pub with_usage: bool,
}

type Event = Result<Bytes, Infallible>;

/// Sends `answer` as it is made.
pub fn stream(answer: Answer, style: Style) -> Response {
    let (events, receiver) = channel(EVENTS_WAITING);
    tokio::spawn(async move {
        let client = events.clone();
        // Where the client goes away, the answer is dropped, which takes the question back.
        tokio::select! {
            _ = send(answer, style, events) => {}
            () = client.closed() => {}
        }
    });
    let headers = [(CONTENT_TYPE, "text/event-stream"), (CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(ReceiverStream::new(receiver))).into_response()
}

async fn send(mut answer: Answer, style: Style, events: Sender<Event>) -> Result<(), SendError<Event>> {
    let Style { head, has_scores, with_usage } = style;
    let chunk = |choice| event(&head.chunk(choice, with_usage));
    events.send(chunk(delta(json!({"role": "assistant", "content": ""}), None, None))).await?;
    loop {
        let Ok(part) = time::timeout(KEEP_ALIVE, answer.next()).await else {
            events.send(Ok(Bytes::from_static(b": waiting\n\n"))).await?;
            continue;
        };
        match part {
            Part::Piece(piece) if piece.text.is_empty() && piece.scores.is_empty() => {}
            Part::Piece(piece) => {
                let scores = has_scores.then_some(&*piece.scores);
                events.send(chunk(delta(json!({"content": piece.text}), scores, None))).await?;
            }
            Part::End(Ok(description)) => {
                events.send(chunk(delta(json!({}), None, Some(description.finish_reason)))).await?;
                if with_usage {
                    events.send(event(&head.usage_chunk(description.tokens))).await?;
                }
                break;
            }
            Part::End(Err(error)) => {
                events.send(event(&ApiError::from(error).document())).await?;
                break;
            }
        }
    }
    events.send(Ok(Bytes::from_static(b"data: [DONE]\n\n"))).await
}

fn event(document: &Value) -> Event {
    Ok(format!("data: {document}\n\n").into())
}
