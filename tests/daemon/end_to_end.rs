//! The program as a user runs it: a video file or a camera goes in, a true description comes out; where
//! there can be none, one clear sentence.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Output},
    time::{Duration, Instant},
};

use camscribe::event::Event;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{
    broker::{self, Mosquitto, Subscriber, free_port},
    rtsp::RtspServer,
    test_source, video,
};

const RED_CIRCLE: &str = "object=red-circle-left";
const RED_CIRCLE_IN_WORDS: &str = "A red circle moves to the left.";

/// The program with a home directory of its own.
fn camscribe(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
    command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("CAMSCRIBE")));
    command
        .env("HOME", home)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("CACHE_DIRECTORY")
        .env_remove("RUST_LOG")
        // Another test may have the default port.
        .env("STATE_DIRECTORY", home.join("state"))
        .env("CAMSCRIBE__HTTP__LISTEN", "");
    command
}

fn describe(home: &Path, arguments: &[&str]) -> Output {
    camscribe(home).args(["describe", "--model", "shapes"]).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[test]
fn a_file_name_that_is_not_utf_8_is_told() {
    use std::os::unix::ffi::OsStrExt;
    let home = TempDir::new().unwrap();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.mp4");
    let output = camscribe(home.path()).args(["describe", "--model", "shapes"]).arg(name).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = text(&output.stderr);
    assert!(told.contains("\"caf\\xE9.mp4\": the name is not UTF-8: rename the file"), "{told}");
}

/// Asserts that `event` conforms to the schema of `camscribe schema`.
fn check_schema(home: &Path, event: &Value) {
    let schema = camscribe(home).arg("schema").output().unwrap();
    let schema: Value = serde_json::from_slice(&schema.stdout).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(event).map(|e| e.to_string()).collect();
    assert!(faults.is_empty(), "{event:#}: {faults:?}");
}

/// A program that runs until it is stopped.
struct Running(Child);

impl Running {
    /// Sends SIGTERM and returns the exit code.
    fn stop(mut self) -> Option<i32> {
        Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("it does not stop");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_video_of_a_red_circle_going_left_is_described_as_such() {
    let home = TempDir::new().unwrap();
    let film = test_source::h264(home.path(), RED_CIRCLE, 8);
    let film = film.to_str().unwrap();

    let out = describe(home.path(), &["--window", "8s", film]);
    assert_eq!(text(&out.stdout), format!("00:00:00.000 - 00:00:08.000  {RED_CIRCLE_IN_WORDS}\n"), "{out:?}");

    let out = describe(home.path(), &["--window", "4s", "--format", "jsonl", film]);
    let events: Vec<Value> =
        text(&out.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 2, "{out:?}");
    for (n, event) in events.iter().enumerate() {
        check_schema(home.path(), event);
        let event: Event = serde_json::from_value(event.clone()).unwrap();
        assert_eq!(event.description, RED_CIRCLE_IN_WORDS);
        assert_eq!((event.clip.seq, event.clip.gap), (n as u64, false));
        let times: Vec<f64> = event.clip.frames.iter().map(|f| f.offset_s).collect();
        let wanted = (0..8).map(|i| f64::from(i) * 0.5);
        assert!(times.iter().zip(wanted).all(|(t, w)| (w..w + 0.05).contains(t)), "{times:?}");
    }
}

#[test]
fn a_video_is_described_as_subtitles_and_with_the_sampling_of_the_reference() {
    let home = TempDir::new().unwrap();
    let film = test_source::h264(home.path(), "object=blue-square-up", 8);
    let film = film.to_str().unwrap();
    let words = "A blue square moves up.";

    let srt = home.path().join("film.srt");
    let out =
        describe(home.path(), &["--window", "4s", "--format", "srt", "-o", srt.to_str().unwrap(), film]);
    assert!(out.status.success(), "{out:?}");
    let wanted =
        format!("1\n00:00:00,000 --> 00:00:04,000\n{words}\n\n2\n00:00:04,000 --> 00:00:08,000\n{words}\n\n");
    assert_eq!(fs::read_to_string(srt).unwrap(), wanted);

    let out = describe(home.path(), &["--format", "vtt", "--window", "8s", film]);
    assert_eq!(text(&out.stdout), format!("WEBVTT\n\n00:00:00.000 --> 00:00:08.000\n{words}\n\n"));

    let out = describe(home.path(), &["--sampling", "reference", "--format", "jsonl", film]);
    let event: Event = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(event.description, words);
    // 200 frames at 25 per second: one frame per second, from the first to the last.
    let numbers: Vec<f64> = event.clip.frames.iter().map(|f| (f.pts_s * 25.0).round()).collect();
    assert_eq!(numbers, [0.0, 28.0, 56.0, 85.0, 113.0, 142.0, 170.0, 199.0]);
}

#[test]
fn an_rtsp_camera_that_shows_a_red_circle_going_left_is_described_as_such_over_mqtt() {
    let home = TempDir::new().unwrap();
    let raw = test_source::raw(home.path(), RED_CIRCLE, 8);
    let camera = RtspServer::with_password(
        &format!(
            "filesrc location={} ! {} ! x264enc tune=zerolatency speed-preset=veryfast key-int-max=25 \
             ! rtph264pay name=pay0",
            raw.display(),
            test_source::parse()
        ),
        "viewer",
        "hush-hush",
    );
    let broker = Mosquitto::start("");
    fs::write(home.path().join("password"), "hush-hush\n").unwrap();
    let config = home.path().join("camscribe.toml");
    let toml = format!(
        r#"
        [node]
        id = "edge1"
        [model]
        id = "shapes"
        [mqtt]
        url = "mqtt://127.0.0.1:{}"
        [cameras.porch]
        uri = "{}"
        username = "viewer"
        password_file = "{}"
        window = "4s"
        prompt = "Describe what happens in this video."
        sampling = "rate"
        "#,
        broker.port(),
        camera.uri(),
        home.path().join("password").display()
    );
    fs::write(&config, toml).unwrap();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let running = Running(camscribe(home.path()).args(["run", "--config"]).arg(&config).spawn().unwrap());

    let event = subscriber.next_on("camscribe/edge1/porch/description").json();
    check_schema(home.path(), &event);
    let event: Event = serde_json::from_value(event).unwrap();
    assert_eq!(event.description, RED_CIRCLE_IN_WORDS);
    assert_eq!((event.node.as_str(), event.camera.as_str()), ("edge1", "porch"));
    assert_eq!((event.clip.width, event.clip.height), (640, 360));
    assert_eq!(running.stop(), Some(0));
    let last = subscriber.next_on("camscribe/edge1/status").text();
    assert_eq!(last, "offline");
}

#[test]
fn a_camera_that_disappears_reconnects_and_does_not_disturb_its_neighbour() {
    let home = TempDir::new().unwrap();
    let raw = test_source::raw(home.path(), "object=green-triangle-right", 8);
    let serve = format!(
        "filesrc location={} ! {} ! x264enc tune=zerolatency speed-preset=veryfast ! rtph264pay name=pay0",
        raw.display(),
        test_source::parse()
    );
    let camera = RtspServer::start(&serve);
    let (uri, port) = (camera.uri(), camera.port());
    let broker = Mosquitto::start("");
    let config = home.path().join("camscribe.toml");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 4, prompt = "Describe what happens in this video." }}
        cameras.porch.uri = "{uri}"
        cameras.scene.uri = "test://shapes"
        "#,
        broker.port()
    );
    fs::write(&config, toml).unwrap();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let running = Running(camscribe(home.path()).args(["run", "--config"]).arg(&config).spawn().unwrap());

    let status = |wanted: &'static str| {
        move |m: &broker::Received| m.topic == "camscribe/edge1/porch/status" && m.json()["state"] == wanted
    };
    subscriber.until(|m| m.topic == "camscribe/edge1/porch/description");
    drop(camera);
    let offline = subscriber.until(status("offline"));
    let why = offline.last().unwrap().json()["why"].as_str().unwrap_or_default().to_owned();
    assert!(!why.is_empty());
    let _again = RtspServer::start_at(&serve, port);
    let seen = subscriber.until(status("online"));
    // No clip of the neighbour is missing.
    let mut seqs: Vec<u64> = offline
        .iter()
        .chain(&seen)
        .filter(|m| m.topic == "camscribe/edge1/scene/description")
        .map(|m| m.json()["clip"]["seq"].as_u64().unwrap())
        .collect();
    seqs.dedup();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seqs:?}");
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn a_still_scene_is_described_once_and_its_later_events_repeat_it() {
    let home = TempDir::new().unwrap();
    let broker = Mosquitto::start("");
    let config = home.path().join("camscribe.toml");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        defaults = {{ window = "1s", frames = 4, prompt = "Describe what happens in this video." }}
        cameras.porch.uri = "test://shapes?object=red-circle-still"
        "#,
        broker.port()
    );
    fs::write(&config, toml).unwrap();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let running = Running(camscribe(home.path()).args(["run", "--config"]).arg(&config).spawn().unwrap());
    let topic = "camscribe/edge1/porch/description";
    let described = subscriber.next_on(topic).json();
    assert_eq!((&described["type"], described.get("repeats")), (&"description".into(), None));
    let seen = subscriber.until(|m| m.topic == topic && m.json()["clip"]["seq"] == 3);
    for event in seen.iter().filter(|m| m.topic == topic).map(|m| m.json()) {
        check_schema(home.path(), &event);
        assert_eq!((&event["type"], &event["repeats"]), (&"unchanged".into(), &described["id"]));
        assert_eq!(event["description"], described["description"]);
    }
    let latest: Vec<_> = seen.iter().filter(|m| m.topic == "camscribe/edge1/porch/latest").collect();
    assert!(latest.iter().all(|m| m.json() == described) && latest.len() == 1, "{latest:?}");
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn the_demo_shows_what_was_drawn_beside_each_description_and_ends_on_time() {
    let home = TempDir::new().unwrap();
    let out = camscribe(home.path()).args(["demo", "--for", "14s"]).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let lines: Vec<&str> = text(&out.stdout).lines().map(str::trim).collect();
    let said = |mark: &str| -> Vec<String> {
        lines.iter().filter_map(|l| l.strip_prefix(mark)).map(|l| l.trim().to_owned()).collect()
    };
    let (described, drawn) = (said("described:"), said("drawn:"));
    assert!(described.len() >= 2, "{lines:#?}");
    assert_eq!(described, drawn);
    assert_eq!(lines.last(), Some(&"camscribe/demo/status  offline"));
}

