//! `/v1`: questions to the model over HTTP, in OpenAI's format, as programs and hostile clients put them.

use std::{fs, io::Read, path::Path, process::Command, thread};

use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    api::{
        CHAT, JSON, Reply, ask, ask_patiently, data_url, encoded, exchange, image_part, model_server,
        picture, question, read, send, text_part, wait_ready,
    },
    check::Check,
    daemon::{Daemon, camscribe},
    test_source,
};

const WIDTH: u32 = 640;
const HEIGHT: u32 = 360;

/// Every 12th frame of a scene, as JPEG, and their numbers.
fn frames(folder: &Path, scene: &str) -> (Vec<Vec<u8>>, Vec<usize>) {
    let raw = fs::read(test_source::raw(folder, scene, 4)).unwrap();
    let frames: Vec<&[u8]> = raw.chunks((WIDTH * HEIGHT * 3) as usize).collect();
    let numbers: Vec<usize> = (0..frames.len()).step_by(12).collect();
    let jpeg =
        |i: &usize| encoded(RgbImage::from_raw(WIDTH, HEIGHT, frames[*i].into()).unwrap(), ImageFormat::Jpeg);
    (numbers.iter().map(jpeg).collect(), numbers)
}

fn video_part(url: String) -> Value {
    json!({"type": "video_url", "video_url": {"url": url}})
}

/// What `camscribe ask` answers.
fn asked_on_the_command_line(home: &Path, arguments: &[&str]) -> Value {
    let mut command = camscribe(home);
    command.current_dir(home).args(["ask", "--model", "shapes", "--format", "json"]).args(arguments);
    let output = command.output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn each_kind_of_question_gets_the_answer_of_the_command_line() {
    let home = TempDir::new().unwrap();
    let (a, b) = (picture(ImageFormat::Png, [200, 0, 0]), picture(ImageFormat::Png, [0, 0, 200]));
    fs::write(home.path().join("a.png"), &a).unwrap();
    fs::write(home.path().join("b.png"), &b).unwrap();
    let film = fs::read(test_source::h264(home.path(), "object=red-circle-left", 4)).unwrap();
    let server = model_server("");
    for (content, arguments) in [
        (json!("Who are you?"), &["Who are you?"][..]),
        (json!([image_part(a.clone()), text_part("What is shown?")]), &["What is shown?", "a.png"]),
        (
            json!([image_part(a), image_part(b), text_part("Which differs?")]),
            &["Which differs?", "a.png", "b.png"],
        ),
        (
            json!([video_part(data_url("video/mp4", &[film])), text_part("What happens?")]),
            &["--video", "scene.mp4", "What happens?"],
        ),
    ] {
        let wanted = asked_on_the_command_line(home.path(), arguments);
        let reply = ask(&server, &question(content, json!({})));
        assert_eq!(json!(reply.text()), wanted["answer"], "{arguments:?}");
        let usage = &reply.json()["usage"];
        assert_eq!(usage["prompt_tokens"], wanted["tokens"]["prompt"], "{arguments:?}");
        assert_eq!(usage["completion_tokens"], wanted["tokens"]["generated"], "{arguments:?}");
        assert_eq!(reply.json()["choices"][0]["finish_reason"], wanted["finish_reason"], "{arguments:?}");
    }
    // Frames that somebody else has taken.
    let (jpegs, numbers) = frames(home.path(), "object=red-circle-left");
    let content = json!([video_part(data_url("video/jpeg", &jpegs)), text_part("What happens?")]);
    let options = json!({"fps": 25.0, "frames_indices": numbers, "total_num_frames": 100});
    let reply = ask(&server, &question(content, json!({"media_io_kwargs": {"video": options}})));
    assert_eq!(reply.text(), "A red circle moves to the left.");
}

#[test]
fn a_stream_is_the_whole_answer_piece_by_piece() {
    let server = model_server("");
    let fields = json!({"max_tokens": 20, "logprobs": true, "top_logprobs": 2});
    let whole = ask(&server, &question(json!("Say something."), fields.clone()));
    let mut streamed = question(json!("Say something."), fields);
    streamed["stream"] = json!(true);
    streamed["stream_options"] = json!({"include_usage": true});
    let reply = ask(&server, &streamed);
    let events = reply.events();
    let choices: Vec<&Value> = events.iter().filter_map(|event| event["choices"].get(0)).collect();
    let text: String = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str()).collect();
    let scores: Vec<&Value> =
        choices.iter().filter_map(|it| it["logprobs"]["content"].as_array()).flatten().collect();
    assert_eq!(text.trim(), whole.text());
    let whole = whole.json();
    assert_eq!(json!(scores), whole["choices"][0]["logprobs"]["content"]);
    assert_eq!(choices.last().unwrap()["finish_reason"], whole["choices"][0]["finish_reason"]);
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
    assert!(choices.len() > 3, "{events:?}");
}

