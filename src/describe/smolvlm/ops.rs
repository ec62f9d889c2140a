//! The arithmetic that vision tower and decoder share: linear layers, norms, activations, rotary positions
//! and attention. Norms and softmax are computed in f32 whatever the model's number format is. What is
//! computed is said here, in candle's operations; where our own are faster (`cpu`, `cuda`), they take the
//! place of these, which they are tested against.

use std::cell::OnceCell;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{ops, rotary_emb::rope};

use super::{
    Result, Watch, cpu,
    text::{Cache, Decoder},
    weights::{Weights, WeightsError},
};

/// Most attention scores held at a time, in elements (f32): 256 MiB.
const MAX_SCORES: usize = 64 << 20;

/// Who does the arithmetic. Unless told otherwise, candle.
pub trait Ops: Send + Sync {
    /// `x W^T + b`: `x` is `(rows, inputs)`, `W` `(outputs, inputs)`, all contiguous.
    fn linear(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let y = x.matmul(&weight.t()?)?;
        match bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }

    /// GELU with the tanh approximation of [`Ops::linear`].
    fn linear_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
        self.linear(x, weight, Some(bias))?.gelu()
    }

    /// The norm of every vector, `(…, width)`.
    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor> {
        let wide = x.to_dtype(DType::F32)?;
        let y = match &norm.shift {
            Some(shift) => ops::layer_norm(&wide, &norm.weight, shift, norm.eps),
            None => ops::rms_norm(&wide, &norm.weight, norm.eps),
        };
        y?.to_dtype(x.dtype())
    }

    /// `x + y`, and its norm.
    fn add_norm(&self, x: &Tensor, y: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let sum = (x + y)?;
        let normed = self.norm(&sum, norm)?;
        Ok((sum, normed))
    }

    /// `silu(gate) * up` of `gate` and `up` side by side in the last dimension.
    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor> {
        let width = gate_up.dim(D::Minus1)? / 2;
        gate_up.narrow(D::Minus1, 0, width)?.silu()? * gate_up.narrow(D::Minus1, width, width)?
    }

    /// Turns queries and keys by their positions, and puts keys and values into the cache of a layer.
    /// `qkv` is `(rows, tokens, heads + 2 * key heads, head size)`, the cache's parts are `(rows, key heads,
    /// capacity, head size)`. Returns the queries, `(rows, heads, tokens, head size)`.
    fn rotate(&self, qkv: &Tensor, (keys, values): &(Tensor, Tensor), places: &Places) -> Result<Tensor> {
        let key_heads = keys.dim(1)?;
        let heads = qkv.dim(2)? - 2 * key_heads;
        let (cos, sin) = places.rotary()?;
        let part = |from, count| qkv.narrow(2, from, count)?.transpose(1, 2)?.contiguous();
        let q = rope(&part(0, heads)?, cos, sin)?;
        keys.slice_set(&rope(&part(heads, key_heads)?, cos, sin)?, 2, places.first)?;
        values.slice_set(&part(heads + key_heads, key_heads)?, 2, places.first)?;
        Ok(q)
    }

    /// Scaled dot-product attention. `q` is `(rows, heads, queries, head size)`, `k` and `v` are
    /// `(rows, key heads, keys, head size)` where every key head serves a group of neighbouring heads.
    /// Without places every query sees every key. Returns `(rows, queries, heads * head size)`.
    fn attention(&self, q: &Tensor, k: &Tensor, v: &Tensor, places: Option<&Places>) -> Result<Tensor> {
        let (rows, heads, queries, size) = q.dims4()?;
        let (_, key_heads, keys, _) = k.dims4()?;
        let scale = 1. / (size as f64).sqrt();
        let (k, v) = (evenly_spaced(k)?, evenly_spaced(v)?);
        let keys_t = k.t()?;
        let bias = places.map(Places::bias).transpose()?.flatten();
        let step = (MAX_SCORES / (rows * heads * keys)).clamp(1, queries);
        let mut parts = Vec::with_capacity(queries.div_ceil(step));
        for first in (0..queries).step_by(step) {
            let n = step.min(queries - first);
            let grouped = (rows, key_heads, heads / key_heads * n, ());
            let q = q.narrow(2, first, n)?.reshape(grouped)?;
            let scores = q.matmul(&keys_t)?.reshape((rows, heads, n, keys))?;
            let scores = (scores.to_dtype(DType::F32)? * scale)?;
            let scores = match bias {
                Some(bias) => scores.broadcast_add(&bias.narrow(2, first, n)?)?,
                None => scores,
            };
            let shares = ops::softmax_last_dim(&scores)?.to_dtype(v.dtype())?;
            let out = shares.reshape(grouped)?.matmul(&v)?;
            parts.push(out.reshape((rows, heads, n, size))?.transpose(1, 2)?);
        }
        Tensor::cat(&parts, 1)?.reshape((rows, queries, heads * size))
    }

    /// The pixels of tiles (channel, row, column; one after the other), each byte replaced by its level
    /// and sorted by patch: `(tiles, patches, 3 * patch * patch)`. Rows and columns that fill no whole
    /// patch are left out.
    fn patches(&self, tiles: &[u8], levels: &Levels, (side, patch): (usize, usize)) -> Result<Tensor> {
        let grid = side / patch;
        let (tile, width) = (3 * side * side, 3 * patch * patch);
        let count = tiles.len() / tile;
        let mut pixels = Vec::with_capacity(count * grid * grid * width);
        for tile in tiles.chunks_exact(tile) {
            for (row, column) in (0..grid).flat_map(|row| (0..grid).map(move |column| (row, column))) {
                for plane in tile.chunks_exact(side * side) {
                    for line in plane.chunks_exact(side).skip(row * patch).take(patch) {
                        let bytes = &line[column * patch..][..patch];
                        pixels.extend(bytes.iter().map(|&byte| levels.of[usize::from(byte)]));
                    }
                }
            }
        }
        Tensor::from_vec(pixels, (count, grid * grid, width), &levels.device)?.to_dtype(levels.dtype)
    }

    /// How rows go on a token at a time, where there is something faster than one pass
    /// after the other.
    fn steps<'a>(&'a self, _decoder: &'a Decoder, _cache: &Cache) -> Result<Option<Box<dyn Steps + 'a>>> {
        Ok(None)
    }
}

