//! What a model's stages cost, counted from its architecture: floating-point operations of the stages that arithmetic
//! bounds, bytes of the stage that memory bounds. A multiplication and an addition are two operations. Norms,
//! activations and softmax are not counted.

use crate::describe::smolvlm::{config::ModelConfig, layout::layout};

/// Weights in the matrices whose names begin with `prefix`. One vector through them takes as many multiplications and
/// additions.
fn matrix_weights(config: &ModelConfig, prefix: &str) -> f64 {
    let matrices = layout(config).filter(|(name, shape)| name.starts_with(prefix) && shape.len() > 1);
    matrices.map(|(_, shape)| shape.iter().product::<usize>() as f64).sum()
}

/// Parameters of the model.
pub fn parameters(config: &ModelConfig) -> usize {
    layout(config).map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Operations of the vision tower and the connector on one tile.
pub fn vision_flop(config: &ModelConfig) -> f64 {
    let v = &config.vision;
    let patches = v.grid().pow(2) as f64;
    let per_patch = matrix_weights(config, "model.vision_model.encoder")
        + matrix_weights(config, "model.vision_model.embeddings.patch_embedding");
    // Scores and weighted sums: every patch attends to every patch.
    let attention = 2. * (v.num_hidden_layers * v.hidden_size) as f64 * patches;
    let connector = config.tokens_per_tile() as f64 * matrix_weights(config, "model.connector");
    2. * (patches * (per_patch + attention) + connector)
}

/// Operations of the decoder on a prompt of `tokens` tokens, including the logits of the next token.
pub fn prefill_flop(config: &ModelConfig, tokens: usize) -> f64 {
    let (t, n) = (&config.text, tokens as f64);
    let per_token = matrix_weights(config, "model.text_model.layers");
    // A token attends to itself and to the tokens before it.
    let attended = n * (n + 1.) / 2.;
    let attention = 2. * (t.num_hidden_layers * t.num_attention_heads * t.head_dim) as f64 * attended;
    2. * (n * per_token + attention + matrix_weights(config, "lm_head"))
}

/// Bytes that one decode step reads: the decoder's matrices once, and the keys and values of `sequences` sequences of
/// `slots` tokens. `weight_bytes` is the size of a weight, `element_bytes` that of a key's or value's element.
pub fn decode_step_bytes(
    config: &ModelConfig,
    (sequences, slots): (usize, f64),
    (weight_bytes, element_bytes): (f64, usize),
) -> f64 {
    let t = &config.text;
    let weights = matrix_weights(config, "model.text_model.layers") + matrix_weights(config, "lm_head");
    let per_slot = 2 * t.num_hidden_layers * t.num_key_value_heads * t.head_dim;
    weights * weight_bytes + sequences as f64 * slots * (per_slot * element_bytes) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shapes::Shape;

    /// Counted by hand from the sizes of the 256M model.
    #[test]
    fn the_cost_of_the_256m_model_equals_a_count_by_hand() {
        let config = Shape::M256.config();
        let layer = 1024. * (4. * 768. * 768. + 2. * 768. * 3072.) + 2. * 1024. * 1024. * 768.;
        let tile = 12. * layer + 1024. * 3. * 16. * 16. * 768. + 64. * 12288. * 576.;
        assert_eq!(vision_flop(&config), 2. * tile);

        let layer = 576. * (576. + 2. * 192.) + 576. * 576. + 3. * 576. * 1536.;
        let scores = 10. * 11. / 2. * 2. * 576.;
        assert_eq!(prefill_flop(&config, 10), 2. * (30. * (10. * layer + scores) + 49280. * 576.));

        let weights = 30. * layer + 49280. * 576.;
        assert_eq!(
            decode_step_bytes(&config, (4, 100.), (1.125, 2)),
            1.125 * weights + 2. * 4. * 100. * 30. * 2. * 192.
        );
        assert_eq!(parameters(&config), 256_484_928);
    }
}
