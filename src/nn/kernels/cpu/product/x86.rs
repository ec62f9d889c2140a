//! Micro-kernels for x86-64.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16, _mm256_mul_ps,
    _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi32, _mm256_storeu_ps,
    _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps, _mm512_set1_epi32, _mm512_set1_ps, _mm512_slli_epi32,
    _mm512_storeu_ps,
};

use super::{
    float::{Bf16, DEPTH, Vector, add_products, float, float_weights, float_words},
    format::{BLOCK, MAX8, MAX13, MAX16, quantise},
    integer::{int_pairs, int8_weights, int13_columns, int13_weights},
    microkernel::{ColumnKernel, Microkernel, Tile, by_rows},
};

/// 8-bit weights and 16-bit inputs with AVX2: pairs of 16-bit integers are multiplied and added (`vpmaddwd`), which is as
/// fast as pairs of bytes in 16 bits would be (`vpmaddubsw`) and cannot saturate.
pub struct Avx2Int8;

impl Microkernel for Avx2Int8 {
    type Weight = i8;
    const NAME: &'static str = "AVX2";
    const ROWS: usize = 6;
    const OUTPUTS: usize = 16;
    const GROUP: usize = 2;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        (int8_weights(numbers, to).0, 0)
    }

    fn words(numbers: &[f32], to: &mut [u32]) -> f32 {
        int_pairs(numbers, MAX16, to)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn kernel<const R: usize>(tile: Tile<'_, i8>, sums: &mut [f32]) {
            // SAFETY: both halves lie within the group.
            avx2_pairs::<R, i8>(tile, sums, |weights: &[i8; 32]| unsafe {
                let weights = weights.as_ptr().cast::<__m128i>();
                [
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(weights)),
                    _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(1))),
                ]
            });
        }
        by_rows!(rows, kernel(tile, sums), 1 2 3 4 5 6);
    }
}

/// 13-bit integers with AVX2.
pub struct Avx2Int13;

impl Microkernel for Avx2Int13 {
    type Weight = i16;
    const NAME: &'static str = "AVX2";
    const ROWS: usize = 6;
    const OUTPUTS: usize = 16;
    const GROUP: usize = 2;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;

    fn is_supported() -> bool {
        Avx2Int8::is_supported()
    }

    fn weights(numbers: &[f32], to: &mut [i16]) -> (f32, i32) {
        (int13_weights(numbers, to), 0)
    }

    fn words(numbers: &[f32], to: &mut [u32]) -> f32 {
        int_pairs(numbers, MAX13, to)
    }

    fn add(rows: usize, tile: Tile<'_, i16>, sums: &mut [f32]) {
        #[target_feature(enable = "avx2,fma")]
        fn kernel<const R: usize>(tile: Tile<'_, i16>, sums: &mut [f32]) {
            // SAFETY: both halves lie within the group.
            avx2_pairs::<R, i16>(tile, sums, |weights: &[i16; 32]| unsafe {
                let weights = weights.as_ptr().cast::<__m256i>();
                [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))]
            });
        }
        by_rows!(rows, kernel(tile, sums), 1 2 3 4 5 6);
    }
}

impl ColumnKernel for Avx2Int13 {
    fn columns(numbers: &[f32], to: &mut [i16], scales: &mut [f32]) {
        #[target_feature(enable = "avx2")]
        fn columns(numbers: &[f32], to: &mut [i16], scales: &mut [f32]) {
            int13_columns::<16>(numbers, to, scales);
        }
        // SAFETY: the caller has found that the processor has the instructions.
        unsafe { columns(numbers, to, scales) }
    }
}

/// [`Microkernel::add`] for pairs of 16-bit integers. `load` loads the weights of a group.
#[inline(always)]
fn avx2_pairs<const R: usize, W>(
    tile: Tile<'_, W>,
    sums: &mut [f32],
    load: impl Fn(&[W; 32]) -> [__m256i; 2],
) {
    const N: usize = 16;
    let words = tile.x.chunks(R * BLOCK / 2).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for ((x, weights), (x_scales, scales)) in words.zip(scales) {
        // SAFETY: only kernels that are compiled for AVX2 and FMA call this function.
        unsafe {
            let mut integers = [[_mm256_setzero_si256(); 2]; R];
            for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.as_chunks::<{ 2 * N }>().0) {
                let [low, high] = load(weights);
                for r in 0..R {
                    let x = _mm256_set1_epi32(x[r] as i32);
                    integers[r][0] = _mm256_add_epi32(integers[r][0], _mm256_madd_epi16(x, low));
                    integers[r][1] = _mm256_add_epi32(integers[r][1], _mm256_madd_epi16(x, high));
                }
            }
            add_scaled(&integers, x_scales, scales, sums);
        }
    }
}

