//! `/`: the page. Its files are in the folder `page/`, as they are served.

use axum::{
    Router,
    extract::Path,
    http::{
        HeaderMap, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
        },
    },
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};

use super::api_error::ApiError;

/// The page comes from here alone, runs no script but its own, and is shown in no other page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The name and the content of each file.
macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("page/", $name)).as_slice())),*]
    };
}

/// The file that `/` shows.
const START: &str = "index.html";
static FILES: &[(&str, &[u8])] = &files![
    "announce.js",
    "answers.js",
    "api.js",
    "ask.js",
    "camera.js",
    "dom.js",
    "event.js",
    "eventlist.js",
    "filters.js",
    "icon.svg",
    "index.html",
    "live.js",
    "login.js",
    "main.js",
    "node.js",
    "numbers.js",
    "overview.js",
    "page.css",
    "picture.js",
    "router.js",
    "search.js",
    "settings.js",
    "states.js",
    "store.js",
    "time.js",
    "words.js",
];

/// Whether this is a path of the page's files.
pub(super) fn is_of_page(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|name| name.is_empty() || find(name).is_some())
}

/// The routes of this module.
pub(super) fn router() -> Router {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { show(START, &headers) }))
        .route(
            "/{file}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move { show(&name, &headers) }),
        )
        .method_not_allowed_fallback(|| async { ApiError::wrong_method() })
}

fn find(name: &str) -> Option<&'static [u8]> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, content)| *content)
}

fn show(name: &str, headers: &HeaderMap) -> Response {
    let Some(content) = find(name) else { return ApiError::no_path("there is no such path").into_response() };
    let kind = match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/javascript; charset=utf-8",
    };
    // Browsers ask each time whether it is still the same.
    let hash = Sha256::digest(content);
    let tag = format!("\"{}\"", hash[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    let is_known = headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let head = [
        (CONTENT_TYPE, kind),
        (ETAG, tag.as_str()),
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
    ];
    if is_known { (StatusCode::NOT_MODIFIED, head).into_response() } else { (head, content).into_response() }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;

    #[test]
    fn every_file_of_the_folder_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/http/page");
        let there = fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let served: BTreeSet<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(there.collect::<BTreeSet<_>>(), served);
        assert!(
            is_of_page("/") && is_of_page("/main.js") && !is_of_page("/metrics") && !is_of_page("main.js")
        );
    }

    #[test]
    fn nothing_comes_from_elsewhere_and_no_text_becomes_html() {
        for (name, content) in FILES {
            let text = str::from_utf8(content).unwrap();
            for bad in [
                "http://",
                "https://",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                " onclick=",
            ] {
                let is_namespace = |at: usize| text[at..].starts_with("http://www.w3.org/");
                let found = text.match_indices(bad).find(|(at, _)| !is_namespace(*at));
                assert!(found.is_none(), "{name}: {bad}");
            }
        }
    }
}
