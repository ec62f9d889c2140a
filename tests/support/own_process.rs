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
    let output = Command::new(env::current_exe().expect("this binary"))
        .args(["--exact", &test, "--nocapture"])
        .env(VARIABLE, &test)
        .output()
        .expect("this binary runs");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test}: {}", output.status);
    true
}
