//! A micro-kernel for integers.
//!
//! AMX multiplies bytes. An input of 16 bits is 256 times a signed byte and an unsigned one.

use std::arch::{
    asm,
    x86_64::{
        _mm512_add_epi32, _mm512_cvtepi32_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_mul_ps, _mm512_set1_ps, _mm512_slli_epi32, _mm512_storeu_ps,
    },
};

use super::{
    super::{
        format::{BLOCK, MAX16},
        integer::{int_halves, int8_weights},
        microkernel::{Microkernel, Tile},
    },
    tiles::{INT8, OUTPUTS, TILE_ROWS, TILE_WORDS, TileConfig, set_up, supports},
};

/// For each number of rows: tiles 0 to 3 hold sums, 4 and 5 the high and low bytes of rows, 6 and 7 weights.
static CONFIGS: [TileConfig; TILE_ROWS + 1] = {
    let mut configs = [const { config(1) }; TILE_ROWS + 1];
    let mut rows = 1;
    while rows < configs.len() {
        configs[rows] = config(rows);
        rows += 1;
    }
    configs
};

const fn config(rows: usize) -> TileConfig {
    TileConfig::new([rows, rows, rows, rows, rows, rows, TILE_ROWS, TILE_ROWS])
}

/// 8-bit weights and 16-bit inputs.
pub struct AmxInt8;

impl Microkernel for AmxInt8 {
    type Weight = i8;
    const NAME: &'static str = "AMX";
    const ROWS: usize = TILE_ROWS;
    const OUTPUTS: usize = OUTPUTS;
    const GROUP: usize = 4;
    const WORDS: usize = 2;
    const PADDING: usize = BLOCK;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 8 * BLOCK;
    // Processors with AMX have at least 2 MiB of second-level cache.
    const WEIGHTS_PER_TASK: usize = 1 << 20;

    fn is_supported() -> bool {
        supports(INT8)
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        (int8_weights(numbers, to).0, 0)
    }

    /// A row of a tile for the high bytes of each row, then one for the low bytes of each.
    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        let (high, low) = block.split_at_mut(rows * TILE_WORDS);
        int_halves(numbers, MAX16, &mut high[row * TILE_WORDS..], &mut low[row * TILE_WORDS..])
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        // SAFETY: the caller has found that the processor has the instructions.
        unsafe { add_products(rows, tile, sums) }
    }
}

/// The sums of a block: for each row, those of each output, of products with high and with low bytes.
#[repr(align(64))]
struct Sums([[[i32; OUTPUTS]; TILE_ROWS]; 2]);

/// [`Microkernel::add`].
///
/// # Safety
/// The processor has AMX for 8-bit integers, and AVX-512.
#[target_feature(enable = "avx512f")]
unsafe fn add_products(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
    let mut integers = Sums([[[0; OUTPUTS]; TILE_ROWS]; 2]);
    let words =
        tile.x.chunks_exact(2 * rows * TILE_WORDS).zip(tile.weights.as_chunks::<{ BLOCK * OUTPUTS }>().0);
    let scales = tile.x_scales.chunks_exact(rows).zip(tile.scales.as_chunks::<OUTPUTS>().0);
    // SAFETY: the caller's.
    unsafe { set_up(&CONFIGS[rows]) };
    for ((x, weights), (x_scales, scales)) in words.zip(scales) {
        // SAFETY: tiles of so many rows lie within the words, the weights and the integers.
        unsafe {
            asm!(
                "tileloadd tmm6, [{weights} + {row} * 2]",
                "tileloadd tmm4, [{high} + {row}]",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "tdpbssd tmm0, tmm4, tmm6",
                "tileloadd tmm5, [{low} + {row}]",
                "tdpbusd tmm2, tmm5, tmm6",
                "tileloadd tmm7, [{weights} + {row} * 2 + 64]",
                "tdpbssd tmm1, tmm4, tmm7",
                "tdpbusd tmm3, tmm5, tmm7",
                "tilestored [{sums} + {row} * 2], tmm0",
                "tilestored [{sums} + {row} * 2 + 2048], tmm2",
                "tilestored [{sums} + {row} * 2 + 64], tmm1",
                "tilestored [{sums} + {row} * 2 + 2112], tmm3",
                weights = in(reg) weights.as_ptr(),
                row = in(reg) 4 * TILE_WORDS,
                high = in(reg) x.as_ptr(),
                low = in(reg) x[rows * TILE_WORDS..].as_ptr(),
                sums = in(reg) integers.0.as_mut_ptr(),
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
            let scales = [0, 16].map(|half| _mm512_loadu_ps(scales[half..].as_ptr()));
            for (r, sums) in sums.as_chunks_mut::<OUTPUTS>().0.iter_mut().take(rows).enumerate() {
                let x_scale = _mm512_set1_ps(x_scales[r]);
                for half in 0..2 {
                    let load =
                        |byte: usize| _mm512_loadu_si512(integers.0[byte][r][16 * half..].as_ptr().cast());
                    let integer = _mm512_add_epi32(_mm512_slli_epi32::<8>(load(0)), load(1));
                    let sum = sums[16 * half..].as_mut_ptr();
                    let scale = _mm512_mul_ps(x_scale, scales[half]);
                    _mm512_storeu_ps(
                        sum,
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(integer), scale, _mm512_loadu_ps(sum)),
                    );
                }
            }
        }
    }
}
