//! The names and shapes of a SmolVLM2's tensors, as published checkpoints store them.

use super::config::{ModelConfig, VisionConfig};
use crate::nn::{decoder::DecoderNames, weights::TensorShape};

/// The vision tower.
pub const VISION: &str = "model.vision_model";
/// The connector's linear layer.
pub const CONNECTOR: &str = "model.connector.modality_projection.proj";
/// The text decoder.
pub const DECODER: DecoderNames = DecoderNames { prefix: "model.text_model", head: "lm_head" };

/// Names and shapes of all tensors of a model of these sizes. Sizes may be absurd: nothing overflows, and the list
/// is made lazily.
pub fn layout(config: &ModelConfig) -> impl Iterator<Item = TensorShape> + use<> {
    let (vision, text) = (config.vision.hidden_size, config.text.hidden_size);
    let shuffled = vision.saturating_mul(config.scale_factor.saturating_pow(2));
    let connector = (format!("{CONNECTOR}.weight"), vec![text, shuffled]);
    vision_tower(&config.vision).chain([connector]).chain(DECODER.layout(&config.text))
}

fn vision_tower(config: &VisionConfig) -> impl Iterator<Item = TensorShape> + use<> {
    let v = config.clone();
    let width = v.hidden_size;
    let grid = v.image_size / v.patch_size;
    let fixed = [
        (format!("{VISION}.embeddings.patch_embedding.weight"), vec![width, 3, v.patch_size, v.patch_size]),
        (format!("{VISION}.embeddings.patch_embedding.bias"), vec![width]),
        (format!("{VISION}.embeddings.position_embedding.weight"), vec![grid.saturating_mul(grid), width]),
        (format!("{VISION}.post_layernorm.weight"), vec![width]),
        (format!("{VISION}.post_layernorm.bias"), vec![width]),
    ];
    let layers = (0..v.num_hidden_layers).flat_map(move |i| {
        let layer = |part: &str| format!("{VISION}.encoder.layers.{i}.{part}");
        let mlp = v.intermediate_size;
        let mut all = vec![
            (layer("mlp.fc1.weight"), vec![mlp, width]),
            (layer("mlp.fc1.bias"), vec![mlp]),
            (layer("mlp.fc2.weight"), vec![width, mlp]),
            (layer("mlp.fc2.bias"), vec![width]),
        ];
        for norm in ["layer_norm1", "layer_norm2"] {
            all.extend(["weight", "bias"].map(|part| (layer(&format!("{norm}.{part}")), vec![width])));
        }
        for proj in ["q", "k", "v", "out"] {
            all.push((layer(&format!("self_attn.{proj}_proj.weight")), vec![width, width]));
            all.push((layer(&format!("self_attn.{proj}_proj.bias")), vec![width]));
        }
        all
    });
    fixed.into_iter().chain(layers)
}
