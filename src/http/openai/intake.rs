//! How much is taken at a time, so that clients cannot use up the memory and the processors that cameras need:
//! questions, bytes of bodies, bytes of pixels, and threads that decode.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{
        HeaderMap,
        header::{CONTENT_LENGTH, CONTENT_TYPE},
    },
};
use http_body_util::BodyExt;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::{Instant, timeout, timeout_at},
};

use super::{
    super::{
        api_error::ApiError,
        connections::{Connection, Held},
    },
    body::{Chat, Delivery},
    media::Encoded,
    source::{ApiSource, ServedModel},
};
use crate::request;

/// The most questions at a time, those that are still being sent among them.
pub const MAX_QUESTIONS: usize = 128;
/// The longest body, bytes.
const MAX_BODY: usize = 64 << 20;
/// The bodies of all questions that are not decoded yet, KiB.
const BODIES: usize = 256 << 10;
/// The pixels of all questions, KiB.
const PIXELS: usize = 1 << 20;
/// Threads that decode JSON, base64 and images at a time.
const DECODERS: usize = 2;
/// How long a body may take, and how long until something more of it comes.
const BODY_LIMIT: Duration = Duration::from_secs(300);
const BODY_PAUSE: Duration = Duration::from_secs(30);
/// How long a question waits for memory.
const MEMORY_WAIT: Duration = Duration::from_secs(30);

/// What the routes share.
pub struct Api {
    pub source: ApiSource,
    questions: Arc<Semaphore>,
    bodies: Arc<Semaphore>,
    pixels: Arc<Semaphore>,
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
            bodies: permits(BODIES),
            pixels: permits(PIXELS),
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
        let expected = content_length(request.headers())?.unwrap_or(MAX_BODY);
        let room = memory(&self.bodies, expected.div_ceil(1024)).await?;
        let body = read_body(request.into_body()).await?;
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
        let pixels = memory(&self.pixels, needed.div_ceil(1024) as usize).await?;
        let lane = if encoded.has_film() { &self.films } else { &self.decoders };
        let api = Arc::clone(self);
        let (messages, pixels) = work(lane, move || {
            let messages = encoded.decode(chat.sampling, &*api.source.film);
            drop(room);
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
    // Semaphores are never closed. The permit belongs to the thread, which goes on where the client goes away.
    let permit = Arc::clone(lane).acquire_owned().await;
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

/// The stated length of the body.
fn content_length(headers: &HeaderMap) -> Result<Option<usize>, ApiError> {
    let Some(stated) = headers.get(CONTENT_LENGTH) else { return Ok(None) };
    let length = stated.to_str().ok().and_then(|length| length.parse().ok());
    length.filter(|length| *length <= MAX_BODY).map(Some).ok_or_else(too_long)
}

fn too_long() -> ApiError {
    ApiError::too_large(format!("the body is longer than {} MB", MAX_BODY >> 20))
}

/// Reads a body that comes fast enough.
async fn read_body(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let end = Instant::now() + BODY_LIMIT;
    let mut bytes = Vec::new();
    loop {
        let next = timeout_at(end.min(Instant::now() + BODY_PAUSE), body.frame()).await;
        let frame = match next.map_err(|_| ApiError::too_slow())? {
            None => return Ok(bytes),
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                return Err(ApiError::bad_request(format!("the body cannot be read: {error}")));
            }
        };
        let data = frame.into_data().unwrap_or_default();
        if bytes.len() + data.len() > MAX_BODY {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
}
