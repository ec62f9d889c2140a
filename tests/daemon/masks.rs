//! What a mask hides leaves camscribe by no way: a red circle stands under it, and nothing red, in pixels or words, is in
//! any message, answer, log line or file.

use std::{fs, path::Path, process::Command};

use camscribe::history::{Reader, read_lossless};
use image::RgbImage;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{
    api::{exchange, exchange_whole},
    broker::{Mosquitto, Received, Subscriber},
    daemon::{Daemon, camscribe, wait},
};

/// The circle stands in the left half, a square moves up in the right one.
const SCENE: &str =
    "[cameras.porch]\nuri = \"test://shapes?object=red-circle-still&object=blue-square-up&period=2s\"\n";
/// Hides the left half.
const MASK: &str = "masks.garden = \"0,0,0.48,0,0.48,1,0,1\"\n";
const DESCRIPTION: &str = "camscribe/edge1/porch/description";
const SNAPSHOT: &str = "camscribe/edge1/porch/snapshot";

fn toml(port: u16, cameras: &[&str]) -> String {
    format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        log.level = "debug"
        history = {{ frames = "all", frame_format = "lossless" }}
        defaults = {{ window = "2s", frames = 8, prompt = "Describe what happens in this video.", change_threshold = 0 }}
        {}"#,
        cameras.concat()
    )
}

fn is_red(image: &RgbImage) -> bool {
    image.pixels().any(|pixel| pixel[0] > pixel[1].max(pixel[2]).saturating_add(40))
}

fn is_blue(image: &RgbImage) -> bool {
    image.pixels().any(|pixel| pixel[2] > pixel[0].max(pixel[1]).saturating_add(40))
}

/// The pictures that messages carry, found by how JPEG begins.
fn pictures(messages: &[Received]) -> Vec<RgbImage> {
    let jpegs = messages.iter().filter(|message| message.payload.starts_with(&[0xff, 0xd8, 0xff]));
    jpegs.map(|message| image::load_from_memory(&message.payload).unwrap().into_rgb8()).collect()
}

/// Whether any file of a folder holds these bytes. SQLite splits what is larger than a page.
fn is_in_files(folder: &Path, bytes: &[u8]) -> bool {
    let part = &bytes[..bytes.len().min(1000)];
    let files =
        fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap_or_default());
    files.into_iter().any(|file| file.windows(part.len()).any(|it| it == part))
}

/// Whether a text has a word for what is hidden.
fn names_it(text: &str) -> bool {
    text.split(|c: char| !c.is_alphanumeric()).any(|word| word == "red" || word == "circle")
}

fn ask(daemon: &Daemon) -> (u16, Value) {
    let question =
        json!({"question": "Describe what happens in this video.", "last": "2s", "max_tokens": 24});
    let body = question.to_string();
    let reply = exchange(&daemon.http_address(), "POST", "/api/cameras/porch/ask", "", body.as_bytes());
    (reply.status, reply.json())
}

/// The picture that the API shows at a path below `/api`.
fn shown(daemon: &Daemon, path: &str) -> RgbImage {
    let reply = exchange_whole(&daemon.http_address(), &format!("/api/{path}")).1;
    image::load_from_memory(&reply).unwrap_or_else(|error| panic!("{path}: {error}")).into_rgb8()
}

/// The frames of an event as the history holds them: none once they are deleted.
fn kept(state: &Path, id: Uuid) -> Vec<RgbImage> {
    let reader = Reader::open(state).unwrap();
    let frames = (0..).map_while(|number| reader.frame(id, number).unwrap());
    let pictures = frames.map(|frame| read_lossless(&frame.bytes).unwrap());
    let image =
        |it: camscribe::request::Picture| RgbImage::from_raw(it.width, it.height, it.rgb.to_vec()).unwrap();
    pictures.map(image).collect()
}

/// Runs `check --probe --preview` with the daemon's configuration. Returns the picture of the camera and what was printed.
fn preview(home: &Path) -> (RgbImage, String) {
    let mut command: Command = camscribe(home);
    command.args(["check", "--config", "camscribe.toml", "--probe", "--preview", "seen/here"]);
    let output = command.current_dir(home).env_remove("INVOCATION_ID").output().unwrap();
    let printed = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    let picture = image::open(home.join("seen/here/porch.jpg"));
    (picture.unwrap_or_else(|error| panic!("{error}: {printed}")).into_rgb8(), printed)
}

