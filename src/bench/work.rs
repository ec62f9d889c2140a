//! How much there is to do, counted from an architecture: floating-point operations where arithmetic
//! is what takes the time, bytes where memory is. A multiplication and an addition are two operations;
//! norms, activations and softmax are not counted.

use crate::describe::smolvlm::{config::ModelConfig, layout::layout};

/// Numbers in the matrices whose names begin with `prefix`: so many multiplications and additions
/// take one vector through them.
fn matrices(config: &ModelConfig, prefix: &str) -> f64 {
    let matrices = layout(config).filter(|(name, shape)| name.starts_with(prefix) && shape.len() > 1);
    matrices.map(|(_, shape)| shape.iter().product::<usize>() as f64).sum()
}

/// Numbers in all weights of the model.
pub fn parameters(config: &ModelConfig) -> usize {
    layout(config).map(|(_, shape)| shape.iter().product::<usize>()).sum()
}

/// Operations that turn one tile into its tokens: vision tower and connector.
pub fn vision(config: &ModelConfig) -> f64 {
    let v = &config.vision;
    let patches = v.grid().pow(2) as f64;
    let per_patch = matrices(config, "model.vision_model.encoder")
        + matrices(config, "model.vision_model.embeddings.patch_embedding");
    // Scores and weighted sums: every patch looks at every patch.
    let attention = 2. * (v.num_hidden_layers * v.hidden_size) as f64 * patches;
    let connector = config.tokens_per_tile() as f64 * matrices(config, "model.connector");
    2. * (patches * (per_patch + attention) + connector)
}

/// Operations that take a prompt of `tokens` through the decoder up to the scores of the next token.
pub fn prefill(config: &ModelConfig, tokens: usize) -> f64 {
    let (t, n) = (&config.text, tokens as f64);
    let per_token = matrices(config, "model.text_model.layers");
    // A token looks at itself and at those before it.
    let seen = n * (n + 1.) / 2.;
    let attention = 2. * (t.num_hidden_layers * t.num_attention_heads * t.head_dim) as f64 * seen;
    2. * (n * per_token + attention + matrices(config, "lm_head"))
}

/// Bytes that one step of decoding has to read: the decoder's matrices once, and the keys and values
/// of `rows` rows of `slots` tokens. `weight`, `number`: bytes of a weight, and of any other number.
pub fn decode_bytes(
    config: &ModelConfig,
    (rows, slots): (usize, f64),
    (weight, number): (f64, usize),
) -> f64 {
    let t = &config.text;
    let weights = matrices(config, "model.text_model.layers") + matrices(config, "lm_head");
    let per_slot = 2 * t.num_hidden_layers * t.num_key_value_heads * t.head_dim;
    weights * weight + rows as f64 * slots * (per_slot * number) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::shapes::Shape;

    /// By hand, from the sizes of the 256M model.
    #[test]
    fn the_work_of_the_256m_model_is_what_counting_by_hand_gives() {
        let config = Shape::M256.config();
        let layer = 1024. * (4. * 768. * 768. + 2. * 768. * 3072.) + 2. * 1024. * 1024. * 768.;
        let tile = 12. * layer + 1024. * 3. * 16. * 16. * 768. + 64. * 12288. * 576.;
        assert_eq!(vision(&config), 2. * tile);

        let layer = 576. * (576. + 2. * 192.) + 576. * 576. + 3. * 576. * 1536.;
        let scores = 10. * 11. / 2. * 2. * 576.;
        assert_eq!(prefill(&config, 10), 2. * (30. * (10. * layer + scores) + 49280. * 576.));

        let weights = 30. * layer + 49280. * 576.;
        assert_eq!(
            decode_bytes(&config, (4, 100.), (1.125, 2)),
            1.125 * weights + 2. * 4. * 100. * 30. * 2. * 192.
        );
        assert_eq!(parameters(&config), 256_484_928);
    }
}
