//! `camscribe forget` removes what a broker retains of a node that is retired, and nothing else.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::reload::retained;
use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{Daemon, camscribe},
};

/// Publishes a retained message.
fn retain(port: u16, login: &[&str], topic: &str, payload: &str) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-r", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", topic, "-m", payload]);
    assert!(command.args(login).status().unwrap().success(), "{topic}");
}

/// Returns the exit code, the lines of standard output, and standard error.
fn forget(config: &Path, arguments: &[&str]) -> (Option<i32>, BTreeSet<String>, String) {
    let mut command = camscribe(config.parent().unwrap());
    let output = command.args(["forget", "--config"]).arg(config).args(arguments).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), out.lines().map(String::from).collect(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn a_retired_node_is_forgotten_and_its_neighbours_are_not() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let neighbours = [
        ("camscribe/edge10/status", "offline"),
        // The node `b` with the prefix `camscribe/edge1`.
        ("camscribe/edge1/b/status", "offline"),
        ("camscribe/edge1/b/info", "{}"),
        ("camscribe/edge1/b/porch/latest", "{}"),
        // The node `edge1` with the prefix `home`, and a node of a longer name.
        ("home/edge1/status", "offline"),
        (
            "homeassistant/sensor/camscribe-edge1/yard-state/config",
            r#"{"state_topic":"home/edge1/yard/status"}"#,
        ),
        (
            "homeassistant/sensor/camscribe-edge10/porch-state/config",
            r#"{"state_topic":"camscribe/edge10/porch/status"}"#,
        ),
        ("homeassistant/sensor/edge1/config", r#"{"state_topic":"camscribe/edge1/porch/status"}"#),
        ("camscribe/edge1/notes/of/mine", "x"),
    ];
    neighbours.iter().for_each(|(topic, payload)| retain(port, &[], topic, payload));
    let all = |marker: &str| BTreeSet::from_iter(retained(port, "#", marker));
    let before = all("a");
    // An entity of an earlier version.
    let old = "homeassistant/camera/camscribe-edge1/porch-old/config";
    retain(port, &[], old, r#"{"topic":"camscribe/edge1/porch/snapshot"}"#);

    let daemon = Daemon::start(&format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        defaults = {{ window = "2s", frames = 2 }}
        cameras.porch.uri = "test://shapes"
        "#
    ));
    Subscriber::to(port, "camscribe/#").until(|m| m.topic == "camscribe/edge1/porch/latest");
    // The home directory is removed with the daemon.
    let home = TempDir::new().unwrap();
    let config = home.path().join("camscribe.toml");
    fs::copy(daemon.path("camscribe.toml"), &config).unwrap();
    let running = all("a");
    let (code, out, err) = forget(&config, &["--node", "edge1"]);
    assert_eq!((code, out.len()), (Some(1), 0), "{err}");
    assert!(
        err.contains("camscribe/edge1/status says online: stop camscribe on that machine first"),
        "{err}"
    );
    assert_eq!(all("a"), running);

    assert_eq!(daemon.stop().0, Some(0));
    let stopped = all("a");
    let load = Subscriber::to(port, "camscribe/edge1/load").next().json();
    assert!(load["queue_clips"].is_u64() && load["outbox_messages"].is_u64(), "{load}");
    assert_eq!(load["dropped_clips"], 0);
    let (code, out, err) = forget(&config, &["--node", "edge1"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(all("a"), before);
    assert_eq!(out, stopped.difference(&before).cloned().collect());
    for topic in [old, "camscribe/edge1/status", "camscribe/edge1/load", "camscribe/edge1/porch/snapshot"] {
        assert!(out.contains(topic), "{topic}: {out:?}");
    }
    let summary = format!(": {} retained topics of node edge1", out.len());
    assert!(err.contains(&summary), "{err}");

    // Whoever forgets a node need not watch a camera.
    fs::write(&config, format!("mqtt.url = \"mqtt://127.0.0.1:{port}\"\n")).unwrap();
    let (code, out, err) = forget(&config, &["--node", "edge1"]);
    assert_eq!((code, out.len()), (Some(0), 0), "{err}");
    assert!(err.contains("retains nothing of a node edge1"), "{err}");
    let (code, _, err) = forget(&config, &["--node", "edge1/b"]);
    assert_eq!(code, Some(2), "{err}");

    // A broker that lost its power together with the node still says online.
    retain(port, &[], "camscribe/edge2/status", "online");
    let (code, _, err) = forget(&config, &["--node", "edge2"]);
    assert!(code == Some(1) && err.contains("add --force"), "{err}");
    let (code, out, err) = forget(&config, &["--node", "edge2", "--force"]);
    assert_eq!((code, out), (Some(0), ["camscribe/edge2/status".to_owned()].into()), "{err}");
    assert_eq!(all("a"), before);
}

#[test]
fn the_login_of_the_configuration_is_used_and_what_it_may_not_remove_is_told() {
    let mut broker = Mosquitto::stopped("allow_anonymous false");
    let (passwords, rights) = (broker.path("passwords"), broker.path("rights"));
    fs::write(&passwords, "").unwrap();
    for user in ["owner", "camscribe", "reader"] {
        let mut make = Command::new("mosquitto_passwd");
        make.arg("-b").arg(&passwords).args([user, user]).stderr(Stdio::null());
        assert!(make.status().unwrap().success());
    }
    let everything = |user: &str, right: &str| format!("user {user}\ntopic {right} #\n");
    let all = ["owner", "camscribe"].map(|user| everything(user, "readwrite")).concat();
    fs::write(&rights, all + &everything("reader", "read")).unwrap();
    let config = broker.path("mosquitto.conf");
    let text = fs::read_to_string(&config).unwrap();
    let files = format!("password_file {}\nacl_file {}\n", passwords.display(), rights.display());
    fs::write(&config, text + &files).unwrap();
    broker.run();
    let owner = ["-u", "owner", "-P", "owner"];
    retain(broker.port(), &owner, "camscribe/edge1/status", "offline");
    retain(broker.port(), &owner, "camscribe/edge1/porch/latest", "{}");

    let home = TempDir::new().unwrap();
    let forget_as = |user: &str, version: &str| {
        let (config, password) = (home.path().join("camscribe.toml"), home.path().join("password"));
        fs::write(&password, user).unwrap();
        let toml = format!(
            "model.id = \"shapes\"\nmqtt = {{ url = \"mqtt://127.0.0.1:{}\", version = \"{version}\", \
             username = \"{user}\", password_file = \"{}\" }}\ncameras.porch.uri = \"test://shapes\"\n",
            broker.port(),
            password.display()
        );
        fs::write(&config, toml).unwrap();
        forget(&config, &["--node", "edge1"])
    };
    for version in ["5", "3.1.1"] {
        let (code, out, err) = forget_as("reader", version);
        assert_eq!((code, out.len()), (Some(1), 0), "{err}");
        assert!(err.contains("the broker has kept 2 topics"), "{err}");
        let (code, _, err) = forget_as("nobody", version);
        assert!(
            code == Some(1) && err.contains("node edge1 is not forgotten at the broker 127.0.0.1:"),
            "{err}"
        );
    }
    let (code, out, err) = forget_as("camscribe", "auto");
    assert_eq!((code, out.len()), (Some(0), 2), "{err}");
}
