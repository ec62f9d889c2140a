//! Weights packed for a micro-kernel, and the product.

use std::{
    marker::PhantomData,
    ops::Range,
    sync::{Mutex, PoisonError},
};

use rayon::prelude::*;

use super::{
    super::activations::gelu_all,
    aligned::Aligned,
    microkernel::{Microkernel, Rows, Tile, pack_panel, pack_tile},
};

/// Most rows of a task.
const ROWS_PER_TASK: usize = 192;
/// Tasks for each thread, so that none waits long for the others at the end.
const TASKS_PER_THREAD: usize = 4;

/// What is done with a product before it is stored.
#[derive(Clone, Copy, Default)]
pub struct Epilogue<'a> {
    /// Added to each row; one number for every output.
    pub bias: Option<&'a [f32]>,
    /// Then GELU, in its tanh approximation.
    pub gelu: bool,
}

/// Weights `(outputs, inputs)` that are packed.
pub trait PackedWeights: Send + Sync {
    /// Numbers in a row of `x`.
    fn inputs(&self) -> usize;

    /// Numbers in a row of the product.
    fn outputs(&self) -> usize;

    /// Bytes that they take, scales included.
    fn bytes(&self) -> usize;

    /// `x W^T`, `(rows, outputs)`; `x` is `(rows, inputs)`.
    fn product(&self, x: &[f32], epilogue: Epilogue<'_>) -> Vec<f32>;
}

/// Memory for packed rows, as many as products are computed at a time. Allocating it anew for every product costs a page
/// fault for each 4 KiB.
static ROWS: Mutex<Vec<Rows>> = Mutex::new(Vec::new());

/// Weights packed for the micro-kernel `K`.
pub struct Packed<K: Microkernel> {
    /// Panel by panel.
    weights: Aligned<K::Weight>,
    scales: Aligned<f32>,
    first: Vec<i32>,
    inputs: usize,
    outputs: usize,
    kernel: PhantomData<K>,
}

impl<K: Microkernel> Packed<K> {
    /// Packs weights, `(outputs, inputs)` each, as the outputs of one matrix, side by side.
    pub fn new(parts: &[&[f32]], inputs: usize) -> Self {
        let rows: Vec<&[f32]> = parts.iter().flat_map(|part| part.chunks_exact(inputs)).collect();
        let (panels, n) = (rows.len().div_ceil(K::OUTPUTS), K::OUTPUTS);
        let mut packed = Self {
            weights: Aligned::zeros(panels * K::padded(inputs) * n),
            scales: Aligned::zeros(panels * Self::blocks(inputs) * n),
            first: vec![0; panels * Self::blocks(inputs) * n],
            inputs,
            outputs: rows.len(),
            kernel: PhantomData,
        };
        packed
            .weights
            .par_chunks_mut(K::padded(inputs) * n)
            .zip(packed.scales.par_chunks_mut(Self::blocks(inputs) * n))
            .zip(packed.first.par_chunks_mut(Self::blocks(inputs) * n))
            .zip(rows.par_chunks(n))
            .for_each(|(((weights, scales), first), rows)| {
                pack_panel::<K>(rows.iter().copied(), weights, scales, first);
            });
        if !K::HAS_FIRST {
            packed.first = Vec::new();
        }
        packed
    }

    fn blocks(inputs: usize) -> usize {
        inputs.div_ceil(K::BLOCK)
    }

    /// Packs rows. Tiles follow one another.
    fn pack(&self, x: &[f32], to: &mut Rows) {
        let (row_words, blocks) = (K::row_words(self.inputs), Self::blocks(self.inputs));
        let rows = x.len() / self.inputs;
        to.words.resize(rows * row_words);
        to.scales.resize(rows * blocks);
        to.words
            .par_chunks_mut(K::ROWS * row_words)
            .zip(to.scales.par_chunks_mut(K::ROWS * blocks))
            .zip(x.par_chunks(K::ROWS * self.inputs))
            .for_each(|((words, scales), x)| pack_tile::<K>(x.chunks_exact(self.inputs), words, scales));
    }

