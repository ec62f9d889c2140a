//! `camscribe check` on a configuration that a test writes.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

pub const PORCH: &str = "[cameras.porch]\nuri = \"rtsp://192.0.2.10/stream1\"\n";

/// The command `camscribe check` in a temporary directory, without the configuration in this process's
/// environment.
pub struct Check {
    pub folder: tempfile::TempDir,
    pub command: Command,
}

impl Check {
    pub fn of(toml: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("c.toml"), toml).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_camscribe"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("CAMSCRIBE__")
                || name == "CREDENTIALS_DIRECTORY"
                || name == "STATE_DIRECTORY"
            {
                command.env_remove(name);
            }
        }
        command.current_dir(folder.path()).args(["check", "--config", "c.toml"]);
        Self { folder, command }
    }

    pub fn file(self, name: &str, content: &str, mode: u32) -> Self {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    pub fn credentials(self) -> Self {
        let folder = self.folder.path().to_str().unwrap().to_owned();
        self.env("CREDENTIALS_DIRECTORY", &folder)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn run(&mut self) -> CheckOutput {
        let Output { status, stdout, stderr } = self.command.output().unwrap();
        CheckOutput {
            code: status.code(),
            out: String::from_utf8(stdout).unwrap(),
            err: String::from_utf8(stderr).unwrap(),
        }
    }
}

#[derive(Debug)]
pub struct CheckOutput {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl CheckOutput {
    pub fn toml(&self) -> toml::Table {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out.parse().unwrap()
    }
}
