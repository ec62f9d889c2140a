//! Passwords and tokens are used and never shown. The daemon runs with every log line on, and all of its
//! output is searched.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    path::Path,
    process::{Command, Stdio},
};

use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{Daemon, camscribe, wait},
    http,
    rtsp::RtspServer,
};

const CAMERA: &str = "cam3ra-s3cret/+é";
const CAMERA_IN_URI: &str = "cam3ra-s3cret%2F%2B%C3%A9";
const BROKER: &str = "br0ker-s3cret";
const TOKEN: &str = "hf_t0ken5ecret";
const WRONG: &str = "wr0ng-s3cret";
/// What no output may contain: the secrets and the forms in which protocols carry them.
/// The last two are Basic authentication of `viewer` with either password.
const SECRETS: [&str; 7] = [
    "cam3ra-s3cret",
    BROKER,
    TOKEN,
    WRONG,
    "YnIwa2VyLXMzY3JldA",
    "dmlld2VyOmNhbTNyYS1zM2NyZXQv",
    "dmlld2VyOndyMG5nLXMzY3JldA",
];

/// Every output, by where it was found.
#[derive(Default)]
struct Written(Vec<(String, Vec<u8>)>);

impl Written {
    fn add(&mut self, place: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((place.into(), bytes.into()));
    }

    /// Adds all files below `folder` except those that the test wrote.
    fn add_folder(&mut self, folder: &Path, not: &[&str]) {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
            if not.contains(&name.as_str()) {
                continue;
            }
            self.add("a file's name", name);
            match entry.file_type().unwrap() {
                kind if kind.is_dir() => self.add_folder(&path, not),
                _ => self.add(path.display().to_string(), fs::read(&path).unwrap()),
            }
        }
    }

    fn check(&self) {
        for (place, bytes) in &self.0 {
            for secret in SECRETS {
                let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
                assert!(!found, "{place} holds {secret}: {}", String::from_utf8_lossy(bytes));
            }
        }
    }
}

/// A broker that requires a password.
fn guarded_broker() -> Mosquitto {
    let passwords = tempfile::NamedTempFile::new().unwrap();
    for (user, password) in [("camscribe", BROKER), ("reader", "reader")] {
        let mut make = Command::new("mosquitto_passwd");
        make.arg("-b").arg(passwords.path()).args([user, password]).stderr(Stdio::null());
        assert!(make.status().unwrap().success());
    }
    let mut broker = Mosquitto::stopped("allow_anonymous false");
    let kept = broker.path("passwords");
    fs::copy(passwords.path(), &kept).unwrap();
    let config = broker.path("mosquitto.conf");
    let text = fs::read_to_string(&config).unwrap() + &format!("password_file {}\n", kept.display());
    fs::write(config, text).unwrap();
    broker.run();
    broker
}

fn guarded_camera() -> RtspServer {
    let launch = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=10/1 \
                  ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=10 ! rtph264pay name=pay0";
    RtspServer::with_password(launch, "viewer", CAMERA)
}

/// The daemon with every log line on. Its `password_file` names lie in a credentials directory.
fn daemon(broker: u16, camera: &RtspServer, secrets: [(&str, &str); 2]) -> Daemon {
    let port = camera.port();
    let [_, (_, in_uri)] = secrets;
    let in_uri = if in_uri == CAMERA { CAMERA_IN_URI } else { in_uri };
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt = {{ url = "mqtt://127.0.0.1:{broker}", username = "camscribe", password_file = "mqtt" }}
        defaults = {{ window = "1s", frames = 2, prompt = "Describe what happens in this video." }}
        cameras.file = {{ uri = "rtsp://127.0.0.1:{port}/stream", username = "viewer", password_file = "camera" }}
        cameras.uri.uri = "rtsp://viewer:{in_uri}@127.0.0.1:{port}/stream"
        cameras.uri.transport = "auto"
        cameras.scene.uri = "test://shapes"
        "#
    );
    Daemon::with(&toml, |home, command| {
        let folder = home.join("credentials");
        fs::create_dir(&folder).unwrap();
        for (name, secret) in secrets {
            fs::write(folder.join(name), format!("{secret}\n")).unwrap();
            fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o400)).unwrap();
        }
        command.env("CREDENTIALS_DIRECTORY", folder).env("RUST_LOG", "trace").env("HF_TOKEN", TOKEN);
    })
}

