//! Decoding a token at a time with everything that changes from step to step in the device's memory: the
//! tokens, how many slots are in use, keys and values. So every step is the same work in the same places,
//! which is captured once (a CUDA graph) and then replayed with a single call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use candle_core::{D, DType, Tensor};

use super::{
    super::{
        super::{
            decoder::Decoder,
            error::{DeviceFailure, Result},
            layers::{Linear, Norm},
            observer::{ActivationObserver, ActivationPoint},
            sequence::{KvCache, indices},
        },
        traits::{DecodeLoop, NextToken},
    },
    backend::{Backend, Graph},
    launch::{
        self, Argmax, DecodeAttention, Embed, Epilogue, GEMV_ROWS, Gemv, NORM_WIDTH, Rotate, Swiglu, pack,
    },
    tensors::{empty, pointer},
};

/// Fewer steps are done before a capture has paid for itself.
const FEW_STEPS: usize = 8;

/// Steps of the rows of one cache.
pub struct KernelDecodeLoop<'a> {
    work: Work<'a>,
    /// Whether capturing works, as far as is known.
    graphs: &'a AtomicBool,
    graph: Option<Box<dyn Graph>>,
    /// What `work.ids` holds, if a step has left it there.
    ids: Vec<u32>,
    /// Slots in use, as the device counts them, and slots that there are.
    len: usize,
    capacity: usize,
    /// Steps that were made.
    made: usize,
}

impl<'a> KernelDecodeLoop<'a> {
    /// Nothing where the kernels do not take this decoder.
    pub fn new(
        backend: &'a dyn Backend,
        graphs: &'a AtomicBool,
        decoder: &'a Decoder,
        cache: &KvCache,
    ) -> Result<Option<Self>> {
        let Some(work) = Work::new(backend, decoder, cache)? else { return Ok(None) };
        let (len, capacity) = (cache.len, work.cache[0].0.dim(2)?);
        Ok(Some(Self { work, graphs, graph: None, ids: Vec::new(), len, capacity, made: 0 }))
    }

    /// The first step loads what has to be loaded, which must not happen in a capture; the second is
    /// captured if it is the first of many.
    fn capture(&mut self) {
        if self.made != 1 || self.capacity - self.len < FEW_STEPS || !self.graphs.load(Relaxed) {
            return;
        }
        match self.work.backend.capture(&mut || self.work.launch()) {
            Ok(graph) => self.graph = graph,
            Err(why) => {
                tracing::warn!(
                    "a step of decoding cannot be captured as a CUDA graph, which is slower: {why}"
                );
                self.graphs.store(DeviceFailure::classify(&why.to_string()).is_out_of_memory(), Relaxed);
            }
        }
    }
}

impl DecodeLoop for KernelDecodeLoop<'_> {
    fn step(
        &mut self,
        ids: &[u32],
        cache: &mut KvCache,
        observe: ActivationObserver<'_>,
    ) -> Result<NextToken> {
        if cache.len != self.len || self.len == self.capacity {
            candle_core::bail!("slot {} of {}, after {}", cache.len, self.capacity, self.len);
        }
        if self.ids != ids {
            self.work.ids.slice_set(&Tensor::new(ids, self.work.ids.device())?, 0, 0)?;
        }
        self.capture();
        match &self.graph {
            // SAFETY: all of it is in `self.work`.
            Some(graph) => unsafe { graph.replay() }?,
            None => self.work.launch()?,
        }
        self.made += 1;
        self.len += 1;
        cache.len += 1;
        self.ids = self.work.ids.to_vec1()?;
        observe(ActivationPoint::Logits, &self.work.logits)?;
        Ok(NextToken { logits: self.work.logits.clone(), argmax: self.ids.clone() })
    }
}

/// What one step does, and where it reads and writes.
struct Work<'a> {
    backend: &'a dyn Backend,
    decoder: &'a Decoder,
    dtype: DType,
    rows: usize,
    /// Of every layer: keys and values.
    cache: Vec<(Tensor, Tensor)>,
    starts: Tensor,
    /// Slots in use.
    len: Tensor,
    ids: Tensor,
    /// What the layers add to, `(rows, width)`.
    x: Tensor,
    normed: Tensor,
    qkv: Tensor,
    q: Tensor,
    /// What attention saw.
    seen: Tensor,
    gate_up: Tensor,
    mlp: Tensor,
    /// What a layer adds.
    more: Tensor,
    parts: Tensor,
    done: Tensor,
    logits: Tensor,
}

impl<'a> Work<'a> {
    fn new(backend: &'a dyn Backend, decoder: &'a Decoder, cache: &KvCache) -> Result<Option<Self>> {
        let (config, dtype, rows) = (&decoder.config, decoder.embeddings.dtype(), cache.starts.len());
        let (heads, key_heads, size) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (width, inner, words) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let (Some(pack), Some((keys, _))) = (pack(dtype), cache.layers.first()) else { return Ok(None) };
        let fits = [width, inner, heads * size].iter().all(|width| width.is_multiple_of(pack))
            && width <= NORM_WIDTH
            && heads / key_heads <= DecodeAttention::MOST_HEADS
            && DecodeAttention::SIZES.contains(&size);
        if !fits {
            return Ok(None);
        }
        let splits = DecodeAttention::splits(keys.dim(2)?, rows * key_heads);
        let device = keys.device();
        let of = |width: usize| empty(&[rows, width], dtype, keys);
        Ok(Some(Self {
            backend,
            decoder,
            dtype,
            rows,
            cache: cache.layers.clone(),
            starts: indices(&cache.starts, device)?,
            len: indices(&[cache.len], device)?,
            ids: Tensor::zeros(rows, DType::U32, device)?,
            x: of(width)?,
            normed: of(width)?,
            qkv: of((heads + 2 * key_heads) * size)?,
            q: of(heads * size)?,
            seen: of(heads * size)?,
            gate_up: of(2 * inner)?,
            mlp: of(inner)?,
            more: of(width)?,
            parts: empty(&[rows, heads, splits, size + 2], DType::F32, keys)?,
            done: Tensor::zeros((rows, key_heads), DType::U32, device)?,
            logits: empty(&[rows, words], DType::F32, keys)?,
        }))
    }

