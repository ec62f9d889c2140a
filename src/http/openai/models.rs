//! `GET /v1/models` and `GET /v1/models/<id>`.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{super::api_error::ApiError, intake::Api, source::ServedModel};

/// Tells the models that are served: the one.
pub async fn list(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    let model = api.model()?;
    Ok(answer(&json!({"object": "list", "data": [document(&model)]})))
}

/// Tells one model.
pub async fn one(State(api): State<Arc<Api>>, Path(asked): Path<String>) -> Result<Response, ApiError> {
    let model = api.model()?;
    if asked != model.id {
        return Err(ApiError::no_model(&asked, &model.id));
    }
    Ok(answer(&document(&model)))
}

fn document(model: &ServedModel) -> Value {
    json!({
        "id": model.id,
        "object": "model",
        "created": model.loaded_at,
        "owned_by": "camscribe",
        // As vLLM tells it, for Frigate among others.
        "max_model_len": model.max_tokens,
    })
}

fn answer(document: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], document.to_string()).into_response()
}
