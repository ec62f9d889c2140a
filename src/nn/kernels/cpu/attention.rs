//! Scaled dot-product attention, a panel of queries at a time.
//!
//! Scores are computed with the keys as rows and the queries as outputs of a micro-kernel. So the scores of a key and its
//! neighbours lie where the next product, values by probabilities, reads its weights, and softmax goes down columns,
//! without a sum across a vector. Keys come in blocks whose scores stay in a core's caches: when a block has a higher score
//! than all before it, what they added up to is made smaller ("online softmax"). Keys and values are packed once for all
//! queries of a head and its group.

use candle_core::{CpuStorage, CustomOp3, Layout, Shape};
use gemm::Parallelism;
use rayon::prelude::*;

use super::{
    super::super::error::Result,
    gemm::{Strides, multiply},
    product::{Aligned, ColumnKernel, Numbers, Rows, Tile, WithKernel, pack_panel, pack_rows, with_best},
    simd::{LANES, exp, multiversion, sum},
};

/// Panels of queries in a task. A block of keys stays in a core's second-level cache for all of them.
const PANELS_PER_TASK: usize = 4;
/// Keys of a block: their scores with a panel stay in the first-level cache. A multiple of every micro-kernel's rows and
/// block.
const KEYS: usize = 192;

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
            *x = exp::<FMA>((*x - highest) * scale);
        }
        sum(scores, |x| x)
    }
}

/// What softmax has seen of each column so far, a power of two of columns, repeated over the lanes.
pub struct Softmax {
    /// The highest score.
    highest: [f32; LANES],
    /// The sum of e^(scale * (score - highest score)). Of a column, lanes add up to it.
    sums: [f32; LANES],
}

impl Softmax {
    const EMPTY: Self = Self { highest: [f32::NEG_INFINITY; LANES], sums: [0.; LANES] };
}

/// Calls `f` for the lanes of each column, `columns` at a time: a half of them with the other half, until each column has
/// one lane.
#[inline(always)]
fn fold_lanes(lanes: &mut [f32; LANES], columns: usize, f: impl Fn(f32, f32) -> f32) {
    let mut width = LANES;
    while width > columns {
        width /= 2;
        for i in 0..width {
            lanes[i] = f(lanes[i], lanes[i + width]);
        }
    }
}