#[test]
fn words_are_drawn_and_ended_as_is_asked() {
    let server = model_server("");
    let told = |fields: Value| ask(&server, &question(json!("Say something."), fields)).json();
    let text = |document: &Value| document["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let plain = told(json!({}));
    let drawn = |seed: u64| text(&told(json!({"temperature": 1.5, "top_k": 0, "seed": seed})));
    assert_eq!(drawn(1), drawn(1));
    assert!((2..6).any(|seed| drawn(seed) != drawn(1)));
    assert_eq!(text(&told(json!({"temperature": 2, "top_k": 1}))), text(&plain));
    let short = told(json!({"max_completion_tokens": 3}));
    assert_eq!(short["choices"][0]["finish_reason"], "length");
    assert_eq!(short["usage"]["completion_tokens"], 3);
    let whole = text(&plain);
    let word = whole.split(' ').nth(1).unwrap();
    let ended = told(json!({"stop": [word]}));
    assert_eq!(text(&ended).trim(), whole.split(word).next().unwrap().trim());
    assert_eq!(ended["choices"][0]["finish_reason"], "stop");
}

#[test]
fn an_image_is_cut_and_shrunk_as_is_asked() {
    let server = model_server("");
    let tokens = |detail: &str, fields: Value| {
        let url = data_url("image/png", &[picture(ImageFormat::Png, [200, 0, 0])]);
        let image = json!({"type": "image_url", "image_url": {"url": url, "detail": detail}});
        let reply = ask(&server, &question(json!([image]), fields));
        reply.json()["usage"]["prompt_tokens"].as_u64().unwrap_or_else(|| panic!("{reply:?}"))
    };
    let whole = tokens("low", json!({"max_tokens": 1}));
    let split = tokens("low", json!({"max_tokens": 1, "mm_processor_kwargs": {"do_image_splitting": true}}));
    let less = json!({"do_image_splitting": true, "size": {"longest_edge": 128}});
    let less = tokens("high", json!({"max_tokens": 1, "mm_processor_kwargs": less}));
    assert!(whole < less && less < split, "{whole} {less} {split}");
}

#[test]
fn sixty_four_clients_at_once_each_get_the_answer_that_they_get_alone() {
    let server = model_server("");
    let colours = [[200, 0, 0], [0, 200, 0], [0, 0, 200], [200, 200, 0]];
    let questions: Vec<Value> = (0..64)
        .map(|i| {
            let content = match i % 4 {
                0 => json!(format!("Describe story {}.", i % 8)),
                k => json!([image_part(picture(ImageFormat::Png, colours[k])), text_part("What is shown?")]),
            };
            question(content, json!({"max_tokens": 4 + 5 * (i % 4)}))
        })
        .collect();
    let alone: Vec<String> = questions[..8].iter().map(|body| ask(&server, body).text()).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let server = &server;
        let ask = |body| scope.spawn(move || ask_patiently(server, body).text());
        let asking: Vec<_> = questions.iter().map(ask).collect();
        asking.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (i, answer) in together.iter().enumerate() {
        assert_eq!(answer, &alone[i % 8], "question {i}");
    }
}

/// With these fields the answer has 746 tokens: nearly every token is as likely as any other.
fn endless(mut fields: Value) -> Value {
    let drawn = json!({"max_tokens": 2000, "temperature": 100, "top_k": 0, "seed": 1});
    fields.as_object_mut().unwrap().extend(drawn.as_object().unwrap().clone());
    fields
}

#[test]
fn clients_that_go_away_hold_nobody_up() {
    let server = model_server("");
    let body = question(json!("Tell me a story."), endless(json!({"stream": true})));
    let address = server.http_address();
    for _ in 0..40 {
        let mut client = send(&address, "POST", CHAT, JSON, body.to_string().as_bytes());
        client.read_exact(&mut [0; 16]).unwrap();
    }
    assert!(!ask_patiently(&server, &question(json!("Who are you?"), json!({}))).text().is_empty());
    assert_eq!(server.stop().0, Some(0));
}

/// As Frigate's provider `openai` asks: the models, descriptions of objects, and review summaries.
#[test]
fn typed_questions_are_answered_by_probabilities() {
    let server = model_server("");
    let decide = |body: Value| {
        exchange(&server.http_address(), "POST", "/v1/decisions", JSON, body.to_string().as_bytes())
    };
    let image = data_url("image/png", &[picture(ImageFormat::Png, [200, 0, 0])]);
    let questions = json!([
        {"type": "predicate", "name": "red", "instructions": "Is there a red square?"},
        {"type": "choice", "instructions": [{"type": "input_text", "text": "What colour is it?"}],
         "choices": [{"value": "red"}, {"value": "blue", "description": "the colour of the sky"}, {"value": true}]},
        {"type": "score", "name": "size", "instructions": "How large is it?",
         "levels": [{"label": "small"}, {"label": "middling"}, {"label": "large"}]},
    ]);
    let input = json!([{"role": "user", "content": [
        {"type": "input_image", "image_url": image, "detail": "low"}, {"type": "input_text", "text": "A picture."}]}]);
    let reply = decide(json!({"model": "shapes", "input": input, "questions": questions}));
    assert_eq!(reply.status, 200, "{reply:?}");
    let document = reply.json();
    let answers = document["answers"].as_array().unwrap();
    let kinds: Vec<_> = answers.iter().map(|it| (&it["type"], &it["name"])).collect();
    assert_eq!(
        json!(kinds),
        json!([["predicate", "red"], ["choice", null], ["score", "size"]]),
        "{document}"
    );
    let sum = |answer: &Value| {
        let each = answer["probabilities"].as_array().unwrap().iter();
        each.map(|it| it["probability"].as_f64().unwrap()).sum::<f64>()
    };
    let probability = answers[0]["probability"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&probability), "{document}");
    assert!((sum(&answers[1]) - 1.0).abs() < 1e-6 && (sum(&answers[2]) - 1.0).abs() < 1e-6, "{document}");
    // Choices are typed.
    let values: Vec<_> =
        answers[1]["probabilities"].as_array().unwrap().iter().map(|it| &it["value"]).collect();
    assert_eq!(json!(values), json!(["red", "blue", true]));
    assert!(values.contains(&&answers[1]["choice"]));
    let expected: f64 = answers[2]["probabilities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["value"].as_f64().unwrap() * it["probability"].as_f64().unwrap())
        .sum();
    assert!((answers[2]["score"].as_f64().unwrap() - expected).abs() < 1e-6, "{document}");
    assert!(document["usage"]["input_tokens"].as_u64().unwrap() > 100, "{document}");
    assert_eq!(document["usage"]["output_tokens"], 0);
    // The same, asked alone.
    let alone = decide(json!({"input": input, "questions": [questions[0]]})).json();
    let alone = alone["answers"][0]["probability"].as_f64().unwrap();
    assert!((alone - probability).abs() < 1e-4, "{alone} {probability}");
    let text = decide(
        json!({"input": "Hello", "questions": [{"type": "predicate", "instructions": "Is it a greeting?"}]}),
    );
    assert_eq!(text.status, 200, "{text:?}");
    for (body, words) in [
        (json!({"input": "long ".repeat(60_000), "questions": questions}), "more than 256 KB of text"),
        (json!({"questions": questions}), "input: there is no list of messages"),
        (json!({"input": "x", "questions": []}), "questions: there must be 1 to 64"),
        (
            json!({"input": "x", "questions": [{"type": "riddle", "instructions": "?"}]}),
            "questions[0]: unknown variant",
        ),
        (
            json!({"input": "x", "questions": [{"type": "choice", "instructions": "?", "choices": [{"value": "a"}]}]}),
            "questions[0]: there must be 2 to 64",
        ),
        (
            json!({"input": "x", "questions": [{"type": "score", "instructions": "?",
                "levels": [{"label": "a"}, {"label": "a"}]}]}),
            "stands twice",
        ),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "https://x/y.png"}]}],
                "questions": questions}),
            "nothing is fetched",
        ),
    ] {
        let reply = decide(body.clone());
        assert_eq!(reply.status, 400, "{body}: {reply:?}");
        assert!(reply.error().contains(words), "{body}: {}", reply.error());
    }
}

