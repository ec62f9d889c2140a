//! A client of the HTTP server's API: one request a connection.

use std::{
    io::{Cursor, Read, Write},
    net::TcpStream,
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use image::{DynamicImage, ImageFormat, RgbImage};
use serde_json::{Value, json};

use super::daemon::{Daemon, TIMEOUT, wait};

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The text of an answer.
    pub fn text(&self) -> String {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    }

    /// The message of an error.
    pub fn error(&self) -> String {
        assert_ne!(self.status, 200, "{self:?}");
        self.json()["error"]["message"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }

    /// The documents of a stream.
    pub fn events(&self) -> Vec<Value> {
        assert!(self.body.ends_with("data: [DONE]\n\n"), "{self:?}");
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter(|line| *line != "[DONE]").map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Starts a daemon that serves the small model, with these lines in `[http]`, and waits until it is ready.
pub fn model_server(http: &str) -> Daemon {
    let daemon =
        Daemon::start(&format!("model.id = \"shapes\"\nnode.id = \"n\"\n[http]\napi = true\n{http}"));
    wait_ready(&daemon);
    daemon
}

pub fn wait_ready(daemon: &Daemon) {
    wait("the model", || (daemon.get("/readyz").0 == 200).then_some(()));
}

/// Sends a request and leaves its answer to be read.
pub fn send(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let host = if headers.to_ascii_lowercase().contains("host:") {
        String::new()
    } else {
        format!("Host: {address}\r\n")
    };
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{host}Connection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A server that refuses a request need not read it.
    let _ = stream.write_all(body);
    stream
}

/// Reads an answer to its end.
pub fn read(mut stream: TcpStream) -> Reply {
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    assert!(read.is_ok() || !answer.is_empty(), "{read:?}");
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    let head = head.to_ascii_lowercase();
    let body = if head.contains("transfer-encoding: chunked") { unchunked(body) } else { body.into() };
    Reply { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
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

/// Sends a request and reads its answer.
pub fn exchange(address: &str, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
    read(send(address, method, path, headers, body))
}

/// Gets what is not text: its head in lower case, and its body.
pub fn exchange_whole(address: &str, path: &str) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    send(address, "GET", path, "", b"").read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n").expect("a head");
    let body = answer.split_off(end + 4);
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(head.starts_with("http/1.1 200"), "{path}: {head}");
    (head, body)
}

pub const CHAT: &str = "/v1/chat/completions";
pub const JSON: &str = "Content-Type: application/json\r\n";

/// Puts a question that is a whole body.
pub fn ask(daemon: &Daemon, body: &Value) -> Reply {
    exchange(&daemon.http_address(), "POST", CHAT, JSON, body.to_string().as_bytes())
}

/// The body of a question whose one message has this content, with more fields.
pub fn question(content: Value, fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": content}]});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// Asks again until the model takes the question.
pub fn ask_patiently(daemon: &Daemon, body: &Value) -> Reply {
    wait("an answer", || {
        let reply = ask(daemon, body);
        if reply.status == 429 {
            std::thread::sleep(Duration::from_millis(200));
            return None;
        }
        Some(reply)
    })
}

/// A picture of 96 x 64 pixels with a square of this colour, as the bytes of a file.
pub fn picture(format: ImageFormat, colour: [u8; 3]) -> Vec<u8> {
    let image = RgbImage::from_fn(96, 64, |x, y| {
        let inside = (20..44).contains(&x) && (20..44).contains(&y);
        image::Rgb(if inside { colour } else { [240; 3] })
    });
    encoded(image, format)
}

pub fn encoded(image: RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image).write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

pub fn data_url(media_type: &str, data: &[Vec<u8>]) -> String {
    let data: Vec<_> = data.iter().map(|bytes| BASE64_STANDARD.encode(bytes)).collect();
    format!("data:{media_type};base64,{}", data.join(","))
}

pub fn image_part(bytes: Vec<u8>) -> Value {
    json!({"type": "image_url", "image_url": {"url": data_url("image/png", &[bytes])}})
}

pub fn text_part(text: &str) -> Value {
    json!({"type": "text", "text": text})
}
