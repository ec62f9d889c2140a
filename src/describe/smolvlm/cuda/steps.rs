//! Decoding a token at a time with everything that changes from step to step in the device's memory: the
//! tokens, how many slots are in use, keys and values. So every step is the same work in the same places,
//! which is recorded once (a CUDA graph) and then started with a single call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use candle_core::{D, DType, Tensor};

use super::{
    super::{
        Result,
        ops::{Linear, Next, Norm, Steps, on_device},
        text::{Cache, Decoder},
    },
    Backend, Recording,
    kernels::{self, Choose, Embed, FEW_ROWS, Few, Look, NORM_WIDTH, Rotate, Swiglu, Then, pack},
    pointer, room,
};

/// Fewer steps are done before a recording has paid for itself.
const FEW_STEPS: usize = 8;

/// Steps of the rows of one cache.
pub struct KernelSteps<'a> {
    work: Work<'a>,
    record: &'a AtomicBool,
    recording: Option<Box<dyn Recording>>,
    /// What `work.ids` holds, if a step has left it there.
    ids: Vec<u32>,
    /// Steps that were made.
    made: usize,
    /// Steps that the cache has room for.
    room: usize,
}

impl<'a> KernelSteps<'a> {
    /// Nothing where the kernels do not take this decoder. `record`: whether recording works, as far as is
    /// known.
    pub fn new(
        backend: &'a dyn Backend,
        record: &'a AtomicBool,
        decoder: &'a Decoder,
        cache: &Cache,
    ) -> Result<Option<Self>> {
        let Some(work) = Work::new(backend, decoder, cache)? else { return Ok(None) };
        let room = work.cache[0].0.dim(2)? - cache.len;
        Ok(Some(Self { work, record, recording: None, ids: Vec::new(), made: 0, room }))
    }

    /// The first step loads what has to be loaded, which must not happen while recording.
    fn record(&mut self) {
        if self.made != 1 || self.room < FEW_STEPS || !self.record.load(Relaxed) {
            return;
        }
        match self.work.backend.record(&mut || self.work.launch()) {
            Ok(recording) => self.recording = recording,
            Err(why) => {
                tracing::warn!(
                    "steps of decoding cannot be recorded as a CUDA graph, which is slower: {why}"
                );
                self.record.store(false, Relaxed);
            }
        }
    }
}

