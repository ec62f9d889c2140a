//! Asking a camera what it shows now: over MQTT, over HTTP, on the command line, and beside cameras that want all of the
//! model's time.
//!
//! `cargo test` makes a short run of the last; `CAMSCRIBE_LOAD_SECONDS` makes a longer one.

use std::{
    env,
    io::Write,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    api::{exchange, wait_ready},
    broker::{Mosquitto, Subscriber, publish},
    daemon::{Daemon, camscribe, wait},
};

fn toml(port: u16) -> String {
    format!(
        r#"
        model.id = "shapes"
        node.id = "n"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        [defaults]
        window = "1s"
        frames = 4
        max_tokens = 8
        change_threshold = 0
        [cameras.porch]
        uri = "test://shapes?object=red-circle-still"
        [cameras.attic]
        uri = "test://shapes"
        enabled = false
        "#
    )
}

/// Waits until a camera shows something.
fn wait_shown(daemon: &Daemon, camera: &str) {
    wait_ready(daemon);
    wait("a clip", || {
        let described = daemon.metric(&format!("camscribe_descriptions_total{{camera=\"{camera}\"}}"));
        described.filter(|count| *count > 0.0)
    });
}

/// Asks with mosquitto_rr, which waits for the reply on its own topic. Returns its correlation data and the reply.
fn request(port: u16, response_topic: &str, question: &str) -> (String, Value) {
    let port = port.to_string();
    let out = Command::new("mosquitto_rr")
        .args(["-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", &port, "-W", "60"])
        .args(["-t", "camscribe/n/porch/ask", "-e", response_topic, "-m", question])
        .args(["-D", "publish", "correlation-data", "call-7", "-F", "%D\t%p"])
        .output()
        .expect("mosquitto_rr is installed");
    let text = String::from_utf8(out.stdout).unwrap();
    let (correlation, reply) = text.trim().split_once('\t').unwrap_or_else(|| panic!("no reply: {text:?}"));
    (correlation.to_owned(), serde_json::from_str(reply).unwrap())
}

fn http(daemon: &Daemon, camera: &str, question: &str) -> (u16, Value) {
    let path = format!("/api/cameras/{camera}/ask");
    let reply = exchange(&daemon.http_address(), "POST", &path, "", question.as_bytes());
    (reply.status, reply.json())
}

