//! The MQTT commands that change a camera at run time.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::support::{
    broker::{Mosquitto, Received, Subscriber, publish},
    daemon::{Daemon, wait},
};

const NODE: &str = "camscribe/edge1";

fn toml(port: u16, extra: &str) -> String {
    format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{port}"
        {extra}
        [defaults]
        window = "2s"
        frames = 2
        prompt = "Describe what happens in this video."
        [cameras.one]
        uri = "test://shapes"
        [cameras.two]
        uri = "test://shapes"
        "#
    )
}

fn set(port: u16, camera: &str, setting: &str, payload: &str) {
    publish(port, &format!("{NODE}/{camera}/set/{setting}"), payload);
}

fn is(topic: &str, payload: &str) -> impl FnMut(&Received) -> bool {
    let (topic, payload) = (format!("{NODE}/{topic}"), payload.to_owned());
    move |m| m.topic == topic && m.text() == payload
}

/// Waits for the next event of a camera that answers `prompt`. Returns it and every message before it.
fn answer(subscriber: &Subscriber, camera: &str, prompt: &str) -> Vec<Received> {
    let topic = format!("{NODE}/{camera}/description");
    subscriber.until(|m| m.topic == topic && m.json()["prompt"] == prompt)
}

/// Returns the sequence numbers of a camera's clips, each once: QoS 1 may deliver a message twice.
fn numbers(messages: &[Received], camera: &str) -> Vec<u64> {
    let topic = format!("{NODE}/{camera}/description");
    let mut seen = BTreeSet::new();
    let descriptions = messages.iter().filter(|m| m.topic == topic);
    let numbers = descriptions.map(|m| m.json()["clip"]["seq"].as_u64().unwrap());
    numbers.filter(|&number| seen.insert(number)).collect()
}

#[test]
fn commands_switch_cameras_and_change_prompts_until_they_are_reset() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let configured = "Describe what happens in this video.";
    let mut daemon = Daemon::start(&toml(port, ""));
    subscriber.until(is("one/state/enabled", "ON"));
    let mut seen = answer(&subscriber, "one", configured);

    // No window is lost by another prompt, neither of this camera nor of the other.
    set(port, "one", "prompt", "What moves?");
    seen.extend(subscriber.until(is("one/state/prompt", "What moves?")));
    seen.extend(answer(&subscriber, "one", "What moves?"));
    seen.extend(answer(&subscriber, "two", configured));
    let all = numbers(&seen, "one");
    assert!(all.is_sorted(), "{all:?}");

    set(port, "two", "enabled", "off");
    subscriber.until(|m| m.topic == format!("{NODE}/two/status") && m.text().contains("disabled"));
    subscriber.until(is("two/state/enabled", "OFF"));

    // A power failure does not reset what was commanded.
    daemon.kill();
    daemon.restart();
    daemon.logged("override the configuration of: one, two");
    subscriber.until(is("two/state/enabled", "OFF"));
    answer(&subscriber, "one", "What moves?");
    assert_eq!(daemon.metric("camscribe_camera_state{camera=\"two\",state=\"disabled\"}"), Some(1.0));
    // A changed file does not reset it either; the file's prompt is used once the command is reset.
    daemon.reload(&toml(port, "").replace("Describe what happens", "Say what happens"));
    daemon.logged("the configuration is active");
    set(port, "one", "prompt", "");
    let again = "Say what happens in this video.";
    subscriber.until(is("one/state/prompt", again));
    answer(&subscriber, "one", again);
    set(port, "two", "enabled", "ON");
    subscriber.until(is("two/state/enabled", "ON"));
    answer(&subscriber, "two", again);
    assert_eq!(fs::read_to_string(daemon.path("state/orders.json")).unwrap(), "{}");
    assert_eq!(daemon.stop().0, Some(0));
}

