//! Checks that need something that not every machine has: golden cases of published models, systemd, the
//! right to mount. A check that lacks it is counted as ignored, and its name says what is missing.
//!
//! libtest cannot decide at run time to ignore a test. libtest-mimic can, and takes the same arguments.
#![allow(clippy::disallowed_methods, reason = "the bans are for the daemon")]
#![allow(clippy::too_many_lines, reason = "a test tells one story, or is a table of cases")]

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

#[path = "../support"]
#[expect(dead_code, reason = "the other test binaries use the rest")]
mod support {
    pub mod broker;
    pub mod daemon;
    pub mod golden;
    pub mod live_camera;
    pub mod picture;
    pub mod proxy;
    pub mod rtsp;
}

mod golden;
mod mounts;
mod published;
mod systemd;

fn main() -> ExitCode {
    let trials = [golden::trials(), mounts::trials(), published::trials(), systemd::trials()];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}

/// Returns a check that fails by a panic. It is ignored if something that it needs is `missing`.
fn check(missing: Option<String>, name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    let trial = Trial::test(name, move || {
        run();
        Ok(())
    });
    match missing {
        None => trial,
        Some(what) => trial.with_kind(format!("needs {what}")).with_ignored_flag(true),
    }
}
