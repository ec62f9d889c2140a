//! The connector between vision tower and decoder: pixel shuffle joins the vectors of neighbouring patches, and a linear
//! layer projects them to the width of the decoder. The results replace the embeddings of `<image>` tokens.

use candle_core::Tensor;

use super::layout::CONNECTOR;
use crate::nn::{
    error::{Result, WeightsError},
    kernels::{Kernels, cpu::product::RowCount},
    layers::Linear,
    weights::Weights,
};

/// Pixel shuffle and projection.
pub struct Connector {
    scale: usize,
    projection: Linear,
}

impl Connector {
    /// Reads the weights. `scale` by `scale` patches become one token.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(weights: &Weights, scale: usize) -> Result<Self, WeightsError> {
        let projection = Linear::load(weights, CONNECTOR, false, RowCount::Many)?;
        Ok(Self { scale, projection })
    }

    /// `(tiles, patches, vision width)` to `(tiles, tokens, text width)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn forward(&self, kernels: &dyn Kernels, x: &Tensor) -> Result<Tensor> {
        kernels.linear(&self.projection, &shuffle(x, self.scale)?)
    }
}

/// Pixel shuffle: `(tiles, patches, width)` to `(tiles, patches / s², s² * width)`. Token `(r, c)` joins the patches
/// `(s*r + dy, s*c + dx)` in the order of `dy`, then `dx`.
fn shuffle(x: &Tensor, s: usize) -> Result<Tensor> {
    let (tiles, patches, width) = x.dims3()?;
    let grid = patches.isqrt() / s;
    // The patches of one row are already adjacent in memory, so only the row dimension moves.
    x.reshape((tiles, grid, s, grid, s * width))?.transpose(2, 3)?.reshape((
        tiles,
        grid * grid,
        s * s * width,
    ))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn a_token_joins_its_square_of_patches_row_by_row() {
        // A grid of 4 x 4 patches, each holding its own row and column.
        let patches: Vec<f32> = (0..16).flat_map(|i| [(i / 4) as f32, (i % 4) as f32]).collect();
        let x = Tensor::from_vec(patches, (1, 16, 2), &Device::Cpu).unwrap();
        let tokens = shuffle(&x, 2).unwrap().squeeze(0).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(tokens.len(), 4);
        assert_eq!(tokens[0], [0., 0., 0., 1., 1., 0., 1., 1.]);
        assert_eq!(tokens[1], [0., 2., 0., 3., 1., 2., 1., 3.]);
        assert_eq!(tokens[2], [2., 0., 2., 1., 3., 0., 3., 1.]);
    }
}
