//! Scaled dot-product attention, one block of queries at a time.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{Strides, multiply},
    simd::{LANES, exp, multiversion, sum},
};

/// Most queries in a block. One core holds their scores at a time: 64 queries with 1024 keys take 256 KiB, a part of a
/// core's second-level cache.
const MAX_QUERIES: usize = 64;

multiversion! {
    /// Replaces each score by e^(scale * (score - highest score)) and returns the sum of the results.
    fn exponentials(scores: &mut [f32], scale: f32) -> f32 {
        let (chunks, rest) = scores.as_chunks::<LANES>();
        let mut lanes = [f32::NEG_INFINITY; LANES];
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane = if x > *lane { x } else { *lane };
            }
        }
        let highest = lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        for x in scores.iter_mut() {
            *x = exp((*x - highest) * scale);
        }
        sum(scores, |x| x)
    }
}

/// Scaled dot-product attention with the arguments of `Kernels::attention`. Returns `(sequences, queries, heads * head
/// size)`. It never holds the scores of all queries.
pub struct AttentionOp<'a> {
    /// The first real slot of every sequence, and the slot of the first query. None if every query attends to every
    /// key.
    pub causal: Option<(&'a [usize], usize)>,
}

/// A tensor `(sequences, heads, tokens, head size)` whose heads are contiguous.
struct Heads<'a> {
    elements: &'a [f32],
    /// From one sequence, head and token to the next, in elements.
    strides: [usize; 3],
}

impl<'a> Heads<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        match *layout.stride() {
            [sequence, head, token, 1] => Ok(Self {
                elements: &storage.as_slice::<f32>()?[layout.start_offset()..],
                strides: [sequence, head, token],
            }),
            _ => candle_core::bail!("attention needs contiguous heads"),
        }
    }

    /// The elements from the given vector on.
    fn from(&self, sequence: usize, head: usize, token: usize) -> &'a [f32] {
        let [per_sequence, per_head, per_token] = self.strides;
        &self.elements[sequence * per_sequence + head * per_head + token * per_token..]
    }
}

/// The keys and values of a layer, and which of them each query attends to.
struct KeysValues<'a> {
    keys: Heads<'a>,
    values: Heads<'a>,
    /// Keys of a sequence.
    len: usize,
    head_size: usize,
    causal: Option<(&'a [usize], usize)>,
}

/// Queries of one sequence that attend to one key head: of one query head, or, in a decode step, one query of every
/// head of a group.
struct Block {
    sequence: usize,
    key_head: usize,
    /// The first query's index in its sequence.
    first: usize,
    /// From one query's index to the next: 1, or 0 in a decode step.
    step: usize,
    /// Queries; at most [`MAX_QUERIES`].
    count: usize,
}

