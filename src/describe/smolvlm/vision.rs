//! The SigLIP vision tower: normalised tiles go in, one vector for every patch comes out.

use candle_core::Tensor;

use super::{
    Result, Stage, Watch,
    config::VisionConfig,
    ops::{self, LayerNorm, Linear},
    preprocess::normalise,
    weights::{Weights, WeightsError},
};

/// The tower.
pub struct VisionTower {
    patch: Linear,
    /// `(patches, width)`
    positions: Tensor,
    layers: Vec<Layer>,
    norm: LayerNorm,
    config: VisionConfig,
    /// What byte values become: -1 to 1.
    levels: Vec<f32>,
}

struct Layer {
    norm1: LayerNorm,
    qkv: Linear,
    out: Linear,
    norm2: LayerNorm,
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
        Ok(Self {
            patch: Linear::new(kernel, Some(weights.tensor(&format!("{patch}.bias"))?)),
            positions: weights.tensor(&format!("{name}.embeddings.position_embedding.weight"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(weights, &format!("{name}.encoder.layers.{i}"), config))
                .collect::<Result<_, _>>()?,
            norm: LayerNorm::load(weights, &format!("{name}.post_layernorm"), config.layer_norm_eps)?,
            config: config.clone(),
            levels: normalise(&(0..=255).collect::<Vec<u8>>()),
        })
    }

    /// Bytes of one tile.
    pub fn tile_bytes(&self) -> usize {
        3 * self.config.image_size * self.config.image_size
    }

    /// Tiles (channel, row, column; one after the other) to `(tiles, patches, width)`.
    pub fn forward(&self, tiles: &[u8], watch: Watch<'_>) -> Result<Tensor> {
        let mut x = self.patch.forward(&self.patches(tiles)?)?.broadcast_add(&self.positions)?;
        watch(Stage::VisionEmbeddings, &x)?;
        for (i, layer) in self.layers.iter().enumerate() {
            x = layer.forward(&x)?;
            watch(Stage::VisionLayer(i), &x)?;
        }
        let x = self.norm.forward(&x)?;
        watch(Stage::VisionOut, &x)?;
        Ok(x)
    }

    /// Normalised pixels, sorted by patch: `(tiles, patches, 3 * patch * patch)`. Rows and columns
    /// that fill no whole patch are left out.
    fn patches(&self, tiles: &[u8]) -> Result<Tensor> {
        let (side, patch) = (self.config.image_size, self.config.patch_size);
        let grid = self.config.grid();
        let count = tiles.len() / self.tile_bytes();
        let width = 3 * patch * patch;
        let mut pixels = Vec::with_capacity(count * grid * grid * width);
        for tile in tiles.chunks_exact(self.tile_bytes()) {
            for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
                for plane in tile.chunks_exact(side * side) {
                    for line in plane.chunks_exact(side).skip(row * patch).take(patch) {
                        let bytes = &line[column * patch..][..patch];
                        pixels.extend(bytes.iter().map(|&byte| self.levels[usize::from(byte)]));
                    }
                }
            }
        }
        let pixels = Tensor::from_vec(pixels, (count, grid * grid, width), self.positions.device())?;
        pixels.to_dtype(self.positions.dtype())
    }
}

impl Layer {
    fn load(weights: &Weights, name: &str, config: &VisionConfig) -> Result<Self, WeightsError> {
        let part = |part: &str| format!("{name}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|p| part(&format!("self_attn.{p}_proj")));
        Ok(Self {
            norm1: LayerNorm::load(weights, &part("layer_norm1"), config.layer_norm_eps)?,
            qkv: Linear::fused(weights, &[&q, &k, &v], true)?,
            out: Linear::load(weights, &part("self_attn.out_proj"), true)?,
            norm2: LayerNorm::load(weights, &part("layer_norm2"), config.layer_norm_eps)?,
            fc1: Linear::load(weights, &part("mlp.fc1"), true)?,
            fc2: Linear::load(weights, &part("mlp.fc2"), true)?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (tiles, patches, width) = x.dims3()?;
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let qkv = qkv.reshape((tiles, patches, 3, self.heads, width / self.heads))?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
        let x = (x + self.out.forward(&ops::attention(&part(0)?, &part(1)?, &part(2)?, None)?)?)?;
        let mlp = self.fc2.forward(&ops::gelu(self.fc1.forward(&self.norm2.forward(&x)?)?)?)?;
        x + mlp
    }
}
