//! One forward pass of the text decoder, and the loop that decodes one token per sequence at a time.

use candle_core::{DType, Tensor};

use super::{
    decoder::{Decoder, DecoderLayer},
    error::Result,
    kernels::{DecodeLoop, Kernels, NextToken},
    observer::{ActivationObserver, ActivationPoint},
    sequence::{KvCache, SequencePositions},
};

/// Runs the next tokens of every sequence through the decoder and appends their keys and values to the cache. `x`
/// holds their embeddings, `(sequences, tokens, width)`. Returns the scores of the token after the last one,
/// `(sequences, vocabulary)` in f32.
///
/// # Errors
/// When the device fails or the observer returns an error.
pub fn forward(
    kernels: &dyn Kernels,
    decoder: &Decoder,
    x: Tensor,
    cache: &mut KvCache,
    observe: ActivationObserver<'_>,
) -> Result<Tensor> {
    let logits = forward_scoring(kernels, decoder, x, cache, 1, observe)?.squeeze(1)?;
    observe(ActivationPoint::Logits, &logits)?;
    Ok(logits)
}

/// [`forward`], with the scores of what follows each of the `last` tokens: `(sequences, last, vocabulary)` in f32.
///
/// # Errors
/// As [`forward`].
pub fn forward_scoring(
    kernels: &dyn Kernels,
    decoder: &Decoder,
    x: Tensor,
    cache: &mut KvCache,
    last: usize,
    observe: ActivationObserver<'_>,
) -> Result<Tensor> {
    let (_, tokens, _) = x.dims3()?;
    let positions = SequencePositions::new(&cache.starts, cache.len, tokens, &decoder.rotary);
    let mut x = x;
    let mut normed = match decoder.layers.first() {
        Some(layer) => kernels.norm(&x, &layer.input_norm)?,
        None => x.clone(),
    };
    for (i, (layer, kv)) in decoder.layers.iter().zip(&cache.layers).enumerate() {
        let (sum, mlp) = layer_forward(kernels, layer, (&x, &normed), kv, &positions)?;
        match decoder.layers.get(i + 1) {
            Some(next) => (x, normed) = kernels.add_norm(&sum, &mlp, &next.input_norm)?,
            // The final norm sees the last tokens alone, see below.
            None => x = (sum + mlp)?,
        }
        observe(ActivationPoint::TextLayer(i), &x)?;
    }
    cache.len += tokens;
    let last = kernels.norm(&x.narrow(1, tokens - last, last)?.contiguous()?, &decoder.norm)?;
    observe(ActivationPoint::TextNorm, &last)?;
    kernels.linear(&decoder.head, &last)?.to_dtype(DType::F32)
}

/// Runs one layer. `x` is the residual stream and `normed` its input norm, both `(sequences, tokens, width)`.
/// Returns the residual stream after attention and the output of the feed-forward part, not added yet: the caller
/// adds them together with the next layer's norm.
fn layer_forward(
    kernels: &dyn Kernels,
    layer: &DecoderLayer,
    (x, normed): (&Tensor, &Tensor),
    kv: &(Tensor, Tensor),
    positions: &SequencePositions,
) -> Result<(Tensor, Tensor)> {
    let (sequences, tokens, _) = x.dims3()?;
    let size = kv.0.dim(3)?;
    let qkv = kernels.linear(&layer.qkv, normed)?.reshape((sequences, tokens, (), size))?;
    let q = kernels.rotate(&qkv, kv, positions)?;
    let in_use = |cache: &Tensor| cache.narrow(2, 0, positions.first + tokens);
    let attended = kernels.attention(&q, &in_use(&kv.0)?, &in_use(&kv.1)?, Some(positions))?;
    let (x, normed) = kernels.add_norm(x, &kernels.linear(&layer.out, &attended)?, &layer.post_norm)?;
    let gate_up = kernels.linear(&layer.gate_up, &normed)?;
    let mlp = kernels.linear(&layer.down, &kernels.swiglu(&gate_up)?)?;
    Ok((x, mlp))
}

/// The decode loop of these kernels, or else one forward pass for every token.
///
/// # Errors
/// When the device fails.
pub fn decode_loop<'a>(
    kernels: &'a dyn Kernels,
    decoder: &'a Decoder,
    cache: &KvCache,
) -> Result<Box<dyn DecodeLoop + 'a>> {
    Ok(match kernels.decode_loop(decoder, cache)? {
        Some(decode) => decode,
        None => Box::new(ForwardPasses { kernels, decoder }),
    })
}

/// Decodes with one forward pass for every token.
struct ForwardPasses<'a> {
    kernels: &'a dyn Kernels,
    decoder: &'a Decoder,
}

impl DecodeLoop for ForwardPasses<'_> {
    fn step(
        &mut self,
        ids: &[u32],
        cache: &mut KvCache,
        observe: ActivationObserver<'_>,
    ) -> Result<NextToken> {
        let x = self.decoder.embed(ids)?.unsqueeze(1)?;
        NextToken::of(forward(self.kernels, self.decoder, x, cache, observe)?)
    }
}