/// Publishes a command for each payload, over one connection.
fn burst(port: u16, camera: &str, setting: &str, payloads: impl Iterator<Item = String>) {
    let mut client = Command::new("mosquitto_pub")
        .args(["-l", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-t"])
        .arg(format!("{NODE}/{camera}/set/{setting}"))
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = client.stdin.take().unwrap();
    payloads.for_each(|payload| writeln!(lines, "{payload}").unwrap());
    drop(lines);
    assert!(client.wait().unwrap().success());
}

#[test]
fn of_a_burst_of_commands_the_last_one_holds_and_few_are_applied_and_logged() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let daemon = Daemon::start(&toml(port, ""));
    subscriber.until(is("two/state/enabled", "ON"));
    burst(port, "one", "prompt", (0..500).map(|i| format!("What moves, {i}?")));
    burst(port, "nobody", "prompt", (0..500).map(|i| format!("What moves, {i}?")));
    subscriber.until(is("one/state/prompt", "What moves, 499?"));
    answer(&subscriber, "one", "What moves, 499?");
    let counted = || daemon.metric("camscribe_unknown_camera_commands_total").filter(|count| *count >= 500.0);
    wait("the commands for an unknown camera", counted);
    let stored = fs::read_to_string(daemon.path("state/orders.json")).unwrap();
    assert!(stored.contains("What moves, 499?"), "{stored}");
    let log = daemon.log();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(lines("there is no such camera"), 1, "{log}");
    // Two a second: a hundred are far more than a slow machine needs.
    assert!(lines("command: ") <= 100, "{log}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn what_was_commanded_ends_with_the_camera() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let daemon = Daemon::start(&toml(port, ""));
    subscriber.until(is("two/state/enabled", "ON"));
    set(port, "one", "enabled", "OFF");
    subscriber.until(is("one/state/enabled", "OFF"));
    let stored = || fs::read_to_string(daemon.path("state/orders.json")).unwrap();
    assert!(stored().contains("\"one\""), "{}", stored());
    daemon.reload(&toml(port, "").replace("cameras.one", "cameras.three"));
    wait("the end of the override", || (stored() == "{}").then_some(()));
    daemon.reload(&toml(port, ""));
    subscriber.until(is("one/state/enabled", "ON"));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn with_every_camera_switched_off_the_daemon_waits() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let daemon = Daemon::start(&toml(port, ""));
    subscriber.until(is("two/state/enabled", "ON"));
    for camera in ["one", "two"] {
        set(port, camera, "enabled", "OFF");
        subscriber.until(is(&format!("{camera}/state/enabled"), "OFF"));
    }
    assert_eq!(daemon.get("/readyz").0, 200);
    set(port, "one", "enabled", "ON");
    subscriber.until(|m| m.topic == format!("{NODE}/one/description"));
    assert_eq!(daemon.stop().0, Some(0));
}

/// Publishes a retained command.
fn retain_off(port: u16) {
    let topic = format!("{NODE}/one/set/enabled");
    let retained = Command::new("mosquitto_pub")
        .args(["-r", "-h", "127.0.0.1", "-p", &port.to_string(), "-t", &topic, "-m", "OFF"])
        .status();
    assert!(retained.unwrap().success());
}

#[test]
fn an_invalid_command_changes_nothing() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    // A retained command is ignored, since it would be applied again at every start.
    retain_off(port);
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let daemon = Daemon::start(&toml(port, ""));
    // The last message about each camera at the start.
    subscriber.until(is("two/state/prompt", "Describe what happens in this video."));
    let pause = || std::thread::sleep(std::time::Duration::from_millis(1100));
    for (camera, setting, payload, logged) in [
        ("one", "enabled", "maybe", "write ON or OFF"),
        ("one", "prompt", "<image> of what?", "is a special token of the model"),
        ("one", "uri", "rtsp://evil.example", "there are no commands but"),
        ("three", "enabled", "OFF", "there is no such camera"),
    ] {
        set(port, camera, setting, payload);
        daemon.logged(logged);
        pause(); // warnings are logged once a second
    }
    retain_off(port);
    // Long enough for an applied command to be published.
    let seen = subscriber.all_within(std::time::Duration::from_secs(3));
    assert!(!seen.iter().any(|m| m.topic.contains("/state/")), "nothing has changed");
    answer(&subscriber, "one", "Describe what happens in this video.");
    assert!(!daemon.path("state/orders.json").exists());
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn commands_are_ignored_unless_they_are_enabled() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
    let daemon = Daemon::start(&toml(port, "mqtt.commands = false"));
    subscriber.until(|m| m.topic == format!("{NODE}/one/description"));
    set(port, "one", "enabled", "OFF");
    let seen = answer(&subscriber, "one", "Describe what happens in this video.");
    assert!(!seen.iter().any(|m| m.topic.contains("/state/")));
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn oversized_commands_harm_neither_mqtt_version() {
    let broker = Mosquitto::start("");
    let port = broker.port();
    let huge = "x".repeat(300_000);
    for version in ["5", "3.1.1"] {
        let subscriber = Subscriber::to(port, &format!("{NODE}/#"));
        let daemon = Daemon::start(&toml(port, &format!("mqtt.version = \"{version}\"")));
        subscriber.until(|m| m.topic == format!("{NODE}/one/description"));
        let file = daemon.path("huge");
        fs::write(&file, &huge).unwrap();
        let sent = Command::new("mosquitto_pub")
            .args(["-r", "-q", "1", "-h", "127.0.0.1", "-p", &port.to_string(), "-f"])
            .arg(&file)
            .args(["-t", &format!("{NODE}/one/set/prompt")])
            .status();
        assert!(sent.unwrap().success());
        if version == "3.1.1" {
            daemon.logged("somebody publishes far too much");
        }
        // Some are from before the command; then some more.
        for _ in 0..4 {
            subscriber.until(|m| m.topic == format!("{NODE}/two/description"));
        }
        assert_eq!(daemon.metric("camscribe_broker_connected"), Some(1.0));
        assert_eq!(daemon.stop().0, Some(0));
    }
}
