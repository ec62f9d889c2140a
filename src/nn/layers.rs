//! The weights of layers: linear layers, norms, and the lookup table for pixels. They are data; the arithmetic is
//! in `kernels`.

use candle_core::{DType, Device, Tensor};

use super::{
    error::{Result, WeightsError},
    kernels::cpu::{
        linear::packed,
        product::{Numbers, PackedWeights, RowCount},
    },
    weights::Weights,
};

/// The weights of a linear layer, `(outputs, inputs)`.
pub enum LinearWeight {
    /// In the model's number format.
    Plain(Tensor),
    /// Packed for the processor.
    Packed(Box<dyn PackedWeights>),
}

/// A linear layer: `x W^T + b`.
pub struct Linear {
    /// `(outputs, inputs)`
    pub weight: LinearWeight,
    /// `(outputs)`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A layer with this weight, `(outputs, inputs)`, as it is, and this bias, `(outputs)`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: LinearWeight::Plain(weight), bias }
    }

    /// Reads `{name}.weight` and, if `bias`, `{name}.bias`. Its inputs will have so many rows.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(weights: &Weights, name: &str, bias: bool, rows: RowCount) -> Result<Self, WeightsError> {
        Self::fused(weights, &[name], bias, rows)
    }

    /// Reads several layers with the same input as one layer. Its output is theirs side by side. Its weights are packed
    /// as `weights` says, for inputs of so many rows.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn fused(
        weights: &Weights,
        names: &[&str],
        bias: bool,
        rows: RowCount,
    ) -> Result<Self, WeightsError> {
        let read = |part: &str| {
            names.iter().map(|name| weights.tensor(&format!("{name}.{part}"))).collect::<Result<Vec<_>, _>>()
        };
        let side_by_side = |parts: &[Tensor]| match parts {
            [one] => Ok(one.clone()),
            _ => Tensor::cat(parts, 0).map_err(|e| weights.unusable(names[0], e)),
        };
        let parts = read("weight")?;
        let weight = match weights.packing() {
            Some(numbers) => LinearWeight::Packed(
                packed(&parts, numbers, rows).map_err(|e| weights.unusable(names[0], e))?,
            ),
            None => LinearWeight::Plain(side_by_side(&parts)?),
        };
        Ok(Self { weight, bias: if bias { Some(side_by_side(&read("bias")?)?) } else { None } })
    }

    /// A layer with this weight, `(outputs, inputs)`, which is never rounded, and this bias, `(outputs)`.
    ///
    /// # Errors
    /// When the tensor is not contiguous f32 on the CPU and is to be packed.
    pub fn exact(weights: &Weights, weight: Tensor, bias: Option<Tensor>) -> Result<Self> {
        match weights.packing() {
            Some(_) => Ok(Self {
                weight: LinearWeight::Packed(packed(&[weight], Numbers::Exact, RowCount::Any)?),
                bias,
            }),
            None => Ok(Self::new(weight, bias)),
        }
    }

    /// The weight tensor, `(outputs, inputs)`. None if the weights are packed.
    pub fn plain_weight(&self) -> Option<&Tensor> {
        match &self.weight {
            LinearWeight::Plain(weight) => Some(weight),
            LinearWeight::Packed(_) => None,
        }
    }

    /// Bytes of the weights, and how many weights there are.
    pub fn weight_bytes(&self) -> (usize, usize) {
        match &self.weight {
            LinearWeight::Plain(weight) => {
                (weight.elem_count() * weight.dtype().size_in_bytes(), weight.elem_count())
            }
            LinearWeight::Packed(weights) => (weights.bytes(), weights.inputs() * weights.outputs()),
        }
    }
}

/// The weights of a norm over the last dimension: LayerNorm if there is a shift, else RMSNorm.
pub struct Norm {
    /// `(width)`, f32
    pub weight: Tensor,
    /// `(width)`, f32
    pub shift: Option<Tensor>,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// Reads a LayerNorm: `{name}.weight` and `{name}.bias`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn layer(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        let shift = f32_tensor(weights, &format!("{name}.bias"))?;
        Ok(Self { shift: Some(shift), ..Self::rms(weights, name, eps)? })
    }

    /// Reads an RMSNorm: `{name}.weight`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn rms(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        Ok(Self { weight: f32_tensor(weights, &format!("{name}.weight"))?, shift: None, eps: eps as f32 })
    }
}

/// Reads a tensor and converts it to f32.
fn f32_tensor(weights: &Weights, name: &str) -> Result<Tensor, WeightsError> {
    weights.tensor(name)?.to_dtype(DType::F32).map_err(|e| weights.unusable(name, e))
}

/// A lookup table from pixel bytes to the numbers that the network sees.
pub struct PixelLut {
    /// 256 numbers, by byte.
    pub values: Vec<f32>,
    /// Where the numbers are wanted.
    pub device: Device,
    /// In which number format.
    pub dtype: DType,
}
