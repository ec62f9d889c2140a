//! The trait that every backend implements, and what its methods exchange.

use candle_core::{D, Tensor};

use super::{
    super::{
        decoder::Decoder,
        error::Result,
        layers::{Linear, LinearWeight, Norm, PixelLut},
        observer::ActivationObserver,
        sequence::{KvCache, SequencePositions},
    },
    cpu::linear::PackedOp,
};

/// The arithmetic of vision towers and text decoders. Norms and softmax are computed in f32 whatever the model's
/// number format is. Every method fails when the device does, or has too little memory.
pub trait Kernels: Send + Sync {
    /// `x W^T + b`: `x` is `(rows, inputs)`, `weight` `(outputs, inputs)`, `bias` `(outputs)`, all contiguous.
    /// Returns `(rows, outputs)`.
    fn matmul(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor>;

    /// GELU, in its tanh approximation, of [`Kernels::matmul`].
    fn matmul_gelu(&self, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor>;

    /// The norm over the last dimension of `x`, `(…, width)`.
    fn norm(&self, x: &Tensor, norm: &Norm) -> Result<Tensor>;

    /// `silu(gate) * up`, where `gate_up` holds both side by side: `(…, 2 * width)` to `(…, width)`.
    fn swiglu(&self, gate_up: &Tensor) -> Result<Tensor>;

    /// Applies the rotary embedding to queries and keys, and writes keys and values into a layer's cache at
    /// `positions`. `qkv` is `(sequences, tokens, heads + 2 * key heads, head size)`, the cache's keys and values
    /// are `(sequences, key heads, capacity, head size)`. Returns the queries, `(sequences, heads, tokens, head
    /// size)`.
    fn rotate(&self, qkv: &Tensor, cache: &(Tensor, Tensor), positions: &SequencePositions)
    -> Result<Tensor>;

    /// Scaled dot-product attention. `q` is `(sequences, heads, queries, head size)`; `k` and `v` are
    /// `(sequences, key heads, keys, head size)`, where each key head serves a group of neighbouring heads. With
    /// positions it is causal, without them every query sees every key. Returns `(sequences, queries, heads * head
    /// size)`.
    fn attention(
        &self,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        positions: Option<&SequencePositions>,
    ) -> Result<Tensor>;

    /// Cuts square tiles into patches. `tiles` holds bytes in the order tile, channel, row, column, with `side` rows
    /// and columns; each byte is replaced by its entry in the table. Returns `(tiles, patches, 3 * patch * patch)`,
    /// without the rows and columns that do not fill a patch.
    fn patches(&self, tiles: &[u8], lut: &PixelLut, size: PatchSize) -> Result<Tensor>;

    /// `x + y`, and its norm.
    fn add_norm(&self, x: &Tensor, y: &Tensor, norm: &Norm) -> Result<(Tensor, Tensor)> {
        let sum = (x + y)?;
        let normed = self.norm(&sum, norm)?;
        Ok((sum, normed))
    }

    /// A linear layer: `(…, inputs)` to `(…, outputs)`.
    fn linear(&self, layer: &Linear, x: &Tensor) -> Result<Tensor> {
        let bias = layer.bias.as_ref();
        as_rows(x, |x| match &layer.weight {
            LinearWeight::Packed(weights) => {
                x.apply_op1_no_bwd(&PackedOp { weights: &**weights, bias, gelu: false })
            }
            LinearWeight::Plain(weight) => self.matmul(x, weight, bias),
        })
    }

    /// A linear layer with a bias, then GELU in its tanh approximation: `(…, inputs)` to `(…, outputs)`.
    fn linear_gelu(&self, layer: &Linear, x: &Tensor) -> Result<Tensor> {
        let Some(bias) = &layer.bias else { candle_core::bail!("a layer before GELU has a bias") };
        as_rows(x, |x| match &layer.weight {
            LinearWeight::Packed(weights) => {
                x.apply_op1_no_bwd(&PackedOp { weights: &**weights, bias: Some(bias), gelu: true })
            }
            LinearWeight::Plain(weight) => self.matmul_gelu(x, weight, bias),
        })
    }

    /// A loop that decodes one token of every sequence at a time, if this backend has a faster one than a forward
    /// pass for every token.
    fn decode_loop<'a>(
        &'a self,
        _decoder: &'a Decoder,
        _cache: &KvCache,
    ) -> Result<Option<Box<dyn DecodeLoop + 'a>>> {
        Ok(None)
    }
}

/// Side lengths in pixels.
#[derive(Clone, Copy, Debug)]
pub struct PatchSize {
    /// Of a tile.
    pub side: usize,
    /// Of a patch.
    pub patch: usize,
}

impl PatchSize {
    /// Whole patches along a side of a tile.
    pub fn grid(self) -> usize {
        self.side / self.patch
    }
}

/// Extends the sequences of one cache by one token each at a time.
pub trait DecodeLoop {
    /// Appends the token `ids[i]` to sequence `i` and scores what follows. The cache must be the one that the loop
    /// was made for, changed by nobody else.
    ///
    /// # Errors
    /// When the device fails, the cache is full, or the observer returns an error.
    fn step(
        &mut self,
        ids: &[u32],
        cache: &mut KvCache,
        observe: ActivationObserver<'_>,
    ) -> Result<NextToken>;
}

/// The scores of the token that follows each sequence.
pub struct NextToken {
    /// `(sequences, vocabulary)` in f32. Valid until the next step, which may overwrite it.
    pub logits: Tensor,
    /// For every sequence: the token with the highest score.
    pub argmax: Vec<u32>,
}

impl NextToken {
    /// Finds the token with the highest score.
    ///
    /// # Errors
    /// When the device fails.
    pub fn of(logits: Tensor) -> Result<Self> {
        Ok(Self { argmax: logits.argmax(D::Minus1)?.to_vec1::<u32>()?, logits })
    }
}

/// Flattens `x`, `(…, inputs)`, to `(rows, inputs)` for `layer`, and gives its result, `(rows, outputs)`, the shape
/// `(…, outputs)`.
fn as_rows(x: &Tensor, layer: impl FnOnce(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
    let mut shape = x.dims().to_vec();
    let y = layer(&x.reshape(((), x.dim(D::Minus1)?))?)?;
    if let Some(last) = shape.last_mut() {
        *last = y.dim(D::Minus1)?;
    }
    y.reshape(shape)
}