#[test]
fn a_camera_is_asked_over_mqtt_over_http_and_on_the_command_line() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let retained = Command::new("mosquitto_pub")
        .args(["-r", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", "camscribe/n/porch/ask"])
        .args(["-m", r#"{"request": "retained"}"#])
        .status();
    assert!(retained.unwrap().success());
    let daemon = Daemon::start(&toml(port));
    let answers = Subscriber::to(port, "camscribe/n/+/ask/answer");
    wait_shown(&daemon, "porch");

    // To the caller's topic, with its correlation data.
    let question = r#"{"question": "Is there a red circle?", "answers": ["yes", "no"], "last": "2s"}"#;
    let (correlation, reply) = request(port, "camscribe/reply/me", question);
    assert_eq!(correlation, "call-7");
    assert_eq!((&reply["camera"], &reply["text"]), (&json!("porch"), &json!("yes")), "{reply}");
    assert_eq!((&reply["answer"]["type"], &reply["answer"]["answer"]), (&json!("predicate"), &json!("yes")));
    assert!(reply["answer"]["probability"].as_f64().unwrap() > 0.5 && reply.get("request").is_none());
    assert_eq!(reply["tokens"]["generated"], 0);
    assert!(reply["frames"].as_u64().unwrap() >= 2 && reply["start"].as_str() < reply["end"].as_str());
    let (_, reply) = request(port, "camscribe/reply/me", "What happens?");
    assert_eq!(reply["text"], "A red circle stays still.", "{reply}");

    // A topic that the configuration does not allow, and none at all: to the camera's own topic. The retained question
    // was not obeyed: its answer would have come before these.
    let elsewhere = Command::new("mosquitto_pub")
        .args(["-V", "5", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", "camscribe/n/porch/ask"])
        .args(["-m", r#"{"question": "What happens?", "request": "mine"}"#])
        .args(["-D", "publish", "response-topic", "elsewhere/me"])
        .status();
    assert!(elsewhere.unwrap().success());
    let reply = answers.next().json();
    assert_eq!((&reply["request"], &reply["question"]), (&json!("mine"), &json!("What happens?")));
    for (camera, question, code) in [
        ("attic", "{}", "camera_offline"),
        ("cellar", "{}", "no_such_camera"),
        ("porch", r#"{"question": "<image>"}"#, "invalid"),
    ] {
        publish(port, &format!("camscribe/n/{camera}/ask"), question);
        let message = answers.next();
        assert_eq!(message.topic, format!("camscribe/n/{camera}/ask/answer"));
        assert_eq!(message.json()["error"]["code"], code, "{}", message.text());
    }

    let (status, reply) = http(&daemon, "porch", r#"{"question": "What happens?"}"#);
    assert_eq!((status, &reply["text"]), (200, &json!("A red circle stays still.")), "{reply}");
    assert_eq!(http(&daemon, "attic", "{}").1["error"]["code"], "camera_offline");

    let ask = |arguments: &[&str]| {
        let mut command = camscribe(daemon.home.path());
        command.env("CAMSCRIBE__HTTP__LISTEN", daemon.http_address()).arg("ask").args(arguments);
        let out = command.arg("--config").arg(daemon.path("camscribe.toml")).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let (code, out, told) = ask(&["--camera", "porch", "--answers", "yes,no", "Is there a red circle?"]);
    assert_eq!((code, out.as_str()), (Some(0), "yes\n"), "{told}");
    assert!(told.starts_with("probability 0.") || told.starts_with("probability 1."), "{told}");
    let (code, out, _) = ask(&["--camera", "porch", "--format", "json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&out).unwrap()["camera"].as_str()),
        (Some(0), Some("porch"))
    );
    let (code, _, told) = ask(&["--camera", "attic", "What?"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("the camera attic is disabled"), "{told}");
    assert_eq!(ask(&["--camera", "porch", "--model", "shapes", "What?"]).0, Some(2));
    for (end, count) in [("answered", 6.0), ("camera_offline", 0.0)] {
        let counted = daemon.metric(&format!("camscribe_asks_total{{camera=\"porch\",end=\"{end}\"}}"));
        assert_eq!(counted, Some(count), "{end}");
    }
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_burst_of_hostile_questions_hurts_nobody() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let daemon = Daemon::start(&toml(port));
    wait_shown(&daemon, "porch");
    let mut flood = Command::new("mosquitto_pub")
        .args(["-V", "5", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-l"])
        .args(["-t", "camscribe/n/porch/ask"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = flood.stdin.take().unwrap();
    let long = "x".repeat(60_000);
    for i in 0..1000 {
        let line = match i % 5 {
            0 => "{\"question\":\"What happens?\"}",
            1 => "{\"question\": [[[[",
            2 => "\u{1}\u{2}",
            3 => "What happens?",
            _ => &long,
        };
        writeln!(lines, "{line}").unwrap();
    }
    drop(lines);
    assert!(flood.wait().unwrap().success());
    // Clips are described as before, and the next question is answered.
    let events = Subscriber::to(port, "camscribe/n/porch/description");
    (0..3).for_each(|_| assert_eq!(events.next().json()["type"], "description"));
    let answered = wait("an answer", || {
        let (_, reply) = request(port, "camscribe/reply/me", "What happens?");
        (reply["error"]["code"] != "busy").then_some(reply)
    });
    assert_eq!(answered["text"], "A red circle stays still.", "{answered}");
    assert!(daemon.metric("camscribe_asks_unanswered_total").unwrap() > 0.0, "not all got a reply");
    let warnings = daemon.log().lines().filter(|line| line.contains("WARN")).count();
    assert!(warnings < 20, "{}", daemon.log());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn asks_are_answered_soon_beside_cameras_that_want_more_than_there_is() {
    let seconds = env::var("CAMSCRIBE_LOAD_SECONDS").map_or(20, |text| text.parse().unwrap());
    let broker = Mosquitto::start("");
    let cameras: String = (0..8)
        .map(|i| {
            format!(
                "[cameras.cam{i}]\nuri = \"test://shapes?object=red-circle-still\"\nname = \"Camera {i}\"\n"
            )
        })
        .collect();
    let daemon = Daemon::start(&format!(
        "model.id = \"shapes\"\nnode.id = \"n\"\nmodel.max_batch = 4\nmqtt.url = \"mqtt://127.0.0.1:{}\"\n\
         defaults = {{ window = \"500ms\", stride = \"300ms\", frames = 8, max_tokens = 32, change_threshold = 0 }}\n{cameras}",
        broker.port()
    ));
    (0..8).for_each(|i| wait_shown(&daemon, &format!("cam{i}")));
    let sum = |name: &str| daemon.metric(name).unwrap();
    let events =
        || (0..8).map(|i| sum(&format!("camscribe_descriptions_total{{camera=\"cam{i}\"}}"))).sum::<f64>();
    let (before, start, mut took) = (events(), Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(seconds) {
        let (camera, asked) = (format!("cam{}", took.len() % 8), Instant::now());
        let (status, reply) = http(&daemon, &camera, r#"{"question": "What happens?", "max_tokens": 32}"#);
        assert_eq!((status, &reply["text"]), (200, &json!("A red circle stays still.")), "{reply}");
        took.push(asked.elapsed().as_secs_f64());
        thread::sleep(Duration::from_secs(1));
    }
    let (described, elapsed) = (events() - before, start.elapsed().as_secs_f64());
    // At most four clips are described at a time.
    let batch = 4.0 * elapsed / described;
    took.sort_by(f64::total_cmp);
    let p95 = took[(took.len() * 95).div_ceil(100) - 1];
    let lost = sum("camscribe_clips_dropped_total{camera=\"cam0\",reason=\"overload\"}");
    println!(
        "{elapsed:.0} s: {} asks, p50 {:.2} s, p95 {p95:.2} s; a batch of 4 clips takes {batch:.2} s: p95 is {:.2} batch \
         times; {:.1} clips/s were described, 26.7 were offered; cam0 lost {lost}",
        took.len(),
        took[took.len() / 2],
        p95 / batch,
        described / elapsed,
    );
    assert!(took.len() > 2 && described > 8.0, "the cameras were starved");
    assert_eq!(daemon.stop().0, Some(0));
}
