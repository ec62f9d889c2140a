//! A model folder in which one file has any content: it is taken, or refused with that file named.
//! The first byte says which file.
#![no_main]

use std::{fs, path::Path, sync::LazyLock};

use camscribe::{
    describe::smolvlm::{
        config::{ModelConfig, ProcessorConfig},
        layout::layout,
        prompt::Prompter,
    },
    nn::weights::Weights,
};
use candle_core::{DType, Device};
use libfuzzer_sys::fuzz_target;
use tempfile::TempDir;

const FILES: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "model.safetensors",
    "model.safetensors.index.json",
];

/// Folders that each lack one of the files.
static FOLDERS: LazyLock<Vec<TempDir>> = LazyLock::new(|| {
    let shapes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/shapes");
    let without = |missing: &&str| {
        let folder = TempDir::new().expect("a folder");
        for file in FILES.iter().filter(|file| file != &missing && shapes.join(file).exists()) {
            fs::copy(shapes.join(file), folder.path().join(file)).expect("copied");
        }
        folder
    };
    FILES.iter().map(without).collect()
});

/// What loading does before it reads a tensor.
fn load(dir: &Path) -> Result<(), String> {
    let model = ModelConfig::load(dir).map_err(|e| e.to_string())?;
    let processor = ProcessorConfig::load(dir, &model).map_err(|e| e.to_string())?;
    Prompter::load(dir, &model, &processor).map_err(|e| e.to_string())?;
    let weights = Weights::open(dir, &Device::Cpu, DType::F32).map_err(|e| e.to_string())?;
    weights.check(layout(&model)).map_err(|e| e.to_string())
}

// The fuzzer's own hook ends the process on panics that are caught, too.
fuzz_target!(init: std::panic::set_hook(Box::new(|info| eprintln!("{info}"))), |data: &[u8]| {
    let Some((&which, content)) = data.split_first() else { return };
    let which = usize::from(which) % FILES.len();
    let dir = FOLDERS[which].path();
    fs::write(dir.join(FILES[which]), content).expect("written");
    if let Err(why) = load(dir) {
        assert!(why.contains(dir.to_str().expect("UTF-8")), "names no file: {why}");
    }
});
