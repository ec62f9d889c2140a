//! `/api/node`: how the node is doing.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::HeaderMap, routing::get};

use super::{
    access::sent_cookie,
    api_error::ApiError,
    documents::NodeDocument,
    events::{blocking, uncached},
};

/// Knows how the node is doing. May block on a lock.
pub type NodeSource = Box<dyn Fn() -> NodeDocument + Send + Sync>;

/// The routes of this module.
pub(super) fn router(source: NodeSource) -> Router {
    let node = |State(source): State<Arc<NodeSource>>, headers: HeaderMap| async move {
        let login = sent_cookie(&headers).is_some();
        let node = blocking(move || Ok(source())).await;
        node.map(|node| uncached(Json(NodeDocument { login, ..node })))
    };
    Router::new()
        .route("/api/node", get(node))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state(Arc::new(source))
}