#[test]
fn frigate_is_answered() {
    let server = model_server("");
    let models: Value = serde_json::from_str(&server.get("/v1/models").1).unwrap();
    let model = models["data"].as_array().unwrap().iter().find(|model| model["id"] == "shapes").unwrap();
    assert!(model["max_model_len"].as_u64().unwrap() > 100, "{model}");
    let image = |colour| {
        let url = data_url("image/jpeg", &[picture(ImageFormat::Jpeg, colour)]);
        json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}})
    };
    let content = json!([text_part("Describe the person."), image([200, 0, 0]), image([0, 200, 0])]);
    let mut body = question(content, json!({"model": "shapes"}));
    assert!(!ask(&server, &body).text().is_empty());
    let schema = json!({
        "type": "object",
        "properties": {
            "title": {"type": "string", "maxLength": 12},
            "confidence": {"type": "number"},
            "potential_threat_level": {"type": "integer", "minimum": 0, "maximum": 2},
        },
        "required": ["title", "confidence", "potential_threat_level"],
        "additionalProperties": false,
    });
    body["response_format"] = json!({
        "type": "json_schema",
        "json_schema": {"name": "review_metadata", "strict": true, "schema": schema},
    });
    body["max_tokens"] = json!(200);
    let reply = ask(&server, &body);
    if reply.json()["choices"][0]["finish_reason"] == "stop" {
        let summary: Value = serde_json::from_str(&reply.text()).unwrap();
        assert!(summary["title"].is_string() && summary["potential_threat_level"].is_u64(), "{summary}");
    } else {
        assert!(reply.text().trim_start().starts_with('{'), "{reply:?}");
    }
}

