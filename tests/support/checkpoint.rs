//! Checkpoints of random weights, for tests of what does not depend on the weights' values.

use std::{collections::BTreeMap, path::Path};

use camscribe::describe::smolvlm::{
    config::{ModelConfig, TextConfig, VisionConfig},
    weights::layout,
};
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};

#[allow(dead_code, reason = "not every test that shares this file needs it")]
/// A very small SmolVLM2: 4 image tokens a tile, grouped query heads.
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
        text: TextConfig {
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
    }
}

/// Every tensor of the architecture with its shape and little-endian f32 bytes: uniform, of
/// variance 1 / inputs, norms around 1.
pub fn random(config: &ModelConfig, seed: u64) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let mut state = seed;
    let mut uniform = move || {
        // SplitMix64 (Steele, Lea, Flood 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f32 / u64::MAX as f32 * 2. - 1.
    };
    let tensor = |(name, shape): (String, Vec<usize>)| {
        let inputs: usize = shape[1..].iter().product();
        let spread = (3. / inputs.max(4) as f32).sqrt();
        let centre = if name.contains("norm") && name.ends_with("weight") { 1. } else { 0. };
        let values = (0..shape.iter().product()).map(|_| centre + spread * uniform());
        (name, (shape, values.flat_map(f32::to_le_bytes).collect()))
    };
    layout(config).map(tensor).collect()
}

/// Writes tensors as one safetensors file.
pub fn write(path: &Path, tensors: &BTreeMap<String, (Vec<usize>, Vec<u8>)>) {
    let view = |(shape, bytes)| TensorView::new(Dtype::F32, Vec::clone(shape), bytes).unwrap();
    let views: Vec<_> = tensors.iter().map(|(name, (s, b))| (name, view((s, b)))).collect();
    serialize_to_file(views, None, path).unwrap();
}