impl KeysValues<'_> {
    /// The first slot that a query attends to, and the end of its slots. A padding query has none: the first is not
    /// below the end.
    fn visible(&self, sequence: usize, query: usize) -> (usize, usize) {
        match self.causal {
            Some((starts, first)) => (starts[sequence], first + query + 1),
            None => (0, self.len),
        }
    }

    /// Computes a block. `q` and `out` come with the distance from one query's vector to the next, in elements.
    /// `scores` is scratch memory.
    fn attend(
        &self,
        block: &Block,
        scores: &mut Vec<f32>,
        (q, q_stride): (&[f32], usize),
        (out, out_stride): (&mut [f32], usize),
    ) {
        let &Block { sequence, key_head, first, step, count } = block;
        let from = self.visible(sequence, first).0;
        let to = self.visible(sequence, first + step * (count - 1)).1;
        if to <= from {
            return;
        }
        let (n, size) = (to - from, self.head_size);
        let scale = 1. / (size as f32).sqrt();
        scores.resize(count * n, 0.);
        multiply(
            (count, n, size),
            (scores, Strides(n, 1)),
            false,
            (q, Strides(q_stride, 1)),
            (self.keys.from(sequence, key_head, from), Strides(1, self.keys.strides[2])),
            Parallelism::None,
        );
        let mut sums = [1.; MAX_QUERIES];
        for (i, (scores, sum)) in scores.chunks_exact_mut(n).zip(&mut sums).enumerate() {
            let visible = self.visible(sequence, first + step * i).1.saturating_sub(from);
            let (scores, hidden) = scores.split_at_mut(visible);
            hidden.fill(0.);
            if !scores.is_empty() {
                *sum = exponentials(scores, scale);
            }
        }
        multiply(
            (count, size, n),
            (out, Strides(out_stride, 1)),
            false,
            (scores, Strides(n, 1)),
            (self.values.from(sequence, key_head, from), Strides(self.values.strides[2], 1)),
            Parallelism::None,
        );
        for (out, sum) in out.chunks_mut(out_stride).zip(&sums[..count]) {
            out[..size].iter_mut().for_each(|x| *x /= sum);
        }
    }

    /// A decode step, one query per sequence: the heads of a group make one block. `q` is `(sequences, heads, 1, head
    /// size)`, `out` `(sequences, heads * head size)`.
    fn decode(&self, q: &Heads<'_>, (heads, key_heads): (usize, usize), out: &mut [f32]) {
        let (group, size) = (heads / key_heads, self.head_size);
        out.par_chunks_mut(group * size).enumerate().for_each_init(Vec::new, |scores, (i, out)| {
            let (sequence, key_head) = (i / key_heads, i % key_heads);
            let block = Block { sequence, key_head, first: 0, step: 0, count: group };
            let q = (q.from(sequence, key_head * group, 0), q.strides[1]);
            self.attend(&block, scores, q, (out, size));
        });
    }

    /// Any number of queries per sequence, in blocks of neighbouring queries of one head. `q` is `(sequences, heads,
    /// queries, head size)`, `out` `(sequences, queries, heads * head size)`.
    fn prefill(&self, q: &Heads<'_>, (heads, group, queries): (usize, usize, usize), out: &mut [f32]) {
        let width = heads * self.head_size;
        let sequences = out.par_chunks_mut(queries * width).enumerate();
        let blocks = sequences.flat_map(|(sequence, out)| {
            out.par_chunks_mut(MAX_QUERIES * width).enumerate().map(move |(i, out)| (sequence, i, out))
        });
        blocks.for_each_init(Vec::new, |scores, (sequence, i, out)| {
            let (first, count) = (i * MAX_QUERIES, out.len() / width);
            for head in 0..heads {
                let block = Block { sequence, key_head: head / group, first, step: 1, count };
                let q = (q.from(sequence, head, first), q.strides[2]);
                self.attend(&block, scores, q, (&mut out[head * self.head_size..], width));
            }
        });
    }
}

impl CustomOp3 for AttentionOp<'_> {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn cpu_fwd(
        &self,
        q: &CpuStorage,
        ql: &Layout,
        k: &CpuStorage,
        kl: &Layout,
        v: &CpuStorage,
        vl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (sequences, heads, queries, head_size) = ql.shape().dims4()?;
        let (_, key_heads, len, _) = kl.shape().dims4()?;
        let (group, width) = (heads / key_heads, heads * head_size);
        let q = Heads::new(q, ql)?;
        let (keys, values) = (Heads::new(k, kl)?, Heads::new(v, vl)?);
        let keys_values = KeysValues { keys, values, len, head_size, causal: self.causal };
        let mut out = vec![0.; sequences * queries * width];
        if queries == 1 && group <= MAX_QUERIES {
            keys_values.decode(&q, (heads, key_heads), &mut out);
        } else {
            keys_values.prefill(&q, (heads, group, queries), &mut out);
        }
        Ok((CpuStorage::F32(out), Shape::from((sequences, queries, width))))
    }
}
