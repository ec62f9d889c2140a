//! The unit that the package installs, as systemd itself reads it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The unit with a program that exists here: it is only installed to /usr/bin by the package.
fn unit() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let unit = file("systemd/camscribe.service");
    let installed = "ExecStart=/usr/bin/camscribe run";
    assert!(unit.contains(installed));
    let here = format!("ExecStart={} run", env!("CARGO_BIN_EXE_camscribe"));
    let path = folder.path().join("camscribe.service");
    fs::write(&path, unit.replace(installed, &here)).unwrap();
    (folder, path)
}

/// None, and says so, where systemd is not installed.
fn analyze(arguments: &[&str], unit: &Path) -> Option<Output> {
    match Command::new("systemd-analyze").args(arguments).arg(unit).output() {
        Ok(output) => Some(output),
        Err(error) => {
            println!("not run: systemd-analyze: {error}");
            None
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    let (_folder, unit) = unit();
    let Some(output) = analyze(&["verify", "--man=no"], &unit) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of this machine may have faults of their own.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("camscribe")).collect();
    assert!(output.status.success() && ours.is_empty(), "{output:?}");
}

#[test]
fn the_sandbox_is_as_tight_as_the_unit_says() {
    let stated = |text: &str| -> f64 {
        let (_, rest) = text.split_once("an exposure of ").expect("it states a figure");
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let figure = stated(&file("systemd/camscribe.service"));
    assert_eq!(stated(&file("README.md")), figure);
    let (_folder, unit) = unit();
    let Some(output) = analyze(&["security", "--offline=yes", "--no-pager"], &unit) else { return };
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
    let level: f64 = line.split(": ").last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level <= figure, "{line}");
}

#[test]
fn the_unit_says_what_the_program_keeps_to() {
    let unit = file("systemd/camscribe.service");
    let lines: Vec<_> = unit.lines().collect();
    for line in [
        "Type=notify",
        "ExecReload=/bin/kill -HUP $MAINPID",
        // Twice the patience of /healthz, see src/app/life.rs.
        "WatchdogSec=5min",
        // Wrong configuration and wrong usage, see the README.
        "RestartPreventExitStatus=78 2",
        "LimitCORE=0",
        "User=camscribe",
    ] {
        assert!(lines.contains(&line), "{line}");
    }
    assert!(file("systemd/camscribe.sysusers").lines().any(|line| line.starts_with("u camscribe ")));
    assert!(file("src/app/life.rs").contains("PATIENCE: Duration = Duration::from_secs(150)"));
}
