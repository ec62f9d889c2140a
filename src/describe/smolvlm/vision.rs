//! The SigLIP vision tower: normalised tiles go in, one vector for every patch comes out.

use candle_core::Tensor;

use super::{
    Result, Stage, Watch,
    config::VisionConfig,
    ops::{Levels, Linear, Norm, Ops},
    preprocess::normalise,
    weights::{Weights, WeightsError},
};

/// The tower.
pub struct VisionTower {
    patch: Linear,
    /// `(patches, width)`
    positions: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    config: VisionConfig,
    /// From -1 to 1.
    levels: Levels,
}

struct Layer {
    norm1: Norm,
    qkv: Linear,
    out: Linear,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    heads: usize,
}

impl VisionTower {
    pub fn load(weights: &Weights, config: &VisionConfig) -> Result<Self, WeightsError> {
        let name = "model.vision_model";
        let patch = format!("{name}.embeddings.patch_embedding");
        // A convolution whose stride is its kernel is a linear layer on the pixels of each patch.
        let kernel = weights.tensor(&format!("{patch}.weight"))?;
        let kernel = kernel.flatten_from(1).map_err(|e| weights.unusable(&patch, e))?;
        let positions = weights.tensor(&format!("{name}.embeddings.position_embedding.weight"))?;
        let levels = Levels {
            of: normalise(&(0..=255).collect::<Vec<u8>>()),
            device: positions.device().clone(),
            dtype: positions.dtype(),
        };
        Ok(Self {
            patch: Linear::new(kernel, Some(weights.tensor(&format!("{patch}.bias"))?)),
            positions,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(weights, &format!("{name}.encoder.layers.{i}"), config))
                .collect::<Result<_, _>>()?,
            norm: Norm::layer(weights, &format!("{name}.post_layernorm"), config.layer_norm_eps)?,
            config: config.clone(),
            levels,
        })
    }

    /// Bytes of one tile.
    pub fn tile_bytes(&self) -> usize {
        3 * self.config.image_size * self.config.image_size
    }

    /// Tiles (channel, row, column; one after the other) to `(tiles, patches, width)`.
    pub fn forward(&self, ops: &dyn Ops, tiles: &[u8], watch: Watch<'_>) -> Result<Tensor> {
        let patches = ops.patches(tiles, &self.levels, (self.config.image_size, self.config.patch_size))?;
        let mut x = self.patch.forward(ops, &patches)?.broadcast_add(&self.positions)?;
        watch(Stage::VisionEmbeddings, &x)?;
        let mut normed = ops.norm(&x, self.layers.first().map_or(&self.norm, |layer| &layer.norm1))?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (sum, mlp) = layer.forward(ops, &x, &normed)?;
            let next = self.layers.get(i + 1).map_or(&self.norm, |layer| &layer.norm1);
            (x, normed) = ops.add_norm(&sum, &mlp, next)?;
            watch(Stage::VisionLayer(i), &x)?;
        }
        watch(Stage::VisionOut, &normed)?;
        Ok(normed)
    }
}

impl Layer {
    fn load(weights: &Weights, name: &str, config: &VisionConfig) -> Result<Self, WeightsError> {
        let part = |part: &str| format!("{name}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|p| part(&format!("self_attn.{p}_proj")));
        Ok(Self {
            norm1: Norm::layer(weights, &part("layer_norm1"), config.layer_norm_eps)?,
            qkv: Linear::fused(weights, &[&q, &k, &v], true)?,
            out: Linear::load(weights, &part("self_attn.out_proj"), true)?,
            norm2: Norm::layer(weights, &part("layer_norm2"), config.layer_norm_eps)?,
            fc1: Linear::load(weights, &part("mlp.fc1"), true)?,
            fc2: Linear::load(weights, &part("mlp.fc2"), true)?,
            heads: config.num_attention_heads,
        })
    }

    /// From what the layer adds to and the norm of it, to what it would give, not yet added up: `norm1` of
    /// the sum belongs to the next layer.
    fn forward(&self, ops: &dyn Ops, x: &Tensor, normed: &Tensor) -> Result<(Tensor, Tensor)> {
        let (tiles, patches, width) = x.dims3()?;
        let qkv =
            self.qkv.forward(ops, normed)?.reshape((tiles, patches, 3, self.heads, width / self.heads))?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
        let seen = self.out.forward(ops, &ops.attention(&part(0)?, &part(1)?, &part(2)?, None)?)?;
        let (x, normed) = ops.add_norm(x, &seen, &self.norm2)?;
        let mlp = self.fc2.forward(ops, &self.fc1.forward_gelu(ops, &normed)?)?;
        Ok((x, mlp))
    }
}
