//! The reference implementation: candle's own operations, on any device and in any number format.

use candle_core::{D, DType, Tensor};
use candle_nn::{ops, rotary_emb::rope};

use super::{
    super::{
        error::Result,
        layers::{Norm, PixelLut},
        sequence::SequencePositions,
    },
    traits::{Kernels, PatchSize},
};

/// Most attention scores in memory at a time, in f32 elements: 256 MiB.
const MAX_SCORES: usize = 64 << 20;

/// candle's operations.
pub struct CandleKernels;

impl Kernels for CandleKernels {
    fn matmul(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let y = x.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    fn matmul_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.matmul(x, weight, Some(bias))?.gelu()
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let y = match &norm.shift {
            Some(shift) => ops::layer_norm(&wide, &norm.weight, shift, norm.eps),
            None => ops::rms_norm(&wide, &norm.weight, norm.eps),
        };
        y?.to_dtype(x.dtype())
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let width = gate_up.dim(D::Minus1)? / 2;
        gate_up.narrow(D::Minus1, 0, width)?.silu()? * gate_up.narrow(D::Minus1, width, width)?
    }

    fn rotate(
        &self,
        qkv: &Tensor,
        (keys, values): &(Tensor, Tensor),
        positions: &SequencePositions,
    ) -> Result<Tensor> {
        let key_heads = keys.dim(1)?;
        let heads = qkv.dim(2)? - 2 * key_heads;
        let (cos, sin) = positions.rotary()?;
        let part = |from, count| qkv.narrow(2, from, count)?.transpose(1, 2)?.contiguous();
        let q = rope(&part(0, heads)?, cos, sin)?;
        keys.slice_set(&rope(&part(heads, key_heads)?, cos, sin)?, 2, positions.first)?;
        values.slice_set(&part(heads + key_heads, key_heads)?, 2, positions.first)?;
        Ok(q)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor> {
        let (sequences, heads, queries, size) = q.dims4()?;
        let (_, key_heads, keys, _) = k.dims4()?;
        let scale = 1. / (size as f64).sqrt();
        let (k, v) = (with_matrix_strides(k)?, with_matrix_strides(v)?);
        let keys_t = k.t()?;
        let bias = positions.map(SequencePositions::bias).transpose()?.flatten();
        let step = (MAX_SCORES / (sequences * heads * keys)).clamp(1, queries);
        let mut parts = Vec::with_capacity(queries.div_ceil(step));
        for first in (0..queries).step_by(step) {
            let n = step.min(queries - first);
            let grouped = (sequences, key_heads, heads / key_heads * n, ());
            let q = q.narrow(2, first, n)?.reshape(grouped)?;
            let scores = q.matmul(&keys_t)?.reshape((sequences, heads, n, keys))?;
            let scores = (scores.to_dtype(DType::F32)? * scale)?;
            let scores = match bias {
                Some(bias) => scores.broadcast_add(&bias.narrow(2, first, n)?)?,
                None => scores,
            };
            let probabilities = ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
            let out = probabilities.reshape(grouped)?.matmul(&v)?;
            parts.push(out.reshape((sequences, heads, n, size))?.transpose(1, 2)?);
        }
        Tensor::cat(&parts, 1)?.reshape((sequences, queries, heads * size))
    }

    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor> {
        let (PatchSize { side, patch }, grid) = (size, size.grid());
        let (tile, width) = (3 * side * side, 3 * patch * patch);
        let count = tiles.len() / tile;
        let mut pixels = Vec::with_capacity(count * grid * grid * width);
        for tile in tiles.chunks_exact(tile) {
            for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
                for plane in tile.chunks_exact(side * side) {
                    for line in plane.chunks_exact(side).skip(row * patch).take(patch) {
                        let bytes = &line[column * patch..][..patch];
                        pixels.extend(bytes.iter().map(|&byte| lut.values[usize::from(byte)]));
                    }
                }
            }
        }
        Tensor::from_vec(pixels, (count, grid * grid, width), &lut.device)?.to_dtype(lut.dtype)
    }
}

/// `x`, `(sequences, heads, tokens, head size)`, or a contiguous copy if candle's matrix product cannot read it in place.
/// The product needs contiguous rows and one stride between all matrices. A view of a cache has them; a part of a fused
/// projection does not.
fn with_matrix_strides(x: &Tensor) -> Result<Tensor> {
    let (_, heads, _, size) = x.dims4()?;
    match *x.stride() {
        [sequence, head, token, 1] if sequence == heads * head && token == size => Ok(x.clone()),
        _ => x.contiguous(),
    }
}
