//! One decode step as a fixed series of launches: the token of every sequence goes in, the logits and the token with
//! the highest score come out.

use candle_core::{D, DType, Tensor};

use super::{
    super::super::{
        decoder::Decoder,
        error::Result,
        layers::{Linear, Norm},
        sequence::{KvCache, indices},
    },
    backend::Backend,
    launch::{
        self, Argmax, DecodeAttention, Embed, Epilogue, GEMV_MAX_ROWS, Gemv, NORM_WIDTH, Rotate, Swiglu,
        pack_size,
    },
    tensors::{empty, pointer},
};

/// The memory that a decode step reads and writes. It stays the same for all steps of a cache.
pub struct DecodeStep<'a> {
    /// The machine that runs the step.
    pub backend: &'a dyn Backend,
    /// `(sequences)`: the tokens to append; after the step, the tokens with the highest scores.
    pub ids: Tensor,
    /// `(sequences, vocabulary)` in f32: the result.
    pub logits: Tensor,
    decoder: &'a Decoder,
    dtype: DType,
    sequences: usize,
    /// Keys and values of every layer, each `(sequences, key heads, capacity, head size)`.
    cache: Vec<(Tensor, Tensor)>,
    /// `(sequences)`: the first real slot.
    starts: Tensor,
    /// `(1)`: slots in use. A step increments it.
    len: Tensor,
    /// The residual stream, `(sequences, width)`.
    x: Tensor,
    /// The norm of `x`, `(sequences, width)`.
    normed: Tensor,
    /// `(sequences, (heads + 2 * key heads) * head size)`
    qkv: Tensor,
    /// Rotated queries, `(sequences, heads * head size)`.
    q: Tensor,
    /// The output of attention, `(sequences, heads * head size)`.
    attended: Tensor,
    /// Gate and up projections, `(sequences, 2 * inner width)`.
    gate_up: Tensor,
    /// Their SwiGLU, `(sequences, inner width)`.
    activated: Tensor,
    /// What a sublayer adds to `x`, `(sequences, width)`.
    delta: Tensor,
    /// Scratch memory of [`DecodeAttention`]: `(sequences, heads, splits, head size + 2)`, f32.
    partials: Tensor,
    /// Scratch memory of [`DecodeAttention`]: `(sequences, key heads)`, zeros.
    finished: Tensor,
}

impl<'a> DecodeStep<'a> {
    /// Allocates the memory for the sequences of `cache`. None if the kernels do not support this decoder.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    pub fn new(backend: &'a dyn Backend, decoder: &'a Decoder, cache: &KvCache) -> Result<Option<Self>> {
        let (config, dtype, sequences) = (&decoder.config, decoder.embeddings.dtype(), cache.starts.len());
        let (heads, key_heads, size) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (width, inner, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let (Some(pack), Some((keys, _))) = (pack_size(dtype), cache.layers.first()) else { return Ok(None) };
        let supported = [width, inner, heads * size].iter().all(|width| width.is_multiple_of(pack))
            && width <= NORM_WIDTH
            && heads / key_heads <= DecodeAttention::MAX_GROUP
            && DecodeAttention::SIZES.contains(&size);
        if !supported {
            return Ok(None);
        }
        let splits = DecodeAttention::splits(keys.dim(2)?, sequences * key_heads);
        let device = keys.device();
        let buffer = |width: usize| empty(&[sequences, width], dtype, keys);
        Ok(Some(Self {
            backend,
            decoder,
            dtype,
            sequences,
            cache: cache.layers.clone(),
            starts: indices(&cache.starts, device)?,
            len: indices(&[cache.len], device)?,
            ids: Tensor::zeros(sequences, DType::U32, device)?,
            x: buffer(width)?,
            normed: buffer(width)?,
            qkv: buffer((heads + 2 * key_heads) * size)?,
            q: buffer(heads * size)?,
            attended: buffer(heads * size)?,
            gate_up: buffer(2 * inner)?,
            activated: buffer(inner)?,
            delta: buffer(width)?,
            partials: empty(&[sequences, heads, splits, size + 2], DType::F32, keys)?,
            finished: Tensor::zeros((sequences, key_heads), DType::U32, device)?,
            logits: empty(&[sequences, vocab], DType::F32, keys)?,
        }))
    }

    /// Slots of the cache.
    ///
    /// # Errors
    /// When the cache has another number of dimensions than expected.
    pub fn capacity(&self) -> Result<usize> {
        self.cache[0].0.dim(2)
    }

    /// Launches the step. It finishes later; reading `ids` waits for it.
    ///
    /// # Errors
    /// When a launch fails.
    pub fn launch(&self) -> Result<()> {
        self.embed()?;
        if self.sequences <= GEMV_MAX_ROWS {
            self.layers_by_gemv()?
        } else {
            self.layers_by_gemm()?
        }
        self.argmax()
    }