/// Makes the rows of a cache longer, one token each at a time.
pub trait Steps {
    /// Takes the next token of every row. Always with the cache that the steps were made for, which nobody
    /// else has changed.
    fn step(&mut self, ids: &[u32], cache: &mut Cache, watch: Watch<'_>) -> Result<Next>;
}

/// The fastest way that there is.
pub fn steps<'a>(ops: &'a dyn Ops, decoder: &'a Decoder, cache: &Cache) -> Result<Box<dyn Steps + 'a>> {
    Ok(match ops.steps(decoder, cache)? {
        Some(steps) => steps,
        None => Box::new(Passes { ops, decoder }),
    })
}

/// One pass through the decoder for every step.
struct Passes<'a> {
    ops: &'a dyn Ops,
    decoder: &'a Decoder,
}

impl Steps for Passes<'_> {
    fn step(&mut self, ids: &[u32], cache: &mut Cache, watch: Watch<'_>) -> Result<Next> {
        let vectors = self.decoder.embed(ids)?.unsqueeze(1)?;
        Next::of(self.decoder.forward(self.ops, vectors, cache, watch)?)
    }
}

/// What follows the last token of every row.
pub struct Next {
    /// `(rows, vocabulary)` in f32, until the next step, which may write to the same place.
    pub logits: Tensor,
    /// Of every row the token with the highest score.
    pub likeliest: Vec<u32>,
}

impl Next {
    /// From the scores alone.
    pub fn of(logits: Tensor) -> Result<Self> {
        Ok(Self { likeliest: logits.argmax(D::Minus1)?.to_vec1::<u32>()?, logits })
    }
}

/// Candle's operations.
pub struct Plain;

impl Ops for Plain {}

/// What the values of bytes become, and in which format.
pub struct Levels {
    /// By byte.
    pub of: Vec<f32>,
    pub device: Device,
    pub dtype: DType,
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

    /// The weights, `(outputs, inputs)`, where they are not held in 8 bits.
    pub fn weight(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Plain(weight) => Some(weight),
            Weight::Quantised(_) => None,
        }
    }

    /// `(…, inputs)` to `(…, outputs)`.
    pub fn forward(&self, ops: &dyn Ops, x: &Tensor) -> Result<Tensor> {
        rows(x, |x| match &self.weight {
            Weight::Quantised(op) => x.apply_op1_no_bwd(op),
            Weight::Plain(weight) => ops.linear(x, weight, self.bias.as_ref()),
        })
    }

    /// [`Linear::forward`] of a layer with a bias, then GELU.
    pub fn forward_gelu(&self, ops: &dyn Ops, x: &Tensor) -> Result<Tensor> {
        let (Weight::Plain(weight), Some(bias)) = (&self.weight, &self.bias) else {
            candle_core::bail!("a layer before GELU has plain weights and a bias");
        };
        rows(x, |x| ops.linear_gelu(x, weight, bias))
    }
}

