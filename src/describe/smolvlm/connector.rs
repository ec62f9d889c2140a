//! Between the towers: pixel shuffle gathers neighbouring patches into one longer vector, and one
//! linear layer takes it to the width of the text model. What comes out stands where `<image>`
//! tokens are.

use candle_core::Tensor;

use super::{
    Result,
    ops::{Linear, Ops},
    weights::{Weights, WeightsError},
};

/// Pixel shuffle and projection.
pub struct Connector {
    scale: usize,
    projection: Linear,
}

impl Connector {
    /// `scale` patches by `scale` patches become one token.
    pub fn load(weights: &Weights, scale: usize) -> Result<Self, WeightsError> {
        let projection = Linear::load(weights, "model.connector.modality_projection.proj", false)?;
        Ok(Self { scale, projection })
    }

    /// `(tiles, patches, vision width)` to `(tiles, tokens, text width)`.
    pub fn forward(&self, ops: &dyn Ops, x: &Tensor) -> Result<Tensor> {
        self.projection.forward(ops, &shuffle(x, self.scale)?)
    }
}

/// Token `(r, c)` takes patches `(s*r + dy, s*c + dx)`, side by side in the order of `dy`, then `dx`.
fn shuffle(x: &Tensor, s: usize) -> Result<Tensor> {
    let (tiles, patches, width) = x.dims3()?;
    let grid = patches.isqrt() / s;
    // Patches of one row are neighbours in memory already, so only rows have to change places.
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
    fn a_token_gathers_its_square_of_patches_row_by_row() {
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
