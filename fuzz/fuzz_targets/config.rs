//! A configuration file of any content: it is read, or refused with at least one error.
#![no_main]

use std::{fs, sync::LazyLock};

use camscribe::config;
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

static FOLDER: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a folder"));

fuzz_target!(|content: &[u8]| {
    let file = FOLDER.path().join("camscribe.toml");
    fs::write(&file, content).expect("written");
    match config::load(Some(&file)) {
        Ok(loaded) => {
            // What is printed as the effective configuration must be a configuration.
            let printed = loaded.to_toml();
            fs::write(&file, &printed).expect("written");
            if let Err(error) = config::load(Some(&file)) {
                panic!("{error}\n{printed}");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