/// As Home Assistant's LLM Vision asks by its "Custom OpenAI" and "LocalAI": a test of the set-up, then images with their
/// names between them.
#[test]
fn llm_vision_is_answered() {
    let server = model_server("");
    assert_eq!(server.get("/readyz").0, 200);
    let hi = json!({
        "model": "shapes",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
        "max_tokens": 1, "temperature": 0.5,
    });
    let headers = "Content-type: application/json\r\nAuthorization: Bearer \r\n";
    let reply = exchange(&server.http_address(), "POST", CHAT, headers, hi.to_string().as_bytes());
    assert_eq!(reply.status, 200, "{reply:?}");
    let image = |colour| {
        let url = data_url("image/jpeg", &[picture(ImageFormat::Jpeg, colour)]);
        json!({"type": "image_url", "image_url": {"url": url, "detail": "low"}})
    };
    let content = json!([
        text_part("Image 1:"),
        image([200, 0, 0]),
        text_part("front door:"),
        image([0, 0, 200]),
        text_part("What is different?"),
    ]);
    let fields = json!({"model": "shapes", "max_tokens": 100, "temperature": 0.2, "top_p": 0.9});
    assert!(!ask(&server, &question(content, fields)).text().is_empty());
    // The name that the integration writes where none is set.
    let other = ask(&server, &question(json!("Hi"), json!({"model": "gpt-4o-mini"})));
    assert_eq!((other.status, &other.json()["error"]["code"]), (404, &json!("model_not_found")));
    assert!(other.error().contains("\"shapes\""), "{other:?}");
}