impl Steps for KernelSteps<'_> {
    fn step(&mut self, ids: &[u32], cache: &mut Cache) -> Result<Next> {
        if self.ids != ids {
            self.work.ids.slice_set(&Tensor::new(ids, self.work.ids.device())?, 0, 0)?;
        }
        self.record();
        match &self.recording {
            Some(recording) => recording.start()?,
            None => self.work.launch()?,
        }
        self.made += 1;
        cache.len += 1;
        self.ids = self.work.ids.to_vec1()?;
        Ok(Next { logits: self.work.logits.clone(), likeliest: self.ids.clone() })
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
    fn new(backend: &'a dyn Backend, decoder: &'a Decoder, cache: &Cache) -> Result<Option<Self>> {
        let (config, dtype, rows) = (&decoder.config, decoder.embeddings.dtype(), cache.starts.len());
        let (heads, key_heads, size) =
            (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
        let (width, inner, words) = (config.hidden_size, config.intermediate_size, config.vocab_size);
        let (Some(pack), Some((keys, _))) = (pack(dtype), cache.layers.first()) else { return Ok(None) };
        let fits = [width, inner, heads * size].iter().all(|width| width.is_multiple_of(pack))
            && width <= NORM_WIDTH
            && heads / key_heads <= Look::MOST_HEADS
            && Look::takes(size, dtype);
        if !fits {
            return Ok(None);
        }
        let splits = Look::splits(keys.dim(2)?, rows * key_heads);
        let device = keys.device();
        let of = |width: usize| room(&[rows, width], dtype, keys);
        Ok(Some(Self {
            backend,
            decoder,
            dtype,
            rows,
            cache: cache.layers.clone(),
            starts: on_device(&cache.starts, device)?,
            len: on_device(&[cache.len], device)?,
            ids: Tensor::zeros(rows, DType::U32, device)?,
            x: of(width)?,
            normed: of(width)?,
            qkv: of((heads + 2 * key_heads) * size)?,
            q: of(heads * size)?,
            seen: of(heads * size)?,
            gate_up: of(2 * inner)?,
            mlp: of(inner)?,
            more: of(width)?,
            parts: room(&[rows, heads, splits, size + 2], DType::F32, keys)?,
            done: Tensor::zeros((rows, key_heads), DType::U32, device)?,
            logits: room(&[rows, words], DType::F32, keys)?,
        }))
    }

    /// Starts one step: the token of every row goes in, the next comes out.
    fn launch(&self) -> Result<()> {
        self.embed()?;
        if self.rows <= FEW_ROWS {
            self.few()?
        } else {
            self.many()?
        }
        self.choose()
    }

    /// Few rows: what takes the time is reading the weights, which our own kernels do, norms and activations
    /// on the way.
    fn few(&self) -> Result<()> {
        let Self { x, qkv, seen, mlp, logits, .. } = self;
        for (i, layer) in self.decoder.layers.iter().enumerate() {
            self.vectors(qkv, x, Some(&layer.input_norm), (&layer.qkv, Then::Keep))?;
            self.attend(i)?;
            self.vectors(x, seen, None, (&layer.out, Then::Add))?;
            self.vectors(mlp, x, Some(&layer.post_norm), (&layer.gate_up, Then::Swiglu))?;
            self.vectors(x, mlp, None, (&layer.down, Then::Add))?;
        }
        self.vectors(logits, x, Some(&self.decoder.norm), (&self.decoder.head, Then::Scores))
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
        };
        rotate.launch(self.backend, self.dtype, self.rows)?;
        let look = Look {
            q: pointer(&self.q)?,
            keys: pointer(keys)?,
            values: pointer(values)?,
            out: pointer(&self.seen)?,
            starts: pointer(&self.starts)?,
            len: pointer(&self.len)?,
            parts: pointer(&self.parts)?,
            done: pointer(&self.done)?,
            key_heads: key_heads as i32,
            size: size as i32,
            capacity: capacity as i32,
            splits: self.parts.dim(2)? as i32,
            scale: 1. / (size as f32).sqrt(),
        };
        look.launch(self.backend, self.dtype, (self.rows, heads / key_heads))
    }

    fn vectors(
        &self,
        out: &Tensor,
        x: &Tensor,
        norm: Option<&Norm>,
        (layer, then): (&Linear, Then),
    ) -> Result<()> {
        let args = Few {
            x: pointer(x)?,
            norm: norm.map_or(Ok(0), |norm| pointer(&norm.weight))?,
            weight: pointer(weight(layer)?)?,
            out: pointer(out)?,
            rows: self.rows as i32,
            inputs: x.dim(D::Minus1)? as i32,
            outputs: out.dim(D::Minus1)? as i32,
            eps: norm.map_or(0., |norm| norm.eps),
        };
        args.launch(self.backend, self.dtype, then)
    }

    fn multiply(&self, out: &Tensor, x: &Tensor, layer: &Linear) -> Result<()> {
        self.backend.multiply(out, x, weight(layer)?)
    }

    /// Adds to `x`, and norms it into `normed`.
    fn norm(&self, add: Option<&Tensor>, norm: &Norm) -> Result<()> {
        let add = add.map(|add| (add, &self.x));
        kernels::Norm::new(&self.x, add, &self.normed, norm)?.launch(self.backend, self.dtype, self.rows)
    }

    fn swiglu(&self) -> Result<()> {
        let (rows, width) = self.mlp.dims2()?;
        let args = Swiglu {
            gate_up: pointer(&self.gate_up)?,
            out: pointer(&self.mlp)?,
            count: (rows * width / pack(self.dtype).unwrap_or(1)) as i64,
            width: width as i32,
        };
        args.launch(self.backend, self.dtype)
    }

    fn choose(&self) -> Result<()> {
        let args = Choose {
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
    match layer.weight() {
        Some(weight) => Ok(weight),
        None => candle_core::bail!("kernels take no weights in 8 bits"),
    }
}