    /// The layers for a small batch, with our own matrix-vector kernels. Reading the weights takes most of the time, so
    /// these kernels also do norms, activations and additions.
    fn layers_by_gemv(&self) -> Result<()> {
        let Self { x, qkv, attended, activated, logits, .. } = self;
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            self.gemv(qkv, x, Some(&layer.input_norm), (&layer.qkv, Epilogue::Keep))?;
            self.attend(i)?;
            self.gemv(x, attended, None, (&layer.out, Epilogue::Add))?;
            self.gemv(activated, x, Some(&layer.post_norm), (&layer.gate_up, Epilogue::Swiglu))?;
            self.gemv(x, activated, None, (&layer.down, Epilogue::Add))?;
        }
        self.gemv(logits, x, Some(&self.decoder.norm), (&self.decoder.head, Epilogue::Logits))
    }

    /// The layers for a large batch, with the backend's matrix products.
    fn layers_by_gemm(&self) -> Result<()> {
        let Self { normed, qkv, attended, gate_up, activated, delta, logits, .. } = self;
        let layers = &self.decoder.layers;
        let norm_of = |i: usize| layers.get(i).map_or(&self.decoder.norm, |layer| &layer.input_norm);
        self.norm(None, norm_of(0))?;
        for (i, layer) in layers.iter().enumerate() {
            self.multiply(qkv, normed, &layer.qkv)?;
            self.attend(i)?;
            self.multiply(delta, attended, &layer.out)?;
            self.norm(Some(delta), &layer.post_norm)?;
            self.multiply(gate_up, normed, &layer.gate_up)?;
            self.swiglu()?;
            self.multiply(delta, activated, &layer.down)?;
            self.norm(Some(delta), norm_of(i + 1))?;
        }
        self.multiply(logits, normed, &self.decoder.head)
    }

    /// `x` = the embeddings of `ids`.
    fn embed(&self) -> Result<()> {
        let (vocab, width) = self.decoder.embeddings.dims2()?;
        let args = Embed {
            table: pointer(&self.decoder.embeddings)?,
            ids: pointer(&self.ids)?,
            out: pointer(&self.x)?,
            vocab: vocab as i32,
            width: width as i32,
        };
        args.launch(self.backend, self.dtype, self.sequences)
    }

    /// Stores the keys and values of `qkv` in a layer's cache, and computes `attended`.
    fn attend(&self, layer: usize) -> Result<()> {
        let (keys, values) = &self.cache[layer];
        let (_, key_heads, capacity, size) = keys.dims4()?;
        let heads = self.q.dim(1)? / size;
        let rotate = Rotate {
            qkv: pointer(&self.qkv)?,
            q: pointer(&self.q)?,
            keys: pointer(keys)?,
            values: pointer(values)?,
            cos: pointer(&self.decoder.rotary.0)?,
            sin: pointer(&self.decoder.rotary.1)?,
            starts: pointer(&self.starts)?,
            len: pointer(&self.len)?,
            first: 0,
            tokens: 1,
            heads: heads as i32,
            key_heads: key_heads as i32,
            size: size as i32,
            capacity: capacity as i32,
            positions: self.decoder.rotary.0.dim(0)? as i32,
        };
        rotate.launch(self.backend, self.dtype, self.sequences)?;
        let attention = DecodeAttention {
            q: pointer(&self.q)?,
            keys: pointer(keys)?,
            values: pointer(values)?,
            out: pointer(&self.attended)?,
            starts: pointer(&self.starts)?,
            len: pointer(&self.len)?,
            partials: pointer(&self.partials)?,
            finished: pointer(&self.finished)?,
            key_heads: key_heads as i32,
            capacity: capacity as i32,
            splits: self.partials.dim(2)? as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        attention.launch(self.backend, self.dtype, self.sequences, (size, heads / key_heads))
    }

    /// `out` = `layer` of `x`, or of its norm; `epilogue` says what is stored.
    fn gemv(
        &self,
        out: &Tensor,
        x: &Tensor,
        norm: Option<&Norm>,
        (layer, epilogue): (&Linear, Epilogue),
    ) -> Result<()> {
        let args = Gemv {
            x: pointer(x)?,
            norm: norm.map_or(Ok(0), |norm| pointer(&norm.weight))?,
            weight: pointer(weight(layer)?)?,
            out: pointer(out)?,
            inputs: x.dim(D::Minus1)? as i32,
            outputs: out.dim(D::Minus1)? as i32,
            eps: norm.map_or(0., |norm| norm.eps),
        };
        args.launch(self.backend, self.dtype, self.sequences, epilogue)
    }

    /// `out` = `layer` of `x`.
    fn multiply(&self, out: &Tensor, x: &Tensor, layer: &Linear) -> Result<()> {
        self.backend.multiply(out, x, weight(layer)?)
    }

    /// Adds `add` to `x`, if there is one, and computes `normed`.
    fn norm(&self, add: Option<&Tensor>, norm: &Norm) -> Result<()> {
        let add = add.map(|add| (add, &self.x));
        launch::Norm::new(&self.x, add, &self.normed, norm)?.launch(self.backend, self.dtype, self.sequences)
    }

    /// `activated` = SwiGLU of `gate_up`.
    fn swiglu(&self) -> Result<()> {
        Swiglu::new(&self.gate_up, &self.activated)?.launch(self.backend, self.dtype, self.sequences)
    }

    /// `ids` = the tokens with the highest `logits`; increments `len`.
    fn argmax(&self) -> Result<()> {
        let args = Argmax {
            scores: pointer(&self.logits)?,
            ids: pointer(&self.ids)?,
            len: pointer(&self.len)?,
            vocab: self.logits.dim(1)? as i32,
        };
        args.launch(self.backend, self.sequences)
    }
}

/// The weight of a layer. Fails for packed weights, which only the CPU has.
fn weight(layer: &Linear) -> Result<&Tensor> {
    match layer.plain_weight() {
        Some(weight) => Ok(weight),
        None => candle_core::bail!("the CUDA kernels do not support packed weights"),
    }
}
