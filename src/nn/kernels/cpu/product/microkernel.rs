//! What a processor multiplies at a time.

use super::aligned::Aligned;

/// The longest block of any micro-kernel.
const MAX_BLOCK: usize = 192;

/// Rows of inputs and a panel of weights of the same inputs.
#[derive(Clone, Copy)]
pub struct Tile<'a, W> {
    /// For every group of inputs: one word of each row.
    pub x: &'a [u32],
    /// For every block: the scale of each row.
    pub x_scales: &'a [f32],
    /// For every group of inputs: the weights of each output.
    pub weights: &'a [W],
    /// For every block: the scale of each output.
    pub scales: &'a [f32],
    /// For every block: what the sum of each output begins with, if the micro-kernel needs it.
    pub first: &'a [i32],
}

/// Multiplies tiles on processors that have certain instructions.
pub trait Microkernel: Send + Sync + 'static {
    /// A number of the packed weights.
    type Weight: Copy + Default + Send + Sync;
    /// The instructions, as the log names them.
    const NAME: &'static str;
    /// Rows of a tile.
    const ROWS: usize;
    /// Outputs of a panel.
    const OUTPUTS: usize;
    /// Inputs that share words of `x`, and that an instruction multiplies and adds.
    const GROUP: usize;
    /// Words that a group of inputs takes in `x`.
    const WORDS: usize = 1;
    /// Inputs are padded with zeros to a multiple of this, which is one of the group.
    const PADDING: usize = Self::GROUP;
    /// Inputs that share a scale; a multiple of the group.
    const BLOCK: usize;
    /// Most inputs that go through a tile at a time, so that the rows of a tile stay in a core's first-level cache; a
    /// multiple of the block.
    const DEPTH: usize;
    /// Most bytes of weights that a task multiplies with one tile of rows after the other: they stay in a core's second-level
    /// cache.
    const WEIGHTS_PER_TASK: usize = 256 << 10;
    /// Whether the sums of a block begin with something other than zero.
    const HAS_FIRST: bool = false;

    /// Whether this processor has the instructions.
    fn is_supported() -> bool;

    /// The weights of at most one block, their scale, and what the block's sum begins with.
    fn weights(numbers: &[f32], to: &mut [Self::Weight]) -> (f32, i32);

    /// Puts the weights of a whole block where an output has them in the block of a panel.
    fn place(weights: &[Self::Weight], output: usize, block: &mut [Self::Weight]) {
        let groups = block.chunks_exact_mut(Self::GROUP * Self::OUTPUTS);
        for (to, from) in groups.zip(weights.chunks_exact(Self::GROUP)) {
            to[output * Self::GROUP..][..Self::GROUP].copy_from_slice(from);
        }
    }

    /// Writes the words of at most one block of a row where the block of a tile, of so many rows, has them. Returns the
    /// scale.
    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32;

    /// Adds the products of the tile to `sums`: `rows` rows of [`Microkernel::OUTPUTS`]. The processor must have the
    /// instructions.
    fn add(rows: usize, tile: Tile<'_, Self::Weight>, sums: &mut [f32]);

    /// `inputs`, padded with zeros.
    fn padded(inputs: usize) -> usize {
        inputs.next_multiple_of(Self::PADDING)
    }

    /// Words that so many inputs of a row take.
    fn row_words(inputs: usize) -> usize {
        Self::padded(inputs) / Self::GROUP * Self::WORDS
    }
}

/// A micro-kernel whose weights may come in columns, as the probabilities of attention do.
pub trait ColumnKernel: Microkernel {
    /// The weights and scales of a tile from `numbers`: one of each output for every input. They are written to `to` and
    /// `scales`, unless the micro-kernel multiplies the numbers as they are.
    fn columns<'a>(
        numbers: &'a [f32],
        to: &'a mut Aligned<Self::Weight>,
        scales: &'a mut Aligned<f32>,
    ) -> (&'a [Self::Weight], &'a [f32]);
}

/// Words of rows, and their scales, tile by tile.
#[derive(Default)]
pub struct Rows {
    /// Of each tile: for every group of inputs, one word of each row.
    pub words: Aligned<u32>,
    /// Of each tile: for every block, the scale of each row.
    pub scales: Aligned<f32>,
}

/// Packs the rows of one tile.
pub fn pack_tile<'a, K: Microkernel>(
    rows: impl ExactSizeIterator<Item = &'a [f32]>,
    words: &mut [u32],
    scales: &mut [f32],
) {
    let (count, block_words) = (rows.len(), K::row_words(K::BLOCK));
    for (row, x) in rows.enumerate() {
        for (b, numbers) in x.chunks(K::BLOCK).enumerate() {
            scales[b * count + row] = K::words(numbers, &mut words[b * block_words * count..], row, count);
        }
    }
}

/// Packs rows of `inputs` numbers each.
pub fn pack_rows<K: Microkernel>(rows: &[&[f32]], inputs: usize) -> Rows {
    let (row_words, blocks) = (K::row_words(inputs), inputs.div_ceil(K::BLOCK));
    let mut packed =
        Rows { words: Aligned::zeros(rows.len() * row_words), scales: Aligned::zeros(rows.len() * blocks) };
    if inputs > 0 {
        let tiles =
            packed.words.chunks_mut(K::ROWS * row_words).zip(packed.scales.chunks_mut(K::ROWS * blocks));
        for ((words, scales), rows) in tiles.zip(rows.chunks(K::ROWS)) {
            pack_tile::<K>(rows.iter().copied(), words, scales);
        }
    }
    packed
}

/// Packs the weights of one panel: of at most [`Microkernel::OUTPUTS`] outputs.
pub fn pack_panel<'a, K: Microkernel>(
    outputs: impl Iterator<Item = &'a [f32]>,
    weights: &mut [K::Weight],
    scales: &mut [f32],
    first: &mut [i32],
) {
    let n = K::OUTPUTS;
    let mut block = [K::Weight::default(); MAX_BLOCK];
    for (output, row) in outputs.enumerate() {
        for (b, numbers) in row.chunks(K::BLOCK).enumerate() {
            block.fill(K::Weight::default());
            (scales[b * n + output], first[b * n + output]) = K::weights(numbers, &mut block[..K::BLOCK]);
            K::place(&block[..K::BLOCK], output, &mut weights[b * K::BLOCK * n..]);
        }
    }
}

/// Calls a kernel that is compiled for each number of rows.
macro_rules! by_rows {
    ($rows:expr, $kernel:ident($tile:expr, $sums:expr), $($count:literal)*) => {
        #[allow(unused_unsafe, reason = "a kernel for any processor is safe to call")]
        match $rows {
            // SAFETY: the caller of `Microkernel::add` has found that the processor has the instructions.
            $($count => unsafe { $kernel::<$count>($tile, $sums) },)*
            _ => unreachable!("a tile has at most as many rows as the micro-kernel says"),
        }
    };
}

pub(super) use by_rows;
