//! Micro-kernels for floating-point numbers.
//!
//! AMX multiplies bf16 numbers and adds their products in f32. An f32 number is the sum of three bf16 numbers ("pieces"),
//! so that products of f32 numbers are sums of products of pieces, each of them exact in f32.

use std::arch::{
    asm,
    x86_64::{
        __m512, __m512i, _CMP_UNORD_Q, _mm256_storeu_si256, _mm512_add_epi32, _mm512_and_si512,
        _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask, _mm512_cvtepi32_epi16, _mm512_loadu_ps,
        _mm512_mask_mov_epi32, _mm512_maskz_loadu_ps, _mm512_or_si512, _mm512_set1_epi32, _mm512_srli_epi32,
        _mm512_storeu_si512, _mm512_sub_ps,
    },
};

use super::{
    super::{
        aligned::Aligned,
        float::FLOAT_BLOCK,
        microkernel::{ColumnKernel, Microkernel, Tile},
    },
    tiles::{BF16, OUTPUTS, TILE_ROWS, TILE_WORDS, TileConfig, set_up, supports},
};

/// bf16 numbers in a row of a tile.
const CHUNK: usize = 32;
/// Most pieces: three hold every f32 number.
const MOST_PIECES: usize = 3;

/// For each number of rows: tiles 0 to 3 hold sums, 4 and 5 the two halves of the rows, 6 and 7 weights.
static CONFIGS: [TileConfig; 2 * TILE_ROWS + 1] = {
    let mut configs = [const { config(1) }; 2 * TILE_ROWS + 1];
    let mut rows = 1;
    while rows < configs.len() {
        configs[rows] = config(rows);
        rows += 1;
    }
    configs
};

const fn config(rows: usize) -> TileConfig {
    let first = if rows < TILE_ROWS { rows } else { TILE_ROWS };
    // A tile without rows is not allowed.
    let second = if rows > TILE_ROWS { rows - TILE_ROWS } else { 1 };
    TileConfig::new([first, first, second, second, first, second, TILE_ROWS, TILE_ROWS])
}

/// A number in bf16 pieces, or room for as many numbers of a tile.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Pieces<const W: usize>([u16; W]);

impl<const W: usize> Default for Pieces<W> {
    fn default() -> Self {
        Self([0; W])
    }
}

/// The bf16 numbers one after the other.
fn flat<const W: usize>(pieces: &mut [Pieces<W>]) -> &mut [u16] {
    // SAFETY: pieces are laid out as their array is.
    unsafe { std::slice::from_raw_parts_mut(pieces.as_mut_ptr().cast(), W * pieces.len()) }
}

/// Products of inputs in `X` pieces with weights in `W`. Products that an f32 sum would not show are left out.
pub struct Amx<const X: usize, const W: usize>;

/// Numbers rounded to bf16.
pub type AmxBf16 = Amx<1, 1>;
/// f32 inputs with weights that bf16 holds.
pub type AmxBf16Weights = Amx<3, 1>;
/// f32 numbers.
pub type AmxF32 = Amx<3, 3>;

/// A line of assembly, or none.
macro_rules! line {
    (true $line:literal) => {
        $line
    };
    (false $line:literal) => {
        ""
    };
}