#[test]
fn a_red_circle_under_a_mask_is_in_nothing_that_leaves() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "#");
    let crop = "crop = \"0,0.1 1,1\"\n";
    let daemon = Daemon::start(&toml(broker.port(), &[SCENE, crop, MASK]));
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(subscriber.until(|message| message.topic == DESCRIPTION));
    }
    seen.extend(subscriber.until(|message| message.topic == SNAPSHOT));

    let events: Vec<Value> = seen.iter().filter(|m| m.topic == DESCRIPTION).map(Received::json).collect();
    for event in &events {
        assert_eq!(event["view"], json!({"crop": "0,0.1 1,1", "masks": ["garden"]}));
        assert_eq!((&event["clip"]["width"], &event["clip"]["height"]), (&json!(640), &json!(316)));
        assert!(event["description"].as_str().unwrap().contains("blue"), "{event}");
    }
    let pictures = pictures(&seen);
    assert!(!pictures.is_empty());
    for picture in &pictures {
        assert_eq!(picture.dimensions(), (640, 316));
        assert!(is_blue(picture) && !is_red(picture));
    }
    let (status, answer) = ask(&daemon);
    assert_eq!(status, 200, "{answer}");
    let (picture, printed) = preview(daemon.home.path());
    assert!(picture.dimensions() == (640, 316) && is_blue(&picture) && !is_red(&picture), "{printed}");
    assert!(printed.contains("camera porch: video of 640x316"), "{printed}");
    assert!(printed.contains("its picture is in seen/here/porch.jpg"), "{printed}");

    // The page, and the history behind it.
    let snapshot = shown(&daemon, "cameras/porch/snapshot.jpg");
    assert!(is_blue(&snapshot) && !is_red(&snapshot));
    let last = events.last().unwrap();
    let id: Uuid = last["id"].as_str().unwrap().parse().unwrap();
    let details = || {
        let (status, body) = daemon.get(&format!("/api/events/{id}"));
        (status == 200 && body.contains("\"exact\":true")).then_some(body)
    };
    let details = wait("the history", details);
    for number in 0..last["evidence"]["frames"].as_u64().unwrap() {
        let frame = shown(&daemon, &format!("events/{id}/frames/{number}.jpg"));
        assert!(is_blue(&frame) && !is_red(&frame));
    }
    let pages =
        ["/api/cameras", "/api/node", "/api/events", "/api/events?q=blue"].map(|path| daemon.get(path).1);
    let words = daemon.get("/api/events?q=red").1;
    assert_eq!(words, r#"{"events":[],"next":null}"#);
    let metrics = daemon.get("/metrics").1;
    let state = daemon.path("state");
    let frames = kept(&state, id);
    assert!(frames.len() == 8 && frames.iter().all(|frame| is_blue(frame) && !is_red(frame)));
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    let is_text = |message: &&Received| !message.payload.starts_with(&[0xff, 0xd8, 0xff]);
    let texts = seen
        .iter()
        .filter(is_text)
        .map(Received::text)
        .chain([answer.to_string(), metrics, log, printed, details])
        .chain(pages);
    for text in texts {
        // The address of the source may be told.
        assert!(!names_it(&text.replace("red-circle-still", "")), "{text}");
    }
}

