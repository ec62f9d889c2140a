//! Micro-kernels for f32 inputs with f32 or bf16 weights: one loop for the vectors of every kind of processor.

use super::{
    aligned::Aligned,
    microkernel::{ColumnKernel, Microkernel, Tile, by_rows},
};

/// Inputs that share a scale, which is 1.
pub const FLOAT_BLOCK: usize = 192;

/// A bf16 number: the upper half of an f32.
#[derive(Clone, Copy, Debug, Default)]
#[repr(transparent)]
pub struct Bf16(pub u16);

/// Weights that f32 holds exactly.
pub trait FloatWeight: Copy + Default + Send + Sync {
    /// This number, which the format holds exactly.
    fn of(number: f32) -> Self;

    /// The numbers from here on.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn vector<V: Vector>(from: *const Self) -> V;
}

impl FloatWeight for f32 {
    fn of(number: f32) -> Self {
        number
    }

    #[inline(always)]
    unsafe fn vector<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load(from) }
    }
}

impl FloatWeight for Bf16 {
    fn of(number: f32) -> Self {
        Self((number.to_bits() >> 16) as u16)
    }

    #[inline(always)]
    unsafe fn vector<V: Vector>(from: *const Self) -> V {
        // SAFETY: the caller's.
        unsafe { V::load_bf16(from) }
    }
}

/// A vector register of f32. Its functions may be called only where the processor has the instructions.
pub trait Vector: Copy {
    /// Numbers in it.
    const LANES: usize;

    /// The same number in all lanes.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn all(number: f32) -> Self;

    /// The numbers from here on.
    ///
    /// # Safety
    /// See the trait; there are as many as lanes.
    unsafe fn load(from: *const f32) -> Self;

    /// The bf16 numbers from here on.
    ///
    /// # Safety
    /// As [`Vector::load`].
    unsafe fn load_bf16(from: *const Bf16) -> Self;

    /// Stores the numbers.
    ///
    /// # Safety
    /// See the trait; there is room for as many as lanes.
    unsafe fn store(self, to: *mut f32);

    /// `self * factor + sum`, rounded once where there is an instruction for it.
    ///
    /// # Safety
    /// See the trait.
    unsafe fn times_plus(self, factor: Self, sum: Self) -> Self;
}

/// Adds the products of `R` rows with two vectors of outputs.
///
/// # Safety
/// The processor has the vector's instructions.
#[inline(always)]
pub unsafe fn add_products<const R: usize, V: Vector, W: FloatWeight>(tile: Tile<'_, W>, sums: &mut [f32]) {
    let outputs = 2 * V::LANES;
    assert!(sums.len() >= R * outputs);
    // SAFETY: the caller's; every vector lies within the weights of its group, or within the sums of its row.
    unsafe {
        let mut registers = [[V::all(0.); 2]; R];
        for (x, weights) in tile.x.as_chunks::<R>().0.iter().zip(tile.weights.chunks_exact(outputs)) {
            let weights = [W::vector::<V>(weights.as_ptr()), W::vector(weights.as_ptr().add(V::LANES))];
            for (registers, x) in registers.iter_mut().zip(x) {
                let x = V::all(f32::from_bits(*x));
                registers[0] = x.times_plus(weights[0], registers[0]);
                registers[1] = x.times_plus(weights[1], registers[1]);
            }
        }
        for (row, registers) in registers.into_iter().enumerate() {
            for (half, register) in registers.into_iter().enumerate() {
                let sum = sums.as_mut_ptr().add(row * outputs + half * V::LANES);
                V::all(1.).times_plus(register, V::load(sum)).store(sum);
            }
        }
    }
}

/// Weights of a block. Their scale is 1.
pub fn float_weights<W: FloatWeight>(numbers: &[f32], to: &mut [W]) -> (f32, i32) {
    for (to, number) in to.iter_mut().zip(numbers) {
        *to = W::of(*number);
    }
    (1., 0)
}

/// The bits of inputs, each `stride` after the one before. Their scale is 1.
pub fn float_words(numbers: &[f32], to: &mut [u32], stride: usize) -> f32 {
    for (to, number) in to.iter_mut().step_by(stride).zip(numbers) {
        *to = number.to_bits();
    }
    1.
}

/// A micro-kernel for f32 inputs.
macro_rules! float {
    ($(#[$doc:meta])* $name:ident<$weight:ty, $vector:ty>: $instructions:literal, [$(#[$attribute:meta])*],
        if $supported:expr, $rows:literal rows: $($count:literal)*) => {
        $(#[$doc])*
        pub struct $name;

        impl Microkernel for $name {
            type Weight = $weight;
            const NAME: &'static str = $instructions;
            const ROWS: usize = $rows;
            const OUTPUTS: usize = 2 * <$vector>::LANES;
            const GROUP: usize = 1;
            const BLOCK: usize = FLOAT_BLOCK;
            const DEPTH: usize = 4 * FLOAT_BLOCK;

            fn is_supported() -> bool {
                $supported
            }

            fn weights(numbers: &[f32], to: &mut [$weight]) -> (f32, i32) {
                float_weights(numbers, to)
            }

            fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
                float_words(numbers, &mut block[row..], rows)
            }

            fn add(rows: usize, tile: Tile<'_, $weight>, sums: &mut [f32]) {
                $(#[$attribute])*
                fn kernel<const R: usize>(tile: Tile<'_, $weight>, sums: &mut [f32]) {
                    // SAFETY: this function is compiled for the vector's instructions.
                    unsafe { add_products::<R, $vector, $weight>(tile, sums) }
                }
                by_rows!(rows, kernel(tile, sums), $($count)*);
            }
        }
    };
}

pub(super) use float;

/// Four numbers that any processor can add and multiply.
#[derive(Clone, Copy)]
pub struct Four([f32; 4]);

impl Vector for Four {
    const LANES: usize = 4;

    unsafe fn all(number: f32) -> Self {
        Self([number; 4])
    }

    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    unsafe fn load_bf16(from: *const Bf16) -> Self {
        // SAFETY: the caller's.
        let numbers = unsafe { from.cast::<[u16; 4]>().read_unaligned() };
        Self(numbers.map(|number| f32::from_bits(u32::from(number) << 16)))
    }

    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    unsafe fn times_plus(self, factor: Self, sum: Self) -> Self {
        // Rounded twice: without an instruction for it, once would take a call for each number.
        Self(std::array::from_fn(|i| self.0[i] * factor.0[i] + sum.0[i]))
    }
}

float! {
    /// f32 on any processor.
    PortableF32<f32, Four>: "portable", [], if true, 4 rows: 1 2 3 4
}

float! {
    /// bf16 weights on any processor.
    PortableBf16<Bf16, Four>: "portable", [], if true, 4 rows: 1 2 3 4
}

impl<K: Microkernel<Weight = f32>> ColumnKernel for K {
    fn columns<'a>(
        numbers: &'a [f32],
        _to: &'a mut Aligned<f32>,
        scales: &'a mut Aligned<f32>,
    ) -> (&'a [f32], &'a [f32]) {
        (numbers, scales)
    }
}
