//! Scaled dot-product attention, a panel of queries at a time.
//!
//! Scores are computed with the keys as rows and the queries as outputs of a micro-kernel. So the scores of a key and its
//! neighbours lie where the next product, values by probabilities, reads its weights, and softmax goes down columns,
//! without a sum across a vector. Keys and values are packed once for all queries of a head and its group.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{Strides, multiply},
    product::{ColumnKernel, MAX_SUMS, Numbers, Rows, Tile, WithKernel, pack_panel, pack_rows, with_best},
    simd::{LANES, exp, multiversion, sum},
};

/// Panels of queries in a task.
const PANELS_PER_TASK: usize = 4;

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

multiversion! {
    /// [`exponentials`] of each of `columns` columns, a power of two up to [`LANES`]. Fills `sums` from the first column on.
    fn exponentials_of_columns(scores: &mut [f32], columns: usize, scale: f32, sums: &mut [f32; LANES]) {
        let rows = scores.as_chunks_mut::<LANES>().0;
        let mut highest = [f32::NEG_INFINITY; LANES];
        for row in rows.iter() {
            for (highest, &x) in highest.iter_mut().zip(row) {
                *highest = if x > *highest { x } else { *highest };
            }
        }
        let mut width = LANES;
        while width > columns {
            width /= 2;
            for i in 0..width {
                highest[i] = highest[i].max(highest[i + width]);
            }
        }
        for i in columns..LANES {
            highest[i] = highest[i % columns];
        }
        // A query that no key is visible to has no highest score.
        let highest = highest.map(|highest| if highest.is_finite() { highest } else { 0. });
        let mut lanes = [0f32; LANES];
        for row in rows {
            for i in 0..LANES {
                row[i] = exp((row[i] - highest[i]) * scale);
                lanes[i] += row[i];
            }
        }
        while width < LANES {
            for i in 0..columns {
                lanes[i] += lanes[i + width];
            }
            width += columns;
        }
        *sums = lanes;
    }
}

/// Scaled dot-product attention with the arguments of `Kernels::attention`. Returns `(sequences, queries, heads * head
/// size)`. It never holds the scores of all queries.
pub struct AttentionOp<'a> {
    /// The first real slot of every sequence, and the slot of the first query. None if every query attends to every
    /// key.
    pub causal: Option<(&'a [usize], usize)>,
    /// How the products are computed.
    pub numbers: Numbers,
}

/// A tensor `(sequences, heads, tokens, head size)` whose heads are contiguous.
struct Heads<'a> {
    elements: &'a [f32],
    /// From one sequence, head and token to the next, in elements.
    strides: [usize; 3],
    size: usize,
}

impl<'a> Heads<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        match (layout.stride(), layout.dims()) {
            (&[sequence, head, token, 1], &[_, _, _, size]) => Ok(Self {
                elements: &storage.as_slice::<f32>()?[layout.start_offset()..],
                strides: [sequence, head, token],
                size,
            }),
            _ => candle_core::bail!("attention needs contiguous heads"),
        }
    }

    /// The elements from the vector of a token on.
    fn from(&self, sequence: usize, head: usize, token: usize) -> &'a [f32] {
        let [per_sequence, per_head, per_token] = self.strides;
        &self.elements[sequence * per_sequence + head * per_head + token * per_token..]
    }

    /// The vector of a token.
    fn token(&self, sequence: usize, head: usize, token: usize) -> &'a [f32] {
        &self.from(sequence, head, token)[..self.size]
    }
}

/// Queries, keys and values.
struct Attention<'a> {
    queries: Heads<'a>,
    keys: Heads<'a>,
    values: Heads<'a>,
    /// Keys of a sequence.
    len: usize,
    /// Query heads, and those of them that a key head serves.
    heads: (usize, usize),
    causal: Option<(&'a [usize], usize)>,
}

/// The keys and values of a head, packed.
struct PackedHead {
    /// A row for each key.
    keys: Rows,
    /// A row for each element of a value: that of every key.
    values: Rows,
}

/// What a task computes with, kept from panel to panel.
#[derive(Default)]
struct Scratch<W> {
    query: Vec<W>,
    query_scales: Vec<f32>,
    /// One of each query for every key.
    scores: Vec<f32>,
    probabilities: Vec<W>,
    scales: Vec<f32>,
    first: Vec<i32>,
}

