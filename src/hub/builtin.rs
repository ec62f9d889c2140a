//! The model inside the program: `models/shapes`. With it camscribe works without any download.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Its name, in place of a hub id or a directory.
pub const NAME: &str = "shapes";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes/", $name)).as_slice())),*]
    };
}

const FILES: &[(&str, &[u8])] = &files![
    "README.md",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
];

/// Its card.
pub fn card() -> &'static str {
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/models/shapes/README.md"))
}

/// Writes the model's files into our own cache at `cache`, unless they are there already. Returns their
/// folder.
///
/// # Errors
/// When they cannot be written.
pub fn unpack(cache: &Path) -> io::Result<PathBuf> {
    let dir = cache.join("models").join("builtin").join(NAME).join(env!("CARGO_PKG_VERSION"));
    fs::create_dir_all(&dir)?;
    for (name, bytes) in FILES {
        let path = dir.join(name);
        if fs::read(&path).is_ok_and(|present| present == *bytes) {
            continue;
        }
        // Another process may be reading: a file is replaced as a whole.
        let part = dir.join(format!("{name}.{}.part", std::process::id()));
        fs::write(&part, bytes)?;
        fs::rename(&part, &path)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_unpacked_completely_and_a_damaged_copy_is_repaired() {
        let cache = tempfile::tempdir().unwrap();
        let dir = unpack(cache.path()).unwrap();
        fs::write(dir.join("config.json"), "{").unwrap();
        assert_eq!(unpack(cache.path()).unwrap(), dir);
        for (name, bytes) in FILES {
            assert_eq!(fs::read(dir.join(name)).unwrap(), *bytes, "{name}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), FILES.len());
    }
}
