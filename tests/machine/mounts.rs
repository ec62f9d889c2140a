//! The daemon with another `/etc/hosts` and with a small file system. Both are mounted for the daemon
//! only, which takes the right to mount.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use libtest_mimic::Trial;

use crate::{
    check,
    support::{
        broker::{Mosquitto, Subscriber},
        daemon::{self, Daemon},
        live_camera::{STREAM, assert_whole, described, events},
        proxy::{Link, Proxy},
        rtsp::RtspServer,
    },
};

/// Returns the checks of this file.
pub fn trials() -> Vec<Trial> {
    let missing = (!may_mount()).then(|| "the right to mount".to_owned());
    vec![
        check(
            missing.clone(),
            "mounts::names_that_no_longer_resolve_cost_nothing_but_time",
            names_that_no_longer_resolve_cost_nothing_but_time,
        ),
        check(
            missing.clone(),
            "mounts::a_disk_without_room_stops_the_history_and_nothing_else",
            a_disk_without_room_stops_the_history_and_nothing_else,
        ),
        check(
            missing,
            "mounts::a_disk_that_is_full_for_a_while_loses_nothing",
            a_disk_that_is_full_for_a_while_loses_nothing,
        ),
    ]
}

/// Returns whether this user may mount something for a child process only.
fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["-m", "true"]).output();
    tried.is_ok_and(|it| it.status.success())
}

/// Changes `command` so that it runs after the shell's `mounts`, which only it can see.
fn with_mounts(home: &Path, command: &mut Command, mounts: &str) {
    let script = home.join("apart");
    fs::write(&script, format!("{mounts} && exec {} \"$@\"", env!("CARGO_BIN_EXE_camscribe"))).unwrap();
    let mut apart = Command::new("unshare");
    apart.args(["-m", "sh"]).arg(&script).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => apart.env(name, value),
            None => apart.env_remove(name),
        };
    }
    *command = apart;
}

fn names_that_no_longer_resolve_cost_nothing_but_time() {
    let broker = Mosquitto::start("");
    let proxy = Proxy::start(broker.port());
    let camera = RtspServer::start(STREAM);
    let port = camera.port();
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://broker.test:{}"
        defaults = {{ window = "1s", frames = 2, change_threshold = 0 }}
        cameras.named.uri = "rtsp://camera.test:{port}/stream"
        cameras.steady.uri = "test://shapes"
        "#,
        proxy.port()
    );
    const GONE: &str = "127.0.0.1 localhost\n";
    const THERE: &str = "127.0.0.1 localhost broker.test camera.test\n";
    let daemon = Daemon::with(&toml, |home, command| {
        fs::write(home.join("hosts"), THERE).unwrap();
        // No name server listens there.
        fs::write(home.join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
        let at = home.display();
        let mounts =
            format!("mount --bind {at}/hosts /etc/hosts && mount --bind {at}/resolv.conf /etc/resolv.conf");
        with_mounts(home, command, &mounts);
    });
    let mut seen = subscriber.until(described("named"));

    fs::write(daemon.path("hosts"), GONE).unwrap();
    proxy.set(Link::Refuse);
    drop(camera);
    let metric = |name: &str| daemon.metric(name).unwrap_or(0.0);
    daemon::wait("the camera to be missed", || {
        (metric("camscribe_camera_state{camera=\"named\",state=\"offline\"}") == 1.0).then_some(())
    });
    // Both are back, but their names do not resolve.
    proxy.set(Link::Pass);
    let _camera = RtspServer::start_at(STREAM, port);
    daemon.logged("not connected to the MQTT broker at broker.test");
    daemon.logged("failed to lookup address");
    let before = metric("camscribe_outbox_messages");
    daemon::wait("descriptions to wait", || {
        (metric("camscribe_outbox_messages") >= before + 5.0).then_some(())
    });
    assert_eq!(metric("camscribe_broker_connected"), 0.0);
    assert_eq!(metric("camscribe_camera_state{camera=\"named\",state=\"online\"}"), 0.0);

    fs::write(daemon.path("hosts"), THERE).unwrap();
    daemon::wait("the broker", || (metric("camscribe_broker_connected") == 1.0).then_some(()));
    daemon::wait("the camera", || {
        (metric("camscribe_camera_state{camera=\"named\",state=\"online\"}") == 1.0).then_some(())
    });
    let made = metric("camscribe_descriptions_total{camera=\"named\"}");
    daemon::wait("its words", || {
        (metric("camscribe_descriptions_total{camera=\"named\"}") > made).then_some(())
    });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("every description was delivered"), "{log}");
    seen.extend(subscriber.all_within(Duration::from_secs(1)));
    assert_whole(&events(&seen, "steady"));
}

