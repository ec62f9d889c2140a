//! Micro-kernels for x86-64.

use std::arch::x86_64::{
    __m128i, __m256, __m256i, __m512, __m512i, _mm_loadu_si128, _mm256_add_epi32, _mm256_castsi256_ps,
    _mm256_cvtepi8_epi16, _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_dpbusd_avx_epi32,
    _mm256_dpwssd_avx_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_si256, _mm256_slli_epi32,
    _mm256_storeu_ps, _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_dpbusd_epi32,
    _mm512_dpwssd_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_set1_epi32, _mm512_set1_ps, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_storeu_ps,
};

use super::{
    aligned::Aligned,
    float::{Bf16, FLOAT_BLOCK, Vector, add_products, float, float_weights, float_words},
    format::{BLOCK, MAX13, MAX16},
    integer::{int_bytes, int_pairs, int8_weights, int13_columns, int13_weights},
    microkernel::{ColumnKernel, Microkernel, Tile, by_rows},
};

/// A micro-kernel for integers.
macro_rules! integers {
    ($(#[$doc:meta])* $name:ident<$weight:ty>: $instructions:literal, [$(#[$attribute:meta])*], if $supported:expr,
        $rows:literal rows: $($count:literal)*, $outputs:literal outputs, groups of $group:literal,
        first: $first:literal, weights: $weights:expr, words: $words:expr, $multiply:ident($load:expr, $add:expr)
    ) => {
        $(#[$doc])*
        pub struct $name;

        impl Microkernel for $name {
            type Weight = $weight;
            const NAME: &'static str = $instructions;
            const ROWS: usize = $rows;
            const OUTPUTS: usize = $outputs;
            const GROUP: usize = $group;
            const BLOCK: usize = BLOCK;
            const DEPTH: usize = 16 * BLOCK;
            const HAS_FIRST: bool = $first;

            fn is_supported() -> bool {
                $supported
            }

            fn weights(numbers: &[f32], to: &mut [$weight]) -> (f32, i32) {
                $weights(numbers, to)
            }

            fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
                $words(numbers, &mut block[row..], rows)
            }

            fn add(rows: usize, tile: Tile<'_, $weight>, sums: &mut [f32]) {
                $(#[$attribute])*
                fn kernel<const R: usize>(tile: Tile<'_, $weight>, sums: &mut [f32]) {
                    // SAFETY: this function is compiled for the instructions; all weights of a group follow.
                    unsafe { $multiply::<R, $name>(tile, sums, $load, $add) }
                }
                by_rows!(rows, kernel(tile, sums), $($count)*);
            }
        }
    };
}

/// Adds the products of `R` rows with sixteen outputs. `load` loads the weights of a group, `add` adds their products with
/// a word of `x` to integers.
///
/// # Safety
/// The processor has AVX2, FMA and what `load` and `add` need.
#[inline(always)]
unsafe fn multiply256<const R: usize, K: Microkernel>(
    tile: Tile<'_, K::Weight>,
    sums: &mut [f32],
    load: impl Fn(*const K::Weight) -> [__m256i; 2],
    add: impl Fn(__m256i, __m256i, __m256i) -> __m256i,
) {
    const N: usize = 16;
    let words = tile.x.chunks(R * BLOCK / K::GROUP).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for (block, ((x, weights), (x_scales, scales))) in words.zip(scales).enumerate() {
        // SAFETY: the caller's; what is loaded and stored lies within the block's, or within a row of sums.
        unsafe {
            let first = match tile.first.as_chunks::<N>().0.get(block) {
                Some(first) => [0, 8].map(|half| _mm256_loadu_si256(first[half..].as_ptr().cast())),
                None => [_mm256_setzero_si256(); 2],
            };
            let mut integers = [first; R];
            for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.chunks_exact(N * K::GROUP)) {
                let [low, high] = load(weights.as_ptr());
                for r in 0..R {
                    let x = _mm256_set1_epi32(x[r] as i32);
                    integers[r] = [add(integers[r][0], x, low), add(integers[r][1], x, high)];
                }
            }
            for (r, sums) in sums.as_chunks_mut::<N>().0.iter_mut().take(R).enumerate() {
                let x_scale = _mm256_set1_ps(x_scales[r]);
                for half in 0..2 {
                    let sum = sums[8 * half..].as_mut_ptr();
                    let scale = _mm256_mul_ps(x_scale, _mm256_loadu_ps(scales[8 * half..].as_ptr()));
                    let product = _mm256_cvtepi32_ps(integers[r][half]);
                    _mm256_storeu_ps(sum, _mm256_fmadd_ps(product, scale, _mm256_loadu_ps(sum)));
                }
            }
        }
    }
}

/// [`multiply256`] with thirty-two outputs and AVX-512.
///
/// # Safety
/// The processor has AVX-512 and what `load` and `add` need.
#[inline(always)]
unsafe fn multiply512<const R: usize, K: Microkernel>(
    tile: Tile<'_, K::Weight>,
    sums: &mut [f32],
    load: impl Fn(*const K::Weight) -> [__m512i; 2],
    add: impl Fn(__m512i, __m512i, __m512i) -> __m512i,
) {
    const N: usize = 32;
    let words = tile.x.chunks(R * BLOCK / K::GROUP).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for (block, ((x, weights), (x_scales, scales))) in words.zip(scales).enumerate() {
        // SAFETY: the caller's; what is loaded and stored lies within the block's, or within a row of sums.
        unsafe {
            let first = match tile.first.as_chunks::<N>().0.get(block) {
                Some(first) => [0, 16].map(|half| _mm512_loadu_si512(first[half..].as_ptr().cast())),
                None => [_mm512_setzero_si512(); 2],
            };
            let mut integers = [first; R];
            for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.chunks_exact(N * K::GROUP)) {
                let [low, high] = load(weights.as_ptr());
                for r in 0..R {
                    let x = _mm512_set1_epi32(x[r] as i32);
                    integers[r] = [add(integers[r][0], x, low), add(integers[r][1], x, high)];
                }
            }
            for (r, sums) in sums.as_chunks_mut::<N>().0.iter_mut().take(R).enumerate() {
                let x_scale = _mm512_set1_ps(x_scales[r]);
                for half in 0..2 {
                    let sum = sums[16 * half..].as_mut_ptr();
                    let scale = _mm512_mul_ps(x_scale, _mm512_loadu_ps(scales[16 * half..].as_ptr()));
                    let product = _mm512_cvtepi32_ps(integers[r][half]);
                    _mm512_storeu_ps(sum, _mm512_fmadd_ps(product, scale, _mm512_loadu_ps(sum)));
                }
            }
        }
    }
}

