//! Questions to the model in the format of OpenAI's API: `/v1/chat/completions`, `/v1/decisions` and `/v1/models`.
//!
//! | file | what it holds |
//! |---|---|
//! | `source.rs` | the functions that know the model, which `app/` passes |
//! | `body.rs` | JSON in, a checked request without its media out |
//! | `processor.rs` | the fields by which vLLM lets clients say how images and videos are prepared |
//! | `media.rs` | data URLs in, pixels out |
//! | `intake.rs` | how much is taken at a time: requests, pixels, decoders |
//! | `upload.rs` | bodies as they arrive, and the memory that they take |
//! | `chat.rs`, `answer.rs`, `sse.rs` | the route; answers as they are made, and as a stream of events |
//! | `decisions.rs` | the route of typed questions, answered by probabilities |
//! | `documents.rs` | the JSON of answers |
//! | `models.rs` | the routes that tell the model |

mod answer;
mod body;
mod chat;
mod decisions;
mod documents;
mod intake;
mod media;
mod models;
mod processor;
mod source;
mod sse;
mod upload;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    routing::{get, post},
};

use self::intake::Api;
use super::api_error::ApiError;

pub(super) use self::intake::MAX_QUESTIONS;
pub use self::{
    media::read_request,
    source::{ApiSource, Film, FilmReader, NotAsked, ServedModel},
};

/// The routes of this module, and what is answered where there is none. Without a source they tell how to switch them
/// on.
pub(super) fn router(source: Option<ApiSource>) -> Router {
    let Some(source) = source else { return Router::new().fallback(no_api) };
    Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/decisions", post(decisions::decide))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*model}", get(models::one))
        .with_state(Arc::new(Api::new(source)))
        .fallback(|| async { ApiError::no_path(NO_PATH) })
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
}

const NO_PATH: &str = "there is no such path here";

async fn no_api(uri: Uri) -> ApiError {
    let is_of_api = uri.path().starts_with("/v1");
    ApiError::no_path(if is_of_api {
        "the API is off: set http.api = true, and restart camscribe"
    } else {
        NO_PATH
    })
}
