//! Checkpoints of random weights, for tests that do not depend on the values.

use std::{collections::BTreeMap, fs, path::Path};

use camscribe::{
    describe::smolvlm::{
        config::{ModelConfig, SamplingDefaults, VisionConfig},
        layout::layout,
    },
    nn::{decoder::DecoderConfig, weights::random::numbers},
};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use tempfile::TempDir;

/// Returns the configuration of a very small SmolVLM2: 4 image tokens per tile, grouped-query attention.
pub fn tiny() -> ModelConfig {
    ModelConfig {
        vision: VisionConfig {
            hidden_size: 24,
            intermediate_size: 40,
            num_hidden_layers: 2,
            num_attention_heads: 3,
            image_size: 34,
            patch_size: 8,
            layer_norm_eps: 1e-6,
        },
        text: DecoderConfig {
            hidden_size: 32,
            intermediate_size: 48,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 8,
            rms_norm_eps: 1e-5,
            rope_theta: 100_000.,
            vocab_size: 97,
            max_position_embeddings: 128,
        },
        scale_factor: 2,
        image_token_id: 90,
        eos_token_ids: vec![96],
        pad_token_id: 2,
        sampling: SamplingDefaults::default(),
    }
}

/// Returns every tensor of the architecture with its shape and its little-endian f32 bytes.
pub fn random(config: &ModelConfig, seed: u64) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let values = numbers(&name, &shape, seed, |x| x);
        (name, (shape, values.into_iter().flat_map(f32::to_le_bytes).collect()))
    };
    layout(config).map(tensor).collect()
}

/// Writes tensors as one safetensors file.
pub fn write(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>) {
    let view = |(shape, bytes)| TensorView::new(Dtype::F32, Vec::clone(shape), bytes).unwrap();
    let views: Vec<_> = tensors.iter().map(|(name, (s, b))| (name, view((s, b)))).collect();
    serialize_to_file(views, None, path).unwrap();
}

/// Makes a directory with the built-in model's configuration and tokenizer, and random weights.
pub fn random_shapes(seed: u64) -> TempDir {
    let dir = TempDir::new().unwrap();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/shapes");
    for file in fs::read_dir(&shipped).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|e| e == "json") {
            fs::copy(&file, dir.path().join(file.file_name().unwrap())).unwrap();
        }
    }
    let config = ModelConfig::load(dir.path()).unwrap();
    write(&dir.path().join("model.safetensors"), &random(&config, seed));
    dir
}