#[test]
fn hostile_bodies_get_one_clear_error_each_and_the_model_goes_on() {
    let server = model_server("");
    let address = server.http_address();
    let image = |url: &str| {
        question(json!([{"type": "image_url", "image_url": {"url": url}}]), json!({})).to_string()
    };
    let video = |url: String| question(json!([video_part(url)]), json!({})).to_string();
    // A PNG of 30000 x 30000 pixels, and one of 9000 x 9000 which is black and so compresses to little.
    let claims = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x75\x30\0\0\x75\x30\x08\x02\0\0\0".to_vec();
    let bomb = encoded(RgbImage::new(9000, 9000), ImageFormat::Png);
    assert!(bomb.len() < 2 << 20, "{}", bomb.len());
    let bombs = data_url("image/png", &[bomb]);
    let many_bombs: Vec<_> =
        (0..4).map(|_| json!({"type": "image_url", "image_url": {"url": bombs}})).collect();
    let playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n".to_vec();
    let parts = question(json!(vec![text_part("a"); 10_000]), json!({})).to_string();
    let cases: Vec<(String, &str)> = vec![
        (String::new(), "no such JSON"),
        ("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi".into(), "no such JSON"),
        ("\u{feff}{}".into(), "no such JSON"),
        ("[]".into(), "no such JSON"),
        ("{\"temperature\": NaN}".into(), "no such JSON"),
        ("{\"temperature\": Infinity}".into(), "no such JSON"),
        ("{\"temperature\": 1e999}".into(), "no such JSON"),
        (format!("{{\"messages\": {}", "[".repeat(1 << 20)), "more than 500000 values"),
        (format!("{{\"messages\": {}", "[".repeat(1 << 18)), "no such JSON: recursion limit"),
        (format!("{{\"x\": {}", "{\"a\":".repeat(100_000)), "no such JSON"),
        (parts, "more than 1024 parts"),
        ("{}".into(), "there is no list of messages"),
        (question(json!("a ".repeat(100_000)), json!({})).to_string(), "tokens"),
        (image("https://example.org/a.png"), "nothing is fetched"),
        (image("file:///etc/passwd"), "nothing is fetched"),
        (image("/etc/passwd"), "nothing is fetched"),
        (image("data:text/html;base64,PGh0bWw+"), "this is no JPEG"),
        (image("data:image/png;base64,"), "this is no JPEG"),
        (image("data:image/png;base64,%%%"), "not valid base64"),
        (image(&data_url("image/png", &[claims])), "messages[0].content[0]: "),
        (question(json!(many_bombs), json!({})).to_string(), "MB of pixels"),
        (
            video(data_url("application/vnd.apple.mpegurl", std::slice::from_ref(&playlist))),
            "this is not a video",
        ),
        (video(data_url("video/mp4", &[playlist])), "this is not a video"),
        (video(data_url("video/mp4", &[b"<html>no video</html>".to_vec()])), "this is not a video"),
        (video(data_url("video/mp4", &[vec![0; 1 << 20]])), "this is not a video"),
        (video(format!("data:video/jpeg;base64,{}", ",".repeat(100_000))), "more than 256 frames"),
    ];
    for (body, words) in cases {
        let reply = exchange(&address, "POST", CHAT, JSON, body.as_bytes());
        assert_eq!(reply.status, 400, "{words}: {reply:?}");
        let why = reply.error();
        assert!(why.contains(words) && !why.contains("/proc/"), "{words}: {why}");
    }
    let huge = exchange(&address, "POST", CHAT, &format!("{JSON}Content-Length: 99999999999\r\n"), b"");
    assert!([400, 413].contains(&huge.status), "{huge:?}");
    assert_eq!(server.get("/readyz").0, 200);
    assert!(!ask(&server, &question(json!("Who are you?"), json!({}))).text().is_empty());
    let (code, log) = server.stop();
    assert!(code == Some(0) && !log.contains("panicked"), "{log}");
}