multiversion! {
    /// Replaces each score of some more keys by e^(scale * (score - highest score)) of its column, one of `columns`.
    /// Returns, for each column, what results of earlier keys have to be multiplied by now.
    fn exponentials_of_columns(
        scores: &mut [f32],
        columns: usize,
        scale: f32,
        softmax: &mut Softmax,
    ) -> [f32; LANES] {
        let rows = scores.as_chunks_mut::<LANES>().0;
        let mut highest = softmax.highest;
        for row in rows.iter() {
            for (highest, &x) in highest.iter_mut().zip(row) {
                *highest = if x > *highest { x } else { *highest };
            }
        }
        fold_lanes(&mut highest, columns, f32::max);
        for i in columns..LANES {
            highest[i] = highest[i % columns];
        }
        let mut factors = [0f32; LANES];
        for i in 0..LANES {
            // A query that no key was visible to has no highest score.
            let base = if highest[i] > f32::NEG_INFINITY { highest[i] } else { 0. };
            factors[i] = exp::<FMA>((softmax.highest[i] - base) * scale);
            softmax.highest[i] = highest[i];
            softmax.sums[i] *= factors[i];
            highest[i] = base;
        }
        let mut sums = [0f32; LANES];
        for row in rows {
            for i in 0..LANES {
                row[i] = exp::<FMA>((row[i] - highest[i]) * scale);
                sums[i] += row[i];
            }
        }
        for (all, sum) in softmax.sums.iter_mut().zip(sums) {
            *all += sum;
        }
        factors
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

/// Queries that are outputs of a micro-kernel, and their results so far.
struct Panel<W> {
    /// The first of them, and how many there are.
    queries: (usize, usize),
    /// Keys that some of them attends to, from the first on that any query does.
    keys: usize,
    packed: Aligned<W>,
    scales: Aligned<f32>,
    softmax: Softmax,
    /// For each element of a value: the sum of each query.
    sums: Aligned<f32>,
}

/// What a task computes with, kept from block to block.
#[derive(Default)]
struct Scratch<W> {
    /// One of each query for every key of a block.
    scores: Aligned<f32>,
    probabilities: Aligned<W>,
    scales: Aligned<f32>,
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
        // Some tokens at a time, so that what is read stays in the first-level cache.
        for first in (0..count).step_by(LANES) {
            let tokens = LANES.min(count - first);
            let values = self.values.from(sequence, key_head, from + first);
            for (element, column) in columns.chunks_exact_mut(count).enumerate() {
                for (i, x) in column[first..first + tokens].iter_mut().enumerate() {
                    *x = values[i * self.values.strides[2] + element];
                }
            }
        }
        let columns: Vec<&[f32]> = columns.chunks_exact(count.max(1)).collect();
        PackedHead { keys: pack_rows::<K>(&keys, size), values: pack_rows::<K>(&columns, count) }
    }

    /// A panel of `count` queries of a head, from `first` on.
    fn panel<K: ColumnKernel>(
        &self,
        (sequence, head): (usize, usize),
        (first, count): (usize, usize),
    ) -> Panel<K::Weight> {
        let (n, size) = (K::OUTPUTS, self.queries.size);
        let blocks = size.div_ceil(K::BLOCK);
        let (from, to) = (self.visible(sequence, first).0, self.visible(sequence, first + count - 1).1);
        let mut panel = Panel {
            queries: (first, count),
            keys: to.saturating_sub(from),
            packed: Aligned::zeros(K::padded(size) * n),
            scales: Aligned::zeros(blocks * n),
            softmax: Softmax::EMPTY,
            sums: Aligned::zeros(size * n),
        };
        let queries = (first..first + count).map(|query| self.queries.token(sequence, head, query));
        pack_panel::<K>(queries, &mut panel.packed, &mut panel.scales, &mut vec![0; blocks * n]);
        panel
    }

    /// Attends to the block of keys that begins with `key`, counted from the first that any query attends to.
    fn attend<K: ColumnKernel>(
        &self,
        (sequence, key): (usize, usize),
        head: &PackedHead,
        panel: &mut Panel<K::Weight>,
        scratch: &mut Scratch<K::Weight>,
    ) {
        const { assert!(KEYS.is_multiple_of(K::ROWS) && KEYS.is_multiple_of(K::BLOCK)) };
        let (n, size) = (K::OUTPUTS, self.queries.size);
        let from = self.visible(sequence, 0).0;
        let all = self.len - from;
        let keys = KEYS.min(panel.keys - key);

        // Whole tiles of keys, and whole vectors of scores.
        let padded = keys.next_multiple_of(K::ROWS).min(all - key).next_multiple_of(LANES / n.min(LANES));
        scratch.scores.resize(padded * n);
        scratch.scores.fill(0.);
        let (row_words, blocks) = (K::row_words(size), size.div_ceil(K::BLOCK));
        for tile in (0..keys).step_by(K::ROWS) {
            let rows = K::ROWS.min(all - key - tile);
            let x = Tile {
                x: &head.keys.words[(key + tile) * row_words..][..rows * row_words],
                x_scales: &head.keys.scales[(key + tile) * blocks..][..rows * blocks],
                weights: &panel.packed,
                scales: &panel.scales,
                first: &[],
            };
            K::add(rows, x, &mut scratch.scores[tile * n..][..rows * n]);
        }
        // Keys after a query are hidden from it, and so is what only fills a tile.
        let (first, count) = panel.queries;
        let hidden_from =
            |query: usize| self.visible(sequence, first + query).1.saturating_sub(from + key).min(keys);
        for hidden in hidden_from(0)..padded {
            for (query, score) in scratch.scores[hidden * n..][..n].iter_mut().enumerate() {
                if hidden >= hidden_from(query.min(count - 1)) {
                    *score = f32::NEG_INFINITY;
                }
            }
        }
        let scale = 1. / (size as f32).sqrt();
        let factors = exponentials_of_columns(&mut scratch.scores, n, scale, &mut panel.softmax);
        for sums in panel.sums.chunks_exact_mut(n) {
            for (sum, factor) in sums.iter_mut().zip(&factors) {
                *sum *= factor;
            }
        }

        let (row_words, blocks) = (K::row_words(keys), keys.div_ceil(K::BLOCK));
        let (probabilities, scales) =
            K::columns(&scratch.scores[..keys * n], &mut scratch.probabilities, &mut scratch.scales);
        let (all_words, all_blocks) = (K::row_words(all), all.div_ceil(K::BLOCK));
        for element in (0..size).step_by(K::ROWS) {
            let rows = K::ROWS.min(size - element);
            let x = Tile {
                x: &head.values.words[element * all_words + K::row_words(key) * rows..][..rows * row_words],
                x_scales: &head.values.scales[element * all_blocks + key / K::BLOCK * rows..]
                    [..rows * blocks],
                weights: probabilities,
                scales,
                first: &[],
            };
            K::add(rows, x, &mut panel.sums[element * n..][..rows * n]);
        }
    }

    /// Computes some panels of queries of one head, from the query `first` on. `out` is `(queries, width)`, from the head's
    /// first element on.
    fn panels<K: ColumnKernel>(
        &self,
        (sequence, head, first): (usize, usize, usize),
        packed: &PackedHead,
        scratch: &mut Scratch<K::Weight>,
        (out, width): (&mut [f32], usize),
    ) {
        let (n, count) = (K::OUTPUTS, out.len().div_ceil(width));
        let mut panels: Vec<_> = (0..count)
            .step_by(n)
            .map(|query| self.panel::<K>((sequence, head), (first + query, n.min(count - query))))
            .collect();
        let keys = panels.iter().map(|panel| panel.keys).max().unwrap_or_default();
        for key in (0..keys).step_by(KEYS) {
            for panel in panels.iter_mut().filter(|panel| key < panel.keys) {
                self.attend::<K>((sequence, key), packed, panel, scratch);
            }
        }
        for (panel, out) in
            panels.iter_mut().zip(out.chunks_mut(n * width)).filter(|(panel, _)| panel.keys > 0)
        {
            fold_lanes(&mut panel.softmax.sums, n, |a, b| a + b);
            for (query, out) in out.chunks_mut(width).enumerate() {
                for (out, sums) in out.iter_mut().zip(panel.sums.chunks_exact(n)) {
                    *out = sums[query] / panel.softmax.sums[query];
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
                    let first = task * PANELS_PER_TASK * K::OUTPUTS;
                    self.panels::<K>(
                        (sequence, head, first),
                        packed,
                        &mut scratch,
                        (&mut out[head * size..], width),
                    );
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
        let sizes: [Sizes; 7] = [
            [1, 2, 2, 64, 64, 64],
            [2, 3, 3, 37, 37, 72],
            [1, 9, 3, 70, 70, 64],
            [1, 2, 1, 5, 600, 32],
            [2, 1, 1, 131, 131, 6],
            // Several blocks of keys, a last one of a single key, a head that is longer than a block of f32.
            [2, 2, 1, 400, 400, 32],
            [1, 1, 1, 193, 193, 200],
        ];
        for sizes in sizes {
            let [sequences, _, _, queries, keys, _] = sizes;
            let starts: Vec<usize> = (0..sequences).map(|i| 3 * i).collect();
            for causal in [None, Some((&starts[..], keys - queries))] {
                for (how, most) in [(Numbers::Exact, 1e-5), (Numbers::Int8, 1e-2)] {
                    let off = difference(sizes, causal, how);
                    assert!(off < most, "{sizes:?} {how:?}: {off}");
                }
            }
        }
    }

    #[test]
    fn a_score_that_overflows_makes_its_query_not_finite() {
        let (queries, keys, size) = (2, KEYS + 8, 32);
        let mut k = numbers(keys * size, 2);
        let ones = |count: usize| vec![1f32; count];
        k[..size].fill(f32::MAX);
        let tensor =
            |x: Vec<f32>, tokens: usize| Tensor::from_vec(x, (1, 1, tokens, size), &Device::Cpu).unwrap();
        let op = AttentionOp { causal: None, numbers: Numbers::Exact };
        let (q, v) = (tensor(ones(queries * size), queries), tensor(ones(keys * size), keys));
        let out = q.apply_op3_no_bwd(&tensor(k, keys), &v, &op).unwrap();
        let out: Vec<f32> = out.flatten_all().unwrap().to_vec1().unwrap();
        assert!(out.iter().all(|x| !x.is_finite()), "{out:?}");
    }

    #[test]
    fn a_decode_step_sees_all_keys_up_to_its_own() {
        for causal in [None, Some((&[0, 4][..], 40))] {
            let off = difference([2, 9, 3, 1, 41, 64], causal, Numbers::Exact);
            assert!(off < 1e-5, "{off}");
        }
    }
}