/// 8-bit weights of a block for inputs of both signs.
fn signed_weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
    (int8_weights(numbers, to).0, 0)
}

/// 8-bit weights for unsigned inputs that are 128 too high: the sum begins with what that adds, subtracted.
pub fn weights_for_offset(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
    let (scale, sum) = int8_weights(numbers, to);
    (scale, -128 * sum)
}

/// The integers of a block, four unsigned bytes a word, each 128 more than it is. A word is `stride` after the one before.
pub fn offset_bytes(numbers: &[f32], to: &mut [u32], stride: usize) -> f32 {
    int_bytes(numbers, to, stride, 128)
}

integers! {
    /// 8-bit weights and 16-bit inputs with AVX2: pairs of 16-bit integers are multiplied and added (`vpmaddwd`), which is
    /// as fast as pairs of bytes in 16 bits would be (`vpmaddubsw`) and cannot saturate.
    Avx2Int8<i8>: "AVX2", [#[target_feature(enable = "avx2,fma")]],
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
    6 rows: 1 2 3 4 5 6, 16 outputs, groups of 2, first: false,
    weights: signed_weights, words: |numbers, to, stride| int_pairs(numbers, MAX16, to, stride),
    multiply256(
        |weights: *const i8| {
            let weights = weights.cast::<__m128i>();
            [0, 1].map(|half| _mm256_cvtepi8_epi16(_mm_loadu_si128(weights.add(half))))
        },
        |sum, x, weights| _mm256_add_epi32(sum, _mm256_madd_epi16(x, weights))
    )
}

integers! {
    /// 8-bit weights and inputs with AVX-VNNI: four products are added at a time (`vpdpbusd`), 256 bits wide.
    AvxVnniInt8<i8>: "AVX-VNNI", [#[target_feature(enable = "avx2,fma,avxvnni")]],
    if is_x86_feature_detected!("avxvnni") && is_x86_feature_detected!("fma"),
    6 rows: 1 2 3 4 5 6, 16 outputs, groups of 4, first: true,
    weights: weights_for_offset, words: offset_bytes,
    multiply256(
        |weights: *const i8| [0, 1].map(|half| _mm256_loadu_si256(weights.cast::<__m256i>().add(half))),
        |sum, x, weights| _mm256_dpbusd_avx_epi32(sum, x, weights)
    )
}

integers! {
    /// 8-bit weights and inputs with AVX512-VNNI: four products are added at a time (`vpdpbusd`), 512 bits wide.
    Avx512VnniInt8<i8>: "AVX512-VNNI", [#[target_feature(enable = "avx512f,avx512vnni")]],
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni"),
    12 rows: 1 2 3 4 5 6 7 8 9 10 11 12, 32 outputs, groups of 4, first: true,
    weights: weights_for_offset, words: offset_bytes,
    multiply512(
        |weights: *const i8| [0, 1].map(|half| _mm512_loadu_si512(weights.cast::<__m512i>().add(half))),
        |sum, x, weights| _mm512_dpbusd_epi32(sum, x, weights)
    )
}

integers! {
    /// 13-bit integers with AVX2.
    Avx2Int13<i16>: "AVX2", [#[target_feature(enable = "avx2,fma")]], if Avx2Int8::is_supported(),
    6 rows: 1 2 3 4 5 6, 16 outputs, groups of 2, first: false,
    weights: int13_weights, words: |numbers, to, stride| int_pairs(numbers, MAX13, to, stride),
    multiply256(
        |weights: *const i16| [0, 1].map(|half| _mm256_loadu_si256(weights.cast::<__m256i>().add(half))),
        |sum, x, weights| _mm256_add_epi32(sum, _mm256_madd_epi16(x, weights))
    )
}

integers! {
    /// 13-bit integers with AVX-VNNI: pairs are multiplied and added to a sum at a time (`vpdpwssd`).
    AvxVnniInt13<i16>: "AVX-VNNI", [#[target_feature(enable = "avx2,fma,avxvnni")]], if AvxVnniInt8::is_supported(),
    6 rows: 1 2 3 4 5 6, 16 outputs, groups of 2, first: false,
    weights: int13_weights, words: |numbers, to, stride| int_pairs(numbers, MAX13, to, stride),
    multiply256(
        |weights: *const i16| [0, 1].map(|half| _mm256_loadu_si256(weights.cast::<__m256i>().add(half))),
        |sum, x, weights| _mm256_dpwssd_avx_epi32(sum, x, weights)
    )
}

integers! {
    /// 13-bit integers with AVX512-VNNI: pairs are multiplied and added to a sum at a time (`vpdpwssd`).
    Avx512VnniInt13<i16>: "AVX512-VNNI", [#[target_feature(enable = "avx512f,avx512vnni")]],
    if Avx512VnniInt8::is_supported(),
    12 rows: 1 2 3 4 5 6 7 8 9 10 11 12, 32 outputs, groups of 2, first: false,
    weights: int13_weights, words: |numbers, to, stride| int_pairs(numbers, MAX13, to, stride),
    multiply512(
        |weights: *const i16| [0, 1].map(|half| _mm512_loadu_si512(weights.cast::<__m512i>().add(half))),
        |sum, x, weights| _mm512_dpwssd_epi32(sum, x, weights)
    )
}

/// Probabilities as the weights of a micro-kernel for 13-bit integers.
macro_rules! columns13 {
    ($($kernel:ty: $feature:literal;)*) => {
        $(impl ColumnKernel for $kernel {
            fn columns<'a>(
                numbers: &'a [f32],
                to: &'a mut Aligned<i16>,
                scales: &'a mut Aligned<f32>,
            ) -> (&'a [i16], &'a [f32]) {
                #[target_feature(enable = $feature)]
                fn columns(numbers: &[f32], to: &mut Aligned<i16>, scales: &mut Aligned<f32>) {
                    int13_columns::<{ <$kernel>::OUTPUTS }>(numbers, to, scales);
                }
                // SAFETY: the caller has found that the processor has the instructions.
                unsafe { columns(numbers, to, scales) };
                (to, scales)
            }
        })*
    };
}

columns13! {
    Avx2Int13: "avx2";
    AvxVnniInt13: "avx2";
    Avx512VnniInt13: "avx512f";
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