/// Shows `x`, `(…, inputs)`, to `layer` as rows, and shapes what it makes of them, `(…, outputs)`.
fn rows(x: &Tensor, layer: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let y = layer(&x.reshape(((), x.dim(D::Minus1)?))?)?;
    if let Some(last) = shape.last_mut() {
        *last = y.dim(D::Minus1)?;
    }
    y.reshape(shape)
}

/// What a vector is normed with: LayerNorm where there is a shift, RMSNorm where there is none.
pub struct Norm {
    /// `(width)`, f32
    pub weight: Tensor,
    /// `(width)`, f32
    pub shift: Option<Tensor>,
    pub eps: f32,
}

impl Norm {
    /// LayerNorm.
    pub fn layer(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        let shift = wide(weights, &format!("{name}.bias"))?;
        Ok(Self { shift: Some(shift), ..Self::rms(weights, name, eps)? })
    }

    /// RMSNorm.
    pub fn rms(weights: &Weights, name: &str, eps: f64) -> Result<Self, WeightsError> {
        Ok(Self { weight: wide(weights, &format!("{name}.weight"))?, shift: None, eps: eps as f32 })
    }
}

/// A tensor in f32.
fn wide(weights: &Weights, name: &str) -> Result<Tensor, WeightsError> {
    weights.tensor(name)?.to_dtype(DType::F32).map_err(|e| weights.unusable(name, e))
}

/// Where the tokens of one pass through the decoder stand in a left-padded batch, and who sees whom: a query
/// sees the keys of its own row from the row's first real token up to itself.
pub struct Places<'a> {
    /// Slot of the first real token of every row.
    pub starts: &'a [usize],
    /// Slot of the first query.
    pub first: usize,
    /// Queries of every row.
    pub tokens: usize,
    /// Cosines and sines by position, `(positions, head size / 2)`.
    pub table: &'a (Tensor, Tensor),
    starts_there: OnceCell<Tensor>,
    rotary: OnceCell<(Tensor, Tensor)>,
    bias: OnceCell<Option<Tensor>>,
}

impl<'a> Places<'a> {
    /// `tokens` queries from slot `first` on, and keys in every slot up to the last query's.
    pub fn new(starts: &'a [usize], first: usize, tokens: usize, table: &'a (Tensor, Tensor)) -> Self {
        let (starts_there, rotary, bias) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { starts, first, tokens, table, starts_there, rotary, bias }
    }

    /// `starts` on the device.
    pub fn starts_there(&self) -> Result<&Tensor> {
        once(&self.starts_there, || on_device(self.starts, self.table.0.device()))
    }

    /// Cosines and sines of every query, `(rows, tokens, head size / 2)`.
    pub fn rotary(&self) -> Result<&(Tensor, Tensor)> {
        once(&self.rotary, || {
            let slots = self.first..self.first + self.tokens;
            let last = self.table.0.dim(0)? - 1;
            // Padding, and a row that is done and has not left, has no position; what it computes is never seen.
            let of_row = |start: &usize| {
                let start = *start;
                slots.clone().map(move |slot| slot.saturating_sub(start).min(last))
            };
            let positions: Vec<usize> = self.starts.iter().flat_map(of_row).collect();
            let positions = on_device(&positions, self.table.0.device())?;
            let shape = (self.starts.len(), self.tokens, ());
            let at = |table: &Tensor| table.index_select(&positions, 0)?.reshape(shape);
            Ok((at(&self.table.0)?, at(&self.table.1)?))
        })
    }

    /// Added to the scores: 0 or minus infinity, `(rows, 1, queries, keys)`. Nothing where every query
    /// sees every key.
    fn bias(&self) -> Result<Option<&Tensor>> {
        let bias = once(&self.bias, || {
            if self.tokens == 1 && self.starts.iter().all(|&start| start == 0) {
                return Ok(None);
            }
            let keys = self.first + self.tokens;
            let mut bias = Vec::with_capacity(self.starts.len() * self.tokens * keys);
            for &start in self.starts {
                for query in self.first..keys {
                    // A padding query sees itself, for a softmax over nothing is not a number.
                    let seen = |key| key == query || (start..=query).contains(&key);
                    bias.extend((0..keys).map(|key| if seen(key) { 0f32 } else { f32::NEG_INFINITY }));
                }
            }
            let shape = (self.starts.len(), 1, self.tokens, keys);
            Ok(Some(Tensor::from_vec(bias, shape, self.table.0.device())?))
        })?;
        Ok(bias.as_ref())
    }
}

/// Slots, positions or rows as a tensor (u32).
pub fn on_device(numbers: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_iter(numbers.iter().map(|number| *number as u32), device)
}

/// What `cell` holds, made when it is first asked for.
fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
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