#[test]
fn a_source_that_cannot_be_described_fails_with_one_clear_sentence() {
    let home = TempDir::new().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let film = test_source::h264(home.path(), RED_CIRCLE, 4);
    let bytes = fs::read(&film).unwrap();
    fs::write(path("words.mp4"), "This is a letter, not a film.\n".repeat(100)).unwrap();
    fs::write(path("half.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    fs::write(path("empty.mp4"), "").unwrap();
    video::launch(&format!(
        "audiotestsrc num-buffers=50 ! vorbisenc ! oggmux ! filesink location={}",
        path("sound.ogg")
    ));
    let camera = RtspServer::with_password(
        "videotestsrc is-live=true ! x264enc tune=zerolatency ! rtph264pay name=pay0",
        "viewer",
        "right",
    );
    let guarded = camera.uri().replace("rtsp://", "rtsp://viewer:wr0ng-secret@");
    let nobody = format!("rtsp://127.0.0.1:{}/stream", free_port());
    let target = path("stolen");
    let injected = format!("{} ! filesink location={target}", film.display());
    let cases: &[(&str, &[&str])] = &[
        (&path("missing.mp4"), &["missing.mp4", "no such file"]),
        (&path("words.mp4"), &["words.mp4", "not a video"]),
        (&path("half.mp4"), &["half.mp4"]),
        (&path("empty.mp4"), &["empty.mp4", "not a video"]),
        (&path("sound.ogg"), &["sound.ogg", "no video"]),
        ("rtsp://no-such-host.invalid/stream", &["no-such-host.invalid"]),
        (&nobody, &["127.0.0.1"]),
        (&guarded, &["password"]),
        (&injected, &["no such file"]),
        ("ftp://host/film.mp4", &["unknown scheme", "ftp"]),
        ("test://no-such-scene", &["no-such-scene"]),
        ("v4l2:///dev/video98", &["/dev/video98"]),
    ];
    for (source, words) in cases {
        let out = describe(home.path(), &["--window", "2s", source]);
        let (said, printed) = (text(&out.stderr), text(&out.stdout));
        // What is no source at all is a wrong command line.
        let code = if said.contains("error: the source ") { 2 } else { 1 };
        assert_eq!(out.status.code(), Some(code), "{source}: {said}");
        assert_eq!(printed, "", "{source}");
        let error = said.lines().find(|line| !line.starts_with("describing with ")).unwrap();
        assert!(error.starts_with("error: "), "{source}: {said}");
        assert!(words.iter().all(|word| said.contains(word)), "{source}: {said}");
        assert!(!said.contains("wr0ng-secret") && !said.contains("panicked"), "{source}: {said}");
    }
    assert!(!Path::new(&target).exists());
}

#[test]
fn describe_never_writes_over_its_source_and_keeps_an_old_output_until_it_has_a_new_one() {
    let home = TempDir::new().unwrap();
    let film = test_source::h264(home.path(), RED_CIRCLE, 2);
    let (bytes, film) = (fs::read(&film).unwrap(), film.to_str().unwrap());
    let linked = home.path().join("linked.mp4");
    fs::hard_link(film, &linked).unwrap();
    for output in [film, linked.to_str().unwrap()] {
        let out = describe(home.path(), &["-o", output, film]);
        assert_eq!(out.status.code(), Some(2), "{out:?}");
        assert!(text(&out.stderr).contains("write to another file"), "{out:?}");
        assert_eq!(fs::read(film).unwrap(), bytes);
    }
    let kept = home.path().join("kept.vtt");
    fs::write(&kept, "yesterday's, and longer than what comes now, whatever that is: so long at the least")
        .unwrap();
    let output = kept.to_str().unwrap();
    let missing = describe(home.path(), &["--format", "vtt", "-o", output, "missing.mp4"]);
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    assert!(fs::read_to_string(&kept).unwrap().starts_with("yesterday's"));
    let out = describe(home.path(), &["--format", "vtt", "--window", "2s", "-o", output, film]);
    assert!(out.status.success(), "{out:?}");
    let written = fs::read_to_string(&kept).unwrap();
    assert!(written.starts_with("WEBVTT\n\n00:00:00.000") && !written.contains("yesterday"), "{written}");
}

#[test]
fn invalid_options_are_usage_errors() {
    let home = TempDir::new().unwrap();
    for (arguments, words) in [
        (&["--window", "0s", "x.mp4"][..], "--window"),
        (&["--window", "1h", "--stride", "100ms", "x.mp4"], "--stride"),
        (&["--dtype", "q8", "--device", "cuda", "x.mp4"], "q8"),
        (&["--format", "srt", "x.mp4", "y.mp4"], "srt"),
        (&["--sampling", "reference", "test://shapes"], "reference"),
    ] {
        let out = describe(home.path(), arguments);
        assert_eq!(out.status.code(), Some(2), "{out:?}");
        assert!(text(&out.stderr).starts_with("error: ") && text(&out.stderr).contains(words), "{out:?}");
    }
}

#[test]
fn a_wrong_model_directory_is_reported_before_anything_is_read() {
    let home = TempDir::new().unwrap();
    let missing =
        camscribe(home.path()).args(["describe", "--model", "/no/such/model", "x.mp4"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(text(&missing.stderr).contains("/no/such/model"), "{missing:?}");
    let empty = TempDir::new().unwrap();
    let model = empty.path().to_str().unwrap();
    let out = camscribe(home.path()).args(["describe", "--model", model, "x.mp4"]).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(text(&out.stderr).contains("config.json"), "{out:?}");
    let absent = camscribe(home.path()).args(["describe", "x.mp4"]).output().unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("camscribe pull"), "{absent:?}");
}