#[test]
fn a_damaged_video_is_told_without_the_path_of_its_copy() {
    let home = TempDir::new().unwrap();
    let film = fs::read(test_source::h264(home.path(), "object=red-circle-left", 4)).unwrap();
    let server = model_server("");
    let cut = data_url("video/mp4", &[film[..film.len() / 2].to_vec()]);
    let reply = ask(&server, &question(json!([video_part(cut)]), json!({})));
    let why = reply.error();
    assert!(reply.status == 400 && why.contains("damaged") && !why.contains("/proc"), "{why}");
}

#[test]
fn a_token_is_asked_for_and_another_one_after_a_reload() {
    let config = |file: &str| {
        format!(
            "model.id = \"shapes\"\nnode.id = \"n\"\n[http]\napi = true\ntoken_file = \"CONFIG/{file}\"\n"
        )
    };
    let server = Daemon::with(&config("first"), |home, command| {
        fs::write(home.join("first"), "first-token-of-the-test\n").unwrap();
        fs::write(home.join("second"), "second-token-of-the-test\n").unwrap();
        command.env("RUST_LOG", "trace");
    });
    wait_ready(&server);
    let address = server.http_address();
    let status = |path: &str, token: &str| {
        let headers =
            if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
        exchange(&address, "GET", path, &headers, b"").status
    };
    let (first, second) = ("first-token-of-the-test", "second-token-of-the-test");
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(status(path, ""), 200, "{path}");
    }
    assert_eq!(["", "wrong", second, first].map(|token| status("/v1/models", token)), [401, 401, 401, 200]);
    let refused = exchange(&address, "POST", CHAT, JSON, b"{}");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (401, &json!("invalid_api_key")));
    assert!(refused.head.contains("www-authenticate: bearer"), "{}", refused.head);
    server.reload(&config("second").replace("CONFIG", server.home.path().to_str().unwrap()));
    server.logged("HTTP asks for another token");
    assert_eq!([first, second].map(|token| status("/v1/models", token)), [401, 200]);
    let (code, log) = server.stop();
    assert_eq!(code, Some(0));
    assert!(!log.contains(first) && !log.contains(second));
    assert!(log.contains("HTTP: POST /v1/chat/completions: 401 after "), "{log}");
    assert!(log.contains("HTTP: GET /v1/models: 200 after "), "{log}");
}

#[test]
fn a_browser_of_this_machine_is_no_way_in() {
    let server = model_server("");
    let address = server.http_address();
    let status = |path: &str, headers: &str| exchange(&address, "GET", path, headers, b"").status;
    assert_eq!(status("/v1/models", "Host: evil.example\r\n"), 403);
    assert_eq!(status("/metrics", "Host: evil.example\r\n"), 403);
    assert_eq!(status("/v1/models", "Host: localhost\r\n"), 200);
    assert_eq!(status("/v1/models", "Origin: http://evil.example\r\n"), 403);
    assert_eq!(status("/v1/models", &format!("Origin: http://{address}\r\n")), 200);
    assert_eq!(status("/readyz", "Host: evil.example\r\n"), 200);
}

#[test]
fn the_api_is_off_unless_it_is_switched_on() {
    let server = Daemon::start("model.id = \"shapes\"\nnode.id = \"n\"\ncameras.a.uri = \"test://shapes\"\n");
    let (status, body) = server.get("/v1/models");
    assert!(status == 404 && body.contains("http.api = true"), "{body}");
}

