//! The server as clients see it, with an answerer that does as each test says.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use chrono::DateTime;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinHandle,
    time::timeout,
};
use uuid::Uuid;

use super::{
    Access, ApiError, ApiSource, CameraSource, EventsSource, Film, Live, LiveSource, NotAsked, ServedModel,
    Server, StatusSource, bind,
    documents::{
        BrokerDocument, CamerasDocument, DroppedDocument, EventsDocument, HistoryDocument, HistoryState,
        NodeDocument, OutboxDocument, QueueDocument,
    },
    serve,
};
use crate::{
    answer::{DescribeError, Description, Part, Piece, StageTimes, Token, TokenScore},
    camera::CameraId,
    camera_ask::{Answered, CameraAsk, Refusal},
    config::Secret,
    event::{FinishReason, ModelInfo, Tokens},
    metrics::{Metrics, Readings, TextFormat},
    request::{Content, Request, Video},
};

/// How long a test waits for anything.
pub const LIMIT: Duration = Duration::from_secs(60);

/// A question that waits for the test to answer it.
type Asked = (Request, UnboundedSender<Part>);

/// A server whose questions the test answers.
pub struct Served {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    metrics: Arc<Metrics>,
    pub live: Arc<Live>,
    pub access: Arc<Access>,
    task: JoinHandle<()>,
}

/// What is answered about a camera.
fn about(camera: &CameraId, ask: &CameraAsk) -> Result<Answered, Refusal> {
    match camera.as_str() {
        "porch" => Ok(Answered {
            question: ask.question.clone().unwrap_or_default(),
            text: "A dog.".into(),
            answer: None,
            finish_reason: FinishReason::Stop,
            start: DateTime::UNIX_EPOCH,
            end: DateTime::UNIX_EPOCH,
            frames: 8,
            model: ModelInfo {
                id: "org/tiny".into(),
                revision: String::new(),
                device: "cpu".into(),
                dtype: "f32".into(),
            },
            tokens: Tokens::default(),
            total_ms: 7,
        }),
        "busy" => Err(Refusal::Busy),
        "dark" => Err(Refusal::CameraOffline("the camera dark is offline".into())),
        "slow" => Err(Refusal::Expired),
        other => Err(Refusal::NoSuchCamera(other.into())),
    }
}

