//! The two passes for processors with AVX2. They compute the same integer sums as the portable ones, so they give the
//! same bytes. Two neighbouring inputs and their two weights go into one multiply-add of 16-bit pairs. (Loops rather
//! than iterator closures: a closure here is compiled for AVX2, and the function that takes it is not, so it would not
//! be inlined.)

use std::arch::x86_64::{
    __m128i, __m256i, _mm_cvtsi32_si128, _mm_cvtsi128_si32, _mm_loadu_si128, _mm_setr_epi8, _mm256_add_epi32,
    _mm256_broadcastsi128_si256, _mm256_castsi128_si256, _mm256_castsi256_si128, _mm256_extracti128_si256,
    _mm256_inserti128_si256, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_packs_epi32, _mm256_packus_epi16,
    _mm256_set1_epi32, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_sra_epi32, _mm256_storeu_si256,
    _mm256_unpackhi_epi8, _mm256_unpacklo_epi8,
};

use super::axis::{AxisWeights, STEP};

/// A step of the horizontal pass loads 16 bytes and uses 12: its four pixels.
const OVER: usize = 16 - STEP * 3;
/// Bytes that one step of the vertical pass computes.
pub const BLOCK: usize = 32;

/// Resizes every row of `n_in` pixels. It works on two rows at a time, one in each half of a register.
///
/// `axis.width` must be a multiple of `STEP`.
#[target_feature(enable = "avx2")]
pub fn horizontal(src: &[u8], n_in: usize, axis: &AxisWeights, out: &mut [u8]) {
    let (len, stride) = (n_in * 3, axis.starts.len() * 3);
    let height = src.len() / len;
    let mut last = src[src.len() - len..].to_vec();
    last.resize(len + OVER, 0);
    let row = |y: usize| if y + 1 < height { &src[y * len..(y + 1) * len + OVER] } else { &last };
    let mut spare = vec![0; stride];
    for (pair, out) in out.chunks_mut(stride * 2).enumerate() {
        let (out, next) = out.split_at_mut(stride);
        // With an odd number of rows the last one is in both halves.
        let next = if next.is_empty() { &mut spare } else { next };
        two_rows([row(pair * 2), row((pair * 2 + 1).min(height - 1))], axis, [out, next]);
    }
}

/// Each row is followed by `OVER` readable bytes.
#[target_feature(enable = "avx2")]
fn two_rows(rows: [&[u8]; 2], axis: &AxisWeights, out: [&mut [u8]; 2]) {
    // Bytes r0 g0 b0 r1 g1 b1 ... to 16-bit pairs r0 r1, g0 g1, b0 b1; -1 makes a zero.
    let pair = |first: i8| {
        let (a, b) = (first, first + 3);
        _mm256_broadcastsi128_si256(_mm_setr_epi8(
            a,
            -1,
            b,
            -1,
            a + 1,
            -1,
            b + 1,
            -1,
            a + 2,
            -1,
            b + 2,
            -1,
            -1,
            -1,
            -1,
            -1,
        ))
    };
    let (front, back) = (pair(0), pair(6));
    let half = _mm256_set1_epi32(axis.half());
    let shift = _mm_cvtsi32_si128(axis.shift as i32);
    let [out, out_next] = out;
    for ((out, out_next), (start, weights)) in
        out.chunks_exact_mut(3).zip(out_next.chunks_exact_mut(3)).zip(axis.windows())
    {
        let bytes = start * 3..(start + axis.width) * 3 + OVER;
        let (row, next) = (&rows[0][bytes.clone()], &rows[1][bytes]);
        let mut sum = half;
        for (step, w) in weights.chunks_exact(STEP).enumerate() {
            let at = step * STEP * 3;
            // SAFETY: the slices hold `width` pixels and `OVER` bytes; the last load starts `STEP`
            // pixels before the end of those pixels.
            let (a, b) = unsafe { (load(row.as_ptr().add(at)), load(next.as_ptr().add(at))) };
            let pixels = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(a), b);
            let first = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, front), both(w[0], w[1]));
            let second = _mm256_madd_epi16(_mm256_shuffle_epi8(pixels, back), both(w[2], w[3]));
            sum = _mm256_add_epi32(sum, _mm256_add_epi32(first, second));
        }
        let bytes = narrow([sum; 4], shift);
        let pixel = |half: __m128i| _mm_cvtsi128_si32(half).to_le_bytes();
        out.copy_from_slice(&pixel(_mm256_castsi256_si128(bytes))[..3]);
        out_next.copy_from_slice(&pixel(_mm256_extracti128_si256::<1>(bytes))[..3]);
    }
}