/// Makes an authority with a certificate for 127.0.0.1 and another pair.
fn certificates(folder: &Path) {
    let script = r#"
        set -e
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj "/CN=test authority"
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj "/CN=server"
        printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' > server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile server.ext \
            -out server.pem
    "#;
    let made = Command::new("sh").args(["-c", script]).current_dir(folder).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[test]
fn with_a_certificate_the_port_speaks_tls() {
    let config = "model.id = \"shapes\"\nnode.id = \"n\"\n[http]\napi = true\ntls_cert_file = \"server.pem\"\n\
                  tls_key_file = \"server.key\"\n";
    let server = Daemon::with(config, |home, _| certificates(home));
    let line = server.logged("questions to the model at https://");
    let url = line.split(" at ").nth(1).unwrap().trim().to_owned();
    let curl = || {
        let mut command = Command::new("curl");
        command.args(["-sS", "--cacert"]).arg(server.path("ca.pem")).arg(format!("{url}/models"));
        command.output().expect("curl")
    };
    let first = crate::support::daemon::wait("the model", || {
        let output = curl();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        text.contains("\"shapes\"").then_some(text)
    });
    assert!(first.contains("\"list\""), "{first}");
    // Renewed in files of the same name.
    certificates(server.home.path());
    assert!(!curl().status.success());
    server.signal("HUP");
    crate::support::daemon::wait("the new certificate", || curl().status.success().then_some(()));
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn a_certificate_and_a_key_that_do_not_belong_together_are_found_by_check_and_by_run() {
    let config = "model.id = \"shapes\"\n[http]\napi = true\ntls_cert_file = \"ca.pem\"\ntls_key_file = \"server.key\"\n";
    let checked = |config: &str| {
        let mut check = Check::of(config);
        certificates(check.folder.path());
        // Relative files are those of the configuration's folder.
        let output = check.run();
        assert_eq!(output.code, Some(78), "{output:?}");
        output.err
    };
    let pair = checked(config);
    assert!(pair.contains("do not go together"), "{pair}");
    for (file, key, other) in [("ca.pem", "cert", "key"), ("server.key", "key", "cert")] {
        let alone = checked(&format!("[http]\napi = true\ntls_{key}_file = \"{file}\"\n"));
        assert!(alone.contains(&format!("http.tls_{key}_file: needs tls_{other}_file beside it")), "{alone}");
    }
    let (code, log) = Daemon::with(config, |home, _| certificates(home)).ended();
    assert!(code == Some(78) && log.contains("do not go together"), "{log}");
}

/// The commands of the page for users, as they stand there.
#[test]
fn the_curl_commands_of_the_guide_work() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guide/api.md")).unwrap();
    let commands: Vec<&str> =
        page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(commands.len() >= 5, "{commands:?}");
    let server = model_server("");
    let folder = server.home.path();
    let film = test_source::h264(folder, "object=red-circle-left", 4);
    fs::rename(film, folder.join("clip.mp4")).unwrap();
    for (name, colour) in
        [("photo.jpg", [200, 0, 0]), ("first.jpg", [0, 200, 0]), ("second.jpg", [0, 0, 200])]
    {
        fs::write(folder.join(name), picture(ImageFormat::Jpeg, colour)).unwrap();
    }
    for command in commands {
        let command = command.replace("127.0.0.1:9180", &server.http_address());
        let output = Command::new("sh").args(["-c", &command]).current_dir(folder).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command}: {err}");
        let answers = [
            "\"object\":\"list\"",
            "\"object\":\"chat.completion\"",
            "data: [DONE]",
            "\"object\":\"decision\"",
        ];
        assert!(answers.iter().any(|answer| out.contains(answer)), "{command}: {out} {err}");
        assert!(!out.contains("\"error\""), "{command}: {out}");
    }
}

#[test]
fn who_asks_while_the_model_is_stopped_is_told_to_come_again() {
    let server = model_server("");
    let address = server.http_address();
    let body = question(json!("Tell me a story."), endless(json!({}))).to_string();
    let waiting: Vec<_> = (0..8).map(|_| send(&address, "POST", CHAT, JSON, body.as_bytes())).collect();
    server.signal("TERM");
    // Whatever has begun is answered, or told that it is not.
    let replies: Vec<Reply> = waiting
        .into_iter()
        .filter_map(|stream| {
            let mut peek = [0; 1];
            (stream.peek(&mut peek).is_ok_and(|read| read > 0)).then(|| read(stream))
        })
        .collect();
    assert!(replies.iter().all(|reply| [200, 503].contains(&reply.status)), "{replies:?}");
    let (code, log) = server.ended();
    assert!(code == Some(0) && !log.contains("panicked"), "{log}");
}