/// How the node is doing.
fn node() -> NodeDocument {
    NodeDocument {
        node: "edge1".into(),
        version: "0".into(),
        phase: "watching 1 camera".into(),
        why: None,
        started: DateTime::UNIX_EPOCH,
        model: None,
        gpu: None,
        queue: QueueDocument { clips: 0, oldest_s: 0.0 },
        clips_per_minute: 0.0,
        dropped: DroppedDocument { clips: 0, events: 0, history_events: 0, history_frames: 0 },
        broker: BrokerDocument { connected: true },
        outbox: OutboxDocument { messages: 0, bytes: 0, on_disk: true },
        history: HistoryDocument { state: HistoryState::Off, why: None, events: 0, bytes: 0, oldest: None },
        reload: None,
        settings: true,
        login: false,
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Served {
    /// A server that answers each question with what `answer` makes of it, or takes note of it.
    async fn start(
        answer: impl Fn(&Request) -> Result<Option<Vec<Part>>, NotAsked> + Send + Sync + 'static,
    ) -> Self {
        let film = |_: Film<'_>| Err("this is not a video".into());
        Self::start_with(None, answer, film).await
    }

    /// One that refuses all questions of who has the token `right`.
    pub async fn with_token() -> Self {
        Self::start_with(Some("right"), |_| Err(NotAsked::Busy), |_| Err("this is not a video".into())).await
    }

    async fn start_with(
        token: Option<&str>,
        answer: impl Fn(&Request) -> Result<Option<Vec<Part>>, NotAsked> + Send + Sync + 'static,
        film: impl Fn(Film<'_>) -> Result<Video, String> + Send + Sync + 'static,
    ) -> Self {
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let noted = Arc::clone(&asked);
        let ask = move |request: Request| {
            let (reply, parts) = unbounded_channel();
            match answer(&request)? {
                Some(answer) => answer.into_iter().for_each(|part| reply.send(part).unwrap()),
                None => noted.lock().unwrap().push((request, reply)),
            }
            Ok(parts)
        };
        let model =
            ServedModel { id: "org/tiny".into(), loaded_at: 1, max_tokens: Some(2048), frame_scaling: None };
        let address = "127.0.0.1:0".parse().unwrap();
        let live = Arc::<Live>::default();
        let token = token.map(Secret::new);
        let metrics = Arc::new(Metrics::new());
        let access = Arc::new(Access::new(address, token, None).unwrap());
        let server = Server {
            status: StatusSource {
                metrics: Box::new(|_| "metrics".into()),
                health: Box::new(|| Ok(())),
                ready: Box::new(|| Ok(())),
            },
            node: Box::new(node),
            cameras: CameraSource {
                list: Box::new(|| CamerasDocument { cameras: Vec::new() }),
                snapshot: Box::new(|camera| {
                    (camera.as_str() == "porch").then(|| (Uuid::nil(), "jpeg".into()))
                }),
                change: Box::new(|camera, change| match camera.as_str() {
                    "porch" if change.enabled == Some(false) => Ok(()),
                    _ => Err(ApiError::no_path("there is no such camera")),
                }),
                ask: Box::new(|camera, ask| Box::pin(async move { about(&camera, &ask) })),
            },
            events: EventsSource {
                list: Box::new(|query, limit| {
                    let next = format!("{} {limit}", query.q.clone().unwrap_or_default());
                    Ok(EventsDocument { events: Vec::new(), next: Some(next) })
                }),
                details: Box::new(|_| Err(ApiError::no_path("there is no such event"))),
                frame: Box::new(|_, number| Ok(vec![number as u8])),
            },
            live: LiveSource { live: Arc::clone(&live), after: Box::new(|_| None) },
            api: Some(ApiSource {
                model: Box::new(move || Some(model.clone())),
                ask: Box::new(ask),
                film: Box::new(film),
            }),
            access: Arc::clone(&access),
            metrics: Arc::clone(&metrics),
        };
        let listener: TcpListener = bind(address, &server).await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, asked, metrics, live, access, task: tokio::spawn(serve(listener, server)) }
    }

    /// One that answers each question with these parts.
    pub async fn answering(parts: Vec<Part>) -> Self {
        Self::start(move |_| Ok(Some(parts.clone()))).await
    }

    /// One whose questions wait for the test.
    async fn waiting() -> Self {
        Self::start(|_| Ok(None)).await
    }

    /// Waits until there are so many questions, and takes them.
    async fn asked(&self, count: usize) -> Vec<Asked> {
        let wait = async {
            while self.asked.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, wait).await.expect("so many questions");
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Sends a request and leaves the answer to be read.
    pub async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that refuses a request need not read it.
        let _ = stream.write_all(body.as_bytes()).await;
        stream
    }

    pub async fn exchange(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        read(self.send(method, path, headers, body).await).await
    }

    async fn post(&self, body: &Value) -> Reply {
        let path = "/v1/chat/completions";
        self.exchange("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }

    async fn post_unread(&self, body: &Value) -> TcpStream {
        let path = "/v1/chat/completions";
        self.send("POST", path, "Content-Type: application/json\r\n", &body.to_string()).await
    }
}

pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    fn error(&self) -> (u16, Value) {
        (self.status, self.json()["error"]["message"].clone())
    }

    /// The documents of a stream, in order, and whether it was ended well.
    fn events(&self) -> (Vec<Value>, bool) {
        let data: Vec<&str> = self.body.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        let documents = data.iter().filter(|line| **line != "[DONE]");
        let documents = documents.map(|line| serde_json::from_str(line).unwrap()).collect();
        (documents, data.last() == Some(&"[DONE]"))
    }
}

async fn read(mut stream: TcpStream) -> Reply {
    let mut answer = Vec::new();
    timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("an answer").unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        unchunked(body)
    } else {
        body.to_owned()
    };
    Reply { status, head: head.to_ascii_lowercase(), body }
}

fn unchunked(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let (chunk, rest) = rest.split_at(usize::from_str_radix(length, 16).unwrap());
        text += chunk;
        body = rest.trim_start_matches("\r\n");
    }
    text
}

fn piece(text: &str) -> Part {
    let token = |text: &str| Token { text: text.into(), bytes: text.as_bytes().into() };
    let top = vec![(token(text), -0.5), (token("x"), f32::NEG_INFINITY)];
    Part::Piece(Piece {
        text: text.into(),
        scores: vec![TokenScore { token: token(text), logprob: -0.5, top }],
    })
}

fn end(text: &str) -> Part {
    Part::End(Ok(Description {
        labels: Vec::new(),
        text: text.into(),
        finish_reason: FinishReason::Stop,
        tokens: Tokens { prompt: 9, image: 4, generated: 2 },
        stages: StageTimes::default(),
    }))
}

fn question(fields: &Value) -> Value {
    let mut body = json!({"model": "org/tiny", "messages": [{"role": "user", "content": "Hi"}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn an_answer_has_its_text_its_tokens_and_their_probabilities() {
    let server = Served::answering(vec![piece("A "), piece("cat."), end("A cat.")]).await;
    let reply = server.post(&question(&json!({"logprobs": true, "top_logprobs": 2}))).await;
    let document = reply.json();
    assert_eq!((reply.status, &document["object"]), (200, &json!("chat.completion")));
    let choice = &document["choices"][0];
    assert_eq!(choice["message"], json!({"role": "assistant", "content": "A cat.", "refusal": null}));
    assert_eq!(choice["finish_reason"], "stop");
    let usage = json!({"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11});
    assert_eq!((&document["usage"], &document["model"]), (&usage, &json!("org/tiny")));
    let scores = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!((scores.len(), &scores[0]["token"], &scores[0]["logprob"]), (2, &json!("A "), &json!(-0.5)));
    assert_eq!(
        (&scores[0]["bytes"], &scores[0]["top_logprobs"][1]["logprob"]),
        (&json!([65, 32]), &json!(-9999.0))
    );
    let plain = server.post(&question(&json!({}))).await.json();
    assert_eq!(plain["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn a_stream_begins_with_the_role_and_ends_with_the_reason_and_the_usage() {
    let server = Served::answering(vec![piece("A "), piece("cat."), end("A cat.")]).await;
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = server.post(&question(&options)).await;
    assert!(reply.head.contains("content-type: text/event-stream"), "{}", reply.head);
    let (events, ended) = reply.events();
    assert!(ended && events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    let deltas: Vec<_> = events.iter().map(|event| event["choices"][0]["delta"].clone()).collect();
    assert_eq!(
        deltas,
        [
            json!({"role": "assistant", "content": ""}),
            json!({"content": "A "}),
            json!({"content": "cat."}),
            json!({}),
            Value::Null
        ]
    );
    assert_eq!(events[3]["choices"][0]["finish_reason"], "stop");
    assert_eq!((&events[4]["choices"], &events[4]["usage"]["total_tokens"]), (&json!([]), &json!(11)));
    let (plain, _) = server.post(&question(&json!({"stream": true}))).await.events();
    assert!(plain.len() == 4 && plain.iter().all(|event| event.get("usage").is_none()));
}

#[tokio::test]
async fn what_fails_before_the_first_word_has_a_status_and_later_an_event() {
    let failed = || Part::End(Err(DescribeError::Request("too long".into())));
    for stream in [false, true] {
        let server = Served::answering(vec![failed()]).await;
        let reply = server.post(&question(&json!({"stream": stream}))).await;
        assert_eq!(reply.error(), (400, "too long".into()));
    }
    let large = Part::End(Err(DescribeError::TooLarge("2 GB are missing".into())));
    let (status, why) = Served::answering(vec![large]).await.post(&question(&json!({}))).await.error();
    let why = why.as_str().unwrap();
    assert!(status == 400 && why.contains("fewer images") && why.ends_with("(2 GB are missing)"), "{why}");
    let server = Served::answering(vec![piece("A "), failed()]).await;
    let (events, ended) = server.post(&question(&json!({"stream": true}))).await.events();
    assert_eq!((&events[2]["error"]["message"], ended), (&json!("too long"), true));
    // The model's thread has ended.
    let server = Served::answering(vec![piece("A ")]).await;
    assert_eq!(server.post(&question(&json!({}))).await.status, 503);
}

#[tokio::test]
async fn who_cannot_be_answered_now_is_told_when_to_ask_again() {
    for (why, status) in [(NotAsked::Busy, 429), (NotAsked::NotReady("shutting down".into()), 503)] {
        let server = Served::start(move |_| Err(why.clone())).await;
        let reply = server.post(&question(&json!({}))).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        assert!(reply.head.contains("\r\nretry-after: "), "{}", reply.head);
    }
}

#[tokio::test]
async fn requests_that_are_wrong_as_a_whole_get_the_right_status() {
    let server = Served::answering(vec![end("Yes.")]).await;
    let (chat, json) = ("/v1/chat/completions", "Content-Type: application/json\r\n");
    for (method, path, headers, body, status) in [
        ("POST", chat, json, "{", 400),
        ("POST", chat, json, r#"{"messages": [{"role": "user", "content": "Hi"}]}"#, 200),
        ("POST", chat, "Content-Type: application/json; charset=utf-8\r\n", "{", 400),
        ("POST", chat, "Content-Type: text/plain\r\n", "{}", 415),
        ("POST", chat, "", "{}", 415),
        ("GET", chat, "", "", 405),
        ("GET", "/v1/models", "", "", 200),
        ("GET", "/v1/models/org/tiny", "", "", 200),
        ("GET", "/v1/models/org/other", "", "", 404),
        ("GET", "/v1/embeddings", "", "", 404),
        ("GET", "/metrics", "", "", 200),
        ("GET", "/metrics", "Origin: http://evil.example\r\n", "", 403),
    ] {
        let reply = server.exchange(method, path, headers, body).await;
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.body);
        assert!(reply.status == 200 || reply.json()["error"]["message"].is_string(), "{}", reply.body);
    }
    let other = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]});
    let reply = server.post(&other).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(reply.body.contains("org/tiny"), "{}", reply.body);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!(
        "POST {chat} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n{json}Connection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read(stream).await.status, 413);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_question_back() {
    for stream in [false, true] {
        let server = Served::waiting().await;
        let client = server.post_unread(&question(&json!({"stream": stream}))).await;
        let (_, reply) = server.asked(1).await.remove(0);
        assert!(!reply.is_closed());
        drop(client);
        timeout(LIMIT, reply.closed()).await.expect("the question is taken back");
    }
}

#[tokio::test]
async fn many_clients_wait_at_once_and_neither_silent_ones_nor_they_keep_metrics_out() {
    let server = Served::waiting().await;
    let mut clients = Vec::new();
    for _ in 0..128 {
        clients.push(server.post_unread(&question(&json!({}))).await);
    }
    let asked = server.asked(128).await;
    // Those that say nothing are closed for one another, and never one that waits for its answer.
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(server.address).await.unwrap());
    }
    assert_eq!(server.exchange("GET", "/metrics", "", "").await.body, "metrics");
    assert_eq!(server.exchange("GET", "/healthz", "", "").await.status, 200);
    let refused = server.post(&question(&json!({}))).await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    for (_, reply) in asked {
        reply.send(end("Yes.")).unwrap();
    }
    for client in clients {
        assert_eq!(read(client).await.json()["choices"][0]["message"]["content"], "Yes.");
    }
}

#[tokio::test]
async fn images_reach_the_model_and_outside_ones_are_not_fetched() {
    let server = Served::waiting().await;
    let bmp = "Qk06AAAAAAAAADYAAAAoAAAAAQAAAAEAAAABABgAAAAAAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAD/AA==";
    let ask = |url: String| {
        let image = json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}});
        json!({"messages": [{"role": "user", "content": [image, {"type": "text", "text": "What?"}]}]})
    };
    let client = server.post_unread(&ask(format!("data:image/bmp;base64,{bmp}"))).await;
    let (request, reply) = server.asked(1).await.remove(0);
    let [Content::Image(picture), Content::Text(text)] = &request.messages[0].content[..] else {
        panic!("{request:?}")
    };
    assert_eq!(
        (&picture.rgb[..], text.as_str(), request.images.split),
        (&[255, 0, 0][..], "What?", Some(false))
    );
    reply.send(end("Red.")).unwrap();
    assert_eq!(read(client).await.status, 200);
    let (status, why) = server.post(&ask("http://127.0.0.1:1/a.png".into())).await.error();
    assert!(status == 400 && why.as_str().unwrap().contains("nothing is fetched"), "{why}");
}

/// Sends a question of so many bytes all at once, as most clients do, and only then reads the answer.
async fn send_all_then_read(server: &Served, headers: &str, length: usize) -> Result<u16, std::io::Error> {
    let mut stream = TcpStream::connect(server.address).await?;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..length >> 16 {
        stream.write_all(&[b'x'; 1 << 16]).await?;
    }
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    Ok(std::str::from_utf8(&answer[9..]).unwrap().parse().unwrap())
}

#[tokio::test]
async fn a_client_that_sends_all_before_it_reads_comes_to_read_why_it_is_refused() {
    let server = Served::with_token().await;
    let (wrong, right) = ("Authorization: Bearer wrong\r\n", "Authorization: Bearer right\r\n");
    let json = "Content-Type: application/json\r\n";
    for (headers, length, wanted) in [
        (format!("{wrong}{json}"), 5 << 20, 401),
        (format!("{wrong}{json}Connection: close\r\n"), 5 << 20, 401),
        (format!("{right}{json}Origin: http://evil.example\r\n"), 5 << 20, 403),
        (right.to_owned(), 20 << 20, 415),
        (format!("{right}Connection: close\r\n"), 20 << 20, 415),
        (format!("{right}{json}"), (64 << 20) + (1 << 16), 413),
    ] {
        // A reset may come late: more than one try finds it.
        for _ in 0..3 {
            let answered = timeout(LIMIT, send_all_then_read(&server, &headers, length)).await.unwrap();
            assert_eq!(answered.ok(), Some(wanted), "{headers}");
        }
    }
}

#[tokio::test]
async fn a_stranger_cannot_send_for_ever() {
    let server = Served::with_token().await;
    let headers = "Authorization: Bearer wrong\r\n";
    let sent = timeout(LIMIT, send_all_then_read(&server, headers, 1 << 30)).await.expect("an end");
    assert!(sent.is_err(), "{sent:?}");
}

#[tokio::test]
async fn a_client_that_waits_to_be_told_to_go_on_is_refused_without_a_body() {
    let server = Served::with_token().await;
    let headers = "Authorization: Bearer wrong\r\nExpect: 100-continue\r\n";
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let head = format!("POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // The end of the connection comes without one byte of the body.
    assert_eq!(read(stream).await.status, 401);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_reading_of_its_video() {
    let (tell, mut told) = unbounded_channel();
    let film = move |film: Film<'_>| {
        tell.send("begun").unwrap();
        while !(film.is_over)() {
            std::thread::sleep(Duration::from_millis(1));
        }
        tell.send("given up").unwrap();
        Err("nobody waits for it".into())
    };
    let server = Served::start_with(None, |_| Ok(None), film).await;
    let part = json!({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}});
    let body = json!({"messages": [{"role": "user", "content": [part]}]});
    // The next one gets the lane that the first one leaves.
    for _ in 0..2 {
        let client = server.post_unread(&body).await;
        assert_eq!(timeout(LIMIT, told.recv()).await.unwrap(), Some("begun"));
        drop(client);
        assert_eq!(timeout(LIMIT, told.recv()).await.unwrap(), Some("given up"));
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_end_and_answers_by_their_tokens() {
    let server = Served::answering(vec![piece("A "), piece("cat."), end("A cat.")]).await;
    for stream in [false, true] {
        assert_eq!(server.post(&question(&json!({"stream": stream}))).await.status, 200);
    }
    assert_eq!(server.post(&question(&json!({"n": 2}))).await.status, 400);
    assert_eq!(server.exchange("GET", "/nothing", "", "").await.status, 404);
    let waiting = Served::waiting().await;
    drop(waiting.post_unread(&question(&json!({}))).await);
    for (server, lines) in [
        (
            &server,
            &[
                "camscribe_http_requests_total{route=\"chat_completions\",status=\"2xx\"} 2",
                "camscribe_http_requests_total{route=\"chat_completions\",status=\"4xx\"} 1",
                "camscribe_http_requests_total{route=\"other\",status=\"4xx\"} 1",
                "camscribe_http_refused_total{reason=\"invalid\"} 2",
                "camscribe_client_tokens_total{kind=\"prompt\"} 18",
                "camscribe_client_tokens_total{kind=\"generated\"} 4",
                "camscribe_client_first_token_seconds_count 2",
                "camscribe_client_answer_seconds_count 2",
            ][..],
        ),
        (&waiting, &["camscribe_http_requests_total{route=\"chat_completions\",status=\"gone\"} 1"][..]),
    ] {
        // A request is counted when its answer was sent, which a client may come to know before.
        let counted = async {
            loop {
                let page = server.metrics.page(&Readings::default(), TextFormat::Prometheus);
                if lines.iter().all(|line| page.lines().any(|other| other == *line)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, counted).await.unwrap_or_else(|_| panic!("{lines:?}"));
    }
}

#[tokio::test]
async fn a_question_about_a_camera_is_answered_or_refused_with_the_same_document_and_a_status() {
    let server = Served::waiting().await;
    let ask = async |camera: &str, body: &str| {
        server.exchange("POST", &format!("/api/cameras/{camera}/ask"), "", body).await
    };
    let reply = ask("porch", r#"{"question": "Who is there?", "request": "7"}"#).await;
    let document = reply.json();
    assert_eq!(reply.status, 200, "{document}");
    for (field, value) in
        [("camera", "porch"), ("request", "7"), ("text", "A dog."), ("question", "Who is there?")]
    {
        assert_eq!(document[field], value, "{document}");
    }
    for (camera, body, status, code) in [
        ("busy", "{}", 429, "busy"),
        ("dark", "{}", 503, "camera_offline"),
        ("slow", "What?", 504, "expired"),
        ("other", "", 404, "no_such_camera"),
        ("porch", r#"{"qestion": "What?"}"#, 400, "invalid"),
        ("porch", "\u{0}", 400, "invalid"),
    ] {
        let reply = ask(camera, body).await;
        assert_eq!((reply.status, &reply.json()["error"]["code"]), (status, &json!(code)), "{}", reply.body);
        assert_eq!(reply.head.contains("retry-after"), matches!(status, 429 | 503), "{}", reply.head);
    }
    assert_eq!(ask("Porch%2F..", "{}").await.status, 404);
    assert_eq!(ask("porch", &"x".repeat(100 << 10)).await.status, 413);
    assert_eq!(server.exchange("GET", "/api/cameras/porch/ask", "", "").await.status, 405);
    let server = Served::with_token().await;
    assert_eq!(server.exchange("POST", "/api/cameras/porch/ask", "", "{}").await.status, 401);
}
