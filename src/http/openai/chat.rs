//! `POST /v1/chat/completions`.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{
    super::{api_error::ApiError, connections::Connection, exchange::Exchange},
    answer::Answer,
    body::Chat,
    documents::Head,
    intake::{Api, Question},
    source::NotAsked,
    sse,
};
use crate::answer::{Description, Part, TokenScore};

/// How long the first words are waited for before a stream begins: what fails until then is answered with a status of
/// its own.
const PATIENCE: Duration = Duration::from_secs(2);

/// Answers a question.
pub async fn chat(
    State(api): State<Arc<Api>>,
    Extension(connection): Extension<Arc<Connection>>,
    Extension(exchange): Extension<Arc<Exchange>>,
    request: Request,
) -> Result<Response, ApiError> {
    let place = api.place(connection)?;
    let parse = |body: &[u8]| Ok((Chat::parse(body)?, ()));
    let (Question { model, delivery, request, pixels }, ()) = api.read(request, parse).await?;
    let has_scores = request.logprobs.is_some();
    let parts = (api.source.ask)(request).map_err(refused)?;
    let mut answer = Answer::new(parts, pixels, exchange, place);
    let head = Head::new(model.id);
    if !delivery.stream {
        return whole(answer, &head, has_scores).await;
    }
    if let Ok(first) = timeout(PATIENCE, answer.next()).await {
        if let Part::End(Err(error)) = first {
            return Err(error.into());
        }
        answer.put_back(first);
    }
    Ok(sse::stream(answer, sse::Style { head, has_scores, with_usage: delivery.include_usage }))
}

pub(super) fn refused(why: NotAsked) -> ApiError {
    match why {
        NotAsked::Busy => ApiError::busy("the model has as many questions as may wait: ask again later"),
        NotAsked::NotReady(why) => {
            ApiError::unavailable(format!("the model cannot answer: {why}"), Duration::from_secs(10))
        }
    }
}

async fn whole(mut answer: Answer, head: &Head, has_scores: bool) -> Result<Response, ApiError> {
    let mut scores: Vec<TokenScore> = Vec::new();
    let description: Description = loop {
        match answer.next().await {
            Part::Piece(piece) => scores.extend(piece.scores),
            Part::End(end) => break end?,
        }
    };
    let document = head.completion(&description, has_scores.then_some(&*scores));
    Ok(([(CONTENT_TYPE, "application/json")], document.to_string()).into_response())
}
