//! Runs one test in a process of its own, for what is measured of a whole process.

use std::{env, process::Command};

/// Names the test for which this process was started.
const VARIABLE: &str = "CAMSCRIBE_TEST_OWN_PROCESS";

/// Runs the test `function` of `module` (its `module_path!()`) again, in a process of its own, and fails where
/// it fails. Returns false, and runs nothing, where this is that process.
pub fn ran(module: &str, function: &str) -> bool {
    let (_, module) = module.split_once("::").expect("a module of a test binary");
    let test = format!("{module}::{function}");
    if env::var(VARIABLE).is_ok_and(|name| name == test) {
        return false;
    }
    let status = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", &test, "--nocapture"])
        .env(VARIABLE, &test)
        .status()
        .expect("this binary runs");
    assert!(status.success(), "{test}: {status}");
    true
}
