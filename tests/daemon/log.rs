//! What is told: what cannot be written ends nothing, what cannot be understood and how far it came is said.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use crate::support::{
    broker::{Mosquitto, Subscriber},
    daemon::{Daemon, camscribe, wait},
};

/// A camera that GStreamer draws, described every second.
fn toml(port: u16) -> String {
    format!(
        "model.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:{port}\"\n\
         [cameras.porch]\nuri = \"test://shapes\"\nwindow = \"1s\"\nstride = \"1s\"\nsampling = \"rate\"\n"
    )
}

fn full_disk() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let broker = Mosquitto::start("");
    let subscriber = Subscriber::to(broker.port(), "camscribe/#");
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("camscribe.toml");
    fs::write(&file, toml(broker.port())).unwrap();
    let mut run = camscribe(home.path());
    run.args(["run", "--config"]).arg(&file).env("RUST_LOG", "debug");
    let mut daemon = run.stdout(full_disk()).stderr(full_disk()).spawn().unwrap();
    for _ in 0..3 {
        subscriber.until(|it| it.topic.ends_with("/porch/description"));
    }
    assert_eq!(daemon.try_wait().unwrap(), None);
    let stop = Command::new("kill").arg(daemon.id().to_string()).status().unwrap();
    assert!(stop.success());
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
}

#[test]
fn the_first_line_says_what_runs_and_with_what() {
    let broker = Mosquitto::start("");
    let daemon = Daemon::start(&toml(broker.port()));
    let first = daemon.logged("camscribe ");
    let state = daemon.path("state");
    for part in [camscribe::VERSION, "camscribe.toml", state.to_str().unwrap(), ": node "] {
        assert!(first.contains(part), "{first}");
    }
    assert_eq!(daemon.log().lines().next(), Some(&*first));
    let version = camscribe(daemon.home.path()).arg("-V").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("camscribe {}\n", camscribe::VERSION));
}

#[test]
fn a_camera_that_stays_away_is_told_once() {
    // Nothing listens on port 9.
    let toml =
        "model.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:9\"\ncameras.a.uri = \"rtsp://127.0.0.1:9/\"\n";
    let daemon = Daemon::with(toml, |_, command| {
        command.env("RUST_LOG", "camscribe::capture=debug");
    });
    let told = || {
        let log = daemon.log();
        let lines: Vec<String> =
            log.lines().filter(|it| it.contains("trying again")).map(Into::into).collect();
        (lines.len() >= 3).then_some(lines)
    };
    let told = wait("three tries", told);
    let levels: Vec<bool> = told[..3].iter().map(|line| line.contains(" WARN ")).collect();
    assert_eq!(levels, [true, false, false], "{told:?}");
}

#[test]
fn an_error_that_cannot_be_written_has_its_exit_code_all_the_same() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, code) in [
        (&["check", "--config", "missing.toml"][..], 78),
        (&["describe", "--model", "shapes", "missing.mp4"], 1),
        (&["describe", "--model", "shapes", "--sampling", "reference", "rtsp://127.0.0.1/"], 2),
    ] {
        let status = camscribe(home.path()).args(arguments).stderr(full_disk()).status().unwrap();
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn a_reader_that_leaves_ends_the_demo_in_peace() {
    let home = tempfile::tempdir().unwrap();
    let mut demo = camscribe(home.path());
    demo.args(["demo", "--port", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut demo = demo.spawn().unwrap();
    drop(demo.stdout.take());
    let output = demo.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
}

#[test]
fn a_wrong_rust_log_is_told() {
    let home = tempfile::tempdir().unwrap();
    for (wrong, why) in
        [("camscribe=loud", ""), ("debg", "\"debg\" is none of error, warn, info, debug and trace")]
    {
        let mut describe = camscribe(home.path());
        describe.args(["describe", "--model", "shapes", "missing.mp4"]).env("RUST_LOG", wrong);
        let output = describe.output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.contains(&format!("RUST_LOG is not used: {why}")), "{told}");
    }
}

#[test]
fn describe_says_how_far_it_came_before_a_signal() {
    let home = tempfile::tempdir().unwrap();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut describe = camscribe(home.path());
        // A test picture does not end.
        describe.args(["describe", "--model", "shapes", "--window", "1s", "test://shapes", "test://ball"]);
        let mut describe = describe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(describe.stdout.as_mut().unwrap()).read_line(&mut first).unwrap();
        let sent = Command::new("kill").args(["-s", signal, &describe.id().to_string()]).status().unwrap();
        assert!(sent.success());
        let output = describe.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(told.ends_with("\nstopped after 0 of 2 sources\n"), "{told}");
    }
}

#[test]
fn descriptions_are_logged_at_debug_only() {
    let broker = Mosquitto::start("");
    for (level, wanted) in [("info", false), ("debug", true)] {
        let subscriber = Subscriber::to(broker.port(), "camscribe/#");
        let daemon = Daemon::start(&format!("log.level = \"{level}\"\n{}", toml(broker.port())));
        let seen = subscriber.until(|it| it.topic.ends_with("/porch/description"));
        let said = seen.last().unwrap().json()["description"].as_str().unwrap().to_owned();
        let (code, log) = daemon.stop();
        assert_eq!((code, log.contains(&said)), (Some(0), wanted), "{level}: {said}\n{log}");
    }
}

#[test]
fn json_log_lines_are_objects_with_the_camera() {
    let daemon = Daemon::start(
        "log.format = \"json\"\nmodel.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:9\"\n\
         cameras.a.uri = \"rtsp://127.0.0.1:9/\"\n",
    );
    daemon.logged("trying again");
    let (code, log) = daemon.stop();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let away = lines.iter().find(|line| line["message"].as_str().unwrap().contains("trying again")).unwrap();
    assert_eq!((code, away["camera"].as_str(), away["level"].as_str()), (Some(0), Some("a"), Some("WARN")));
    assert!(away["timestamp"].as_str().unwrap().ends_with('Z'), "{away}");
}

#[test]
fn a_journal_that_cannot_be_reached_is_replaced_by_lines_with_priorities() {
    let daemon = Daemon::start(
        "log.format = \"journal\"\nmodel.id = \"shapes\"\nmqtt.url = \"mqtt://127.0.0.1:9\"\n\
         cameras.a.uri = \"rtsp://127.0.0.1:9/\"\n",
    );
    if std::path::Path::new("/run/systemd/journal/socket").exists() {
        // The lines are in this machine's journal. The exit shows that camscribe ran.
        let (code, log) = daemon.stop();
        return assert_eq!((code, log.as_str()), (Some(0), ""));
    }
    let away = daemon.logged("trying again");
    assert!(away.starts_with("<4>") && away.ends_with(" camera=a"), "{away}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn a_model_that_was_not_pulled_is_a_mistake_that_no_restart_mends() {
    let mut daemon = Daemon::start("mqtt.url = \"mqtt://127.0.0.1:9\"\ncameras.a.uri = \"test://ball\"\n");
    assert_eq!(daemon.wait(), Some(78));
    daemon.logged("run camscribe pull ");
}
