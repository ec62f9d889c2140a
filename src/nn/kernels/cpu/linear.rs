//! Linear layers with packed weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Shape, Tensor};

use super::{
    super::super::error::Result,
    gemm::{contiguous_f32, with_contiguous_f32},
    product::{Epilogue, Numbers, PackedWeights, RowCount, pack},
};

/// Packs weights, `(outputs, inputs)` each, as the outputs of one layer, side by side.
///
/// # Errors
/// When they have different numbers of inputs, or are not contiguous f32 on the CPU.
pub fn packed(parts: &[Tensor], numbers: Numbers, rows: RowCount) -> Result<Box<dyn PackedWeights>> {
    let inputs = parts.first().map_or(Ok(0), |part| part.dim(1))?;
    for part in parts {
        if part.dims2()?.1 != inputs {
            candle_core::bail!("rows of {} weights beside rows of {inputs}", part.dims2()?.1);
        }
    }
    let storages: Vec<_> = parts.iter().map(Tensor::storage_and_layout).collect();
    let slices = storages.iter().map(|(storage, layout)| match &**storage {
        candle_core::Storage::Cpu(storage) => contiguous_f32(storage, layout),
        _ => candle_core::bail!("not on the CPU"),
    });
    Ok(pack(&slices.collect::<Result<Vec<_>>>()?, inputs, numbers, rows))
}

/// `x W^T`, or `x W^T + b`, and then perhaps GELU: `x` is `(rows, inputs)`, contiguous. The result is `(rows, outputs)`.
pub struct PackedOp<'a> {
    /// `(outputs, inputs)`
    pub weights: &'a dyn PackedWeights,
    /// `(outputs)`, contiguous.
    pub bias: Option<&'a Tensor>,
    /// GELU follows, in its tanh approximation.
    pub gelu: bool,
}

impl CustomOp1 for PackedOp<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = layout.shape().dims2()?;
        if inputs != self.weights.inputs() {
            candle_core::bail!("{inputs} inputs to a layer of {}", self.weights.inputs());
        }
        let x = contiguous_f32(x, layout)?;
        let product = |bias: Option<&[f32]>| self.weights.product(x, Epilogue { bias, gelu: self.gelu });
        let out = match self.bias {
            Some(bias) => with_contiguous_f32(bias, |bias| product(Some(bias)))?,
            None => product(None),
        };
        Ok((CpuStorage::F32(out), Shape::from((rows, self.weights.outputs()))))
    }
}