    /// Starts one step: the token of every row goes in, the next comes out.
    fn launch(&self) -> Result<()> {
        self.embed()?;
        if self.rows <= GEMV_ROWS {
            self.few()?
        } else {
            self.many()?
        }
        self.argmax()
    }

    /// Gemv rows: what takes the time is reading the weights, which our own kernels do, norms and activations
    /// on the way.
    fn few(&self) -> Result<()> {
        let Self { x, qkv, seen, mlp, logits, .. } = self;
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            self.vectors(qkv, x, Some(&layer.input_norm), (&layer.qkv, Epilogue::Keep))?;
            self.attend(i)?;
            self.vectors(x, seen, None, (&layer.out, Epilogue::Add))?;
            self.vectors(mlp, x, Some(&layer.post_norm), (&layer.gate_up, Epilogue::Swiglu))?;
            self.vectors(x, mlp, None, (&layer.down, Epilogue::Add))?;
        }
        self.vectors(logits, x, Some(&self.decoder.norm), (&self.decoder.head, Epilogue::Scores))
    }

    /// Many rows: products of matrices.
    fn many(&self) -> Result<()> {
        let Self { normed, qkv, seen, gate_up, mlp, more, logits, .. } = self;
        let layers = &self.decoder.layers;
        let norm_of = |i: usize| layers.get(i).map_or(&self.decoder.norm, |layer| &layer.input_norm);
        self.norm(None, norm_of(0))?;
        for (i, layer) in layers.iter().enumerate() {
            self.multiply(qkv, normed, &layer.qkv)?;
            self.attend(i)?;
            self.multiply(more, seen, &layer.out)?;
            self.norm(Some(more), &layer.post_norm)?;
            self.multiply(gate_up, normed, &layer.gate_up)?;
            self.swiglu()?;
            self.multiply(more, mlp, &layer.down)?;
            self.norm(Some(more), norm_of(i + 1))?;
        }
        self.multiply(logits, normed, &self.decoder.head)
    }

    fn embed(&self) -> Result<()> {
        let (words, width) = self.decoder.embeddings.dims2()?;
        let args = Embed {
            table: pointer(&self.decoder.embeddings)?,
            ids: pointer(&self.ids)?,
            out: pointer(&self.x)?,
            words: words as i32,
            width: width as i32,
        };
        args.launch(self.backend, self.dtype, self.rows)
    }

    /// From `qkv` to `seen` by way of a layer's cache.
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
        rotate.launch(self.backend, self.dtype, self.rows)?;
        let attention = DecodeAttention {
            q: pointer(&self.q)?,
            keys: pointer(keys)?,
            values: pointer(values)?,
            out: pointer(&self.seen)?,
            starts: pointer(&self.starts)?,
            len: pointer(&self.len)?,
            parts: pointer(&self.parts)?,
            done: pointer(&self.done)?,
            key_heads: key_heads as i32,
            capacity: capacity as i32,
            splits: self.parts.dim(2)? as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        attention.launch(self.backend, self.dtype, self.rows, (size, heads / key_heads))
    }

    fn vectors(
        &self,
        out: &Tensor,
        x: &Tensor,
        norm: Option<&Norm>,
        (layer, then): (&Linear, Epilogue),
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
        args.launch(self.backend, self.dtype, self.rows, then)
    }

    fn multiply(&self, out: &Tensor, x: &Tensor, layer: &Linear) -> Result<()> {
        self.backend.multiply(out, x, weight(layer)?)
    }

    /// Adds to `x`, and norms it into `normed`.
    fn norm(&self, add: Option<&Tensor>, norm: &Norm) -> Result<()> {
        let add = add.map(|add| (add, &self.x));
        launch::Norm::new(&self.x, add, &self.normed, norm)?.launch(self.backend, self.dtype, self.rows)
    }

    fn swiglu(&self) -> Result<()> {
        Swiglu::new(&self.gate_up, &self.mlp)?.launch(self.backend, self.dtype, self.rows)
    }

    fn argmax(&self) -> Result<()> {
        let args = Argmax {
            scores: pointer(&self.logits)?,
            ids: pointer(&self.ids)?,
            len: pointer(&self.len)?,
            words: self.logits.dim(1)? as i32,
        };
        args.launch(self.backend, self.rows)
    }
}

/// Plain weights: only the CPU holds others.
fn weight(layer: &Linear) -> Result<&Tensor> {
    match layer.plain_weight() {
        Some(weight) => Ok(weight),
        None => candle_core::bail!("kernels take no weights in 8 bits"),
    }
}
