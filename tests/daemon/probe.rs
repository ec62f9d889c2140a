//! `camscribe check --probe` on real brokers, cameras and files.

use std::{fs, net::TcpListener, path::Path, process::Command};

use tempfile::TempDir;

use crate::support::{
    broker::{Mosquitto, Subscriber, free_port, publish},
    daemon::{Daemon, camscribe},
    rtsp::RtspServer,
    video,
};

/// Its output and its exit code.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    /// Returns the line about one part.
    fn line(&self, thing: &str) -> &str {
        let about = |line: &&str| line[8..].starts_with(&format!("{thing}: "));
        let mut lines = self.out.lines().filter(about);
        let line = lines.next().unwrap_or_else(|| panic!("nothing about {thing}: {self:?}"));
        assert_eq!(lines.next(), None, "{self:?}");
        line
    }

    fn ok(&self, thing: &str, text: &str) {
        let line = self.line(thing);
        assert!(line.starts_with("ok ") && line.contains(text), "{line}");
    }

    /// Asserts that it failed, and returns the end of its line.
    fn failed(&self, thing: &str, text: &str) {
        let line = self.line(thing);
        assert!(line.starts_with("failed ") && line.ends_with(text), "{line}");
    }
}

/// Runs `camscribe check --probe` on the configuration `toml`, which is written into `folder`.
fn probe(folder: &Path, toml: &str) -> Answer {
    fs::write(folder.join("c.toml"), toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
    command.env_clear().envs(std::env::vars().filter(|(name, _)| !name.starts_with("CAMSCRIBE")));
    command.env("CAMSCRIBE__HTTP__LISTEN", "127.0.0.1:0").env("STATE_DIRECTORY", folder.join("state"));
    command.env_remove("XDG_CACHE_HOME").env_remove("CACHE_DIRECTORY").env_remove("RUST_LOG");
    command.env("HOME", folder).env("CREDENTIALS_DIRECTORY", folder).current_dir(folder);
    let output = command.args(["check", "--config", "c.toml", "--probe"]).output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    Answer { code: output.status.code(), out, err }
}

/// A directory with two password files.
fn folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("right"), "hunter2\n").unwrap();
    fs::write(folder.path().join("wrong"), "hunter3\n").unwrap();
    folder
}

fn mqtt(port: u16, password: &str) -> String {
    format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{port}\"\nusername = \"camscribe\"\npassword_file = \"{password}\"\n"
    )
}

fn rtsp_server() -> RtspServer {
    let launch = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=10/1 \
                  ! x264enc tune=zerolatency key-int-max=10 speed-preset=ultrafast ! rtph264pay name=pay0";
    RtspServer::with_password(launch, "viewer", "hunter2")
}

fn camera(server: &RtspServer, password: &str) -> String {
    format!("uri = \"{}\"\nusername = \"viewer\"\npassword_file = \"{password}\"\n", server.uri())
}

#[test]
fn each_working_part_is_reported_in_one_line_and_the_exit_code_is_0() {
    let folder = folder();
    let broker = Mosquitto::with_password("camscribe", "hunter2");
    let server = rtsp_server();
    let film = video::ball(folder.path(), "film.mp4", &format!("{} ! mp4mux", video::h264(25)));
    let mut toml = mqtt(broker.port(), "right");
    toml +=
        &format!("[model]\nid = \"shapes\"\ndevice = \"cpu\"\n[cameras.net]\n{}", camera(&server, "right"));
    toml += &format!("[cameras.film]\nuri = \"{}\"\n", film.display());
    toml += "[cameras.off]\nuri = \"/no/such/film.mp4\"\nenabled = false\n";
    // More cameras than are probed at once.
    for n in 0..10 {
        toml += &format!("[cameras.ball{n}]\nuri = \"test://ball?width=160&height=120\"\n");
    }
    let answer = probe(folder.path(), &toml);
    assert_eq!((answer.code, answer.out.lines().count()), (Some(0), 16), "{answer:?}");
    answer.ok("HTTP address 127.0.0.1:0", "is free");
    answer.ok(&format!("state directory {}", folder.path().join("state").display()), "will be made");
    answer.ok("model shapes", "runs on cpu, f32");
    answer.ok(&format!("broker 127.0.0.1:{}", broker.port()), "accepts our login");
    answer.ok("camera net", "video of 320x240, 10 frames a second, decoded by ");
    // The source is live: on a busy machine an interval is not exactly a second.
    answer.ok("camera net", "a keyframe every ");
    answer.ok("camera film", "video of 320x240, 25 frames a second, decoded by ");
    (0..10).for_each(|n| answer.ok(&format!("camera ball{n}"), "video of 160x120, 25 frames a second"));
    assert!(!answer.out.contains("camera off"), "{answer:?}");
}

