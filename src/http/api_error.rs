//! Errors as OpenAI's API shapes them: a status, and a JSON object with a sentence for people and words for programs.

use std::{borrow::Cow, fmt::Display, time::Duration};

use axum::{
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{answer::DescribeError, json_input::Mistake};

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    /// The kind of error.
    kind: &'static str,
    /// The path of the field of the request that is wrong.
    param: Option<Cow<'static, str>>,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
}

/// The longest message, in characters.
const MAX_MESSAGE: usize = 500;

/// What to do when a single request does not fit.
const TOO_LARGE: &str = "the request is too large for the device's memory: send fewer images or frames, ask for smaller \
                         ones with mm_processor_kwargs.size.longest_edge, or leave them whole with \
                         mm_processor_kwargs.do_image_splitting = false";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        // It may repeat what the client sent.
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
            message.push('…');
        }
        Self { status, message, kind, param: None, code: None, retry_after: None }
    }

    /// The request as a whole is wrong.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// What stands at `path` in the request, such as `messages[0].role`, is wrong.
    pub fn wrong_field(path: impl Into<Cow<'static, str>>, why: impl Display) -> Self {
        let path = path.into();
        let error = Self::bad_request(format!("{path}: {why}"));
        Self { param: Some(path), ..error }
    }

    /// The request is larger than any that is taken.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", message)
    }

    /// The request came too slowly.
    pub fn too_slow() -> Self {
        let message = "the body of the request came too slowly";
        Self::new(StatusCode::REQUEST_TIMEOUT, "invalid_request_error", message)
    }

    /// The body is of another type than JSON.
    pub fn not_json() -> Self {
        let message = "the body must be JSON: send the header Content-Type: application/json";
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", message)
    }

    /// There is no such model.
    pub fn no_model(asked: &str, served: &str) -> Self {
        let message = format!("the model {asked:?} is not served here: ask for {served:?}, or name none");
        let error = Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
        Self { param: Some("model".into()), code: Some("model_not_found"), ..error }
    }

    /// There is no such path.
    pub fn no_path(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid_request_error", message)
    }

    /// The path takes other methods.
    pub fn wrong_method() -> Self {
        let message = "this path does not take that method";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message)
    }

    /// No token, or a wrong one, was sent.
    pub fn unauthorised() -> Self {
        let message = "the right token is missing: send the header Authorization: Bearer, with what http.token_file \
                       holds";
        let error = Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message);
        Self { code: Some("invalid_api_key"), ..error }
    }

    /// The client may not ask this.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_error", message)
    }

    /// Too much is asked at once.
    pub fn busy(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        Self { code: Some("rate_limit_exceeded"), retry_after: Some(Duration::from_secs(1)), ..error }
    }

    /// The model cannot answer now, but probably can after `retry_after`.
    pub fn unavailable(message: impl Into<String>, retry_after: Duration) -> Self {
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, "service_unavailable_error", message);
        Self { retry_after: Some(retry_after), ..error }
    }

    /// Something failed that should not.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// Its status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The object that tells it.
    pub fn document(&self) -> Value {
        json!({"error": {
            "message": self.message, "type": self.kind, "param": self.param, "code": self.code,
        }})
    }
}

impl From<Mistake> for ApiError {
    fn from(mistake: Mistake) -> Self {
        if mistake.path.is_empty() {
            return Self::bad_request(format!("the body is no such JSON: {}", mistake.why));
        }
        Self::wrong_field(mistake.path, mistake.why)
    }
}

impl From<DescribeError> for ApiError {
    fn from(error: DescribeError) -> Self {
        let message = error.to_string();
        match error {
            DescribeError::Request(_) => Self::bad_request(message),
            // It would not fit later, either.
            DescribeError::TooLarge(why) => Self::bad_request(format!("{TOO_LARGE} ({why})")),
            DescribeError::OutOfMemory(_) => Self::unavailable(message, Duration::from_secs(5)),
            DescribeError::Unavailable { retry_after, .. } => Self::unavailable(message, retry_after),
            DescribeError::Device(_) => Self::internal(message),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status, [(CONTENT_TYPE, "application/json")], self.document().to_string()).into_response();
        let headers = response.headers_mut();
        if let Some(after) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
