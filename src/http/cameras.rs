//! `/api/cameras`: questions about what a camera shows now.

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    body::{Body, to_bytes},
    extract::{Path, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse, Response},
    routing::post,
};
use tokio::time::timeout;

use super::{api_error::ApiError, connections::Connection};
use crate::{
    camera::CameraId,
    camera_ask::{self, Answered, CameraAsk, Refusal},
};

/// The longest question, bytes.
const MAX_BODY: usize = 64 << 10;
/// How long a question may take to arrive.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// When a client may ask again that was refused for now, seconds.
const RETRY_SECONDS: u64 = 5;

/// An answer that is being made. Dropping it takes the question back.
pub type Asking = Pin<Box<dyn Future<Output = Result<Answered, Refusal>> + Send>>;

/// The functions that know the cameras.
pub struct CameraSource {
    /// Asks about a camera.
    pub ask: Box<dyn Fn(CameraId, CameraAsk) -> Asking + Send + Sync>,
}

/// The routes of this module.
pub(super) fn router(source: CameraSource) -> Router {
    Router::new()
        .route("/api/cameras/{camera}/ask", post(ask))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state(Arc::new(source))
}

/// Answers a question: JSON, or its text.
async fn ask(
    State(source): State<Arc<CameraSource>>,
    Extension(connection): Extension<Arc<Connection>>,
    Path(camera): Path<String>,
    body: Body,
) -> Response {
    let body = match timeout(BODY_LIMIT, to_bytes(body, MAX_BODY)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            return ApiError::too_large(format!("a question has at most {} KB", MAX_BODY >> 10))
                .into_response();
        }
        Err(_) => return ApiError::too_slow().into_response(),
    };
    // Whoever is still sending is closed where others need the place.
    let _held = connection.hold();
    let Ok(camera) = camera.parse::<CameraId>() else {
        return ApiError::no_path("there is no such camera").into_response();
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
