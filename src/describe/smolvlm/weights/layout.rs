//! What tensors a model of given sizes has.

use super::ModelConfig;

/// Names and shapes of an architecture's tensors, as the hub lays them out.
pub fn layout(config: &ModelConfig) -> impl Iterator<Item = (String, Vec<usize>)> {
    let (v, t) = (config.vision.clone(), config.text.clone());
    let (dv, dt) = (v.hidden_size, t.hidden_size);
    let grid = v.image_size / v.patch_size;
    let vision = "model.vision_model";
    let fixed = vec![
        (format!("{vision}.embeddings.patch_embedding.weight"), vec![dv, 3, v.patch_size, v.patch_size]),
        (format!("{vision}.embeddings.patch_embedding.bias"), vec![dv]),
        (format!("{vision}.embeddings.position_embedding.weight"), vec![grid.saturating_mul(grid), dv]),
        (format!("{vision}.post_layernorm.weight"), vec![dv]),
        (format!("{vision}.post_layernorm.bias"), vec![dv]),
        (
            "model.connector.modality_projection.proj.weight".into(),
            vec![dt, dv.saturating_mul(config.scale_factor.saturating_pow(2))],
        ),
        ("model.text_model.embed_tokens.weight".into(), vec![t.vocab_size, dt]),
        ("model.text_model.norm.weight".into(), vec![dt]),
        ("lm_head.weight".into(), vec![t.vocab_size, dt]),
    ];
    let vision_layers = (0..v.num_hidden_layers).flat_map(move |i| {
        let layer = |part: &str| format!("{vision}.encoder.layers.{i}.{part}");
        let mlp = v.intermediate_size;
        let mut all = vec![
            (layer("mlp.fc1.weight"), vec![mlp, dv]),
            (layer("mlp.fc1.bias"), vec![mlp]),
            (layer("mlp.fc2.weight"), vec![dv, mlp]),
            (layer("mlp.fc2.bias"), vec![dv]),
        ];
        for norm in ["layer_norm1", "layer_norm2"] {
            all.extend(["weight", "bias"].map(|part| (layer(&format!("{norm}.{part}")), vec![dv])));
        }
        for proj in ["q", "k", "v", "out"] {
            all.push((layer(&format!("self_attn.{proj}_proj.weight")), vec![dv, dv]));
            all.push((layer(&format!("self_attn.{proj}_proj.bias")), vec![dv]));
        }
        all
    });
    let text_layers = (0..t.num_hidden_layers).flat_map(move |i| {
        let (q, kv) = (
            t.num_attention_heads.saturating_mul(t.head_dim),
            t.num_key_value_heads.saturating_mul(t.head_dim),
        );
        [
            ("input_layernorm", vec![dt]),
            ("post_attention_layernorm", vec![dt]),
            ("self_attn.q_proj", vec![q, dt]),
            ("self_attn.k_proj", vec![kv, dt]),
            ("self_attn.v_proj", vec![kv, dt]),
            ("self_attn.o_proj", vec![dt, q]),
            ("mlp.gate_proj", vec![t.intermediate_size, dt]),
            ("mlp.up_proj", vec![t.intermediate_size, dt]),
            ("mlp.down_proj", vec![dt, t.intermediate_size]),
        ]
        .map(|(part, shape)| (format!("model.text_model.layers.{i}.{part}.weight"), shape))
    });
    fixed.into_iter().chain(vision_layers).chain(text_layers)
}
