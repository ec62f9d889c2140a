//! The SigLIP vision tower: image tiles in, one vector per patch out.

use candle_core::Tensor;

use super::{config::VisionConfig, layout::VISION, preprocess::normalise};
use crate::nn::{
    error::{Result, WeightsError},
    kernels::{Kernels, PatchSize, cpu::product::RowCount},
    layers::{Linear, Norm, PixelLut},
    observer::{ActivationObserver, ActivationPoint},
    weights::Weights,
};

/// The weights of the vision tower.
pub struct VisionTower {
    patch: Linear,
    /// `(patches, width)`
    positions: Tensor,
    layers: Vec<Layer>,
    norm: Norm,
    config: VisionConfig,
    /// From bytes to numbers from -1 to 1.
    lut: PixelLut,
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
    /// Reads the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(weights: &Weights, config: &VisionConfig) -> Result<Self, WeightsError> {
        let patch = format!("{VISION}.embeddings.patch_embedding");
        // A convolution whose stride is its kernel size is a linear layer on the pixels of each patch.
        let kernel = weights.tensor(&format!("{patch}.weight"))?;
        let kernel = kernel.flatten_from(1).map_err(|e| weights.unusable(&patch, e))?;
        let positions = weights.tensor(&format!("{VISION}.embeddings.position_embedding.weight"))?;
        let lut = PixelLut {
            values: normalise(&(0..=255).collect::<Vec<u8>>()),
            device: positions.device().clone(),
            dtype: positions.dtype(),
        };
        Ok(Self {
            patch: Linear::exact(weights, kernel, Some(weights.tensor(&format!("{patch}.bias"))?))
                .map_err(|e| weights.unusable(&patch, e))?,
            positions,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(weights, &format!("{VISION}.encoder.layers.{i}"), config))
                .collect::<Result<_, _>>()?,
            norm: Norm::layer(weights, &format!("{VISION}.post_layernorm"), config.layer_norm_eps)?,
            config: config.clone(),
            lut,
        })
    }

    /// Bytes of one tile.
    pub fn tile_bytes(&self) -> usize {
        3 * self.config.image_size * self.config.image_size
    }

    /// Runs tiles, bytes in the order tile, channel, row, column. Returns `(tiles, patches, width)`.
    ///
    /// # Errors
    /// When the device fails or the observer returns an error.
    pub fn forward(
        &self,
        kernels: &dyn Kernels,
        tiles: &[u8],
        observe: ActivationObserver<'_>,
    ) -> Result<Tensor> {
        let size = PatchSize { side: self.config.image_size, patch: self.config.patch_size };
        let patches = kernels.patches(tiles, &self.lut, size)?;
        let mut x = kernels.linear(&self.patch, &patches)?.broadcast_add(&self.positions)?;
        observe(ActivationPoint::VisionEmbeddings, &x)?;
        let mut normed = kernels.norm(&x, self.layers.first().map_or(&self.norm, |layer| &layer.norm1))?;
        for (i, layer) in self.layers.iter().enumerate() {
            let (sum, mlp) = layer.forward(kernels, &x, &normed)?;
            let next = self.layers.get(i + 1).map_or(&self.norm, |layer| &layer.norm1);
            (x, normed) = kernels.add_norm(&sum, &mlp, next)?;
            observe(ActivationPoint::VisionLayer(i), &x)?;
        }
        observe(ActivationPoint::VisionOut, &normed)?;
        Ok(normed)
    }
}

impl Layer {
    fn load(weights: &Weights, name: &str, config: &VisionConfig) -> Result<Self, WeightsError> {
        let part = |part: &str| format!("{name}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|p| part(&format!("self_attn.{p}_proj")));
        Ok(Self {
            norm1: Norm::layer(weights, &part("layer_norm1"), config.layer_norm_eps)?,
            qkv: Linear::fused(weights, &[&q, &k, &v], true, RowCount::Many)?,
            out: Linear::load(weights, &part("self_attn.out_proj"), true, RowCount::Many)?,
            norm2: Norm::layer(weights, &part("layer_norm2"), config.layer_norm_eps)?,
            fc1: Linear::load(weights, &part("mlp.fc1"), true, RowCount::Many)?,
            fc2: Linear::load(weights, &part("mlp.fc2"), true, RowCount::Many)?,
            heads: config.num_attention_heads,
        })
    }

    /// Runs one layer. `x` is the residual stream and `normed` its first norm, both `(tiles, patches, width)`. Returns
    /// the residual stream after attention and the output of the feed-forward part, not added yet: the caller adds
    /// them together with the next layer's first norm.
    fn forward(&self, kernels: &dyn Kernels, x: &Tensor, normed: &Tensor) -> Result<(Tensor, Tensor)> {
        let (tiles, patches, width) = x.dims3()?;
        let heads = (tiles, patches, 3, self.heads, width / self.heads);
        let qkv = kernels.linear(&self.qkv, normed)?.reshape(heads)?;
        let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
        let attended = kernels.attention(&part(0)?, &part(1)?, &part(2)?, None)?;
        let (x, normed) = kernels.add_norm(x, &kernels.linear(&self.out, &attended)?, &self.norm2)?;
        let mlp = kernels.linear(&self.fc2, &kernels.linear_gelu(&self.fc1, &normed)?)?;
        Ok((x, mlp))
    }
}
