//! A left-padded batch of token sequences: where each sequence starts, which keys each query may see, and the
//! cache of keys and values. Slots count the columns of the batch; a sequence's position 0 is at its start slot.

use std::cell::OnceCell;

use candle_core::{Device, Tensor};

use super::error::Result;

/// Keys and values of a batch.
pub struct KvCache {
    /// For every layer: keys and values, each `(sequences, key heads, capacity, head size)`.
    pub layers: Vec<(Tensor, Tensor)>,
    /// For every sequence: the slot of its first real token. The slots before it are padding.
    pub starts: Vec<usize>,
    /// Slots in use.
    pub len: usize,
}

impl KvCache {
    /// Keeps only these sequences, by index and in this order. Their keys and values are copied.
    ///
    /// # Errors
    /// When the device has too little memory for the copy.
    pub fn keep(&mut self, sequences: &[usize]) -> Result<()> {
        self.starts = sequences.iter().map(|i| self.starts[*i]).collect();
        let Some((keys, _)) = self.layers.first() else { return Ok(()) };
        let index = indices(sequences, keys.device())?;
        for (keys, values) in &mut self.layers {
            *keys = keys.index_select(&index, 0)?;
            *values = values.index_select(&index, 0)?;
        }
        Ok(())
    }

    /// Whether there is no room for another token.
    ///
    /// # Errors
    /// When the layers have another number of dimensions than expected.
    pub fn is_full(&self) -> Result<bool> {
        self.layers.first().map_or(Ok(false), |(keys, _)| Ok(keys.dim(2)? <= self.len))
    }

    /// One cache of the sequences of several, with room for `room` more tokens of each. Of each cache only the sequences
    /// with these indices are kept, at least one. All end at the same slot, as those of one cache do.
    ///
    /// # Errors
    /// When the device has too little memory for the copy.
    pub fn join(parts: Vec<(Self, Vec<usize>)>, room: usize) -> Result<Self> {
        // Slots from the first token of the longest kept sequence on.
        let used = |cache: &Self, kept: &[usize]| {
            cache.len - kept.iter().map(|i| cache.starts[*i]).min().unwrap_or(cache.len)
        };
        let len = parts.iter().map(|(cache, kept)| used(cache, kept)).max().unwrap_or(0);
        let (mut starts, mut sources) = (Vec::new(), Vec::new());
        for (cache, kept) in parts {
            let used = used(&cache, &kept);
            starts.extend(kept.iter().map(|i| cache.starts[*i] + len - cache.len));
            sources.push((cache.layers.into_iter(), cache.len - used, used, kept));
        }
        let mut joined = Self { layers: Vec::new(), starts, len };
        // The old keys and values of a layer are freed before the next layer's are copied.
        loop {
            let mut parts = Vec::new();
            for (layers, first, used, kept) in &mut sources {
                let Some((keys, values)) = layers.next() else { return Ok(joined) };
                let index = indices(kept, keys.device())?;
                let part = |x: Tensor| x.narrow(2, *first, *used)?.contiguous()?.index_select(&index, 0);
                parts.push((part(keys)?, part(values)?));
            }
            let Some((example, _)) = parts.first() else { return Ok(joined) };
            let (_, heads, _, size) = example.dims4()?;
            let shape = (joined.starts.len(), heads, len + room, size);
            let empty = || Tensor::zeros(shape, example.dtype(), example.device());
            let (keys, values) = (empty()?, empty()?);
            let mut row = 0;
            for (k, v) in &parts {
                let (rows, _, used, _) = k.dims4()?;
                keys.narrow(0, row, rows)?.slice_set(k, 2, len - used)?;
                values.narrow(0, row, rows)?.slice_set(v, 2, len - used)?;
                row += rows;
            }
            joined.layers.push((keys, values));
        }
    }
}

/// The slots of the tokens of one forward pass. A query sees the keys of its own sequence, from the sequence's
/// start up to the query itself.
pub struct SequencePositions<'a> {
    /// For every sequence: the slot of its first real token.
    pub starts: &'a [usize],
    /// Slot of the first query.
    pub first: usize,
    /// Queries of every sequence.
    pub tokens: usize,
    /// Cosines and sines of the rotary embedding by position, each `(positions, head size / 2)`.
    pub rotary_table: &'a (Tensor, Tensor),
    starts_tensor: OnceCell<Tensor>,
    rotary: OnceCell<(Tensor, Tensor)>,
    bias: OnceCell<Option<Tensor>>,
}

impl<'a> SequencePositions<'a> {
    /// `tokens` queries from slot `first` on. Every slot up to the last query's has a key.
    pub fn new(starts: &'a [usize], first: usize, tokens: usize, rotary_table: &'a (Tensor, Tensor)) -> Self {
        let (starts_tensor, rotary, bias) = (OnceCell::new(), OnceCell::new(), OnceCell::new());
        Self { starts, first, tokens, rotary_table, starts_tensor, rotary, bias }
    }

    /// `starts` as a u32 tensor on the device, `(sequences)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn starts_tensor(&self) -> Result<&Tensor> {
        get_or_try_init(&self.starts_tensor, || indices(self.starts, self.rotary_table.0.device()))
    }

    /// Cosines and sines for every query, each `(sequences, tokens, head size / 2)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn rotary(&self) -> Result<&(Tensor, Tensor)> {
        get_or_try_init(&self.rotary, || {
            let slots = self.first..self.first + self.tokens;
            let last = self.rotary_table.0.dim(0)? - 1;
            // Padding has no position, nor has a finished sequence that is still in the batch. Both get some valid
            // position; their results are never used.
            let of_sequence = |start: &usize| {
                let start = *start;
                slots.clone().map(move |slot| slot.saturating_sub(start).min(last))
            };
            let positions: Vec<usize> = self.starts.iter().flat_map(of_sequence).collect();
            let positions = indices(&positions, self.rotary_table.0.device())?;
            let shape = (self.starts.len(), self.tokens, ());
            let at = |table: &Tensor| table.index_select(&positions, 0)?.reshape(shape);
            Ok((at(&self.rotary_table.0)?, at(&self.rotary_table.1)?))
        })
    }

    /// The causal mask, to be added to attention scores: 0 where the query sees the key, else minus infinity.
    /// `(sequences, 1, queries, keys)`; None if every query sees every key.
    ///
    /// # Errors
    /// When the device fails.
    pub fn bias(&self) -> Result<Option<&Tensor>> {
        let bias = get_or_try_init(&self.bias, || {
            if self.tokens == 1 && self.starts.iter().all(|&start| start == 0) {
                return Ok(None);
            }
            let keys = self.first + self.tokens;
            let mut bias = Vec::with_capacity(self.starts.len() * self.tokens * keys);
            for &start in self.starts {
                for query in self.first..keys {
                    // A padding query sees itself, because a softmax over no key is NaN.
                    let seen = |key| key == query || (start..=query).contains(&key);
                    bias.extend((0..keys).map(|key| if seen(key) { 0f32 } else { f32::NEG_INFINITY }));
                }
            }
            let shape = (self.starts.len(), 1, self.tokens, keys);
            Ok(Some(Tensor::from_vec(bias, shape, self.rotary_table.0.device())?))
        })?;
        Ok(bias.as_ref())
    }
}

/// Slots, positions or indices as a one-dimensional u32 tensor.
///
/// # Errors
/// When the device fails.
pub fn indices(numbers: &[usize], device: &Device) -> Result<Tensor> {
    Tensor::from_iter(numbers.iter().map(|number| *number as u32), device)
}

/// `OnceCell::get_or_try_init`, which is not stable yet.
fn get_or_try_init<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}