/// Adds a block's integers times their scales to the sums.
#[target_feature(enable = "avx2,fma")]
fn add_scaled<const R: usize>(
    integers: &[[__m256i; 2]; R],
    x_scales: &[f32; R],
    scales: &[f32; 16],
    sums: &mut [f32],
) {
    for (r, sums) in sums.as_chunks_mut::<16>().0.iter_mut().take(R).enumerate() {
        let x_scale = _mm256_set1_ps(x_scales[r]);
        for half in 0..2 {
            let sum = sums[8 * half..].as_mut_ptr();
            // SAFETY: eight sums and scales follow.
            unsafe {
                let scale = _mm256_mul_ps(x_scale, _mm256_loadu_ps(scales[8 * half..].as_ptr()));
                let product = _mm256_cvtepi32_ps(integers[r][half]);
                _mm256_storeu_ps(sum, _mm256_fmadd_ps(product, scale, _mm256_loadu_ps(sum)));
            }
        }
    }
}

/// The integers of a block, four unsigned bytes a word, each 128 more than it is.
pub fn offset_bytes(numbers: &[f32], to: &mut [u32]) -> f32 {
    let mut integers = [0; BLOCK];
    let scale = quantise(numbers, MAX8, &mut integers);
    for (to, group) in to.iter_mut().zip(integers.as_chunks::<4>().0) {
        *to = u32::from_le_bytes(group.map(|integer| integer.wrapping_add(128) as u8));
    }
    scale
}

/// 8-bit weights for unsigned inputs that are 128 too high: the sum begins with what that adds, subtracted.
pub fn weights_for_offset(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
    let (scale, sum) = int8_weights(numbers, to);
    (scale, -128 * sum)
}

/// 8-bit weights and inputs with AVX-VNNI: four products are added at a time (`vpdpbusd`), 256 bits wide.
pub struct AvxVnniInt8;

impl Microkernel for AvxVnniInt8 {
    type Weight = i8;
    const NAME: &'static str = "AVX-VNNI";
    const ROWS: usize = 6;
    const OUTPUTS: usize = 16;
    const GROUP: usize = 4;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;
    const HAS_FIRST: bool = true;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("fma")
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        weights_for_offset(numbers, to)
    }

    fn words(numbers: &[f32], to: &mut [u32]) -> f32 {
        offset_bytes(numbers, to)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        by_rows!(rows, avx_vnni_int8(tile, sums), 1 2 3 4 5 6);
    }
}

#[target_feature(enable = "avx2,fma,avxvnni")]
fn avx_vnni_int8<const R: usize>(tile: Tile<'_, i8>, sums: &mut [f32]) {
    const N: usize = AvxVnniInt8::OUTPUTS;
    let words = tile.x.chunks(R * BLOCK / 4).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for (((x, weights), (x_scales, scales)), first) in words.zip(scales).zip(tile.first.as_chunks::<N>().0) {
        let first = first.as_ptr().cast::<__m256i>();
        // SAFETY: both halves lie within the block's.
        let first = unsafe { [_mm256_loadu_si256(first), _mm256_loadu_si256(first.add(1))] };
        let mut integers = [first; R];
        for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.as_chunks::<{ 4 * N }>().0) {
            let weights = weights.as_ptr().cast::<__m256i>();
            // SAFETY: both halves lie within the group.
            let [low, high] = unsafe { [_mm256_loadu_si256(weights), _mm256_loadu_si256(weights.add(1))] };
            for r in 0..R {
                let x = _mm256_set1_epi32(x[r] as i32);
                integers[r][0] = _mm256_dpbusd_avx_epi32(integers[r][0], x, low);
                integers[r][1] = _mm256_dpbusd_avx_epi32(integers[r][1], x, high);
            }
        }
        add_scaled(&integers, x_scales, scales, sums);
    }
}

/// 8-bit weights and inputs with AVX512-VNNI: four products are added at a time (`vpdpbusd`), 512 bits wide.
pub struct Avx512VnniInt8;

