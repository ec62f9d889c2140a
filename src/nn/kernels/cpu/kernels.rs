//! The CPU backend.

use candle_core::Tensor;

use super::{
    super::{
        super::{
            error::Result,
            layers::{Norm, PixelLut},
            sequence::SequencePositions,
        },
        candle::CandleKernels,
        traits::{Kernels, PatchSize},
    },
    activations::SwigluOp,
    attention::AttentionOp,
    norms::{LayerNormOp, RmsNormOp},
    product::Numbers,
};

/// Our own operations on f32 tensors on the CPU; candle's for the rotary embedding, patches, and weights that are not
/// packed, which a model on these kernels does not have.
pub struct CpuKernels {
    /// How attention's products are computed.
    pub numbers: Numbers,
}

impl Kernels for CpuKernels {
    fn matmul(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        CandleKernels.matmul(x, weight, bias)
    }

    fn matmul_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        CandleKernels.matmul_gelu(x, weight, bias)
    }

    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        match &norm.shift {
            Some(shift) => x.apply_op3_no_bwd(&norm.weight, shift, &LayerNormOp(norm.eps)),
            None => x.apply_op2_no_bwd(&norm.weight, &RmsNormOp(norm.eps)),
        }
    }

    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        gate_up.apply_op1_no_bwd(&SwigluOp)
    }

    fn rotate(
        &self,
        qkv: &Tensor,
        cache: &(Tensor, Tensor),
        positions: &SequencePositions,
    ) -> Result<Tensor> {
        CandleKernels.rotate(qkv, cache, positions)
    }

    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor> {
        let causal = positions.map(|positions| (positions.starts, positions.first));
        q.apply_op3_no_bwd(k, v, &AttentionOp { causal, numbers: self.numbers })
    }

    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor> {
        CandleKernels.patches(tiles, lut, size)
    }
}
