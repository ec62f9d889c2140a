//! The weights of layers: linear layers, norms, and the lookup table for pixels. They are data; the arithmetic is
//! in `kernels`.

use candle_core::{DType, Device, Tensor};

use super::{
    error::{Result, WeightsError},
    kernels::cpu::quantised::QuantisedLinear,
    weights::Weights,
};

/// The weights of a linear layer, `(outputs, inputs)`.
pub enum LinearWeight {
    /// In the model's number format.
    Plain(Tensor),
    /// In 8 bits, on the CPU. Such layers have no bias.
    Quantised(QuantisedLinear),
}

/// A linear layer: `x W^T + b`.
pub struct Linear {
    /// `(outputs, inputs)`
    pub weight: LinearWeight,
    /// `(outputs)`
    pub bias: Option<Tensor>,
}

impl Linear {
    /// A layer with this weight, `(outputs, inputs)`, and this bias, `(outputs)`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: LinearWeight::Plain(weight), bias }
    }

    /// Reads `{name}.weight` and, if `bias`, `{name}.bias`.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(weights: &Weights, name: &str, bias: bool) -> Result<Self, WeightsError> {
        Self::fused(weights, &[name], bias)
    }

    /// Reads several layers with the same input as one layer. Its output is theirs side by side.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn fused(weights: &Weights, names: &[&str], bias: bool) -> Result<Self, WeightsError> {
        let stack = |part: &str| -> Result<Tensor, WeightsError> {
            let parts = names.iter().map(|name| weights.tensor(&format!("{name}.{part}")));
            let parts = parts.collect::<Result<Vec<_>, _>>()?;
            match parts.as_slice() {
                [one] => Ok(one.clone()),
                _ => Tensor::cat(&parts, 0).map_err(|e| weights.unusable(names[0], e)),
            }
        };
        Ok(Self::new(stack("weight")?, if bias { Some(stack("bias")?) } else { None }))
    }

    /// [`Linear::fused`] without bias, with its f32 weights rounded to 8 bits. One tensor is in memory in f32 at a
    /// time.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn quantised(weights: &Weights, names: &[&str]) -> Result<Self, WeightsError> {
        let mut all = QuantisedLinear::default();
        for name in names {
            let name = format!("{name}.weight");
            all.push(&weights.tensor(&name)?).map_err(|e| weights.unusable(&name, e))?;
        }
        Ok(Self { weight: LinearWeight::Quantised(all), bias: None })
    }

    /// The weight tensor, `(outputs, inputs)`. None if the weights are held in 8 bits.
    pub fn plain_weight(&self) -> Option<&Tensor> {
        match &self.weight {
            LinearWeight::Plain(weight) => Some(weight),
            LinearWeight::Quantised(_) => None,
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