/// Adds the products of sixteen rows, or, if `$both`, of more, to the sums.
macro_rules! add_products {
    ($both:tt: $x:expr, $rows:expr, $weights:expr, $chunks:expr, $sums:expr) => {
        asm!(
            "tileloadd tmm0, [{sums} + {row} * 2]",
            "tileloadd tmm1, [{sums} + {row} * 2 + 64]",
            line!($both "tileloadd tmm2, [{sums} + {row} * 2 + 2048]"),
            line!($both "tileloadd tmm3, [{sums} + {row} * 2 + 2112]"),
            // For each chunk of inputs, each piece of its weights, and each piece of the inputs that goes with that:
            "2:",
            "mov {weight}, {weight_pieces}",
            "mov {pieces}, {x_pieces}",
            "3:",
            "tileloadd tmm6, [{weights} + {row} * 2]",
            "tileloadd tmm7, [{weights} + {row} * 2 + 64]",
            "add {weights}, 2048",
            "mov {piece}, {pieces}",
            "mov {x}, {first}",
            "4:",
            "tileloadd tmm4, [{x} + {row}]",
            line!($both "tileloadd tmm5, [{x} + {row} + 1024]"),
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            line!($both "tdpbf16ps tmm2, tmm5, tmm6"),
            line!($both "tdpbf16ps tmm3, tmm5, tmm7"),
            "add {x}, {piece_bytes}",
            "dec {piece}",
            "jnz 4b",
            "dec {pieces}",
            "dec {weight}",
            "jnz 3b",
            "add {first}, {chunk_bytes}",
            "dec {chunks}",
            "jnz 2b",
            "tilestored [{sums} + {row} * 2], tmm0",
            "tilestored [{sums} + {row} * 2 + 64], tmm1",
            line!($both "tilestored [{sums} + {row} * 2 + 2048], tmm2"),
            line!($both "tilestored [{sums} + {row} * 2 + 2112], tmm3"),
            piece = out(reg) _,
            sums = in(reg) $sums,
            row = in(reg) 4 * TILE_WORDS,
            weight = out(reg) _,
            weight_pieces = const W,
            pieces = out(reg) _,
            x_pieces = const X,
            weights = inout(reg) $weights => _,
            x = out(reg) _,
            first = inout(reg) $x => _,
            piece_bytes = in(reg) $rows * 4 * TILE_WORDS,
            chunk_bytes = in(reg) $rows * 4 * TILE_WORDS * X,
            chunks = inout(reg) $chunks => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// The bits of a bf16 number in those of an f32.
const HIGH: i32 = 0xffff_0000_u32 as i32;

/// Takes the next piece of numbers from them: bits whose upper half is a bf16 number. It is cut off, but the last one is the
/// nearest, so that one piece is the number rounded, and three are the number. What is not finite makes a piece of it not
/// finite.
#[inline]
#[target_feature(enable = "avx512f")]
fn next_piece(numbers: &mut __m512, last: bool) -> __m512i {
    let bits = _mm512_castps_si512(*numbers);
    if !last {
        let piece = _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(HIGH)));
        *numbers = _mm512_sub_ps(*numbers, piece);
        return bits;
    }
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    // Rounding NaN could give zero.
    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
    _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(*numbers, *numbers), quiet)
}

/// Splits numbers into `P` pieces. Those of a chunk follow each other `piece` words after the one before, those of the next
/// chunk `chunk` words after it; the last chunk is filled with zeros.
#[target_feature(enable = "avx512f")]
fn split<const P: usize>(numbers: &[f32], to: &mut [u32], piece: usize, chunk: usize) {
    for (c, numbers) in numbers.chunks(CHUNK).enumerate() {
        for half in 0..2 {
            let rest = numbers.get(16 * half..).unwrap_or_default();
            let mask = if rest.len() < 16 { (1 << rest.len()) - 1 } else { 0xffff };
            // SAFETY: only numbers that are there are loaded.
            let mut left = unsafe { _mm512_maskz_loadu_ps(mask, rest.as_ptr()) };
            for p in 0..P {
                let bits = next_piece(&mut left, p + 1 == P);
                let words = &mut to[c * chunk + p * piece + 8 * half..][..8];
                let halves = _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(bits));
                // SAFETY: eight words are as long as sixteen bf16 numbers.
                unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), halves) };
            }
        }
    }
}

/// Splits columns of numbers into pieces: for each chunk and piece, the pairs of each output.
#[target_feature(enable = "avx512f")]
fn split_columns<const W: usize>(numbers: &[f32], to: &mut [u16]) {
    let (rows, zeros) = (numbers.as_chunks::<OUTPUTS>().0, [0f32; OUTPUTS]);
    for (rows, to) in rows.chunks(CHUNK).zip(to.chunks_exact_mut(W * CHUNK * OUTPUTS)) {
        for pair in 0..CHUNK / 2 {
            let pair_rows = [2 * pair, 2 * pair + 1].map(|row| rows.get(row).unwrap_or(&zeros));
            for half in 0..2 {
                // SAFETY: half of the outputs are sixteen.
                let [mut low, mut high] =
                    pair_rows.map(|row| unsafe { _mm512_loadu_ps(row[16 * half..].as_ptr()) });
                for p in 0..W {
                    let low = _mm512_srli_epi32::<16>(next_piece(&mut low, p + 1 == W));
                    let high = _mm512_and_si512(next_piece(&mut high, p + 1 == W), _mm512_set1_epi32(HIGH));
                    let words = &mut to[(p * CHUNK + 2 * pair) * OUTPUTS + 32 * half..][..32];
                    // SAFETY: sixteen pairs are 32 numbers.
                    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), _mm512_or_si512(low, high)) };
                }
            }
        }
    }
}