/// The test fills the daemon's small file system and frees it again.
fn a_disk_that_is_full_for_a_while_loses_nothing() {
    let mounts = "mkdir -p $STATE_DIRECTORY && mount -t tmpfs -o size=16m none $STATE_DIRECTORY";
    let toml = r#"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:9"
        defaults = { window = "500ms", frames = 2, change_threshold = 0, prompt = "Describe this." }
        cameras.scene.uri = "test://shapes"
    "#;
    let daemon = Daemon::with(toml, |home, command| with_mounts(home, command, mounts));
    daemon::wait("readiness", || (daemon.get("/readyz").0 == 200).then_some(()));
    // The file as the daemon sees it.
    let filler =
        PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), daemon.path("state/filler").display()));
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file);
    daemon.logged("cannot be written");
    let waiting = || daemon.metric("camscribe_outbox_messages").unwrap_or(0.0);
    let before = waiting();
    daemon::wait("more descriptions", || (waiting() > before + 5.0).then_some(()));
    fs::remove_file(&filler).unwrap();
    daemon.logged("takes descriptions again");
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("on disk until the next start delivers them"), "{log}");
}

/// The history leaves 256 MiB free for others. The test takes some of them away, and gives them back.
fn a_disk_without_room_stops_the_history_and_nothing_else() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let mounts = "mkdir -p $STATE_DIRECTORY && mount -t tmpfs -o size=300m none $STATE_DIRECTORY";
    let toml = format!(
        r#"
        node.id = "edge1"
        model.id = "shapes"
        mqtt.url = "mqtt://127.0.0.1:{}"
        history.frames = "all"
        defaults = {{ window = "500ms", frames = 2, change_threshold = 0, prompt = "Describe this." }}
        cameras.scene.uri = "test://shapes"
        "#,
        broker.port()
    );
    let daemon = Daemon::with(&toml, |home, command| with_mounts(home, command, mounts));
    let metric = |name: &str| daemon.metric(name).unwrap_or(0.0);
    let wait_on =
        |on: f64| daemon::wait("the history", || (metric("camscribe_history_on") == on).then_some(()));
    let mut seen = subscriber.until(described("scene"));
    wait_on(1.0);
    let filler =
        PathBuf::from(format!("/proc/{}/root{}", daemon.pid(), daemon.path("state/filler").display()));
    fs::write(&filler, vec![0; 100 << 20]).unwrap();
    wait_on(0.0);
    daemon.logged("the history in");
    assert!(daemon.get("/api/node").1.contains("\"state\":\"stopped\""));
    let before = metric("camscribe_history_events");
    for _ in 0..6 {
        seen.extend(subscriber.until(described("scene")));
    }
    assert_eq!(metric("camscribe_outbox_on_disk"), 1.0);
    assert!(metric("camscribe_history_events") <= before + 1.0);
    fs::remove_file(&filler).unwrap();
    wait_on(1.0);
    daemon::wait("what it missed", || {
        let made = metric("camscribe_descriptions_total{camera=\"scene\"}");
        (metric("camscribe_history_events") >= made - 1.0).then_some(())
    });
    assert_eq!(metric("camscribe_history_dropped_events_total"), 0.0);
    let events = events(&seen, "scene");
    assert_whole(&events);
    for event in &events {
        daemon::wait("an event in the history", || {
            (daemon.get(&format!("/api/events/{}", event.id)).0 == 200).then_some(())
        });
    }
    assert_eq!(daemon.stop().0, Some(0));
}
