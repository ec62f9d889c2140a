//! The Llama decoder: token vectors go in, the scores of the next token come out. Clips of
//! different length run as one left-padded batch, each row with positions of its own; keys and
//! values go into a cache that is allocated once for a whole answer.

use candle_core::{DType, Tensor};
use candle_nn::rotary_emb::rope;

use super::{
    Result, Stage, Watch,
    config::TextConfig,
    ops::{self, Causal, Linear, RmsNorm},
    weights::{Weights, WeightsError},
};

/// The decoder.
pub struct Decoder {
    /// `(vocabulary, width)`
    embeddings: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    head: Linear,
    config: TextConfig,
}

struct Layer {
    input_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    post_norm: RmsNorm,
    gate_up: Linear,
    down: Linear,
}

/// Keys and values of a batch, and where its rows begin.
pub struct Cache {
    /// Of every layer: keys and values, `(rows, key heads, capacity, head size)`.
    layers: Vec<(Tensor, Tensor)>,
    /// Slot of the first real token of every row; the slots before it are padding.
    starts: Vec<usize>,
    /// Slots in use.
    len: usize,
    /// Cosines and sines by position, `(capacity, head size / 2)`.
    rotary: (Tensor, Tensor),
}

impl Cache {
    /// Leaves only these rows, in this order. What is kept is copied: worth it for a quarter of the rows.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.starts = rows.iter().map(|row| self.starts[*row]).collect();
        let Some((keys, _)) = self.layers.first() else { return Ok(()) };
        let index = Tensor::from_iter(rows.iter().map(|row| *row as u32), keys.device())?;
        for (keys, values) in &mut self.layers {
            *keys = keys.index_select(&index, 0)?;
            *values = values.index_select(&index, 0)?;
        }
        Ok(())
    }
}

impl Decoder {
    /// Reads the decoder's weights; `quantised`: those of its linear layers are to be held in 8 bits.
    pub fn load(weights: &Weights, config: &TextConfig, quantised: bool) -> Result<Self, WeightsError> {
        let name = "model.text_model";
        let linear = |names: &[&str]| {
            if quantised { Linear::quantised(weights, names) } else { Linear::fused(weights, names, false) }
        };
        Ok(Self {
            // The largest tensor first: what it takes before it is rounded is free again for the rest.
            head: linear(&["lm_head"])?,
            embeddings: weights.tensor(&format!("{name}.embed_tokens.weight"))?,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(weights, &format!("{name}.layers.{i}"), config, linear))
                .collect::<Result<_, _>>()?,
            norm: RmsNorm::load(weights, &format!("{name}.norm"), config.rms_norm_eps)?,
            config: config.clone(),
        })
    }

    /// The vectors of these tokens: `(tokens, width)`.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embeddings.index_select(&Tensor::new(ids, self.embeddings.device())?, 0)
    }

    /// An empty cache for rows that begin at `starts`, with room for `capacity` slots.
    pub fn cache(&self, starts: Vec<usize>, capacity: usize) -> Result<Cache> {
        let (device, dtype) = (self.embeddings.device(), self.embeddings.dtype());
        let size = self.config.head_dim;
        let shape = (starts.len(), self.config.num_key_value_heads, capacity, size);
        let layer = || Ok((Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?));
        // In f32 throughout, as the reference does.
        let frequencies: Vec<f32> = (0..size / 2)
            .map(|i| 1. / (self.config.rope_theta as f32).powf(2. * i as f32 / size as f32))
            .collect();
        let angles: Vec<f32> =
            (0..capacity).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f)).collect();
        let table = |f: fn(f32) -> f32| {
            let values = angles.iter().map(|&a| f(a)).collect::<Vec<f32>>();
            Tensor::from_vec(values, (capacity, size / 2), device)?.to_dtype(dtype)
        };
        Ok(Cache {
            layers: self.layers.iter().map(|_| layer()).collect::<Result<_>>()?,
            starts,
            len: 0,
            rotary: (table(f32::cos)?, table(f32::sin)?),
        })
    }

    /// Runs the next tokens of every row, `(rows, tokens, width)`, and returns the scores of what
    /// follows the last of them: `(rows, vocabulary)` in f32.
    pub fn forward(&self, x: Tensor, cache: &mut Cache, watch: Watch<'_>) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let first = cache.len;
        cache.len += tokens;
        let mask = Causal::new(&cache.starts, first, tokens, &x)?;
        let positions = cache.starts.iter().flat_map(|start| {
            // Padding has no position; what it computes is never seen.
            (first..first + tokens).map(move |slot| slot.saturating_sub(*start) as u32)
        });
        let positions = Tensor::from_iter(positions, x.device())?;
        let at = |table: &Tensor| table.index_select(&positions, 0)?.reshape((rows, tokens, ()));
        let rotary = (at(&cache.rotary.0)?, at(&cache.rotary.1)?);
        let mut x = x;
        for (i, (layer, kv)) in self.layers.iter().zip(&cache.layers).enumerate() {
            x = layer.forward(&x, kv, first, &rotary, &mask, &self.config)?;
            watch(Stage::TextLayer(i), &x)?;
        }
        let last = self.norm.forward(&x.narrow(1, tokens - 1, 1)?.contiguous()?)?;
        watch(Stage::TextNorm, &last)?;
        let logits = self.head.forward(&last.squeeze(1)?)?.to_dtype(DType::F32)?;
        watch(Stage::Logits, &logits)?;
        Ok(logits)
    }
}

impl Layer {
    fn load(
        weights: &Weights,
        name: &str,
        config: &TextConfig,
        linear: impl Fn(&[&str]) -> Result<Linear, WeightsError>,
    ) -> Result<Self, WeightsError> {
        let part = |part: &str| format!("{name}.{part}");
        let [q, k, v] = ["q", "k", "v"].map(|p| part(&format!("self_attn.{p}_proj")));
        let [gate, up] = ["gate", "up"].map(|p| part(&format!("mlp.{p}_proj")));
        Ok(Self {
            input_norm: RmsNorm::load(weights, &part("input_layernorm"), config.rms_norm_eps)?,
            qkv: linear(&[&q, &k, &v])?,
            out: linear(&[&part("self_attn.o_proj")])?,
            post_norm: RmsNorm::load(weights, &part("post_attention_layernorm"), config.rms_norm_eps)?,
            gate_up: linear(&[&gate, &up])?,
            down: linear(&[&part("mlp.down_proj")])?,
        })
    }

    fn forward(
        &self,
        x: &Tensor,
        (keys, values): &(Tensor, Tensor),
        first: usize,
        (cos, sin): &(Tensor, Tensor),
        mask: &Causal,
        config: &TextConfig,
    ) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let (heads, key_heads, size) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let qkv = self.qkv.forward(&self.input_norm.forward(x)?)?;
        let qkv = qkv.reshape((rows, tokens, heads + 2 * key_heads, size))?;
        let part = |from, count| qkv.narrow(2, from, count)?.transpose(1, 2)?.contiguous();
        let q = rope(&part(0, heads)?, cos, sin)?;
        keys.slice_set(&rope(&part(heads, key_heads)?, cos, sin)?, 2, first)?;
        values.slice_set(&part(heads + key_heads, key_heads)?, 2, first)?;
        let seen = |cache: &Tensor| cache.narrow(2, 0, first + tokens);
        let x = (x + self.out.forward(&ops::attention(&q, &seen(keys)?, &seen(values)?, Some(mask))?)?)?;
        let mlp = self.down.forward(&ops::swiglu(&self.gate_up.forward(&self.post_norm.forward(&x)?)?)?)?;
        x + mlp
    }
}
