//! Attention, a block of queries at a time.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{Strides, multiply},
    vector::{LANES, exp, sum, vectorised},
};

/// Query rows whose scores are held at a time by one core: 64 rows of 1024 keys are 256 KiB, a part
/// of a core's second-level cache.
const QUERY_ROWS: usize = 64;

vectorised! {
    /// Turns scores into e^(scale * (score - highest)) and returns their sum.
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

/// Scaled dot-product attention, `(rows, queries, heads * head size)` from the arguments of
/// `Kernels::attention`, scores never held as a whole.
pub struct AttentionOp<'a> {
    /// First visible slot of every row, and slot of the first query; without it all keys are seen.
    pub causal: Option<(&'a [usize], usize)>,
}

/// A tensor `(rows, heads, tokens, head size)` whose heads are contiguous.
struct Heads<'a> {
    numbers: &'a [f32],
    strides: [usize; 3],
}

impl<'a> Heads<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        match *layout.stride() {
            [row, head, token, 1] => Ok(Self {
                numbers: &storage.as_slice::<f32>()?[layout.start_offset()..],
                strides: [row, head, token],
            }),
            _ => candle_core::bail!("attention needs contiguous heads"),
        }
    }

    /// From this place on.
    fn at(&self, row: usize, head: usize, token: usize) -> &'a [f32] {
        let [rows, heads, tokens] = self.strides;
        &self.numbers[row * rows + head * heads + token * tokens..]
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
        let (rows, heads, queries, size) = ql.shape().dims4()?;
        let (_, key_heads, keys, _) = kl.shape().dims4()?;
        let group = heads / key_heads;
        let (q, k, v) = (Heads::new(q, ql)?, Heads::new(k, kl)?, Heads::new(v, vl)?);
        let width = heads * size;
        let mut out = vec![0.; rows * queries * width];
        let scale = 1. / (size as f32).sqrt();
        // Slots that query `query` of row `row` sees; for a padding query there are none.
        let seen = |row: usize, query: usize| match self.causal {
            Some((starts, first)) => (starts[row], first + query + 1),
            None => (0, keys),
        };
        // A block of queries of one head, or of the heads of one group: `count` rows of `q` that
        // are `stride` apart, and as many in `out`.
        let block = |scores: &mut Vec<f32>,
                     (row, key_head): (usize, usize),
                     (first, step, count): (usize, usize, usize),
                     (q, q_stride): (&[f32], usize),
                     (out, out_stride): (&mut [f32], usize)| {
            let from = seen(row, first).0;
            let to = seen(row, first + step * (count - 1)).1;
            if to <= from {
                return;
            }
            let n = to - from;
            scores.resize(count * n, 0.);
            multiply(
                (count, n, size),
                (scores, Strides(n, 1)),
                false,
                (q, Strides(q_stride, 1)),
                (k.at(row, key_head, from), Strides(1, k.strides[2])),
                Parallelism::None,
            );
            let mut sums = [1.; QUERY_ROWS];
            for (i, (scores, sum)) in scores.chunks_exact_mut(n).zip(&mut sums).enumerate() {
                let visible = seen(row, first + step * i).1.saturating_sub(from);
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
                (v.at(row, key_head, from), Strides(v.strides[2], 1)),
                Parallelism::None,
            );
            for (out, sum) in out.chunks_mut(out_stride).zip(&sums[..count]) {
                out[..size].iter_mut().for_each(|x| *x /= sum);
            }
        };
        if queries == 1 && group <= QUERY_ROWS {
            // One token a row: the heads that share keys make one block.
            out.par_chunks_mut(group * size).enumerate().for_each_init(Vec::new, |scores, (i, out)| {
                let (row, key_head) = (i / key_heads, i % key_heads);
                let q = (q.at(row, key_head * group, 0), q.strides[1]);
                block(scores, (row, key_head), (0, 0, group), q, (out, size));
            });
        } else {
            let rows = out.par_chunks_mut(queries * width).enumerate();
            let blocks = rows.flat_map(|(row, out)| {
                out.par_chunks_mut(QUERY_ROWS * width).enumerate().map(move |(i, out)| (row, i, out))
            });
            blocks.for_each_init(Vec::new, |scores, (row, i, out)| {
                let (first, count) = (i * QUERY_ROWS, out.len() / width);
                for head in 0..heads {
                    let q = (q.at(row, head, first), q.strides[2]);
                    let out = (&mut out[head * size..], width);
                    block(scores, (row, head / group), (first, 1, count), q, out);
                }
            });
        }
        Ok((CpuStorage::F32(out), Shape::from((rows, queries, width))))
    }
}
