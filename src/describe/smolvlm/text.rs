//! The Llama decoder: token vectors go in, the scores of the next token come out. Clips of
//! different length run as one left-padded batch, each row with positions of its own; keys and
//! values go into a cache that is allocated once for a whole answer.

use candle_core::{DType, Tensor};

use super::{
    Result, Stage, Watch,
    config::TextConfig,
    ops::{Linear, Norm, Ops, Places, on_device},
    weights::{Weights, WeightsError},
};

/// The decoder.
pub struct Decoder {
    /// `(vocabulary, width)`
    pub(super) embeddings: Tensor,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    pub(super) head: Linear,
    pub(super) config: TextConfig,
    /// Cosines and sines by position, `(positions, head size / 2)`.
    pub(super) rotary: (Tensor, Tensor),
}

pub(super) struct Layer {
    pub(super) input_norm: Norm,
    pub(super) qkv: Linear,
    pub(super) out: Linear,
    pub(super) post_norm: Norm,
    pub(super) gate_up: Linear,
    pub(super) down: Linear,
}

/// Keys and values of a batch, and where its rows begin.
pub struct Cache {
    /// Of every layer: keys and values, `(rows, key heads, capacity, head size)`.
    pub(super) layers: Vec<(Tensor, Tensor)>,
    /// Slot of the first real token of every row; the slots before it are padding.
    pub(super) starts: Vec<usize>,
    /// Slots in use.
    pub(super) len: usize,
}

impl Cache {
    /// Leaves only these rows, in this order. What is kept is copied.
    pub fn keep(&mut self, rows: &[usize]) -> Result<()> {
        self.starts = rows.iter().map(|row| self.starts[*row]).collect();
        let Some((keys, _)) = self.layers.first() else { return Ok(()) };
        let index = on_device(rows, keys.device())?;
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
        // The largest tensor first: what it takes before it is rounded is free again for the rest.
        let head = linear(&["lm_head"])?;
        let embeddings = weights.tensor(&format!("{name}.embed_tokens.weight"))?;
        Ok(Self {
            rotary: rotary(config, &embeddings).map_err(|e| weights.unusable("rotary positions", e))?,
            head,
            embeddings,
            layers: (0..config.num_hidden_layers)
                .map(|i| Layer::load(weights, &format!("{name}.layers.{i}"), config, linear))
                .collect::<Result<_, _>>()?,
            norm: Norm::rms(weights, &format!("{name}.norm"), config.rms_norm_eps)?,
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
        Ok(Cache { layers: self.layers.iter().map(|_| layer()).collect::<Result<_>>()?, starts, len: 0 })
    }

    /// Runs the next tokens of every row, `(rows, tokens, width)`, and returns the scores of what
    /// follows the last of them: `(rows, vocabulary)` in f32.
    pub fn forward(&self, ops: &dyn Ops, x: Tensor, cache: &mut Cache, watch: Watch<'_>) -> Result<Tensor> {
        let (_, tokens, _) = x.dims3()?;
        let places = Places::new(&cache.starts, cache.len, tokens, &self.rotary);
        let mut x = x;
        let mut normed = match self.layers.first() {
            Some(layer) => ops.norm(&x, &layer.input_norm)?,
            None => x.clone(),
        };
        for (i, (layer, kv)) in self.layers.iter().zip(&cache.layers).enumerate() {
            let (sum, mlp) = layer.forward(ops, &x, &normed, kv, &places)?;
            match self.layers.get(i + 1) {
                Some(next) => (x, normed) = ops.add_norm(&sum, &mlp, &next.input_norm)?,
                // Only the last token goes on.
                None => x = (sum + mlp)?,
            }
            watch(Stage::TextLayer(i), &x)?;
        }
        cache.len += tokens;
        let last = ops.norm(&x.narrow(1, tokens - 1, 1)?.contiguous()?, &self.norm)?;
        watch(Stage::TextNorm, &last)?;
        let logits = self.head.forward(ops, &last.squeeze(1)?)?.to_dtype(DType::F32)?;
        watch(Stage::Logits, &logits)?;
        Ok(logits)
    }
}

/// Cosines and sines by position, `(positions, head size / 2)`, for all positions that the model knows.
fn rotary(config: &TextConfig, like: &Tensor) -> Result<(Tensor, Tensor)> {
    let (positions, size) = (config.max_position_embeddings, config.head_dim);
    // In f32 throughout, as the reference does.
    let frequencies: Vec<f32> =
        (0..size / 2).map(|i| 1. / (config.rope_theta as f32).powf(2. * i as f32 / size as f32)).collect();
    let angles: Vec<f32> =
        (0..positions).flat_map(|p| frequencies.iter().map(move |f| p as f32 * f)).collect();
    let table = |f: fn(f32) -> f32| {
        let values = angles.iter().map(|&a| f(a)).collect::<Vec<f32>>();
        Tensor::from_vec(values, (positions, size / 2), like.device())?.to_dtype(like.dtype())
    };
    Ok((table(f32::cos)?, table(f32::sin)?))
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
            input_norm: Norm::rms(weights, &part("input_layernorm"), config.rms_norm_eps)?,
            qkv: linear(&[&q, &k, &v])?,
            out: linear(&[&part("self_attn.o_proj")])?,
            post_norm: Norm::rms(weights, &part("post_attention_layernorm"), config.rms_norm_eps)?,
            gate_up: linear(&[&gate, &up])?,
            down: linear(&[&part("mlp.down_proj")])?,
        })
    }

    /// From what the layer adds to and the norm of it, to what it would give, not yet added up: the norm of
    /// the sum belongs to the next layer.
    fn forward(
        &self,
        ops: &dyn Ops,
        x: &Tensor,
        normed: &Tensor,
        kv: &(Tensor, Tensor),
        places: &Places,
    ) -> Result<(Tensor, Tensor)> {
        let (rows, tokens, _) = x.dims3()?;
        let size = kv.0.dim(3)?;
        let qkv = self.qkv.forward(ops, normed)?.reshape((rows, tokens, (), size))?;
        let q = ops.rotate(&qkv, kv, places)?;
        let seen = |cache: &Tensor| cache.narrow(2, 0, places.first + tokens);
        let seen = ops.attention(&q, &seen(&kv.0)?, &seen(&kv.1)?, Some(places))?;
        let (x, normed) = ops.add_norm(x, &self.out.forward(ops, &seen)?, &self.post_norm)?;
        let mlp = self.down.forward(ops, &ops.swiglu(&self.gate_up.forward(ops, &normed)?)?)?;
        Ok((x, mlp))
    }
}