impl Microkernel for Avx512VnniInt8 {
    type Weight = i8;
    const NAME: &'static str = "AVX512-VNNI";
    const ROWS: usize = 12;
    const OUTPUTS: usize = 32;
    const GROUP: usize = 4;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;
    const HAS_FIRST: bool = true;

    fn is_supported() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni")
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        weights_for_offset(numbers, to)
    }

    fn words(numbers: &[f32], to: &mut [u32]) -> f32 {
        offset_bytes(numbers, to)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        by_rows!(rows, avx512_vnni_int8(tile, sums), 1 2 3 4 5 6 7 8 9 10 11 12);
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512_vnni_int8<const R: usize>(tile: Tile<'_, i8>, sums: &mut [f32]) {
    const N: usize = Avx512VnniInt8::OUTPUTS;
    let words = tile.x.chunks(R * BLOCK / 4).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for (((x, weights), (x_scales, scales)), first) in words.zip(scales).zip(tile.first.as_chunks::<N>().0) {
        let first = first.as_ptr().cast::<__m512i>();
        // SAFETY: both halves lie within the block's.
        let first = unsafe { [_mm512_loadu_si512(first), _mm512_loadu_si512(first.add(1))] };
        let mut integers = [first; R];
        for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.as_chunks::<{ 4 * N }>().0) {
            let weights = weights.as_ptr().cast::<__m512i>();
            // SAFETY: both halves lie within the group.
            let [low, high] = unsafe { [_mm512_loadu_si512(weights), _mm512_loadu_si512(weights.add(1))] };
            for r in 0..R {
                let x = _mm512_set1_epi32(x[r] as i32);
                integers[r][0] = _mm512_dpbusd_epi32(integers[r][0], x, low);
                integers[r][1] = _mm512_dpbusd_epi32(integers[r][1], x, high);
            }
        }
        for (r, sums) in sums.as_chunks_mut::<N>().0.iter_mut().take(R).enumerate() {
            let x_scale = _mm512_set1_ps(x_scales[r]);
            for half in 0..2 {
                let sum = sums[16 * half..].as_mut_ptr();
                // SAFETY: sixteen sums and scales follow.
                unsafe {
                    let scale = _mm512_mul_ps(x_scale, _mm512_loadu_ps(scales[16 * half..].as_ptr()));
                    let product = _mm512_cvtepi32_ps(integers[r][half]);
                    _mm512_storeu_ps(sum, _mm512_fmadd_ps(product, scale, _mm512_loadu_ps(sum)));
                }
            }
        }
    }
}

impl Vector for __m256 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn all(number: f32) -> Self {
        // SAFETY: the caller's, here and below.
        unsafe { _mm256_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: as above.
        unsafe {
            let numbers = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(numbers))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn times_plus(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm256_fmadd_ps(self, factor, sum) }
    }
}

impl Vector for __m512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn all(number: f32) -> Self {
        // SAFETY: the caller's, here and below.
        unsafe { _mm512_set1_ps(number) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: as above.
        unsafe {
            let numbers = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(numbers))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self) }
    }

    #[inline(always)]
    unsafe fn times_plus(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        unsafe { _mm512_fmadd_ps(self, factor, sum) }
    }
}

float! {
    /// f32 with AVX2.
    Avx2F32<f32, __m256>: "AVX2", [#[target_feature(enable = "avx2,fma")]], if Avx2Int8::is_supported(),
    6 rows: 1 2 3 4 5 6
}

float! {
    /// bf16 weights with AVX2.
    Avx2Bf16<Bf16, __m256>: "AVX2", [#[target_feature(enable = "avx2,fma")]], if Avx2Int8::is_supported(),
    6 rows: 1 2 3 4 5 6
}

float! {
    /// f32 with AVX-512.
    Avx512F32<f32, __m512>: "AVX-512", [#[target_feature(enable = "avx512f")]], if is_x86_feature_detected!("avx512f"),
    12 rows: 1 2 3 4 5 6 7 8 9 10 11 12
}

float! {
    /// bf16 weights with AVX-512.
    Avx512Bf16<Bf16, __m512>: "AVX-512", [#[target_feature(enable = "avx512f")]],
    if is_x86_feature_detected!("avx512f"), 12 rows: 1 2 3 4 5 6 7 8 9 10 11 12
}
