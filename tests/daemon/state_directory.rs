//! The state directory of a daemon whose broker is away: one daemon uses it at a time, and one that cannot be
//! used is reported. A full disk is in `tests/machine/mounts.rs`.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::daemon::{self, Daemon, camscribe};

/// A configuration whose broker never listens.
const NOBODY_LISTENS: &str = r#"
    model.id = "shapes"
    mqtt.url = "mqtt://127.0.0.1:9"
    defaults = { window = "1s", frames = 2, change_threshold = 0, prompt = "Describe this." }
    cameras.scene.uri = "test://shapes"
"#;

#[test]
fn a_second_daemon_on_the_same_state_directory_exits_with_an_error() {
    let daemon = Daemon::start(NOBODY_LISTENS);
    daemon.logged("/metrics, /healthz");
    let second = camscribe(daemon.home.path())
        .args(["run", "--config"])
        .arg(daemon.path("camscribe.toml"))
        .output()
        .unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert_eq!(second.status.code(), Some(1), "{said}");
    let line = said.lines().find(|line| line.starts_with("error: ")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.contains("another camscribe uses the state directory"), "{line}");
    assert_eq!(daemon.stop().0, Some(0));
}

#[test]
fn an_unusable_state_directory_is_reported_and_descriptions_wait_in_memory() {
    let daemon = Daemon::with(NOBODY_LISTENS, |home, command| {
        fs::write(home.join("occupied"), "a file").unwrap();
        command.env("STATE_DIRECTORY", home.join("occupied"));
    });
    let line = daemon.logged("cannot be used");
    for word in ["occupied", "memory", "node.state_dir"] {
        assert!(line.contains(word), "{line}");
    }
    daemon::wait("descriptions that wait", || {
        daemon.metric("camscribe_outbox_messages").filter(|&waiting| waiting >= 2.0)
    });
    let (code, log) = daemon.stop();
    assert_eq!(code, Some(0));
    assert!(log.contains("lost, since the broker did not accept them in time"), "{log}");
}

#[test]
fn only_its_owner_may_read_what_is_kept() {
    let daemon = Daemon::start(NOBODY_LISTENS);
    daemon::wait("a description that waits", || {
        daemon.metric("camscribe_outbox_messages").filter(|&waiting| waiting >= 1.0)
    });
    let files: Vec<_> = fs::read_dir(daemon.path("state")).unwrap().map(|file| file.unwrap()).collect();
    assert!(files.len() > 1, "{files:?}");
    for file in files {
        let mode = file.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has the mode {mode:o}", file.path());
    }
    daemon.stop();
}