impl Attention<'_> {
    /// The first slot that a query attends to, and the end of its slots. A padding query has none: the first is not
    /// below the end.
    fn visible(&self, sequence: usize, query: usize) -> (usize, usize) {
        match self.causal {
            Some((starts, first)) => (starts[sequence], first + query + 1),
            None => (0, self.len),
        }
    }

    /// Packs the keys and values that some query attends to.
    fn pack<K: ColumnKernel>(&self, sequence: usize, key_head: usize) -> PackedHead {
        let from = self.visible(sequence, 0).0;
        let (count, size) = (self.len - from, self.values.size);
        let keys: Vec<&[f32]> =
            (from..self.len).map(|key| self.keys.token(sequence, key_head, key)).collect();
        let mut columns = vec![0.; size * count];
        for (i, key) in (from..self.len).enumerate() {
            for (column, x) in columns.chunks_exact_mut(count).zip(self.values.token(sequence, key_head, key))
            {
                column[i] = *x;
            }
        }
        let columns: Vec<&[f32]> = columns.chunks_exact(count.max(1)).collect();
        PackedHead { keys: pack_rows::<K>(&keys, size), values: pack_rows::<K>(&columns, count) }
    }

    /// Computes up to a panel of queries of one head, from `first` on. `out` is `(queries, width)`, from the head's first
    /// element on.
    fn panel<K: ColumnKernel>(
        &self,
        (sequence, head, first): (usize, usize, usize),
        packed: &PackedHead,
        scratch: &mut Scratch<K::Weight>,
        (out, width): (&mut [f32], usize),
    ) {
        let (n, size) = (K::OUTPUTS, self.queries.size);
        let count = out.len().div_ceil(width);
        let from = self.visible(sequence, first).0;
        let to = self.visible(sequence, first + count - 1).1;
        if to <= from {
            return;
        }
        let (keys, all_keys) = (to - from, self.len - from);
        let (groups, blocks) = (size.div_ceil(K::GROUP), size.div_ceil(K::BLOCK));

        scratch.query.clear();
        scratch.query.resize(groups * K::GROUP * n, K::Weight::default());
        scratch.query_scales.clear();
        scratch.query_scales.resize(blocks * n, 0.);
        scratch.first.resize(blocks * n, 0);
        let queries = (first..first + count).map(|query| self.queries.token(sequence, head, query));
        pack_panel::<K>(queries, &mut scratch.query, &mut scratch.query_scales, &mut scratch.first);

        // Whole tiles of keys, and whole vectors of scores.
        let padded = keys.next_multiple_of(K::ROWS).min(all_keys).next_multiple_of(LANES / n.min(LANES));
        scratch.scores.clear();
        scratch.scores.resize(padded * n, 0.);
        for key in (0..keys).step_by(K::ROWS) {
            let rows = K::ROWS.min(all_keys - key);
            let tile = Tile {
                x: &packed.keys.words[key * groups..][..rows * groups],
                x_scales: &packed.keys.scales[key * blocks..][..rows * blocks],
                weights: &scratch.query,
                scales: &scratch.query_scales,
                first: &[],
            };
            K::add(rows, tile, &mut scratch.scores[key * n..][..rows * n]);
        }
        // Keys after a query are hidden from it, and so is what only fills a tile.
        let hidden_from =
            |query: usize| self.visible(sequence, first + query).1.saturating_sub(from).min(keys);
        for key in hidden_from(0)..padded {
            for (query, score) in scratch.scores[key * n..][..n].iter_mut().enumerate() {
                if key >= hidden_from(query.min(count - 1)) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        let mut sums = [0f32; LANES];
        exponentials_of_columns(&mut scratch.scores, n, 1. / (size as f32).sqrt(), &mut sums);

        let (groups, blocks) = (keys.div_ceil(K::GROUP), keys.div_ceil(K::BLOCK));
        scratch.probabilities.resize(groups * K::GROUP * n, K::Weight::default());
        scratch.scales.resize(blocks * n, 0.);
        let packed_blocks =
            scratch.probabilities.chunks_mut(K::BLOCK * n).zip(scratch.scales.chunks_exact_mut(n));
        for ((to, scales), scores) in packed_blocks.zip(scratch.scores[..keys * n].chunks(K::BLOCK * n)) {
            K::columns(scores, to, scales);
        }
        let (all_groups, all_blocks) = (all_keys.div_ceil(K::GROUP), all_keys.div_ceil(K::BLOCK));
        let mut tile_sums = [0f32; MAX_SUMS];
        for element in (0..size).step_by(K::ROWS) {
            let rows = K::ROWS.min(size - element);
            let tile = Tile {
                x: &packed.values.words[element * all_groups..][..rows * groups],
                x_scales: &packed.values.scales[element * all_blocks..][..rows * blocks],
                weights: &scratch.probabilities,
                scales: &scratch.scales,
                first: &[],
            };
            let tile_sums = &mut tile_sums[..rows * n];
            tile_sums.fill(0.);
            K::add(rows, tile, tile_sums);
            for (query, out) in out.chunks_mut(width).enumerate() {
                for (out, sum) in out[element..element + rows].iter_mut().zip(tile_sums.chunks_exact(n)) {
                    *out = sum[query] / sums[query];
                }
            }
        }
    }

    /// A decode step, one query per sequence, the heads of a group together. `out` is `(sequences, heads * head size)`.
    fn decode(&self, out: &mut [f32]) {
        let ((heads, group), size) = (self.heads, self.queries.size);
        let key_heads = heads / group;
        out.par_chunks_mut(group * size).enumerate().for_each_init(Vec::new, |scores, (i, out)| {
            let (sequence, key_head) = (i / key_heads, i % key_heads);
            let (from, to) = self.visible(sequence, 0);
            if to <= from {
                return;
            }
            let keys = to - from;
            scores.resize(group * keys, 0.);
            multiply(
                (group, keys, size),
                (scores, Strides(keys, 1)),
                (self.queries.from(sequence, key_head * group, 0), Strides(self.queries.strides[1], 1)),
                (self.keys.from(sequence, key_head, from), Strides(1, self.keys.strides[2])),
                Parallelism::None,
            );
            let scale = 1. / (size as f32).sqrt();
            for scores in scores.chunks_exact_mut(keys) {
                let sum = exponentials(scores, scale);
                scores.iter_mut().for_each(|x| *x /= sum);
            }
            multiply(
                (group, size, keys),
                (out, Strides(size, 1)),
                (scores, Strides(keys, 1)),
                (self.values.from(sequence, key_head, from), Strides(self.values.strides[2], 1)),
                Parallelism::None,
            );
        });
    }

    /// Any number of queries per sequence. `out` is `(sequences, queries, heads * head size)`.
    fn prefill<K: ColumnKernel>(&self, queries: usize, out: &mut [f32]) {
        let ((heads, group), size) = (self.heads, self.queries.size);
        let key_heads = heads / group;
        let width = heads * size;
        let sequences = out.len() / (queries * width);
        let packed: Vec<PackedHead> = (0..sequences * key_heads)
            .into_par_iter()
            .map(|i| self.pack::<K>(i / key_heads, i % key_heads))
            .collect();
        out.par_chunks_mut(queries * width).enumerate().for_each(|(sequence, out)| {
            // A task has all heads of some queries: then what it writes is in one piece.
            out.par_chunks_mut(PANELS_PER_TASK * K::OUTPUTS * width).enumerate().for_each(|(task, out)| {
                let mut scratch = Scratch::default();
                for head in 0..heads {
                    let packed = &packed[sequence * key_heads + head / group];
                    for (i, out) in out.chunks_mut(K::OUTPUTS * width).enumerate() {
                        let first = (task * PANELS_PER_TASK + i) * K::OUTPUTS;
                        let out = (&mut out[head * size..], width);
                        self.panel::<K>((sequence, head, first), packed, &mut scratch, out);
                    }
                }
            });
        });
    }
}

/// Runs [`Attention::prefill`] with a micro-kernel.
struct Prefill<'a> {
    attention: &'a Attention<'a>,
    queries: usize,
    out: &'a mut [f32],
}

