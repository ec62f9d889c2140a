//! The arithmetic that vision tower and decoder share: linear layers, norms, activations and
//! attention. Norms and softmax are computed in f32 whatever the model's number format is. In f32 on
//! the CPU our own operations (`cpu`) do the work, everywhere else candle's.

use candle_core::{D, DType, Tensor};
use candle_nn::ops;

use super::{
    Result, cpu,
    weights::{Weights, WeightsError},
};

/// Most attention scores held at a time, in elements (f32): 256 MiB.
const MAX_SCORES: usize = 64 << 20;

/// Whether our own operations take this tensor.
fn ours(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// `x W^T + b`.
pub struct Linear {
    weight: Weight,
    bias: Option<Tensor>,
}

/// `(outputs, inputs)`
enum Weight {
    Plain(Tensor),
    /// In 8 bits; such layers have no bias.
    Quantised(cpu::QuantisedOp),
}

impl Linear {
    /// Reads `{name}.weight` and, if `bias`, `{name}.bias`.
    pub fn load(weights: &Weights, name: &str, bias: bool) -> Result<Self, WeightsError> {
        Self::fused(weights, &[name], bias)
    }

    /// Several layers that see the same input, as one: their outputs side by side.
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

    /// A layer of these weights: `(outputs, inputs)`.
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight: Weight::Plain(weight), bias }
    }

    /// [`Linear::fused`] without bias, its f32 weights rounded to 8 bits one tensor after the other.
    pub fn quantised(weights: &Weights, names: &[&str]) -> Result<Self, WeightsError> {
        let mut all = cpu::QuantisedOp::default();
        for name in names {
            let name = format!("{name}.weight");
            all.push(&weights.tensor(&name)?).map_err(|e| weights.unusable(&name, e))?;
        }
        Ok(Self { weight: Weight::Quantised(all), bias: None })
    }

    /// `(…, inputs)` to `(…, outputs)`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let inputs = x.dim(D::Minus1)?;
        let x = x.reshape(((), inputs))?;
        let y = match (&self.weight, &self.bias) {
            (Weight::Quantised(op), _) => x.apply_op1_no_bwd(op)?,
            (Weight::Plain(weight), bias) if ours(&x) => {
                x.apply_op1_no_bwd(&cpu::LinearOp { weight, bias: bias.as_ref() })?
            }
            (Weight::Plain(weight), Some(bias)) => x.matmul(&weight.t()?)?.broadcast_add(bias)?,
            (Weight::Plain(weight), None) => x.matmul(&weight.t()?)?,
        };
        if let Some(last) = shape.last_mut() {
            *last = y.dim(D::Minus1)?;
        }
        y.reshape(shape)
    }
}

/// LayerNorm with bias, in f32.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f32,
}

impl LayerNorm {
    pub fn load(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        let part = |part: &str| {
            let tensor = weights.tensor(&format!("{name}.{part}"))?;
            tensor.to_dtype(DType::F32).map_err(|e| weights.unusable(name, e))
        };
        Ok(Self { weight: part("weight")?, bias: part("bias")?, eps: eps as f32 })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if ours(x) {
            return x.apply_op3_no_bwd(&self.weight, &self.bias, &cpu::LayerNormOp(self.eps));
        }
        let y = ops::layer_norm(&x.to_dtype(DType::F32)?, &self.weight, &self.bias, self.eps)?;
        y.to_dtype(x.dtype())
    }
}

/// RMSNorm, in f32.
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    pub fn load(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        let weight = weights.tensor(&format!("{name}.weight"))?;
        let weight = weight.to_dtype(DType::F32).map_err(|e| weights.unusable(name, e))?;
        Ok(Self { weight, eps: eps as f32 })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        if ours(x) {
            return x.apply_op2_no_bwd(&self.weight, &cpu::RmsNormOp(self.eps));
        }
        ops::rms_norm(&x.to_dtype(DType::F32)?, &self.weight, self.eps)?.to_dtype(x.dtype())
    }
}

/// GELU with the tanh approximation.
pub fn gelu(x: Tensor) -> Result<Tensor> {
    if !ours(&x) {
        return x.gelu();
    }
    x.inplace_op1(&cpu::GeluOp)?;
    Ok(x)
}

