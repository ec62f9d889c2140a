//! The installed systemd unit agrees with the program.

use std::{fs, path::Path, time::Duration};

use camscribe::lifecycle::STUCK_AFTER;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_unit_agrees_with_the_program() {
    let unit = file("systemd/camscribe.service");
    let lines: Vec<_> = unit.lines().collect();
    // A reload begins with a check, whose mistakes stop it.
    assert!(unit.contains("\nExecReload=+/usr/bin/camscribe check\nExecReload=/bin/kill -HUP $MAINPID\n"));
    for line in [
        "Type=notify",
        // Twice STUCK_AFTER, after which /healthz fails.
        "WatchdogSec=5min",
        // The exit codes of wrong configuration and wrong usage, see docs/reference/command-line.md.
        "RestartPreventExitStatus=78 2",
        "LimitCORE=0",
        "User=camscribe",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(file("systemd/camscribe.sysusers").lines().any(|line| line.starts_with("u camscribe ")));
    assert_eq!(2 * STUCK_AFTER, Duration::from_secs(5 * 60));
}