/// Stops a daemon and returns all of its output.
fn gather(daemon: Daemon, written: &mut Written) {
    let proc = |name: &str| fs::read(format!("/proc/{}/{name}", daemon.pid())).unwrap();
    written.add("its command line", proc("cmdline"));
    written.add("its status", proc("status"));
    let limits = String::from_utf8(proc("limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    for page in ["/metrics", "/healthz", "/readyz"] {
        written.add(page, daemon.get(page).1);
    }
    let check = camscribe(daemon.home.path())
        .args(["check", "--config"])
        .arg(daemon.path("camscribe.toml"))
        .env("CREDENTIALS_DIRECTORY", daemon.path("credentials"))
        .env("RUST_LOG", "trace")
        .output()
        .unwrap();
    assert!(check.status.success(), "{check:?}");
    written.add("check's output", [check.stdout, check.stderr].concat());
    daemon.signal("HUP");
    daemon.logged("the configuration is active");
    daemon.signal("TERM");
    daemon.logged("SIGTERM");
    let home = daemon.home.path().to_owned();
    let folder = tempfile::tempdir().unwrap();
    // The home directory is removed with the daemon: keep a copy of what it wrote.
    wait("its end", || {
        let status = fs::read_to_string(format!("/proc/{}/stat", daemon.pid())).unwrap_or_default();
        (status.is_empty() || status.contains(") Z ")).then_some(())
    });
    assert!(Command::new("cp").arg("-a").arg(&home).arg(folder.path()).status().unwrap().success());
    assert_eq!(daemon.ended().0, Some(0));
    written.add_folder(folder.path(), &["credentials", "camscribe.toml", "model.safetensors"]);
    let log = written.0.iter().find(|(place, _)| place.ends_with("/stderr")).expect("its log");
    assert!(String::from_utf8_lossy(&log.1).contains("SIGTERM"));
}

#[test]
fn right_passwords_are_used_and_shown_nowhere() {
    let (broker, camera) = (guarded_broker(), guarded_camera());
    let reader = ["-u", "reader", "-P", "reader", "-t", "homeassistant/#"];
    let subscriber = Subscriber::with(broker.port(), "camscribe/#", &reader);
    let daemon = daemon(broker.port(), &camera, [("mqtt", BROKER), ("camera", CAMERA)]);
    let mut written = Written::default();
    let mut messages = Vec::new();
    for camera in ["file", "uri", "scene"] {
        let topic = format!("camscribe/edge1/{camera}/latest");
        let latest = Subscriber::with(broker.port(), &topic, &reader[..4]);
        messages.push(latest.next());
    }
    gather(daemon, &mut written);
    messages.extend(subscriber.until(|m| m.topic == "camscribe/edge1/status" && m.text() == "offline"));
    assert!(messages.iter().any(|m| m.topic.starts_with("homeassistant/")));
    for message in messages {
        written.add("a topic", message.topic.clone());
        written.add("user properties", message.user_properties.clone());
        written.add(format!("a message on {}", message.topic), message.payload);
    }
    written.check();
}

#[test]
fn wrong_passwords_are_refused_and_shown_nowhere() {
    let (broker, camera) = (guarded_broker(), guarded_camera());
    let daemon = daemon(broker.port(), &camera, [("mqtt", WRONG), ("camera", WRONG)]);
    for camera in ["file", "uri"] {
        let name = format!("camscribe_camera_state{{camera=\"{camera}\",state=\"unauthorised\"}}");
        wait("the camera's refusal", || (daemon.metric(&name) == Some(1.0)).then_some(()));
    }
    daemon.logged("mqtt.password_file");
    let mut written = Written::default();
    gather(daemon, &mut written);
    written.check();
}

#[test]
fn a_crash_leaves_no_core_dump_with_passwords() {
    let (broker, camera) = (guarded_broker(), guarded_camera());
    let mut daemon = daemon(broker.port(), &camera, [("mqtt", BROKER), ("camera", CAMERA)]);
    daemon.logged("/metrics, /healthz");
    let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    daemon.signal("ABRT");
    let status = daemon.status();
    assert_eq!(status.signal(), Some(6));
    assert!(!status.core_dumped());
}

#[test]
fn the_hubs_token_is_sent_to_the_hub_and_shown_nowhere() {
    let mut written = Written::default();
    for status in [401, 403, 404] {
        let hub = http::Server::start(move |_| http::Reply::new(status, format!("{TOKEN} is not good")));
        let home = tempfile::tempdir().unwrap();
        let out = camscribe(home.path())
            .args(["pull", "someone/model"])
            .envs([("HF_ENDPOINT", hub.url().as_str()), ("HF_TOKEN", TOKEN), ("RUST_LOG", "trace")])
            .output()
            .unwrap();
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let sent = hub.requests();
        let bearer = format!("Bearer {TOKEN}");
        assert!(sent.iter().any(|r| r.header("authorization") == Some(bearer.as_str())), "{sent:?}");
        written.add(format!("pull at {status}"), [out.stdout, out.stderr].concat());
        written.add_folder(home.path(), &[]);
    }
    written.check();
}
