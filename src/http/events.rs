//! `/api/events`: the history.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Query, State, rejection::QueryRejection},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
    routing::get,
};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use tokio::task::spawn_blocking;
use uuid::Uuid;

use super::{
    api_error::ApiError,
    documents::{EventDocument, EventsDocument},
};
use crate::camera::CameraId;

/// The most events of an answer.
const MAX_EVENTS: usize = 200;
/// The events of an answer where the client does not say how many it wants.
const EVENTS: usize = 50;
/// The longest search, bytes.
const MAX_QUERY: usize = 1000;

/// Of which events.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Those of this camera.
    pub camera: Option<CameraId>,
    /// Those in whose words this occurs.
    pub q: Option<String>,
    /// Those that switched this alert.
    pub alert: Option<String>,
    /// Those whose clip ended then or later.
    pub from: Option<DateTime<Utc>>,
    /// Those whose clip ended then or earlier.
    pub to: Option<DateTime<Utc>>,
    /// `next` of an answer before.
    pub before: Option<String>,
    /// How many.
    pub limit: Option<usize>,
}

/// Returns events, at most so many.
pub type EventLists = Box<dyn Fn(&EventsQuery, usize) -> Result<EventsDocument, ApiError> + Send + Sync>;

/// The functions that know the history. They block on the disk.
pub struct EventsSource {
    /// Knows many.
    pub list: EventLists,
    /// An event.
    pub details: Box<dyn Fn(Uuid) -> Result<EventDocument, ApiError> + Send + Sync>,
    /// A frame of an event, as JPEG.
    pub frame: Box<dyn Fn(Uuid, usize) -> Result<Vec<u8>, ApiError> + Send + Sync>,
}

/// The routes of this module.
pub(super) fn router(source: EventsSource) -> Router {
    Router::new()
        .route("/api/events", get(list))
        .route("/api/events/{id}", get(details))
        .route("/api/events/{id}/frames/{name}", get(frame))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state(Arc::new(source))
}

type Source = State<Arc<EventsSource>>;

async fn list(
    State(source): Source,
    query: Result<Query<EventsQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let Query(mut query) = query.map_err(|why| ApiError::bad_request(why.body_text()))?;
    // A form that was left empty.
    for text in [&mut query.q, &mut query.alert, &mut query.before] {
        text.take_if(|text| text.trim().is_empty());
    }
    if query.q.as_ref().is_some_and(|text| text.len() > MAX_QUERY) {
        return Err(ApiError::bad_request(format!("q is longer than {MAX_QUERY} bytes")));
    }
    let limit = query.limit.unwrap_or(EVENTS);
    if !(1..=MAX_EVENTS).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit must be from 1 to {MAX_EVENTS}")));
    }
    blocking(move || (source.list)(&query, limit)).await.map(|page| uncached(Json(page)))
}

async fn details(State(source): Source, Path(id): Path<String>) -> Result<Response, ApiError> {
    let id = event_id(&id)?;
    blocking(move || (source.details)(id)).await.map(|event| uncached(Json(event)))
}

async fn frame(
    State(source): Source,
    Path((id, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = event_id(&id)?;
    let number = name.strip_suffix(".jpg").and_then(|number| number.parse().ok());
    let number = number.ok_or_else(|| ApiError::no_path("frames are 0.jpg, 1.jpg and so on"))?;
    let jpeg = blocking(move || (source.frame)(id, number)).await?;
    // A browser asks each time: it may have been forgotten, or be hidden now.
    let tag = format!("\"{id}-{number}\"");
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let head = [(CONTENT_TYPE, "image/jpeg"), (ETAG, &tag), (CACHE_CONTROL, "private, no-cache")];
    Ok(if is_known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, jpeg).into_response() })
}

fn event_id(text: &str) -> Result<Uuid, ApiError> {
    text.parse().map_err(|_| ApiError::no_path("this is no id of an event"))
}

/// What cameras see stays in no cache.
pub(super) fn uncached(response: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store")], response).into_response()
}

/// Runs what blocks on the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    spawn_blocking(work).await.unwrap_or_else(|panic| Err(ApiError::internal(panic.to_string())))
}