#[test]
fn each_failure_is_reported_with_a_remedy_and_does_not_hide_the_others() {
    let folder = folder();
    let broker = Mosquitto::with_password("camscribe", "hunter2");
    let server = rtsp_server();
    fs::create_dir(folder.path().join("empty")).unwrap();
    let mut toml = mqtt(broker.port(), "wrong");
    toml += &format!("[model]\nid = \"./empty\"\n[cameras.net]\n{}", camera(&server, "wrong"));
    toml += &format!("[cameras.gone]\nuri = \"rtsp://127.0.0.1:{}/stream\"\n", free_port());
    toml += "[cameras.film]\nuri = \"gone.mp4\"\n[cameras.ball]\nuri = \"test://ball\"\n";
    let answer = probe(folder.path(), &toml);
    assert_eq!((answer.code, answer.out.lines().count()), (Some(1), 8), "{answer:?}");
    assert!(answer.err.contains("error: 5 of 8 tests failed: the lines above say what to fix"), "{answer:?}");
    answer.failed("model ./empty", "or its download is incomplete; download it again");
    answer.failed(
        &format!("broker 127.0.0.1:{}", broker.port()),
        "(not authorized): check mqtt.username and mqtt.password_file",
    );
    answer.failed(
        "camera net",
        "the camera refuses user name or password: check username and password_file of this camera",
    );
    answer.failed("camera film", "gone.mp4: there is no such file: check its uri");
    let gone = answer.line("camera gone");
    assert!(
        gone.contains("cannot connect to 127.0.0.1:") && gone.contains("check address and port"),
        "{gone}"
    );
    answer.ok("camera ball", "video of 640x360");
    assert!(!format!("{answer:?}").contains("hunter"), "{answer:?}");
}

#[test]
fn a_missing_broker_and_a_model_that_was_not_pulled_are_reported() {
    let folder = folder();
    let toml = format!("{}[cameras.ball]\nuri = \"test://ball\"\n", mqtt(free_port(), "right"));
    let answer = probe(folder.path(), &toml);
    assert_eq!((answer.code, answer.out.lines().count()), (Some(1), 5), "{answer:?}");
    let broker = answer.out.lines().find(|l| l.contains("broker")).unwrap();
    assert!(
        broker.contains("refused") && broker.ends_with("check mqtt.url, and that the broker runs"),
        "{broker}"
    );
    let model = answer.out.lines().find(|l| l.contains("model")).unwrap();
    assert!(model.starts_with("failed ") && model.contains("run camscribe pull"), "{model}");
}

#[test]
fn a_broken_configuration_is_reported_before_anything_is_probed() {
    let folder = folder();
    let answer = probe(folder.path(), "[model]\nid = \"/no/such/folder\"\n[cameras.a]\nuri = \"gone.mp4\"\n");
    assert_eq!((answer.code, answer.out.as_str()), (Some(78), ""), "{answer:?}");
    assert!(answer.err.contains("c.toml:2: model.id: "), "{answer:?}");
}

#[test]
fn a_state_directory_that_cannot_be_is_reported_and_none_is_made() {
    let folder = folder();
    fs::write(folder.path().join("file"), "").unwrap();
    for (state_dir, wanted) in [
        ("state/deep", "will be made"),
        (".", "can be written to"),
        ("file/state", "file is not a folder: set node.state_dir to another"),
        ("/proc/state", "/proc holds no files of programs"),
    ] {
        let toml = format!(
            "[node]\nstate_dir = \"{state_dir}\"\n[model]\nid = \"shapes\"\n[cameras.a]\nuri = \"test://ball\"\n"
        );
        let answer = probe(folder.path(), &toml);
        let line = answer.out.lines().find(|line| line.contains("state directory")).unwrap();
        assert!(line.contains(wanted), "{line}");
        assert!(!folder.path().join("state").exists());
    }
}

#[test]
fn probing_a_broker_publishes_nothing_there() {
    let folder = folder();
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "#");
    let toml = format!(
        "[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\n[model]\nid = \"shapes\"\n[cameras.ball]\nuri = \"test://ball\"\n",
        broker.port()
    );
    let answer = probe(folder.path(), &toml);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    publish(broker.port(), "end", "");
    let seen = subscriber.until(|message| message.topic == "end");
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[test]
fn an_http_address_in_use_is_reported_unless_a_camscribe_listens_there() {
    let folder = folder();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other.local_addr().unwrap();
    let daemon = Daemon::start(
        "model.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:9\"\ncameras.a.uri = \"test://ball\"\n",
    );
    let ours = daemon.http_address();
    for (address, ok, text) in [
        (taken.to_string(), false, "another program listens there: end it, or set http.listen"),
        (ours, true, "is in use by a camscribe that runs"),
    ] {
        let toml = "[model]\nid = \"shapes\"\n[cameras.a]\nuri = \"test://ball\"\n";
        let mut command = camscribe(folder.path());
        fs::write(folder.path().join("c.toml"), toml).unwrap();
        command.current_dir(folder.path()).args(["check", "--probe", "--config", "c.toml"]);
        let output = command.env("CAMSCRIBE__HTTP__LISTEN", &address).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        let line = out.lines().find(|line| line.contains(&format!("HTTP address {address}"))).unwrap();
        assert!(line.starts_with(if ok { "ok " } else { "failed " }) && line.contains(text), "{line}");
    }
}