impl<const X: usize, const W: usize> ColumnKernel for Amx<X, W> {
    fn columns<'a>(
        numbers: &'a [f32],
        to: &'a mut Aligned<Pieces<W>>,
        scales: &'a mut Aligned<f32>,
    ) -> (&'a [Pieces<W>], &'a [f32]) {
        to.resize((numbers.len() / OUTPUTS).next_multiple_of(CHUNK) * OUTPUTS);
        // SAFETY: where there is AMX there is AVX-512, too.
        unsafe { split_columns::<W>(numbers, flat(to)) };
        (to, scales)
    }
}

impl<const X: usize, const W: usize> Microkernel for Amx<X, W> {
    type Weight = Pieces<W>;
    const NAME: &'static str = "AMX";
    const ROWS: usize = 2 * TILE_ROWS;
    const OUTPUTS: usize = OUTPUTS;
    const GROUP: usize = 2;
    const WORDS: usize = X;
    const PADDING: usize = CHUNK;
    const BLOCK: usize = FLOAT_BLOCK;
    const DEPTH: usize = if X == 1 { 2 * FLOAT_BLOCK } else { FLOAT_BLOCK };
    // Processors with AMX have at least 2 MiB of second-level cache.
    const WEIGHTS_PER_TASK: usize = 1 << 20;

    fn is_supported() -> bool {
        supports(BF16)
    }

    fn weights(numbers: &[f32], to: &mut [Pieces<W>]) -> (f32, i32) {
        for (to, from) in to.chunks_exact_mut(CHUNK).zip(numbers.chunks(CHUNK)) {
            let mut words = [0; MOST_PIECES * TILE_WORDS];
            // SAFETY: where there is AMX there is AVX-512, too.
            unsafe { split::<W>(from, &mut words, TILE_WORDS, 0) };
            for (piece, words) in words.as_chunks::<TILE_WORDS>().0.iter().take(W).enumerate() {
                for (to, word) in to.as_chunks_mut::<2>().0.iter_mut().zip(words) {
                    (to[0].0[piece], to[1].0[piece]) = (*word as u16, (word >> 16) as u16);
                }
            }
        }
        (1., 0)
    }

    /// For each chunk and piece: for each pair of inputs, those of each output.
    fn place(weights: &[Pieces<W>], output: usize, block: &mut [Pieces<W>]) {
        let chunks = flat(block).chunks_exact_mut(W * CHUNK * OUTPUTS);
        for (to, from) in chunks.zip(weights.as_chunks::<CHUNK>().0) {
            for (piece, to) in to.as_chunks_mut::<{ CHUNK * OUTPUTS }>().0.iter_mut().enumerate() {
                for (to, from) in
                    to.as_chunks_mut::<{ 2 * OUTPUTS }>().0.iter_mut().zip(from.as_chunks::<2>().0)
                {
                    (to[2 * output], to[2 * output + 1]) = (from[0].0[piece], from[1].0[piece]);
                }
            }
        }
    }

    /// For each chunk and piece: a row of a tile for each row.
    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        let piece = rows * TILE_WORDS;
        // SAFETY: where there is AMX there is AVX-512, too.
        unsafe { split::<X>(numbers, &mut block[row * TILE_WORDS..], piece, X * piece) };
        1.
    }

    fn add(rows: usize, tile: Tile<'_, Pieces<W>>, sums: &mut [f32]) {
        let chunks = tile.weights.len() / (CHUNK * OUTPUTS);
        assert!(tile.x.len() >= chunks * X * rows * TILE_WORDS && sums.len() >= rows * OUTPUTS);
        let (x, weights, sums) = (tile.x.as_ptr(), tile.weights.as_ptr(), sums.as_mut_ptr());
        // SAFETY: the caller has found that the processor has AMX; there are as many chunks, rows and sums.
        unsafe {
            set_up(&CONFIGS[rows]);
            if chunks == 0 {
            } else if rows > TILE_ROWS {
                add_products!(true: x, rows, weights, chunks, sums);
            } else {
                add_products!(false: x, rows, weights, chunks, sums);
            }
        }
    }
}
