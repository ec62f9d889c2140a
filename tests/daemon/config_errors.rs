//! Errors in the configuration, each reported with its location and a remedy by the program itself.

use std::process::Command;

use crate::support::check::{Check, PORCH};

/// The error for a scene that the test source cannot draw.
const DRAGON: &str = "object \"red-dragon-left\" is not colour-shape-motion: red, green, blue or yellow; circle, \
                      square or triangle; right, left, up, down, still, appears or disappears";

#[test]
fn each_error_in_the_file_is_reported_with_its_line_and_a_remedy() {
    // Configuration besides a valid camera, the location in the error, and a part of the error.
    let cases = [
        ("model = \"x\"\n", "c.toml:1: model: ", "write [model]"),
        ("[modle]\nid = \"x\"\n", "c.toml:1: modle: ", "did you mean model?"),
        ("[cameras.a b]\n", "c.toml:1: ", "this is not TOML: unclosed table, expected `]`: [cameras.a b]"),
        (
            "[cameras.a] uri = \"rtsp://u:hunter2@h/\"\n",
            "c.toml:1: ",
            "this is not TOML: unexpected key or value, expected newline, `#`: [cameras.a]",
        ),
        ("[cameras.porch]\n", "c.toml:2: ", "this is not TOML: duplicate key: [cameras.porch]"),
        ("[cameras]\nframes = 4\n", "c.toml:2: cameras.frames: ", "write [cameras.porch] above frames"),
        ("[cameras.a]\nuri = \"/dev/video0\"\n", "c.toml:2: cameras.a.uri: ", "write v4l2:///dev/video0"),
        ("[cameras.a]\nuri = \"~/a.mp4\"\n", "c.toml:2: cameras.a.uri: ", "write the whole path"),
        ("[mqtt]\ntopic_prefix = \"my home\"\n", "c.toml:2: mqtt.topic_prefix: ", "holds a space"),
        ("[mqtt]\ntopic_prefix = \"a/$b\"\n", "c.toml:2: mqtt.topic_prefix: ", "holds $"),
        (
            "[wibble]\n",
            "c.toml:1: wibble: ",
            "there are node, model, mqtt, outbox, history, http, log, defaults, questions, cameras",
        ),
        ("[http]\nlisten = \"localhost\"\n", "c.toml:2: http.listen: ", "write an IP address and a port"),
        ("[http]\nlisten = \"127.0.0.1\"\n", "c.toml:2: http.listen: ", "such as 127.0.0.1:9180"),
        ("[http]\nlisten = 9180\n", "c.toml:2: http.listen: ", "text, not a number: write it in quotes"),
        (
            "[http]\nlisten = \"0.0.0.0:9180\"\n",
            "c.toml:2: http.listen: ",
            "0.0.0.0:9180 lets other machines in without asking for anything: set http.token_file, or listen on loopback",
        ),
        ("[http]\nlisten = \"[::]:9180\"\n", "c.toml:2: http.listen: ", "set http.token_file"),
        ("[http]\nlisten = \"\"\napi = true\n", "c.toml:3: http.api: ", "needs http.listen"),
        (
            "[http]\ntoken_file = \"/no/such/file\"\n",
            "c.toml:2: http.token_file: ",
            "/no/such/file cannot be read",
        ),
        ("[http]\napi_share = 0\n", "c.toml:2: http.api_share: ", "needs a number from 0.05 to 1, not 0"),
        ("[http]\napi_share = \"0.5\"\n", "c.toml:2: http.api_share: ", "needs a number from 0.05 to 1"),
        ("[http]\napi_share = nan\n", "c.toml:2: http.api_share: ", "needs a number from 0.05 to 1"),
        ("[node]\nstate_dir = 1\n", "c.toml:2: node.state_dir: ", "text, not a number: write it in quotes"),
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
        ("[model]\nmax_batch = { a = 1 }\n", "c.toml:2: model.max_batch: ", "from 1 to 64, not a section"),
        ("[model]\nkernels = true\n", "c.toml:2: model.kernels: ", "not true: write it in quotes"),
        ("[defaults]\nenabled = 1\n", "c.toml:2: defaults.enabled: ", "true or false, not 1"),
        ("[defaults]\nprompt = 2001-01-01\n", "c.toml:2: defaults.prompt: ", "needs text, not a date"),
        ("[defaults]\nprompt = [2001-01-01]\n", "c.toml:2: defaults.prompt: ", "needs text, not a list"),
        (
            "[mqtt]\npassword_file = 123.5\n",
            "c.toml:2: mqtt.password_file: ",
            "text, not a number: write it in quotes",
        ),
        (
            "[mqtt]\npassword_file = 12345678901234567890\n",
            "c.toml:2: mqtt.password_file: ",
            "text, not a number: write it in quotes",
        ),
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
        ("[defaults]\nname = \"x\"\n", "c.toml:2: defaults.name: ", "each camera has a name of its own"),
        (
            "[cameras.yard]\nuri = \"/x.mp4\"\nname = \"a\\nb\"\n",
            "c.toml:3: cameras.yard.name: ",
            "holds a control character",
        ),
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
        (
            "[defaults]\nstride = \"100ms\"\n",
            "c.toml:2: defaults.stride: ",
            "100ms is too short for window = 8s",
        ),
        (
            "[defaults]\npipeline = \"nope\"\n",
            "c.toml:2: defaults.pipeline: ",
            "is none of file, file-nvdec, rtsp,",
        ),
        ("[defaults]\nframes = 65\n", "c.toml:2: defaults.frames: ", "from 1 to 64, not 65"),
        (
            "[defaults]\nframes = 2\nmin_frames = 3\n",
            "c.toml:3: defaults.min_frames: ",
            "more than frames = 2",
        ),
        ("[defaults]\nmax_tokens = 0\n", "c.toml:2: defaults.max_tokens: ", "from 1 to 2048"),
        ("[defaults]\nprompt = \"  \"\n", "c.toml:2: defaults.prompt: ", "is empty"),
        ("[defaults]\nprompt = 5\n", "c.toml:2: defaults.prompt: ", "text, not a number: write it in quotes"),
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
        ("[defaults]\nheartbeat = \"0s\"\n", "c.toml:2: defaults.heartbeat: ", "from \"1s\" to \"1d\""),
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
        ("[cameras.yard]\nuri = 5\n", "c.toml:2: cameras.yard.uri: ", "text, not a number"),
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
        (
            "[cameras.yard]\nuri = \"rtsp://me:12/hunter2@h\"\n",
            "c.toml:2: cameras.yard.uri: ",
            "into password_file, and username",
        ),
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
    for (toml, location, text) in cases {
        let answer = Check::of(&format!("{toml}{PORCH}")).run();
        let line =
            answer.err.lines().find(|l| l.contains(location)).unwrap_or_else(|| panic!("{toml}{answer:?}"));
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
fn an_invalid_test_source_gets_the_same_error_from_check_run_and_describe() {
    let scene = "test://shapes?object=red-dragon-left";
    let mut check = Check::of(&format!("[cameras.a]\nuri = \"{scene}\"\n"));
    let answer = check.run();
    let expected = format!("error: c.toml:2: cameras.a.uri: {DRAGON}\n");
    assert_eq!((answer.code, answer.err.as_str()), (Some(78), expected.as_str()));
    let camscribe = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_camscribe"))
            .current_dir(check.folder.path())
            .args(arguments)
            .output()
            .unwrap()
    };
    let run = camscribe(&["run", "--config", "c.toml"]);
    assert_eq!((run.status.code(), String::from_utf8(run.stderr).unwrap()), (Some(78), answer.err));
    let describe = camscribe(&["describe", "--model", "shapes", scene]);
    let error = String::from_utf8(describe.stderr).unwrap();
    assert_eq!(describe.status.code(), Some(2));
    assert!(error.contains(DRAGON), "{error}");
}

#[test]
fn all_errors_are_reported_at_once_in_the_order_of_the_file() {
    let toml = "[model]\nmax_batch = 0\ndevice = \"x\"\n[mqtt]\nurl = \"x\"\n[cameras.a]\nframes = 1\nmin_frames = 2\n";
    let answer = Check::of(toml).env("CAMSCRIBE__NODE__ID", "#").run();
    assert_eq!(answer.code, Some(78));
    let reported: Vec<_> =
        answer.err.lines().map(|l| l.split(": ").take(3).collect::<Vec<_>>().join(" ")).collect();
    let expected = [
        "model.max_batch",
        "model.device",
        "mqtt.url",
        "cameras.a.min_frames",
        "CAMSCRIBE__NODE__ID",
        "cameras.a.uri",
    ];
    assert_eq!(reported.len(), expected.len(), "{}", answer.err);
    for (reported, expected) in reported.iter().zip(expected) {
        assert!(reported.contains(expected), "{}", answer.err);
    }
}

#[test]
fn a_token_that_can_be_guessed_is_a_mistake_where_other_machines_can_connect_and_a_warning_on_loopback() {
    let check = |listen: &str, token: &str| {
        let config = format!("{PORCH}[http]\nlisten = \"{listen}\"\ntoken_file = \"/token\"\n");
        let check = Check::of("").file("token", token, 0o600);
        let path = check.path("token").display().to_string();
        check.file("c.toml", &config.replace("/token", &path), 0o644).run()
    };
    let told = "http.token_file: names a file whose token has fewer than 16 characters";
    for (listen, token, code, is_told) in [
        ("0.0.0.0:9180", "fifteen-letters", Some(78), true),
        ("[::]:9180", "fifteen-letters", Some(78), true),
        ("0.0.0.0:9180", "sixteen--letters", Some(0), false),
        ("127.0.0.1:9180", "fifteen-letters", Some(0), true),
        ("[::1]:9180", "sixteen--letters", Some(0), false),
    ] {
        let answer = check(listen, token);
        assert_eq!((answer.code, answer.err.contains(told)), (code, is_told), "{listen} {token}: {answer:?}");
        assert!(!is_told || answer.err.contains("`openssl rand -hex 32`"), "{answer:?}");
        assert!(!answer.err.contains(token), "{answer:?}");
    }
}
