//! The model's arithmetic on the CPU in f32, where candle's own is scalar or single-threaded:
//! candle operations that split their rows over the cores and whose loops the compiler turns into
//! vector instructions. What they compute is said in `ops`, which chooses between them and candle's.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp1, Layout, Shape};
use gemm::Parallelism;
use rayon::prelude::*;

use super::Result;

/// Query rows whose scores are held at a time by one core: 64 rows of 1024 keys are 256 KiB, a part
/// of a core's second-level cache.
const QUERY_ROWS: usize = 64;
/// Up to so many rows a matrix product is bound by reading the weights, not by arithmetic.
const FEW_ROWS: usize = 4;
/// Weight rows in one task of such a product.
const WEIGHT_ROWS: usize = 64;
/// Numbers in one task of an element-wise function.
const ELEMENTS: usize = 1 << 14;
/// Independent sums in a reduction: enough to fill the vector units.
const LANES: usize = 32;

/// Compiles a function once for every instruction set that matters and calls the best one that the
/// processor has.
macro_rules! vectorised {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn portable($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $type),*) $(-> $out)? { portable($($arg),*) }
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) $(-> $out)? { portable($($arg),*) }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor has it.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") {
                    // SAFETY: the processor has it.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable($($arg),*)
        }
    };
}

/// e^x to about one unit in the last place, without branches. Cody and Waite's reduction to
/// |r| <= ln 2 / 2 and Cephes' polynomial (`expf.c`).
#[inline(always)]
fn exp(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits.
    const ROUND: f32 = 12_582_912.;
    let x = if x > -87. { x } else { -87. };
    let x = if x < 88. { x } else { 88. };
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = p * r + c;
    }
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    (p * r * r + r + 1.) * two_to_n
}

/// `x / (1 + e^-y)`.
#[inline(always)]
fn gated(x: f32, y: f32) -> f32 {
    x / (1. + exp(-y))
}

/// Sums the lanes in halves, as vector units do.
#[inline(always)]
fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    total(lanes) + rest.iter().map(|&x| f(x)).sum::<f32>()
}

#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut lanes = [0f32; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            lanes[i] += a[i] * b[i];
        }
    }
    total(lanes) + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>()
}

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

vectorised! {
    fn gelu_all(values: &mut [f32]) {
        for x in values {
            // tanh(u) = 2 / (1 + e^-2u) - 1, so half of (1 + tanh) is the gate itself.
            let u = 0.797_884_6 * (*x + 0.044_715 * *x * *x * *x);
            *x = gated(*x, 2. * u);
        }
    }
}

vectorised! {
    fn swiglu_row(gate: &[f32], up: &[f32], out: &mut [f32]) {
        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
            *out = gated(gate, gate) * up;
        }
    }
}

vectorised! {
    fn layer_norm_row(x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
        let n = x.len() as f32;
        let mean = sum(x, |x| x) / n;
        let scale = 1. / (sum(x, |x| (x - mean) * (x - mean)) / n + eps).sqrt();
        for (((out, &x), &w), &b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
            *out = (x - mean) * scale * w + b;
        }
    }
}

vectorised! {
    fn rms_norm_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        let scale = 1. / (sum(x, |x| x * x) / x.len() as f32 + eps).sqrt();
        for ((out, &x), &w) in out.iter_mut().zip(x).zip(weight) {
            *out = x * scale * w;
        }
    }
}

vectorised! {
    /// `out[i] += x . weights[i]`
    fn add_dots(x: &[f32], weights: &[f32], out: &mut [f32]) {
        for (out, row) in out.iter_mut().zip(weights.chunks_exact(x.len())) {
            *out += dot(x, row);
        }
    }
}

/// The numbers of a contiguous f32 tensor.
fn numbers<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((from, to)) = layout.contiguous_offsets() else { candle_core::bail!("not contiguous") };
    Ok(&storage.as_slice::<f32>()?[from..to])
}

/// A matrix in a slice: distances between neighbours in a column and in a row.
#[derive(Clone, Copy)]
struct Strides(usize, usize);

impl Strides {
    /// Whether a matrix of this size lies within `len` numbers.
    fn fit(self, rows: usize, columns: usize, len: usize) -> bool {
        rows == 0 || columns == 0 || (rows - 1) * self.0 + (columns - 1) * self.1 < len
    }
}