impl WithKernel for Prefill<'_> {
    fn run<K: ColumnKernel>(self) {
        self.attention.prefill::<K>(self.queries, self.out);
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
        let (sequences, heads, queries, size) = ql.shape().dims4()?;
        let (_, key_heads, len, _) = kl.shape().dims4()?;
        let attention = Attention {
            queries: Heads::new(q, ql)?,
            keys: Heads::new(k, kl)?,
            values: Heads::new(v, vl)?,
            len,
            heads: (heads, heads / key_heads),
            causal: self.causal,
        };
        let mut out = vec![0.; sequences * queries * heads * size];
        if queries == 1 {
            attention.decode(&mut out);
        } else {
            with_best(self.numbers, Prefill { attention: &attention, queries, out: &mut out });
        }
        Ok((CpuStorage::F32(out), Shape::from((sequences, queries, heads * size))))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// Sequences, query heads, key heads, queries, keys, head size.
    type Sizes = [usize; 6];

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 22) as f32 - 2.
        };
        (0..count).map(|_| next()).collect()
    }

    /// The largest difference from attention that is computed in f64, one score after the other.
    fn difference(sizes: Sizes, causal: Option<(&[usize], usize)>, how: Numbers) -> f64 {
        let [sequences, heads, key_heads, queries, keys, size] = sizes;
        let [q, k, v] = [(heads, queries, 1), (key_heads, keys, 2), (key_heads, keys, 3)]
            .map(|(heads, tokens, seed)| numbers(sequences * heads * tokens * size, seed));
        let tensor = |x: &Vec<f32>, heads: usize, tokens: usize| {
            Tensor::from_vec(x.clone(), (sequences, heads, tokens, size), &Device::Cpu).unwrap()
        };
        let op = AttentionOp { causal, numbers: how };
        let ours = tensor(&q, heads, queries)
            .apply_op3_no_bwd(&tensor(&k, key_heads, keys), &tensor(&v, key_heads, keys), &op)
            .unwrap();
        assert_eq!(ours.dims(), [sequences, queries, heads * size]);
        let ours: Vec<f32> = ours.flatten_all().unwrap().to_vec1().unwrap();
        let mut most = 0f64;
        for (sequence, query, head) in
            (0..sequences * queries * heads).map(|i| (i / heads / queries, i / heads % queries, i % heads))
        {
            let (from, to) =
                causal.map_or((0, keys), |(starts, first)| (starts[sequence], first + query + 1));
            let key_head = sequence * key_heads + head * key_heads / heads;
            let row = |x: &[f32], head: usize, tokens: usize, token: usize| -> Vec<f64> {
                x[(head * tokens + token) * size..][..size].iter().map(|x| f64::from(*x)).collect()
            };
            let q = row(&q, sequence * heads + head, queries, query);
            let weights: Vec<f64> = (from..to)
                .map(|key| {
                    let k = row(&k, key_head, keys, key);
                    (q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (size as f64).sqrt()).exp()
                })
                .collect();
            let sum: f64 = weights.iter().sum();
            for element in 0..if from < to { size } else { 0 } {
                let value = |key: usize| f64::from(v[(key_head * keys + key) * size + element]);
                let expected: f64 =
                    (from..to).zip(&weights).map(|(key, w)| w * value(key)).sum::<f64>() / sum;
                let at = (sequence * queries + query) * heads * size + head * size + element;
                most = most.max((f64::from(ours[at]) - expected).abs());
            }
        }
        most
    }

    #[test]
    fn queries_see_their_keys_whatever_the_sizes() {
        // A tower, odd sizes, groups of heads, more keys than a block, heads that fill no block.
        let sizes: [Sizes; 5] = [
            [1, 2, 2, 64, 64, 64],
            [2, 3, 3, 37, 37, 72],
            [1, 9, 3, 70, 70, 64],
            [1, 2, 1, 5, 600, 32],
            [2, 1, 1, 131, 131, 6],
        ];
        for sizes in sizes {
            let [sequences, _, _, queries, keys, _] = sizes;
            let starts: Vec<usize> = (0..sequences).map(|i| 3 * i).collect();
            for causal in [None, Some((&starts[..], keys - queries))] {
                for (how, most) in [(Numbers::Exact, 1e-5), (Numbers::Int8, 3e-3)] {
                    let off = difference(sizes, causal, how);
                    assert!(off < most, "{sizes:?} {how:?}: {off}");
                }
            }
        }
    }

    #[test]
    fn a_decode_step_sees_all_keys_up_to_its_own() {
        for causal in [None, Some((&[0, 4][..], 40))] {
            let off = difference([2, 9, 3, 1, 41, 64], causal, Numbers::Exact);
            assert!(off < 1e-5, "{off}");
        }
    }
}
