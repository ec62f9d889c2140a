//! The weights of a Llama text decoder, and the expected names and shapes of its tensors. `forward` runs it.

use candle_core::Tensor;
use serde::Serialize;

use super::{
    error::{Result, WeightsError},
    kernels::cpu::product::RowCount,
    layers::{Linear, Norm},
    sequence::KvCache,
    weights::{TensorShape, Weights},
};

/// Sizes of the decoder, named as in a checkpoint's `config.json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecoderConfig {
    /// Width of a token's vector.
    pub hidden_size: usize,
    /// Width inside the feed-forward layers.
    pub intermediate_size: usize,
    /// Layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads. Each serves a group of neighbouring query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Epsilon of the RMSNorms.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Tokens that there are.
    pub vocab_size: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
}

/// Where a checkpoint keeps the decoder's tensors.
#[derive(Clone, Copy, Debug)]
pub struct DecoderNames {
    /// Of embeddings, layers and the final norm.
    pub prefix: &'static str,
    /// Of the output projection to the vocabulary.
    pub head: &'static str,
}

impl DecoderNames {
    /// Names and shapes of all tensors of a decoder of these sizes. Sizes may be absurd: nothing overflows.
    pub fn layout(self, config: &DecoderConfig) -> impl Iterator<Item = TensorShape> + use<> {
        let t = config.clone();
        let (prefix, width) = (self.prefix, t.hidden_size);
        let fixed = [
            (format!("{prefix}.embed_tokens.weight"), vec![t.vocab_size, width]),
            (format!("{prefix}.norm.weight"), vec![width]),
            (format!("{}.weight", self.head), vec![t.vocab_size, width]),
        ];
        let layers = (0..t.num_hidden_layers).flat_map(move |i| {
            let (q, kv) = (
                t.num_attention_heads.saturating_mul(t.head_dim),
                t.num_key_value_heads.saturating_mul(t.head_dim),
            );
            [
                ("input_layernorm", vec![width]),
                ("post_attention_layernorm", vec![width]),
                ("self_attn.q_proj", vec![q, width]),
                ("self_attn.k_proj", vec![kv, width]),
                ("self_attn.v_proj", vec![kv, width]),
                ("self_attn.o_proj", vec![width, q]),
                ("mlp.gate_proj", vec![t.intermediate_size, width]),
                ("mlp.up_proj", vec![t.intermediate_size, width]),
                ("mlp.down_proj", vec![width, t.intermediate_size]),
            ]
            .map(|(part, shape)| (format!("{prefix}.layers.{i}.{part}.weight"), shape))
        });
        fixed.into_iter().chain(layers)
    }
}

/// The weights of the decoder.
pub struct Decoder {
    /// `(vocabulary, width)`
    pub embeddings: Tensor,
    /// In order.
    pub layers: Vec<DecoderLayer>,
    /// The final norm.
    pub norm: Norm,
    /// From `width` to the vocabulary.
    pub head: Linear,
    /// Sizes.
    pub config: DecoderConfig,
    /// Cosines and sines of the rotary embedding by position, each `(positions, head size / 2)`.
    pub rotary: (Tensor, Tensor),
}

/// The weights of one layer.
pub struct DecoderLayer {
    /// Before attention.
    pub input_norm: Norm,
    /// Queries, keys and values side by side.
    pub qkv: Linear,
    /// After attention.
    pub out: Linear,
    /// Before the feed-forward part.
    pub post_norm: Norm,
    /// Gate and up projections side by side.
    pub gate_up: Linear,
    /// The down projection.
    pub down: Linear,
}

impl Decoder {
    /// Reads the decoder's weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn load(
        weights: &Weights,
        names: DecoderNames,
        config: &DecoderConfig,
    ) -> Result<Self, WeightsError> {
        let prefix = names.prefix;
        // The largest tensor first, so that the memory that packing it takes is free again for the others.
        let head = Linear::load(weights, names.head, false, RowCount::Any)?;
        let embeddings = weights.tensor(&format!("{prefix}.embed_tokens.weight"))?;
        Ok(Self {
            rotary: rotary_table(config, &embeddings).map_err(|e| weights.unusable("rotary embedding", e))?,
            head,
            embeddings,
            layers: (0..config.num_hidden_layers)
                .map(|i| DecoderLayer::load(weights, &format!("{prefix}.layers.{i}"), config))
                .collect::<Result<_, _>>()?,
            norm: Norm::rms(weights, &format!("{prefix}.norm"), config.rms_norm_eps)?,
            config: config.clone(),
        })
    }

    /// The embeddings of these tokens: `(tokens, width)`.
    ///
    /// # Errors
    /// When a token is outside the vocabulary or the device fails.
    pub fn embed(&self, ids: &[u32]) -> Result<Tensor> {
        self.embeddings.index_select(&Tensor::new(ids, self.embeddings.device())?, 0)
    }

    /// An empty cache of `capacity` slots for sequences that begin at the slots `starts`.
    ///
    /// # Errors
    /// When the device has too little memory.
    pub fn cache(&self, starts: Vec<usize>, capacity: usize) -> Result<KvCache> {
        let (device, dtype) = (self.embeddings.device(), self.embeddings.dtype());
        let size = self.config.head_dim;
        let shape = (starts.len(), self.config.num_key_value_heads, capacity, size);
        let layer = || Ok((Tensor::zeros(shape, dtype, device)?, Tensor::zeros(shape, dtype, device)?));
        Ok(KvCache { layers: self.layers.iter().map(|_| layer()).collect::<Result<_>>()?, starts, len: 0 })
    }

    /// Bytes that a weight of the linear layers takes, on average.
    pub fn weight_bytes(&self) -> f64 {
        let layers = self.layers.iter().flat_map(|it| [&it.qkv, &it.out, &it.gate_up, &it.down]);
        let (bytes, count) = layers
            .chain([&self.head])
            .map(Linear::weight_bytes)
            .fold((0, 0), |(bytes, count), (b, c)| (bytes + b, count + c));
        bytes as f64 / count as f64
    }

    /// Bytes that one sequence of so many tokens takes: its keys and values, and the activations of one layer
    /// while the prompt goes through it.
    pub fn sequence_bytes(&self, tokens: usize) -> usize {
        let config = &self.config;
        let cache = config.num_hidden_layers * 2 * config.num_key_value_heads * config.head_dim;
        // Gate, up and their product; the layer's input, its norm, the attention output and the sum.
        let layer = 3 * config.intermediate_size + 4 * config.hidden_size;
        tokens * (cache + layer) * self.embeddings.dtype().size_in_bytes()
    }
}

impl DecoderLayer {
    fn load(weights: &Weights, name: &str, config: &DecoderConfig) -> Result<Self, WeightsError> {
        let linear = |names: &[&str]| Linear::fused(weights, names, false, RowCount::Any);
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
}

/// Cosines and sines of the rotary embedding for every position of the model, each
/// `(positions, head size / 2)`, computed in f32 as the reference does and stored in the format of `like`.
fn rotary_table(config: &DecoderConfig, like: &Tensor) -> Result<(Tensor, Tensor)> {
    let (positions, size) = (config.max_position_embeddings, config.head_dim);
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