/// `dst = keep * dst + a b` for an `m` by `k` matrix `a` and a `k` by `n` matrix `b`.
fn multiply(
    (m, n, k): (usize, usize, usize),
    (dst, dst_at): (&mut [f32], Strides),
    keep: bool,
    (a, a_at): (&[f32], Strides),
    (b, b_at): (&[f32], Strides),
    parallelism: Parallelism,
) {
    assert!(dst_at.fit(m, n, dst.len()) && a_at.fit(m, k, a.len()) && b_at.fit(k, n, b.len()));
    // SAFETY: all three matrices lie within their slices, and `dst` is not shared.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst.as_mut_ptr(),
            dst_at.1 as isize,
            dst_at.0 as isize,
            keep,
            a.as_ptr(),
            a_at.1 as isize,
            a_at.0 as isize,
            b.as_ptr(),
            b_at.1 as isize,
            b_at.0 as isize,
            1.,
            1.,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// `x W^T`, and with a third tensor `x W^T + b`: `x` is `(rows, inputs)`, `W` `(outputs, inputs)`.
pub struct LinearOp;

impl LinearOp {
    fn run(x: &[f32], weight: &[f32], bias: Option<&[f32]>, inputs: usize) -> (CpuStorage, Shape) {
        let (rows, outputs) = (x.len() / inputs, weight.len() / inputs);
        let mut out = match bias {
            Some(bias) => bias.repeat(rows),
            None => vec![0.; rows * outputs],
        };
        if rows <= FEW_ROWS {
            for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
                let weights = weight.par_chunks(WEIGHT_ROWS * inputs);
                out.par_chunks_mut(WEIGHT_ROWS).zip(weights).for_each(|(out, w)| add_dots(x, w, out));
            }
        } else {
            multiply(
                (rows, outputs, inputs),
                (&mut out, Strides(outputs, 1)),
                bias.is_some(),
                (x, Strides(inputs, 1)),
                (weight, Strides(1, inputs)),
                Parallelism::Rayon(0),
            );
        }
        (CpuStorage::F32(out), Shape::from((rows, outputs)))
    }
}

impl CustomOp2 for LinearOp {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(Self::run(numbers(x, xl)?, numbers(w, wl)?, None, wl.shape().dims2()?.1))
    }
}

impl CustomOp3 for LinearOp {
    fn name(&self) -> &'static str {
        "linear-bias"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        Ok(Self::run(numbers(x, xl)?, numbers(w, wl)?, Some(numbers(b, bl)?), wl.shape().dims2()?.1))
    }
}

/// LayerNorm over the last dimension, of this epsilon.
pub struct LayerNormOp(pub f32);

impl CustomOp3 for LayerNormOp {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
        b: &CpuStorage,
        bl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w, b) = (numbers(x, xl)?, numbers(w, wl)?, numbers(b, bl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| layer_norm_row(x, w, b, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}

/// RMSNorm over the last dimension, of this epsilon.
pub struct RmsNormOp(pub f32);

impl CustomOp2 for RmsNormOp {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        xl: &Layout,
        w: &CpuStorage,
        wl: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, w) = (numbers(x, xl)?, numbers(w, wl)?);
        let mut out = vec![0.; x.len()];
        let rows = out.par_chunks_mut(w.len()).zip(x.par_chunks(w.len()));
        rows.for_each(|(out, x)| rms_norm_row(x, w, self.0, out));
        Ok((CpuStorage::F32(out), xl.shape().clone()))
    }
}

/// GELU with the tanh approximation, in place.
pub struct GeluOp;

impl InplaceOp1 for GeluOp {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, x: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(x), Some((from, to))) = (x, layout.contiguous_offsets()) else {
            candle_core::bail!("gelu needs a contiguous f32 tensor")
        };
        x[from..to].par_chunks_mut(ELEMENTS).for_each(gelu_all);
        Ok(())
    }
}

/// `silu(gate) * up` of `gate` and `up` side by side in the last dimension.
pub struct SwigluOp;

impl CustomOp1 for SwigluOp {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut shape = layout.dims().to_vec();
        let Some(last) = shape.last_mut() else { candle_core::bail!("swiglu of a scalar") };
        *last /= 2;
        let width = *last;
        let x = numbers(x, layout)?;
        let mut out = vec![0.; x.len() / 2];
        out.par_chunks_mut(width).zip(x.par_chunks(2 * width)).for_each(|(out, x)| {
            let (gate, up) = x.split_at(width);
            swiglu_row(gate, up, out);
        });
        Ok((CpuStorage::F32(out), Shape::from(shape)))
    }
}

/// Scaled dot-product attention, `(rows, queries, heads * head size)` from `ops::attention`'s
/// arguments, scores never held as a whole.
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
