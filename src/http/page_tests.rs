//! The page's routes as browsers see them.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use serde_json::{Value, json};
use tokio::{io::AsyncReadExt, time::timeout};
use uuid::Uuid;

use super::tests::{LIMIT, Served};
use crate::config::Secret;

const LOGIN: &str = "/api/login";

#[tokio::test]
async fn the_page_and_its_files_come_with_a_policy_and_need_no_token() {
    let server = Served::with_token().await;
    let start = server.exchange("GET", "/", "", "").await;
    assert_eq!(start.status, 200);
    let head = start.head;
    assert!(head.contains("content-type: text/html") && head.contains("default-src 'none'"), "{head}");
    for name in ["page.css", "main.js", "icon.svg"] {
        let file = server.exchange("GET", &format!("/{name}"), "", "").await;
        assert_eq!(file.status, 200, "{name}");
        let head = file.head;
        assert!(head.contains("nosniff"), "{head}");
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap();
        let again =
            server.exchange("GET", &format!("/{name}"), &format!("If-None-Match: {tag}\r\n"), "").await;
        assert_eq!((again.status, again.body.as_str()), (304, ""));
    }
    for path in ["/api/node", "/api/cameras", "/api/events", "/api/live", "/api/cameras/porch/snapshot.jpg"] {
        assert_eq!(server.exchange("GET", path, "", "").await.status, 401, "{path}");
    }
    assert_eq!(server.exchange("GET", "/main.rs", "", "").await.status, 401);
}

#[tokio::test]
async fn a_login_gives_a_cookie_that_scripts_cannot_read_and_a_logout_takes_it() {
    let server = Served::with_token().await;
    let wrong = server.exchange("POST", LOGIN, "", r#"{"token": "wrong"}"#).await;
    assert_eq!(wrong.status, 401);
    assert_eq!(server.exchange("POST", LOGIN, "", "{}").await.status, 400);
    let right = server.exchange("POST", LOGIN, "", r#"{"token": "right"}"#).await;
    assert_eq!(right.status, 204);
    let cookie = |head: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix("set-cookie: "));
        line.expect("a cookie").trim().to_owned()
    };
    let set = cookie(&right.head);
    assert!(set.contains("httponly") && set.contains("samesite=strict") && !set.contains("right"), "{set}");
    let value = set.split(';').next().unwrap().to_owned();
    let with = format!("Cookie: other=1; {value}\r\n");
    let node = server.exchange("GET", "/api/node", &with, "").await.json();
    assert_eq!((&node["node"], &node["login"]), (&json!("edge1"), &json!(true)));
    // A page of another origin has the cookie of no one, and is refused even so.
    for foreign in
        ["Origin: http://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\n"]
    {
        assert_eq!(server.exchange("GET", "/api/node", &format!("{with}{foreign}"), "").await.status, 403);
    }
    let proxied = "Origin: https://cams.example\r\nX-Forwarded-Host: cams.example\r\n";
    assert_eq!(server.exchange("GET", "/api/node", &format!("{with}{proxied}"), "").await.status, 200);
    let other = format!("Cookie: {}x\r\n", &value[..value.len() - 1]);
    assert_eq!(server.exchange("GET", "/api/node", &other, "").await.status, 401);
    let written = "Sec-Fetch-Site: Cross-Site\r\nSec-Fetch-Mode: navigate\r\n";
    for (method, status) in [("GET", 200), ("POST", 403)] {
        let reply = server.exchange(method, "/api/node", &format!("{with}{written}"), "").await;
        assert_eq!(reply.status, status, "{method}");
    }
    let out = server.exchange("POST", "/api/logout", &with, "").await;
    assert!(cookie(&out.head).contains("max-age=0"));
}

