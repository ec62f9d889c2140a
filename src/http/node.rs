//! `/api/node`: how the node is doing.

use std::sync::Arc;

use axum::{Json, Router, extract::State, http::HeaderMap, routing::get};

use super::{
    access::Access,
    api_error::ApiError,
    documents::NodeDocument,
    events::{blocking, uncached},
};

/// Knows how the node is doing. May block on a lock.
pub type NodeSource = Box<dyn Fn() -> NodeDocument + Send + Sync>;

/// The routes of this module. `access` knows who is logged in.
pub(super) fn router(source: NodeSource, access: Arc<Access>) -> Router {
    let node = |State((source, access)): State<(Arc<NodeSource>, Arc<Access>)>, headers: HeaderMap| async move {
        let login = access.sent_cookie(&headers).is_some();
        let node = blocking(move || Ok(source())).await;
        node.map(|node| uncached(Json(NodeDocument { login, ..node })))
    };
    Router::new()
        .route("/api/node", get(node))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state((Arc::new(source), access))
}