#[test]
fn after_a_reload_that_adds_a_mask_nothing_of_before_is_seen() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let daemon = Daemon::start(&toml(broker.port(), &[SCENE]));
    let before = subscriber.until(|message| message.topic == DESCRIPTION);
    let event = before.last().unwrap().json();
    assert!(names_it(event["description"].as_str().unwrap()) && event.get("view").is_none(), "{event}");
    let is_masked = |message: &Received| message.topic == DESCRIPTION && message.json().get("view").is_some();
    let old: Uuid = event["id"].as_str().unwrap().parse().unwrap();
    let state = daemon.path("state");
    wait("the frames of before", || (kept(&state, old).len() == 8).then_some(()));
    assert!(is_red(&shown(&daemon, &format!("events/{old}/frames/0.jpg"))));
    let frame = Reader::open(&state).unwrap().frame(old, 0).unwrap().unwrap().bytes;
    assert!(is_in_files(&state, &frame[frame.len() / 2..]));

    daemon.reload(&toml(broker.port(), &[SCENE, MASK]));
    daemon.logged("the configuration is active: started: porch");
    // Its old frames are forgotten, and new ones come a moment later.
    let (_, answer) = ask(&daemon);
    assert!(!names_it(&answer.to_string()), "{answer}");
    // The frames of before are shown no more, and overwritten a moment later.
    assert_eq!(daemon.get(&format!("/api/events/{old}/frames/0.jpg")).0, 404);
    wait("their end", || kept(&state, old).is_empty().then_some(()));
    wait("their bytes", || (!is_in_files(&state, &frame[frame.len() / 2..])).then_some(()));
    let after = subscriber.until(is_masked);
    let event = after.last().unwrap().json();
    assert_eq!((&event["type"], &event["view"]), (&json!("description"), &json!({"masks": ["garden"]})));
    assert!(!names_it(event["description"].as_str().unwrap()), "{event}");
    // The broker has forgotten the old snapshot, and no other one of before comes.
    let is_gone = |message: &Received| message.topic == SNAPSHOT && message.payload.is_empty();
    let gone = after.iter().position(is_gone).expect("the snapshot is removed");
    let next = subscriber.until(|message| message.topic == SNAPSHOT);
    let shown = pictures(&[&after[gone..], &next].concat());
    assert!(!shown.is_empty() && shown.iter().all(|picture| is_blue(picture) && !is_red(picture)));
    let (status, answer) = ask(&daemon);
    assert!(status == 200 && !names_it(&answer.to_string()), "{answer}");

    // A mistake in a mask changes nothing.
    daemon.reload(&toml(broker.port(), &[SCENE, "masks.garden = \"0,0 1,0\"\n"]));
    daemon.logged("cameras.porch.masks.garden: has 2 corners: a polygon has at least 3");
    let event = subscriber.until(|message| message.topic == DESCRIPTION).pop().unwrap().json();
    assert_eq!(event["view"]["masks"], json!(["garden"]));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_mask_that_is_new_at_a_start_removes_the_snapshot_and_one_that_was_there_keeps_it() {
    let broker = Mosquitto::start("");
    let mut daemon = Daemon::start(&toml(broker.port(), &[SCENE]));
    let first = Subscriber::to(broker.port(), SNAPSHOT);
    first.until(|message| message.topic == SNAPSHOT);
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    drop(first);

    // Nothing of before is retained any more once the camera is there.
    fs::write(daemon.path("camscribe.toml"), toml(broker.port(), &[SCENE, MASK])).unwrap();
    daemon.restart();
    daemon.logged("model shapes loaded");
    let second = Subscriber::to(broker.port(), "camscribe/#");
    let seen = second.until(|message| message.topic == DESCRIPTION);
    let seen =
        [seen, second.until(|message| message.topic == SNAPSHOT && !message.payload.is_empty())].concat();
    let live: Vec<Received> = seen.into_iter().filter(|message| !message.retained).collect();
    let shown = pictures(&live);
    assert!(!shown.is_empty() && shown.iter().all(|picture| is_blue(picture) && !is_red(picture)));
    daemon.signal("TERM");
    assert_eq!(daemon.wait(), Some(0));
    drop(second);

    // With the mask as before, the snapshot is never gone.
    daemon.restart();
    let third = Subscriber::to(broker.port(), "camscribe/#");
    let seen = third.until(|message| message.topic == DESCRIPTION);
    let snapshots: Vec<&Received> = seen.iter().filter(|message| message.topic == SNAPSHOT).collect();
    assert!(!snapshots.is_empty() && snapshots.iter().all(|message| !message.payload.is_empty()));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_preview_needs_a_probe_and_a_folder() {
    let home = tempfile::TempDir::new().unwrap();
    fs::write(home.path().join("c.toml"), "[cameras.porch]\nuri = \"test://smpte\"\n").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = camscribe(home.path());
        command.env_remove("INVOCATION_ID").args(["check", "--config", "c.toml"]).args(arguments);
        let output = command.current_dir(home.path()).output();
        let output = output.unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = run(&["--preview", "x"]);
    assert!(code == Some(2) && error.contains("--probe"), "{error}");
    let (code, error) = run(&["--probe", "--preview", "c.toml/x"]);
    assert!(code == Some(1) && error.contains("the folder c.toml/x cannot be made"), "{error}");
}