#[tokio::test]
async fn who_has_the_right_token_waits_for_nobody_and_another_one_ends_what_is_told() {
    let server = Served::with_token().await;
    let mut guesses = Vec::new();
    for _ in 0..20 {
        guesses.push(server.send("POST", LOGIN, "", r#"{"token": "guess"}"#).await);
    }
    assert_eq!(server.exchange("POST", LOGIN, "", r#"{"token": "right"}"#).await.status, 204);
    let right = "Authorization: Bearer right\r\n";
    let mut stream = server.send("GET", "/api/live", right, "").await;
    let mut bytes = [0; 1024];
    assert!(timeout(LIMIT, stream.read(&mut bytes)).await.unwrap().unwrap() > 0);
    server.access.refresh(Some(Secret::new("another")));
    let rest = timeout(LIMIT, stream.read_to_end(&mut Vec::new())).await;
    rest.expect("an end").unwrap();
    let open = Served::answering(Vec::new()).await;
    let reply = open.exchange("POST", LOGIN, "", r#"{"token": "any"}"#).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_in_words() {
    let server = Served::answering(Vec::new()).await;
    for (method, path, body, status, words) in [
        ("GET", "/api/events?limit=0", "", 400, "limit"),
        ("GET", "/api/events?limit=x", "", 400, "limit"),
        ("GET", "/api/events?from=yesterday", "", 400, "from"),
        ("GET", "/api/events?camera=A%20b", "", 400, "camera"),
        ("GET", "/api/events?colour=red", "", 400, "colour"),
        ("GET", "/api/events/x", "", 404, "event"),
        ("GET", "/api/events/01890000-0000-7000-8000-000000000000", "", 404, "event"),
        ("GET", "/api/events/01890000-0000-7000-8000-000000000000/frames/1.png", "", 404, "0.jpg"),
        ("GET", "/api/cameras/gate/snapshot.jpg", "", 404, "picture"),
        ("PATCH", "/api/cameras/porch", r#"{"enabled": "no"}"#, 400, "enabled"),
        ("PATCH", "/api/cameras/porch", r#"{"masks": []}"#, 400, "masks"),
        ("PATCH", "/api/cameras/gate", r#"{"enabled": true}"#, 404, "camera"),
        ("DELETE", "/api/cameras/porch", "", 405, "method"),
        ("POST", "/", "", 405, "method"),
    ] {
        let reply = server.exchange(method, path, "", body).await;
        let message = reply.json()["error"]["message"].as_str().unwrap().to_owned();
        assert_eq!(reply.status, status, "{path}: {message}");
        assert!(message.contains(words), "{path}: {message}");
    }
    let page = server.exchange("GET", "/api/events?q=red%20van&camera=&alert=&limit=7", "", "").await;
    assert_eq!(page.status, 400, "an empty camera is no camera: {}", page.body);
    let page = server.exchange("GET", "/api/events?q=red%20van&alert=&before=&limit=7", "", "").await.json();
    assert_eq!(page, json!({"events": [], "next": "red van 7"}));
    assert_eq!(server.exchange("PATCH", "/api/cameras/porch", "", r#"{"enabled": false}"#).await.status, 202);
    let picture = server.exchange("GET", "/api/cameras/porch/snapshot.jpg", "", "").await;
    assert!(picture.head.contains(&Uuid::nil().to_string()) && picture.body == "jpeg", "{}", picture.head);
    let document: Value = server.exchange("GET", "/api/openapi.json", "", "").await.json();
    assert_eq!(document["openapi"], "3.1.0");
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens_and_who_comes_back_missed_nothing() {
    let server = Served::answering(Vec::new()).await;
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for id in ids {
        server.live.tell("event", Some(id), "{}");
    }
    let headers = format!("Last-Event-ID: {}\r\n", ids[0]);
    let mut stream = server.send("GET", "/api/live", &headers, "").await;
    let mut text = String::new();
    let mut read_until = async |what: &str| {
        while !text.contains(what) {
            let mut bytes = [0; 1024];
            let count = timeout(LIMIT, stream.read(&mut bytes)).await.expect(what).unwrap();
            assert!(count > 0, "{text}");
            text += str::from_utf8(&bytes[..count]).unwrap();
        }
    };
    read_until(&format!("id: {}", ids[1])).await;
    server.live.tell("camera", None, "{\"id\":\"porch\"}");
    read_until("event: camera\ndata: {\"id\":\"porch\"}\n\n").await;
    assert!(!text.contains(&ids[0].to_string()) && text.contains("text/event-stream"), "{text}");
    let unknown = format!("Last-Event-ID: {}\r\n", Uuid::nil());
    let mut stream = server.send("GET", "/api/live", &unknown, "").await;
    let mut bytes = vec![0; 4096];
    let mut text = String::new();
    while !text.contains("event: reset") {
        let count = timeout(LIMIT, stream.read(&mut bytes)).await.expect("a reset").unwrap();
        text += str::from_utf8(&bytes[..count]).unwrap();
    }
}