/// Resizes an image, whose rows have `stride` bytes, at least `BLOCK`, along its columns.
///
/// `axis.width` must be even, and every window must end within the image.
#[target_feature(enable = "avx2")]
pub fn vertical(src: &[u8], stride: usize, axis: &AxisWeights, out: &mut [u8]) {
    let half = _mm256_set1_epi32(axis.half());
    let shift = _mm_cvtsi32_si128(axis.shift as i32);
    let zero = _mm256_setzero_si256();
    for (out, (start, weights)) in out.chunks_exact_mut(stride).zip(axis.windows()) {
        let rows = &src[start * stride..(start + axis.width) * stride];
        // The last block may overlap the one before it.
        for x in (0..stride - BLOCK).step_by(BLOCK).chain([stride - BLOCK]) {
            let mut sums = [half; 4];
            for (row, w) in weights.chunks_exact(2).enumerate() {
                if w == [0, 0] {
                    continue;
                }
                let at = row * 2 * stride + x;
                // SAFETY: `row * 2 + 1` is below `width` and `x + BLOCK` at most `stride`, so both
                // loads end within `rows`.
                let (a, b) =
                    unsafe { (load32(rows.as_ptr().add(at)), load32(rows.as_ptr().add(at + stride))) };
                let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
                let w = both(w[0], w[1]);
                let pairs = [
                    _mm256_unpacklo_epi8(low, zero),
                    _mm256_unpackhi_epi8(low, zero),
                    _mm256_unpacklo_epi8(high, zero),
                    _mm256_unpackhi_epi8(high, zero),
                ];
                for (sum, pair) in sums.iter_mut().zip(pairs) {
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pair, w));
                }
            }
            let block = &mut out[x..x + BLOCK];
            // SAFETY: `block` has 32 bytes.
            unsafe { _mm256_storeu_si256(block.as_mut_ptr().cast(), narrow(sums, shift)) };
        }
    }
}

/// Shifts the sums and clamps them to bytes.
#[target_feature(enable = "avx2")]
fn narrow(sums: [__m256i; 4], shift: __m128i) -> __m256i {
    let low = _mm256_packs_epi32(_mm256_sra_epi32(sums[0], shift), _mm256_sra_epi32(sums[1], shift));
    let high = _mm256_packs_epi32(_mm256_sra_epi32(sums[2], shift), _mm256_sra_epi32(sums[3], shift));
    _mm256_packus_epi16(low, high)
}

/// The two weights, in every pair of 16-bit lanes.
#[target_feature(enable = "avx2")]
fn both(first: i16, second: i16) -> __m256i {
    _mm256_set1_epi32((i32::from(second) << 16) | i32::from(first as u16))
}

/// # Safety
/// 16 bytes must be readable.
#[target_feature(enable = "avx2")]
unsafe fn load(bytes: *const u8) -> __m128i {
    // SAFETY: the caller promises that 16 bytes are readable; they need no alignment.
    unsafe { _mm_loadu_si128(bytes.cast()) }
}

/// # Safety
/// 32 bytes must be readable.
#[target_feature(enable = "avx2")]
unsafe fn load32(bytes: *const u8) -> __m256i {
    // SAFETY: the caller promises that 32 bytes are readable; they need no alignment.
    unsafe { _mm256_loadu_si256(bytes.cast()) }
}
