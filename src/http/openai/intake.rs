//! How much is taken at a time, so that clients cannot use up the memory and the processors that cameras need:
//! questions, bytes of bodies (`upload.rs`), bytes of pixels, and threads that decode.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderMap, header::CONTENT_TYPE},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        api_error::ApiError,
        connections::{Connection, Held},
    },
    body::{Chat, Delivery},
    media::Encoded,
    source::{ApiSource, ServedModel},
    upload::{Upload, Uploads},
};
use crate::request;

/// The most questions at a time, those that are still being sent among them.
pub const MAX_QUESTIONS: usize = 128;
/// The pixels of all questions, KiB.
const PIXELS: usize = 768 << 10;
/// The pixels of questions that have few of them, KiB, which those with many do not share, and what few is: a picture of
/// 3840 x 2160 has 24 MB.
const SMALL_PIXELS: usize = 256 << 10;
const FEW_PIXELS: usize = 32 << 10;
/// Threads that decode JSON, base64 and images at a time.
const DECODERS: usize = 2;
/// How long a question waits for memory, and for a thread that decodes.
const MEMORY_WAIT: Duration = Duration::from_secs(30);
const LANE_WAIT: Duration = Duration::from_secs(30);
/// How long the video files of a question may take to decode.
const FILM_LIMIT: Duration = Duration::from_secs(60);

/// What the routes share.
pub struct Api {
    pub source: ApiSource,
    questions: Arc<Semaphore>,
    uploads: Uploads,
    pixels: Arc<Semaphore>,
    small_pixels: Arc<Semaphore>,
    decoders: Arc<Semaphore>,
    /// A video file is decoded by several threads: one at a time.
    films: Arc<Semaphore>,
}

/// The place of a question among those that are taken at a time.
pub struct Place {
    _place: OwnedSemaphorePermit,
    _connection: Held,
}

/// A question that can be put to the model.
pub struct Question {
    pub model: ServedModel,
    pub delivery: Delivery,
    pub request: request::Request,
    /// To be dropped when the model has answered.
    pub pixels: OwnedSemaphorePermit,
}

/// Reads a body: a conversation, and what a route needs beside it.
pub type Parse<T> = fn(&[u8]) -> Result<(Chat, T), ApiError>;

impl Api {
    pub fn new(source: ApiSource) -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        Self {
            source,
            questions: permits(MAX_QUESTIONS),
            uploads: Uploads::new(),
            pixels: permits(PIXELS),
            small_pixels: permits(SMALL_PIXELS),
            decoders: permits(DECODERS),
            films: permits(1),
        }
    }

    /// The model.
    ///
    /// # Errors
    /// When it is being loaded.
    pub fn model(&self) -> Result<ServedModel, ApiError> {
        let loading = || ApiError::unavailable("the model is being loaded", Duration::from_secs(10));
        (self.source.model)().ok_or_else(loading)
    }

    /// A place for a question that comes by `connection`.
    ///
    /// # Errors
    /// When there are as many as may be.
    pub fn place(&self, connection: Arc<Connection>) -> Result<Place, ApiError> {
        let place = Arc::clone(&self.questions).try_acquire_owned();
        let busy =
            |_| ApiError::busy(format!("{MAX_QUESTIONS} questions are being answered: ask again later"));
        Ok(Place { _place: place.map_err(busy)?, _connection: connection.hold() })
    }

    /// Reads a question. `parse` reads its body, and gives what the route needs of it beside the question.
    ///
    /// # Errors
    /// What is wrong with it, or that there is too little memory for it now.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        request: Request,
        parse: Parse<T>,
    ) -> Result<(Question, T), ApiError> {
        check_type(request.headers())?;
        let (head, body) = request.into_parts();
        let Upload { bytes: body, memory: of_body } = self.uploads.read(&head.headers, body).await?;
        let model = self.model()?;
        let scaling = model.frame_scaling;
        let (chat, own, encoded, needed) = work(&self.decoders, move || {
            let (mut chat, own) = parse(&body)?;
            let encoded = Encoded::read(&mut chat, scaling)?;
            let needed = encoded.pixel_bytes()?;
            Ok((chat, own, encoded, needed))
        })
        .await?;
        if let Some(asked) = chat.model.as_ref().filter(|asked| **asked != model.id) {
            return Err(ApiError::no_model(asked, &model.id));
        }
        let needed = needed.div_ceil(1024) as usize;
        let budget = if needed <= FEW_PIXELS { &self.small_pixels } else { &self.pixels };
        let pixels = memory(budget, needed).await?;
        let lane = if encoded.has_film() { &self.films } else { &self.decoders };
        let api = Arc::clone(self);
        // Where the client goes away, this is dropped, and the thread is told.
        let gone = CancellationToken::new();
        let _waiting = gone.clone().drop_guard();
        let (messages, pixels) = work(lane, move || {
            let end = Instant::now() + FILM_LIMIT;
            let is_over = || gone.is_cancelled() || Instant::now() >= end;
            let messages = encoded.decode(chat.sampling, &*api.source.film, &is_over);
            drop(of_body);
            Ok((messages?, pixels))
        })
        .await?;
        let request = request::Request { messages, ..chat.request };
        Ok((Question { model, delivery: chat.delivery, request, pixels }, own))
    }
}

/// Does blocking work on a thread of its own, as many at a time as `lane` has room for.
async fn work<T: Send + 'static>(
    lane: &Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    // The permit belongs to the thread, which goes on where the client goes away.
    let permit = enter(lane, LANE_WAIT).await?;
    let done = task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    match done.await {
        Ok(result) => result,
        Err(panic) => {
            tracing::error!("a question could not be read: {panic}");
            Err(ApiError::internal("the question could not be read: the log says more"))
        }
    }
}

/// Waits for a place in a lane.
async fn enter(lane: &Arc<Semaphore>, wait: Duration) -> Result<OwnedSemaphorePermit, ApiError> {
    match timeout(wait, Arc::clone(lane).acquire_owned()).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(ApiError::busy("the images and videos of others are being read: ask again later")),
    }
}

/// Waits for so many KiB.
async fn memory(budget: &Arc<Semaphore>, kib: usize) -> Result<OwnedSemaphorePermit, ApiError> {
    let permits = u32::try_from(kib).unwrap_or(u32::MAX);
    match timeout(MEMORY_WAIT, Arc::clone(budget).acquire_many_owned(permits)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(ApiError::busy("the questions of others take all memory for images: ask again later")),
    }
}

fn check_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let stated = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = stated.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") { Ok(()) } else { Err(ApiError::not_json()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_too_long_for_a_lane_is_told_to_ask_later() {
        let lane = Arc::new(Semaphore::new(1));
        let wait = Duration::from_millis(20);
        let taken = enter(&lane, wait).await.unwrap();
        assert_eq!(enter(&lane, wait).await.unwrap_err().status().as_u16(), 429);
        drop(taken);
        assert!(enter(&lane, wait).await.is_ok());
    }
}