/// `silu(gate) * up` of `gate` and `up` side by side in the last dimension.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    if ours(gate_up) {
        return gate_up.apply_op1_no_bwd(&cpu::SwigluOp);
    }
    let width = gate_up.dim(D::Minus1)? / 2;
    gate_up.narrow(D::Minus1, 0, width)?.silu()? * gate_up.narrow(D::Minus1, width, width)?
}

/// Who sees whom in a left-padded batch of token rows: a query sees the keys of its own row from
/// the row's first real token up to itself.
pub struct Causal {
    /// Slot of the first real token of every row.
    starts: Vec<usize>,
    /// Slot of the first query.
    first: usize,
    /// Added to the scores: 0 or minus infinity, `(rows, 1, queries, keys)`. Nothing where every
    /// query sees every key, or where our own operation works it out by itself.
    bias: Option<Tensor>,
}

impl Causal {
    /// `queries` queries from slot `first` on, and keys in every slot up to the last query's.
    pub fn new(starts: &[usize], first: usize, queries: usize, like: &Tensor) -> Result<Self> {
        let keys = first + queries;
        let bias = if ours(like) || queries == 1 && starts.iter().all(|&s| s == 0) {
            None
        } else {
            let mut bias = Vec::with_capacity(starts.len() * queries * keys);
            for &start in starts {
                for query in first..keys {
                    // A padding query sees itself, for a softmax over nothing is not a number.
                    let seen = |key| key == query || (start..=query).contains(&key);
                    bias.extend((0..keys).map(|key| if seen(key) { 0f32 } else { f32::NEG_INFINITY }));
                }
            }
            Some(Tensor::from_vec(bias, (starts.len(), 1, queries, keys), like.device())?)
        };
        Ok(Self { starts: starts.to_vec(), first, bias })
    }
}

/// Scaled dot-product attention. `q` is `(rows, heads, queries, head size)`, `k` and `v` are
/// `(rows, key heads, keys, head size)` where every key head serves a group of neighbouring heads.
/// Without a mask every query sees every key. Returns `(rows, queries, heads * head size)`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Causal>) -> Result<Tensor> {
    let (rows, heads, queries, size) = q.dims4()?;
    let (_, key_heads, keys, _) = k.dims4()?;
    if ours(q) {
        let causal = mask.map(|mask| (mask.starts.as_slice(), mask.first));
        return q.apply_op3_no_bwd(k, v, &cpu::AttentionOp { causal });
    }
    let scale = 1. / (size as f64).sqrt();
    let (k, v) = (evenly_spaced(k)?, evenly_spaced(v)?);
    let keys_t = k.t()?;
    let step = (MAX_SCORES / (rows * heads * keys)).clamp(1, queries);
    let mut parts = Vec::with_capacity(queries.div_ceil(step));
    for first in (0..queries).step_by(step) {
        let n = step.min(queries - first);
        let grouped = (rows, key_heads, heads / key_heads * n, ());
        let q = q.narrow(2, first, n)?.reshape(grouped)?;
        let scores = q.matmul(&keys_t)?.reshape((rows, heads, n, keys))?;
        let scores = (scores.to_dtype(DType::F32)? * scale)?;
        let scores = match mask.and_then(|m| m.bias.as_ref()) {
            Some(bias) => scores.broadcast_add(&bias.narrow(2, first, n)?)?,
            None => scores,
        };
        let shares = ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
        let out = shares.reshape(grouped)?.matmul(&v)?;
        parts.push(out.reshape((rows, heads, n, size))?.transpose(1, 2)?);
    }
    Tensor::cat(&parts, 1)?.reshape((rows, queries, heads * size))
}

/// Candle multiplies a stack of matrices whose rows are whole and which are all equally far apart;
/// others are copied. A cache's view qualifies, a part of a fused projection does not.
fn evenly_spaced(x: &Tensor) -> Result<Tensor> {
    let (_, heads, _, size) = x.dims4()?;
    match *x.stride() {
        [row, head, token, 1] if row == heads * head && token == size => Ok(x.clone()),
        _ => x.contiguous(),
    }
}