    /// The products of some rows with some panels. `rows` are packed from the first row on; `sums` is memory to work in.
    fn task(
        &self,
        all: &Rows,
        (rows, panels): (Range<usize>, Range<usize>),
        epilogue: Epilogue<'_>,
        sums: &mut Aligned<f32>,
        out: &Out,
    ) {
        let (padded, blocks, n) = (K::padded(self.inputs), Self::blocks(self.inputs), K::OUTPUTS);
        let row_words = K::row_words(self.inputs);
        for row in rows.clone().step_by(K::ROWS) {
            let count = K::ROWS.min(rows.end - row);
            sums.resize(panels.len() * count * n);
            for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(count * n)) {
                let outputs = n.min(self.outputs - panel * n);
                for sums in sums.chunks_exact_mut(n) {
                    match epilogue.bias {
                        Some(bias) => sums[..outputs].copy_from_slice(&bias[panel * n..][..outputs]),
                        None => sums.fill(0.),
                    }
                }
            }
            for start in (0..padded).step_by(K::DEPTH) {
                let end = padded.min(start + K::DEPTH);
                let (b0, b1) = (start / K::BLOCK, end.div_ceil(K::BLOCK));
                let words = K::row_words(start) * count..K::row_words(end) * count;
                let x = &all.words[row * row_words..][words];
                let x_scales = &all.scales[row * blocks..][b0 * count..b1 * count];
                for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(count * n)) {
                    let weights = &self.weights[panel * padded * n..][start * n..end * n];
                    let scales = &self.scales[panel * blocks * n..][b0 * n..b1 * n];
                    let first = match self.first.get(panel * blocks * n..) {
                        Some(all) if K::HAS_FIRST => &all[b0 * n..b1 * n],
                        _ => &[],
                    };
                    K::add(count, Tile { x, x_scales, weights, scales, first }, sums);
                }
            }
            if epilogue.gelu {
                gelu_all(sums);
            }
            for (i, sums) in sums.chunks_exact(n).enumerate() {
                let panel = panels.start + i / count;
                // SAFETY: this task alone writes these rows and outputs.
                unsafe { out.store(row + i % count, panel * n, &sums[..n.min(self.outputs - panel * n)]) };
            }
        }
    }
}

impl<K: Microkernel> PackedWeights for Packed<K> {
    fn inputs(&self) -> usize {
        self.inputs
    }

    fn outputs(&self) -> usize {
        self.outputs
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.weights[..]) + size_of_val(&self.scales[..]) + size_of_val(&self.first[..])
    }

    fn product(&self, x: &[f32], epilogue: Epilogue<'_>) -> Vec<f32> {
        let rows = x.len() / self.inputs;
        let mut product = Vec::with_capacity(rows * self.outputs);
        let unpoisoned = PoisonError::into_inner;
        let mut packed = ROWS.lock().unwrap_or_else(unpoisoned).pop().unwrap_or_default();
        self.pack(x, &mut packed);
        let out = Out { start: product.as_mut_ptr(), rows, stride: self.outputs };
        let panels = self.outputs.div_ceil(K::OUTPUTS);
        let row_tasks = rows.div_ceil(ROWS_PER_TASK).max(1);
        let rows_each = rows.div_ceil(row_tasks).next_multiple_of(K::ROWS);
        let panel_tasks = (TASKS_PER_THREAD * rayon::current_num_threads()).div_ceil(row_tasks);
        let panel_bytes = size_of::<K::Weight>() * K::OUTPUTS * self.inputs.max(1);
        let panels_each = panels.div_ceil(panel_tasks).min(K::WEIGHTS_PER_TASK / panel_bytes).max(1);
        (0..row_tasks * panels.div_ceil(panels_each)).into_par_iter().for_each_init(
            Aligned::default,
            |sums, task| {
                let (row, panel) = (task % row_tasks * rows_each, task / row_tasks * panels_each);
                let rows = row.min(rows)..rows.min(row + rows_each);
                let panels = panel..panels.min(panel + panels_each);
                self.task(&packed, (rows, panels), epilogue, sums, &out);
            },
        );
        ROWS.lock().unwrap_or_else(unpoisoned).push(packed);
        // SAFETY: the tasks have stored every number.
        unsafe { product.set_len(rows * self.outputs) };
        product
    }
}

/// The product while tasks write to it: each its own rows and outputs.
struct Out {
    start: *mut f32,
    rows: usize,
    stride: usize,
}

// SAFETY: `store` asks of its callers that no two threads touch the same numbers.
unsafe impl Sync for Out {}

impl Out {
    /// Replaces numbers of a row, from `column` on.
    ///
    /// # Safety
    /// No other thread reads or writes them meanwhile.
    unsafe fn store(&self, row: usize, column: usize, from: &[f32]) {
        assert!(row < self.rows && column + from.len() <= self.stride);
        // SAFETY: they lie within the product.
        unsafe { copy(from.as_ptr(), self.start.add(row * self.stride + column), from.len()) }
    }
}

/// Copies numbers. A whole row of a tile takes a few instructions and no call.
///
/// # Safety
/// As [`std::ptr::copy_nonoverlapping`].
#[inline(always)]
unsafe fn copy(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's.
    unsafe {
        match count {
            16 => to.cast::<[f32; 16]>().write_unaligned(from.cast::<[f32; 16]>().read_unaligned()),
            32 => to.cast::<[f32; 32]>().write_unaligned(from.cast::<[f32; 32]>().read_unaligned()),
            _ => from.copy_to_nonoverlapping(to, count),
        }
    }
}
