//! The installed unit, as systemd-analyze(1) judges it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use libtest_mimic::Trial;
use tempfile::TempDir;

use crate::check;

/// Returns the checks of this file.
pub fn trials() -> Vec<Trial> {
    let there = Command::new("systemd-analyze").arg("--version").output().is_ok();
    let missing = (!there).then(|| "systemd-analyze".to_owned());
    vec![
        check(
            missing.clone(),
            "systemd::systemd_finds_nothing_wrong_with_the_unit",
            systemd_finds_nothing_wrong_with_the_unit,
        ),
        check(
            missing,
            "systemd::the_sandbox_is_as_tight_as_the_unit_says",
            the_sandbox_is_as_tight_as_the_unit_says,
        ),
    ]
}

fn file(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Writes the unit with the program that was built here, since only the package installs it to /usr/bin.
fn unit() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let unit = file("systemd/camscribe.service");
    let installed = "/usr/bin/camscribe ";
    // To start, and to check before a reload.
    assert_eq!(unit.matches(installed).count(), 2);
    let here = format!("{} ", env!("CARGO_BIN_EXE_camscribe"));
    let path = folder.path().join("camscribe.service");
    fs::write(&path, unit.replace(installed, &here)).unwrap();
    (folder, path)
}

fn analyze(arguments: &[&str], unit: &Path) -> Output {
    Command::new("systemd-analyze").args(arguments).arg(unit).output().unwrap()
}

fn systemd_finds_nothing_wrong_with_the_unit() {
    let (_folder, unit) = unit();
    let output = analyze(&["verify", "--man=no"], &unit);
    let said = String::from_utf8_lossy(&output.stderr);
    // Other units of this machine may have errors.
    let ours: Vec<_> = said.lines().filter(|line| line.contains("camscribe")).collect();
    assert!(output.status.success() && ours.is_empty(), "{output:?}");
}

fn the_sandbox_is_as_tight_as_the_unit_says() {
    let stated = |text: &str| -> f64 {
        let (_, rest) = text.split_once("an exposure of ").expect("it states a figure");
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    let figure = stated(&file("systemd/camscribe.service"));
    assert_eq!(stated(&file("README.md")), figure);
    let (_folder, unit) = unit();
    let output = analyze(&["security", "--offline=yes", "--no-pager"], &unit);
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.contains("Overall exposure level")).expect("a verdict");
    let level: f64 = line.split(": ").last().unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(level <= figure, "{line}");
}
