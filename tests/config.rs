//! What the configuration takes and what it refuses, seen through the real binary.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use camscribe::config::keys;

const PORCH: &str = "[cameras.porch]\nuri = \"rtsp://192.0.2.10/stream1\"\n";

/// What is said about a scene that nothing can draw.
const DRAGON: &str = "object \"red-dragon-left\" is not colour-shape-motion: red, green, blue or yellow; circle, \
                      square or triangle; right, left, up, down, still, appears or disappears";

/// `camscribe check` on a folder of its own, with nothing of this process's configuration.
struct Check {
    folder: tempfile::TempDir,
    command: Command,
}

impl Check {
    fn of(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("c.toml"), toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAMSCRIBE__")
                || name == "CREDENTIALS_DIRECTORY"
                || name == "STATE_DIRECTORY"
            {
                command.env_remove(name);
            }
        }
        command.current_dir(folder.path()).args(["check", "--config", "c.toml"]);
        Self { folder, command }
    }

    fn file(self, name: &str, content: &str, mode: u32) -> Self {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    fn credentials(self) -> Self {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        self.env("CREDENTIALS_DIRECTORY", &folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&mut self) -> Answer {
        let Output { status, stdout, stderr } = self.command.output().unwrap();
        Answer {
            code: status.code(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Answer {
    fn toml(&self) -> toml::Table {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out.parse().unwrap()
    }
}

#[test]
fn each_mistake_in_the_file_is_named_with_its_line_and_what_to_do() {
    // What the file holds besides a good camera, the place that is named, and what is said.
    let cases = [
        ("model = \"x\"\n", "c.toml:1: model: ", "write [model]"),
        ("[modle]\nid = \"x\"\n", "c.toml:1: modle: ", "did you mean model?"),
        ("[wibble]\n", "c.toml:1: wibble: ", "there are node, model, mqtt, outbox, http, defaults, cameras"),
        ("[http]\nlisten = \"localhost\"\n", "c.toml:2: http.listen: ", "write an IP address and a port"),
        ("[http]\nlisten = \"127.0.0.1\"\n", "c.toml:2: http.listen: ", "such as 127.0.0.1:9180"),
        ("[http]\nlisten = 9180\n", "c.toml:2: http.listen: ", "text, not 9180: write it in quotes"),
        ("[node]\nstate_dir = 1\n", "c.toml:2: node.state_dir: ", "needs text, not 1: write it in quotes"),
        (
            "[mqtt]\nversion = \"3\"\n",
            "c.toml:2: mqtt.version: ",
            "one of \"auto\", \"5\", \"3.1.1\", not \"3\"",
        ),
        ("[mqtt]\nversion = 5\n", "c.toml:2: mqtt.version: ", "not 5: write it in quotes"),
        ("[model]\nmax_bach = 4\n", "c.toml:2: model.max_bach: ", "did you mean max_batch?"),
        ("[model]\nwindow = \"8s\"\n", "c.toml:2: model.window: ", "belongs under [defaults]"),
        ("window = \"8s\"\n", "c.toml:1: window: ", "write it under [defaults]"),
        (
            "[model]\nmax_batch = \"16\"\n",
            "c.toml:2: model.max_batch: ",
            "whole number from 1 to 64, not \"16\": write it without quotes",
        ),
        (
            "[model]\nmax_batch = 16.0\n",
            "c.toml:2: model.max_batch: ",
            "a whole number from 1 to 64, not the number 16.0",
        ),
        ("[model]\nmax_batch = 0\n", "c.toml:2: model.max_batch: ", "from 1 to 64, not 0"),
        ("[model]\nmax_batch = -3\n", "c.toml:2: model.max_batch: ", "from 1 to 64, not -3"),
        ("[model]\nmax_batch = 99999999999999999999\n", "c.toml:2: model.max_batch: ", "from 1 to 64"),
        ("[model]\nmax_batch = [1]\n", "c.toml:2: model.max_batch: ", "not a list"),
        (
            "[model]\nid = \"no spaces/here\"\n",
            "c.toml:2: model.id: ",
            "write a hub id such as organisation/name, or a directory",
        ),
        ("[model]\nid = \"/no/such/folder\"\n", "c.toml:2: model.id: ", "is not a directory"),
        ("[model]\nrevision = \"../main\"\n", "c.toml:2: model.revision: ", "write a branch, tag or commit"),
        ("[model]\ndevice = \"gpu\"\n", "c.toml:2: model.device: ", "write auto, cpu, cuda or cuda:N"),
        (
            "[model]\ndtype = \"fp16\"\n",
            "c.toml:2: model.dtype: ",
            "one of \"auto\", \"f32\", \"bf16\", \"f16\", \"q8\", not \"fp16\"",
        ),
        (
            "[model]\ndevice = \"cuda\"\ndtype = \"q8\"\n",
            "c.toml:3: model.dtype: ",
            "q8 is computed on the CPU only: use device = \"cpu\"",
        ),
        (
            "[model]\nlinger = 20\n",
            "c.toml:2: model.linger: ",
            "a number without a unit: write it in quotes, with its unit",
        ),
        ("[model]\nlinger = \"20\"\n", "c.toml:2: model.linger: ", "has no unit: write \"20s\""),
        ("[model]\nlinger = \"soon\"\n", "c.toml:2: model.linger: ", "is not a duration"),
        ("[outbox]\nmax_bytes = 1000\n", "c.toml:2: outbox.max_bytes: ", "a number without a unit"),
        ("[outbox]\nsnapshot_bytes = \"2TiB\"\n", "c.toml:2: outbox.snapshot_bytes: ", "to \"1TiB\""),
        ("[outbox]\nmax_bytes = \"1PB\"\n", "c.toml:2: outbox.max_bytes: ", "is not a size"),
        ("[outbox]\nmax_bytes = \"1kB\"\n", "c.toml:2: outbox.max_bytes: ", "from \"1MiB\" to \"1TiB\""),
        ("[node]\nid = \"a/b\"\n", "c.toml:2: node.id: ", "cannot be a level of a topic"),
        (
            "[mqtt]\nurl = \"localhost:1883\"\n",
            "c.toml:2: mqtt.url: ",
            "has no scheme: write mqtt://host:port",
        ),
        ("[mqtt]\nurl = \"http://localhost\"\n", "c.toml:2: mqtt.url: ", "unknown scheme \"http\""),
        ("[mqtt]\nurl = \"mqtt://localhost:1883.7\"\n", "c.toml:2: mqtt.url: ", "is not an address"),
        ("[mqtt]\nurl = \"mqtt://\"\n", "c.toml:2: mqtt.url: ", "names no host"),
        (
            "[mqtt]\nurl = \"mqtt://localhost/topic\"\n",
            "c.toml:2: mqtt.url: ",
            "something behind host and port",
        ),
        (
            "[mqtt]\nurl = \"mqtt://me:hunter2@localhost\"\n",
            "c.toml:2: mqtt.url: ",
            "write them with mqtt.username and mqtt.password_file",
        ),
        (
            "[mqtt]\npassword = \"hunter2\"\n",
            "c.toml:2: mqtt.password: ",
            "name that file with password_file",
        ),
        ("[mqtt]\nusername = \"me\"\n", "c.toml:2: mqtt.username: ", "needs password_file beside it"),
        ("[mqtt]\npassword_file = \"/x\"\n", "c.toml:2: mqtt.password_file: ", "needs username beside it"),
        (
            "[mqtt]\nusername = \"me\"\npassword_file = \"hunter2\"\n",
            "c.toml:3: mqtt.password_file: ",
            "no $CREDENTIALS_DIRECTORY to look in",
        ),
        (
            "[mqtt]\nusername = \"me\"\npassword_file = \"/no/such/file\"\n",
            "c.toml:3: mqtt.password_file: ",
            "/no/such/file cannot be read: No such file",
        ),
        ("[mqtt]\ntopic_prefix = \"a/+/b\"\n", "c.toml:2: mqtt.topic_prefix: ", "holds a wildcard"),
        ("[mqtt]\ntopic_prefix = \"/a\"\n", "c.toml:2: mqtt.topic_prefix: ", "holds an empty level"),
        ("[mqtt]\ntopic_prefix = \"\"\n", "c.toml:2: mqtt.topic_prefix: ", "is empty"),
        (
            "[mqtt]\ndiscovery_prefix = \"a//b\"\n",
            "c.toml:2: mqtt.discovery_prefix: ",
            "holds an empty level",
        ),
        ("[mqtt]\nca_file = \"c.toml\"\n", "c.toml:2: mqtt.ca_file: ", "write mqtts:// or remove the key"),
        (
            "[mqtt]\nurl = \"mqtts://h\"\nca_file = \"none.pem\"\n",
            "c.toml:3: mqtt.ca_file: ",
            "none.pem cannot be read",
        ),
        ("[mqtt]\nurl = \"mqtts://h\"\nca_file = \"c.toml\"\n", "c.toml:3: mqtt.ca_file: ", "no PEM block"),
        ("[defaults]\nuri = \"/x.mp4\"\n", "c.toml:2: defaults.uri: ", "each camera needs a uri of its own"),
        (
            "[defaults]\nenabled = \"yes\"\n",
            "c.toml:2: defaults.enabled: ",
            "true or false, not \"yes\": write it without quotes",
        ),
        (
            "[defaults]\nwindow = \"2h\"\n",
            "c.toml:2: defaults.window: ",
            "from \"500ms\" to \"1h\", not \"2h\"",
        ),
        ("[defaults]\nstride = \"0s\"\n", "c.toml:2: defaults.stride: ", "from \"100ms\""),
        ("[defaults]\nframes = 65\n", "c.toml:2: defaults.frames: ", "from 1 to 64, not 65"),
        (
            "[defaults]\nframes = 2\nmin_frames = 3\n",
            "c.toml:3: defaults.min_frames: ",
            "more than frames = 2",
        ),
        ("[defaults]\nmax_tokens = 0\n", "c.toml:2: defaults.max_tokens: ", "from 1 to 2048"),
        ("[defaults]\nprompt = \"  \"\n", "c.toml:2: defaults.prompt: ", "is empty"),
        ("[defaults]\nprompt = 5\n", "c.toml:2: defaults.prompt: ", "text, not 5: write it in quotes"),
        ("[defaults]\nprompt = \"a <image> b\"\n", "c.toml:2: defaults.prompt: ", "holds \"<image>\""),
        ("[defaults]\nprompt = \"a <video> b\"\n", "c.toml:2: defaults.prompt: ", "holds \"<video>\""),
        (
            "[defaults]\nsampling = \"iframes\"\n",
            "c.toml:2: defaults.sampling: ",
            "\"keyframes\", not \"iframes\"",
        ),
        ("[defaults]\npriority = 11\n", "c.toml:2: defaults.priority: ", "from 1 to 10, not 11"),
        (
            "[defaults]\nchange_threshold = 256\n",
            "c.toml:2: defaults.change_threshold: ",
            "a whole number from 0 to 255, not 256",
        ),
        (
            "[defaults]\nchange_threshold = \"off\"\n",
            "c.toml:2: defaults.change_threshold: ",
            "from 0 to 255, not \"off\"",
        ),
        ("[defaults]\nheartbeat = \"0s\"\n", "c.toml:2: defaults.heartbeat: ", "from \"1s\" to \"1day\""),
        (
            "[defaults]\ntransport = \"http\"\n",
            "c.toml:2: defaults.transport: ",
            "\"tcp\", \"udp\", \"auto\"",
        ),
        ("[defaults]\npipeline = \"../rtsp\"\n", "c.toml:2: defaults.pipeline: ", "cannot name a pipeline"),
        (
            "[cameras.Porch]\nuri = \"/x.mp4\"\n",
            "c.toml:1: cameras.Porch: ",
            "use 1 to 64 of a-z, 0-9, '_' and '-'",
        ),
        ("[cameras]\nyard = \"/x.mp4\"\n", "c.toml:2: cameras.yard: ", "write [cameras.yard]"),
        ("[cameras.yard]\nenabled = true\n", "c.toml: cameras.yard.uri: ", "is missing"),
        (
            "[cameras.yard]\nurl = \"/x.mp4\"\nuri = \"/x\"\n",
            "c.toml:2: cameras.yard.url: ",
            "did you mean uri?",
        ),
        ("[cameras.yard]\nuri = 5\n", "c.toml:2: cameras.yard.uri: ", "text, not 5"),
        ("[cameras.yard]\nuri = \"\"\n", "c.toml:2: cameras.yard.uri: ", "is empty: use rtsp://"),
        (
            "[cameras.yard]\nuri = \"http://me:hunter2@h/\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "unknown scheme \"http\"",
        ),
        ("[cameras.yard]\nuri = \"rtsp:/h/x\"\n", "c.toml:2: cameras.yard.uri: ", "lacks the two slashes"),
        (
            "[cameras.yard]\nuri = \"rtsp://h/x ! filesink location=/tmp/x\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "holds a space",
        ),
        ("[cameras.yard]\nuri = \"rtsp://me:hun/ter2@h\"\n", "c.toml:2: cameras.yard.uri: ", "is not a URL"),
        (
            "[cameras.yard]\nuri = \"file://relative.mp4\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "write file:///path/to/video.mp4",
        ),
        (
            "[cameras.yard]\nuri = \"v4l2://video0\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "write v4l2:///dev/video0",
        ),
        (
            "[cameras.yard]\nuri = \"test://nothing\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "test://nothing does not exist",
        ),
        (
            "[cameras.yard]\nuri = \"test://shapes/a\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "test://shapes/a does not exist",
        ),
        (
            "[cameras.yard]\nuri = \"test://shapes?size=3\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "no option \"size\"",
        ),
        (
            "[cameras.yard]\nuri = \"test://smpte?object=red-circle-left\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "no option \"object\"",
        ),
        (
            "[cameras.yard]\nuri = \"test://shapes?object=red-dragon-left\"\n",
            "c.toml:2: cameras.yard.uri: ",
            DRAGON,
        ),
        (
            "[cameras.yard]\nuri = \"test://shapes?object=red-circle-left&object=red-square-up\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "differ in colour",
        ),
        (
            "[cameras.yard]\nuri = \"test://smpte?width=100000\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "from 64 to 3840",
        ),
        ("[cameras.yard]\nuri = \"test://smpte?fps=0\"\n", "c.toml:2: cameras.yard.uri: ", "from 1 to 60"),
        (
            "[cameras.yard]\nuri = \"test://smpte?live=maybe\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "true or false",
        ),
        (
            "[cameras.yard]\nuri = \"test://smpte?duration=8%0a\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "duration=\"8\\n\": it must be a time with its unit",
        ),
        (
            "[cameras.yard]\nuri = \"rtsp://h/user=me&password=hunter2/a b\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "holds a space",
        ),
        ("[model\n", "c.toml:1: ", "this is not TOML: "),
        ("[model]\nid = \"a/b\"\nid = \"a/c\"\n", "c.toml:3: ", "duplicate key"),
        ("[mqtt]\nusername = \"me\"\npassword = hunter2\n", "c.toml:3: ", "this is not TOML: "),
    ];
    assert!(cases.len() >= 25);
    for (toml, place, text) in cases {
        let answer = Check::of(&format!("{toml}{PORCH}")).run();
        let line =
            answer.err.lines().find(|l| l.contains(place)).unwrap_or_else(|| panic!("{toml}{answer:?}"));
        assert!(line.contains(text), "{toml}{line}");
        assert!(!answer.err.contains("hunter2") && !answer.err.contains("ter2"), "{}", answer.err);
        assert_eq!(
            (answer.code, answer.out.as_str(), answer.err.lines().count()),
            (Some(78), "", 1),
            "{}",
            answer.err
        );
    }
}

#[test]
fn a_scene_that_nothing_can_draw_is_told_alike_by_check_run_and_describe() {
    let scene = "test://shapes?object=red-dragon-left";
    let mut check = Check::of(&format!("[cameras.a]\nuri = \"{scene}\"\n"));
    let told = check.run();
    let expected = format!("error: c.toml:2: cameras.a.uri: {DRAGON}\n");
    assert_eq!((told.code, told.err.as_str()), (Some(78), expected.as_str()));
    let camscribe = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_camscribe"))
            .current_dir(check.folder.path())
            .args(arguments)
            .output()
            .unwrap()
    };
    let run = camscribe(&["run", "--config", "c.toml"]);
    assert_eq!((run.status.code(), String::from_utf8(run.stderr).unwrap()), (Some(78), told.err));
    let describe = camscribe(&["describe", "--model", "shapes", scene]);
    let said = String::from_utf8(describe.stderr).unwrap();
    assert_eq!(describe.status.code(), Some(1));
    assert!(said.contains(DRAGON), "{said}");
}

#[test]
fn all_mistakes_are_told_at_once_in_the_order_of_the_file() {
    let toml = "[model]\nmax_batch = 0\ndevice = \"x\"\n[mqtt]\nurl = \"x\"\n[cameras.a]\nframes = 1\nmin_frames = 2\n";
    let answer = Check::of(toml).env("CAMSCRIBE__NODE__ID", "#").run();
    assert_eq!(answer.code, Some(78));
    let told: Vec<_> =
        answer.err.lines().map(|l| l.split(": ").take(3).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "model.max_batch",
        "model.device",
        "mqtt.url",
        "cameras.a.min_frames",
        "CAMSCRIBE__NODE__ID",
        "cameras.a.uri",
    ];
    assert_eq!(told.len(), expected.len(), "{}", answer.err);
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{}", answer.err);
    }
}

#[test]
fn the_environment_is_read_by_each_keys_type_and_mistakes_name_the_variable() {
    for (variable, value, text) in [
        ("CAMSCRIBE__DEFAULTS__ENABLED", "yes", "true or false, not \"yes\""),
        ("CAMSCRIBE__DEFAULTS__ENABLED", "True", "true or false, not \"True\""),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "16.0", "a whole number from 1 to 64, not \"16.0\""),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "+4", "a whole number from 1 to 64"),
        ("CAMSCRIBE__MODEL__MAX_BATCH", "", "a whole number from 1 to 64"),
        ("CAMSCRIBE__MODEL__LINGER", "20", "has no unit"),
        ("CAMSCRIBE__MODEL__LNGER", "20ms", "did you mean linger?"),
        ("CAMSCRIBE__MODELS__LINGER", "20ms", "did you mean model?"),
        ("CAMSCRIBE__MODEL", "x", "CAMSCRIBE__SECTION__KEY"),
        ("CAMSCRIBE__CAMERAS__PORCH", "x", "CAMSCRIBE__CAMERAS__PORCH__URI"),
        ("CAMSCRIBE__CAMERAS__PORCH__PASSWORD", "hunter2", "name that file with password_file"),
        ("CAMSCRIBE__CAMERAS__PORCH__URI", "http://me:hunter2@h", "unknown scheme"),
        ("CAMSCRIBE__CAMERAS__PÖRCH__URI", "/x.mp4", "cannot name a camera"),
        ("CAMSCRIBE__MQTT__URL", "mqtt://me:hunter2@h", "holds credentials"),
    ] {
        let answer = Check::of(PORCH).env(variable, value).run();
        assert_eq!(answer.code, Some(78), "{variable}: {answer:?}");
        let place = format!("environment variable {variable}: ");
        assert!(answer.err.contains(&place) && answer.err.contains(text), "{}", answer.err);
        assert!(!answer.err.contains("hunter2"), "{}", answer.err);
    }
}

#[test]
fn the_environment_overrides_the_file_and_can_name_any_camera() {
    let toml = format!("{PORCH}[cameras.front-door]\nuri = \"/a.mp4\"\nframes = 3\n[model]\nmax_batch = 4\n");
    let toml = Check::of(&toml)
        .env("CAMSCRIBE__MODEL__MAX_BATCH", "5")
        .env("CAMSCRIBE__DEFAULTS__ENABLED", "false")
        .env("CAMSCRIBE__CAMERAS__FRONT_DOOR__FRAMES", "7")
        .env("CAMSCRIBE__CAMERAS__YARD__URI", "test://smpte")
        .env("CAMSCRIBE__CAMERAS__YARD__ENABLED", "true")
        .env("CAMSCRIBE_OTHER", "is not ours")
        .run()
        .toml();
    assert_eq!(toml["model"]["max_batch"].as_integer(), Some(5));
    let cameras = toml["cameras"].as_table().unwrap();
    assert_eq!(cameras.keys().collect::<Vec<_>>(), ["front-door", "porch", "yard"]);
    assert_eq!(cameras["front-door"]["frames"].as_integer(), Some(7));
    assert_eq!(cameras["porch"]["enabled"].as_bool(), Some(false));
    assert_eq!(cameras["yard"]["enabled"].as_bool(), Some(true));
}

#[test]
fn the_state_directory_is_the_configured_one_else_systemds_else_the_usual_one() {
    let of = |mut check: Check| check.run().toml()["node"]["state_dir"].as_str().unwrap().to_owned();
    assert_eq!(of(Check::of(PORCH)), "/var/lib/camscribe");
    assert_eq!(of(Check::of(PORCH).env("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")), "/var/lib/a");
    let written = format!("[node]\nstate_dir = \"/srv/c\"\n{PORCH}");
    assert_eq!(of(Check::of(&written).env("STATE_DIRECTORY", "/var/lib/a")), "/srv/c");
}

#[test]
fn a_window_alone_moves_the_stride_and_few_frames_alone_the_minimum() {
    let toml = Check::of(&format!("{PORCH}window = \"4s\"\nframes = 1\n")).run().toml();
    let porch = &toml["cameras"]["porch"];
    assert_eq!((porch["stride"].as_str(), porch["min_frames"].as_integer()), (Some("4s"), Some(1)));
}

#[test]
fn what_check_prints_is_a_configuration_that_checks_to_the_same() {
    let first =
        Check::of(&format!("{PORCH}window = \"1m30s\"\nprompt = \"two\\nlines, a \\\"quote\\\"\"\n")).run();
    first.toml();
    let second = Check::of(&first.out).run();
    assert_eq!(first.out, second.out);
}

#[test]
fn secrets_are_used_and_never_shown() {
    let toml = "[mqtt]\nusername = \"me\"\npassword_file = \"broker\"\n\
                [cameras.a]\nuri = \"rtsp://viewer:hunter2@192.0.2.10/s\"\n\
                [cameras.b]\nuri = \"rtsp://192.0.2.10/s?password=hunter2\"\nusername = \"viewer\"\npassword_file = \"camera\"\n";
    let answer = Check::of(toml)
        .file("broker", "hunter2-broker\n", 0o600)
        .file("camera", "hunter2-camera", 0o644)
        .credentials()
        .run();
    let shown = format!("{}{}", answer.out, answer.err);
    assert!(!shown.contains("hunter2"), "{shown}");
    assert_eq!(answer.toml()["cameras"]["a"]["uri"].as_str(), Some("rtsp://***@192.0.2.10/s"));
    let warnings: Vec<_> = answer.err.lines().collect();
    assert_eq!(warnings.len(), 2, "{}", answer.err);
    assert!(warnings[0].contains("c.toml:5: cameras.a.uri: holds credentials"), "{}", answer.err);
    assert!(warnings[1].contains("cameras.b.password_file: every user can read"), "{}", answer.err);
}

#[test]
fn a_client_certificate_and_its_key_go_together() {
    let both = format!(
        "{PORCH}[mqtt]\nurl = \"mqtts://h\"\nclient_cert_file = \"c.pem\"\nclient_key_file = \"k.pem\"\n"
    );
    for (toml, text) in [
        (both.clone(), None),
        (
            both.replace("client_key_file", "ca_file"),
            Some("mqtt.client_cert_file: needs client_key_file beside it"),
        ),
        (
            both.replace("client_cert_file", "ca_file"),
            Some("mqtt.client_key_file: needs client_cert_file beside it"),
        ),
    ] {
        let pem = |label| format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n");
        let pem = [pem("CERTIFICATE"), pem("PRIVATE KEY")].concat();
        let answer = Check::of(&toml).file("c.pem", &pem, 0o600).file("k.pem", &pem, 0o600).run();
        assert_eq!(answer.code, Some(if text.is_some() { 78 } else { 0 }), "{answer:?}");
        assert!(answer.err.contains(text.unwrap_or_default()), "{}", answer.err);
    }
}

#[test]
fn a_password_file_holds_exactly_one_password() {
    let toml = format!("{PORCH}[mqtt]\nusername = \"me\"\npassword_file = \"secret\"\n");
    for (content, text) in [
        ("", "is empty"),
        ("\n", "is empty"),
        ("hunter2\nhunter3\n", "more than one line"),
        (&"x".repeat(5000), "longer than 4096 bytes"),
    ] {
        let answer = Check::of(&toml).file("secret", content, 0o600).credentials().run();
        assert_eq!(answer.code, Some(78), "{answer:?}");
        assert!(answer.err.contains("mqtt.password_file: ") && answer.err.contains(text), "{}", answer.err);
        assert!(!answer.err.contains("hunter"), "{}", answer.err);
    }
    let mut check = Check::of(&toml).credentials();
    fs::create_dir(check.path("secret")).unwrap();
    assert!(check.run().err.contains("is not a file"));
}

#[test]
fn a_file_that_is_missing_or_names_no_camera_is_refused() {
    let mut check = Check::of("");
    let answer = check.run();
    assert!(
        answer.err.contains("c.toml: there is no camera: write a [cameras.<id>] section"),
        "{}",
        answer.err
    );
    fs::remove_file(check.path("c.toml")).unwrap();
    let answer = check.run();
    assert_eq!(answer.code, Some(78));
    assert!(answer.err.contains("c.toml: cannot be read: No such file"), "{}", answer.err);
    fs::write(check.path("c.toml"), [b'#', 0xff]).unwrap();
    assert!(check.run().err.contains("UTF-8"));
    fs::write(check.path("c.toml"), "# much too long\n".repeat(100_000)).unwrap();
    assert!(check.run().err.contains("larger than 1 MiB"));
}

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for arguments in [&["check", "--wibble"][..], &["wibble"], &[], &["completions", "wibble"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_camscribe")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn the_schema_is_json_each_shell_gets_its_completions_and_the_manual_page_knows_every_command() {
    let camscribe = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_camscribe")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let schema: serde_json::Value = serde_json::from_str(&camscribe(&["schema"])).unwrap();
    assert_eq!(schema["title"], "camscribe event");
    assert!(jsonschema::validator_for(&schema).is_ok());
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(camscribe(&["completions", shell]).contains("describe"), "{shell}");
    }
    let page = camscribe(&["man"]);
    assert!(page.contains("\n.TH camscribe 1"), "{page}");
    for command in ["RUN", "DESCRIBE", "CHECK", "PULL", "DEMO", "SCHEMA", "COMPLETIONS"] {
        assert!(page.contains(&format!("\n.SH CAMSCRIBE {command}\n")), "{command}");
    }
    assert!(!page.contains("CAMSCRIBE MAN"), "it is for packagers");
}

#[test]
fn the_reference_file_explains_every_key_gives_its_default_and_checks() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/camscribe.toml");
    let text = fs::read_to_string(&path).unwrap();
    let answer = Check::of(&text).run();
    assert_eq!((answer.code, answer.err.as_str()), (Some(0), ""));

    let toml: toml::Table = text.parse().unwrap();
    let written: BTreeSet<String> = toml.keys().map(String::clone).collect();
    let sections = keys::SECTIONS.iter().map(|(name, _)| name.to_string()).chain([keys::CAMERAS.into()]);
    assert_eq!(written, sections.collect());
    for (section, keys) in keys::SECTIONS {
        let table = toml[*section].as_table().unwrap();
        let written: BTreeSet<&str> = table.keys().map(String::as_str).collect();
        assert_eq!(written, keys.iter().map(|key| key.name).collect(), "[{section}]");
        for key in *keys {
            let value = &table[key.name];
            let value = value.as_str().map_or_else(|| value.to_string(), Into::into);
            assert_eq!(Some(value.as_str()), key.default, "{section}.{}", key.name);
        }
    }
    for (id, camera) in toml[keys::CAMERAS].as_table().unwrap() {
        assert!(camera.get(keys::URI.name).is_some(), "{id}");
    }
    // Each key stands under a comment, or under a neighbour that does.
    let lines: Vec<_> = text.lines().collect();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| l.contains(" = ") && !l.starts_with('#')) {
        let explained = lines[..i].iter().rev().take_while(|l| !l.is_empty()).any(|l| l.starts_with("# "));
        assert!(explained, "nothing explains {line}");
    }
}
