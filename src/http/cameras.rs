//! `/api/cameras`: the cameras, what they show, their settings, and questions about what one shows now.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes, to_bytes},
    extract::{Path, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, ETAG, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::{get, patch, post},
};
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    api_error::ApiError,
    connections::Connection,
    documents::{CameraChange, CamerasDocument},
    events::{blocking, uncached},
};
use crate::{
    camera::CameraId,
    camera_ask::{self, Answered, CameraAsk, Refusal},
    json_input,
};

/// The longest question, bytes.
const MAX_BODY: usize = 64 << 10;
/// How long a question may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// When a client may ask again that was refused for now, seconds.
const RETRY_SECONDS: u64 = 5;

/// An answer that is being made. Dropping it takes the question back.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answered, Refusal>> + Send>>;

/// Returns the newest picture of a camera as the model saw it, a JPEG, and its event.
pub type Snapshots = Box<dyn Fn(&CameraId) -> Option<(Uuid, Bytes)> + Send + Sync>;

/// Takes in a change of a camera's settings, which is made soon. Where it is not taken, says why.
pub type Changes = Box<dyn Fn(&CameraId, CameraChange) -> Result<(), ApiError> + Send + Sync>;

/// The functions that know the cameras.
pub struct CameraSource {
    /// All cameras. May block on a lock.
    pub list: Box<dyn Fn() -> CamerasDocument + Send + Sync>,
    /// Knows the newest pictures.
    pub snapshot: Snapshots,
    /// Takes in changes.
    pub change: Changes,
    /// Asks about a camera.
    pub ask: Box<dyn Fn(CameraId, CameraAsk) -> Asking + Send + Sync>,
}

/// The routes of this module.
pub(super) fn router(source: CameraSource) -> Router {
    Router::new()
        .route("/api/cameras", get(list))
        .route("/api/cameras/{camera}", patch(change))
        .route("/api/cameras/{camera}/snapshot.jpg", get(snapshot))
        .route("/api/cameras/{camera}/ask", post(ask))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state(Arc::new(source))
}

type Source = State<Arc<CameraSource>>;

async fn list(State(source): Source) -> Result<Response, ApiError> {
    blocking(move || Ok((source.list)())).await.map(|cameras| uncached(Json(cameras)))
}

async fn snapshot(State(source): Source, Path(camera): Path<String>) -> Result<Response, ApiError> {
    let Some((event, jpeg)) = camera.parse().ok().and_then(|camera| (source.snapshot)(&camera)) else {
        return Err(ApiError::no_path("there is no picture of such a camera"));
    };
    Ok(uncached(([(CONTENT_TYPE, "image/jpeg".to_owned()), (ETAG, format!("\"{event}\""))], jpeg)))
}

async fn change(
    State(source): Source,
    Path(camera): Path<String>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let body = read(body).await?;
    let change = json_input::from_slice(&body)?;
    let camera = camera.parse().map_err(|_| no_camera())?;
    blocking(move || (source.change)(&camera, change)).await?;
    Ok(StatusCode::ACCEPTED)
}

fn no_camera() -> ApiError {
    ApiError::no_path("there is no such camera")
}

async fn read(body: Body) -> Result<Bytes, ApiError> {
    match timeout(BODY_LIMIT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(ApiError::too_large(format!("a body has at most {} KB", MAX_BODY >> 10))),
        Err(_) => Err(ApiError::too_slow()),
    }
}

/// Answers a question: JSON, or its text.
async fn ask(
    State(source): State<Arc<CameraSource>>,
    Extension(connection): Extension<Arc<Connection>>,
    Path(camera): Path<String>,
    body: Body,
) -> Response {
    let body = match read(body).await {
        Ok(body) => body,
        Err(error) => return error.into_response(),
    };
    // Whoever is still sending is closed where others need the place.
    let _held = connection.hold();
    let Ok(camera) = camera.parse::<CameraId>() else {
        return no_camera().into_response();
    };
    let request = CameraAsk::request_of(&body);
    let outcome = match CameraAsk::parse(&body) {
        Ok(ask) => (source.ask)(camera.clone(), ask).await,
        Err(why) => Err(Refusal::Invalid(why)),
    };
    let status = status(&outcome);
    let document = camera_ask::reply(&camera, request.as_deref(), &outcome).to_string();
    let mut response = (status, [(CONTENT_TYPE, "application/json")], document).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
    }
    response
}

fn status(outcome: &Result<Answered, Refusal>) -> StatusCode {
    match outcome {
        Ok(_) => StatusCode::OK,
        Err(Refusal::Busy) => StatusCode::TOO_MANY_REQUESTS,
        Err(Refusal::Expired) => StatusCode::GATEWAY_TIMEOUT,
        Err(Refusal::NoSuchCamera(_)) => StatusCode::NOT_FOUND,
        Err(Refusal::Invalid(_) | Refusal::Failed(_)) => StatusCode::BAD_REQUEST,
        Err(Refusal::CameraOffline(_) | Refusal::Unavailable(_)) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
