//! The installed systemd unit agrees with the program.

use std::{fs, path::Path};

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn the_unit_agrees_with_the_program() {
    let unit = file("systemd/camscribe.service");
    let lines: Vec<_> = unit.lines().collect();
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        // Twice the patience of /healthz, see src/app/life.rs.
        "WatchdogSec=5min",
        // The exit codes of wrong configuration and wrong usage, see docs/reference/command-line.md.
        "RestartPreventExitStatus=78 2",
        "LimitCORE=0",
        "User=camscribe",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(file("systemd/camscribe.sysusers").lines().any(|line| line.starts_with("u camscribe ")));
    assert!(file("src/app/life.rs").contains("PATIENCE: Duration = Duration::from_secs(150)"));
}
