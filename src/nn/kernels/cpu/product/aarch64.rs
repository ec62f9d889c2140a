//! Micro-kernels for 64-bit ARM.

use std::arch::{
    aarch64::{
        float32x4_t, int8x16_t, int32x4_t, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32, vdupq_n_u32, vfmaq_f32,
        vld1_u16, vld1q_f32, vld1q_s8, vmulq_n_f32, vreinterpretq_f32_u32, vreinterpretq_s8_u32, vshll_n_u16,
        vst1q_f32,
    },
    asm,
};

use super::{
    float::{Bf16, FLOAT_BLOCK, Vector, add_products, float, float_weights, float_words},
    format::BLOCK,
    integer::{int_bytes, int8_weights},
    microkernel::{Microkernel, Tile, by_rows},
};

impl Vector for float32x4_t {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn all(number: f32) -> Self {
        // SAFETY: the caller's, here and below.
        unsafe { vdupq_n_f32(number) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        unsafe { vld1q_f32(from) }
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: as above.
        unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { vst1q_f32(to, self) }
    }

    #[inline(always)]
    unsafe fn times_plus(self, factor: Self, sum: Self) -> Self {
        // SAFETY: as above.
        unsafe { vfmaq_f32(sum, self, factor) }
    }
}

float! {
    /// f32 with NEON, which every such processor has.
    NeonF32<f32, float32x4_t>: "NEON", [], if true, 8 rows: 1 2 3 4 5 6 7 8
}

float! {
    /// bf16 weights with NEON.
    NeonBf16<Bf16, float32x4_t>: "NEON", [], if true, 8 rows: 1 2 3 4 5 6 7 8
}

/// 8-bit weights and inputs with the dot products of ARMv8.2 (`sdot`).
pub struct DotInt8;

impl Microkernel for DotInt8 {
    type Weight = i8;
    const NAME: &'static str = "NEON dot product";
    const ROWS: usize = 8;
    const OUTPUTS: usize = 8;
    const GROUP: usize = 4;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;

    fn is_supported() -> bool {
        std::arch::is_aarch64_feature_detected!("dotprod")
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        (int8_weights(numbers, to).0, 0)
    }

    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        int_bytes(numbers, &mut block[row..], rows, 0)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        by_rows!(rows, dot_int8(tile, sums), 1 2 3 4 5 6 7 8);
    }
}

/// Adds the dot products of four groups of weights with the group of one row, which fills `x`.
#[inline(always)]
fn dot(sums: int32x4_t, weights: int8x16_t, x: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // The intrinsic is not stable yet.
    // SAFETY: `DotInt8` runs only where the processor has the instruction, which touches registers only.
    unsafe {
        asm!(".arch_extension dotprod", "sdot {sums:v}.4s, {weights:v}.16b, {x:v}.16b",
            sums = inout(vreg) sums, weights = in(vreg) weights, x = in(vreg) x, options(pure, nomem, nostack));
    }
    sums
}

unsafe fn dot_int8<const R: usize>(tile: Tile<'_, i8>, sums: &mut [f32]) {
    const N: usize = DotInt8::OUTPUTS;
    let words = tile.x.chunks(R * BLOCK / 4).zip(tile.weights.chunks(N * BLOCK));
    let scales = tile.x_scales.as_chunks::<R>().0.iter().zip(tile.scales.as_chunks::<N>().0);
    for ((x, weights), (x_scales, scales)) in words.zip(scales) {
        // SAFETY: NEON is part of every such processor; all loads and stores are of whole arrays.
        unsafe {
            let mut integers = [[vdupq_n_s32(0); 2]; R];
            for (x, weights) in x.as_chunks::<R>().0.iter().zip(weights.as_chunks::<{ 4 * N }>().0) {
                let (low, high) = (vld1q_s8(weights.as_ptr()), vld1q_s8(weights[16..].as_ptr()));
                for r in 0..R {
                    let x = vreinterpretq_s8_u32(vdupq_n_u32(x[r]));
                    integers[r] = [dot(integers[r][0], low, x), dot(integers[r][1], high, x)];
                }
            }
            for (r, sums) in sums.as_chunks_mut::<N>().0.iter_mut().take(R).enumerate() {
                for half in 0..2 {
                    let sum = sums[4 * half..].as_mut_ptr();
                    let scale = vmulq_n_f32(vld1q_f32(scales[4 * half..].as_ptr()), x_scales[r]);
                    vst1q_f32(sum, vfmaq_f32(vld1q_f32(sum), vcvtq_f32_s32(integers[r][half]), scale));
                }
            }
        }
    }
}
