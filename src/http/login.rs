//! `/api/login`: the token in, a cookie out, so that a browser need not keep the token where scripts can read it.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{HeaderMap, StatusCode, header::SET_COOKIE},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Deserialize;
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{access::Access, api_error::ApiError};
use crate::json_input;

/// The longest body, bytes.
const MAX_BODY: usize = 4 << 10;
/// How long the body may take.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// How long a wrong token takes, one after the other.
const WRONG_TOKEN_PAUSE: Duration = Duration::from_millis(500);
/// How long a login waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// How long a browser stays logged in, seconds: 90 days.
const MAX_AGE: u32 = 90 * 24 * 3600;

#[derive(Deserialize)]
struct Login {
    token: String,
}

struct Door {
    access: Arc<Access>,
    /// Held for a while after a wrong token.
    turn: Arc<Mutex<()>>,
}

/// The routes of this module.
pub(super) fn router(access: Arc<Access>) -> Router {
    Router::new()
        .route("/api/login", post(login))
        .route("/api/logout", post(logout))
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
        .with_state(Arc::new(Door { access, turn: Arc::default() }))
}

async fn login(State(door): State<Arc<Door>>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let body = timeout(BODY_LIMIT, to_bytes(body, MAX_BODY)).await.map_err(|_| ApiError::too_slow())?;
    let too_large = |_| ApiError::too_large(format!("a login has at most {} KB", MAX_BODY >> 10));
    let Login { token } = json_input::from_slice(&body.map_err(too_large)?)?;
    if !door.access.asks_for_token() {
        return Err(ApiError::bad_request("nothing is asked for here: http.token_file is not set"));
    }
    // Who has the right one need not wait behind those who guess.
    let Some(cookie) = door.access.cookie_for(&token) else {
        tracing::warn!("HTTP: a login with a wrong token");
        let turn = timeout(MAX_WAIT, Arc::clone(&door.turn).lock_owned()).await;
        let turn = turn.map_err(|_| ApiError::busy("many logins are being checked: try again"))?;
        // Whether or not the client waits for it.
        let paused = tokio::spawn(async move {
            sleep(WRONG_TOKEN_PAUSE).await;
            drop(turn);
        });
        let _ = paused.await;
        return Err(ApiError::unauthorised());
    };
    Ok(set_cookie(&door.access, &headers, &cookie, MAX_AGE))
}

async fn logout(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    set_cookie(&door.access, &headers, "", 0)
}

/// A cookie without a path is for the folder of this request, `/api`, also behind a proxy that puts another folder before
/// it.
fn set_cookie(access: &Access, headers: &HeaderMap, value: &str, max_age: u32) -> Response {
    let is_secure = access.has_tls() || headers.get("x-forwarded-proto").is_some_and(|it| it == "https");
    let (name, secure) = (&access.cookie_name, if is_secure { "; Secure" } else { "" });
    let cookie = format!("{name}={value}; Max-Age={max_age}; HttpOnly; SameSite=Strict{secure}");
    (StatusCode::NO_CONTENT, [(SET_COOKIE, cookie)]).into_response()
}
