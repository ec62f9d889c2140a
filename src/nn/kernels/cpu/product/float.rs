//! Micro-kernels for f32 inputs with f32 or bf16 weights: one loop, which is compiled for the vector instructions of each
//! kind of processor.

use super::microkernel::{ColumnKernel, Microkernel, Tile, by_rows};

/// Inputs that go through a tile at a time.
pub const DEPTH: usize = 256;

/// A bf16 number: the upper half of an f32.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bf16(u16);

/// Weights that f32 holds exactly.
pub trait FloatWeight: Copy + Default + Send + Sync {
    /// This number, which the format holds exactly.
    fn of(number: f32) -> Self;

    /// The number.
    fn number(self) -> f32;
}

impl FloatWeight for f32 {
    fn of(number: f32) -> Self {
        number
    }

    #[inline(always)]
    fn number(self) -> f32 {
        self
    }
}

impl FloatWeight for Bf16 {
    fn of(number: f32) -> Self {
        Self((number.to_bits() >> 16) as u16)
    }

    #[inline(always)]
    fn number(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

/// Adds the products of `R` rows with `N` outputs.
#[inline(always)]
pub fn add_products<const R: usize, const N: usize, W: FloatWeight>(tile: Tile<'_, W>, sums: &mut [f32]) {
    let mut registers = [[0f32; N]; R];
    for (x, weights) in tile.x.as_chunks::<R>().0.iter().zip(tile.weights.as_chunks::<N>().0) {
        let weights = weights.map(W::number);
        for (registers, x) in registers.iter_mut().zip(x) {
            let x = f32::from_bits(*x);
            for (register, weight) in registers.iter_mut().zip(weights) {
                *register = x.mul_add(weight, *register);
            }
        }
    }
    for (sums, registers) in sums.as_chunks_mut::<N>().0.iter_mut().zip(registers) {
        for (sum, register) in sums.iter_mut().zip(registers) {
            *sum += register;
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

/// The bits of inputs. Their scale is 1.
pub fn float_words(numbers: &[f32], to: &mut [u32]) -> f32 {
    for (to, number) in to.iter_mut().zip(numbers) {
        *to = number.to_bits();
    }
    1.
}

/// A micro-kernel for f32 inputs, whose loop is compiled with these attributes.
macro_rules! float {
    ($(#[$doc:meta])* $name:ident<$weight:ty>: $instructions:literal, [$(#[$attribute:meta])*], if $supported:expr,
        $outputs:literal outputs, $rows:literal rows: $($count:literal)*) => {
        $(#[$doc])*
        pub struct $name;

        impl Microkernel for $name {
            type Weight = $weight;
            const NAME: &'static str = $instructions;
            const ROWS: usize = $rows;
            const OUTPUTS: usize = $outputs;
            const GROUP: usize = 1;
            const BLOCK: usize = DEPTH;
            const DEPTH: usize = DEPTH;

            fn is_supported() -> bool {
                $supported
            }

            fn weights(numbers: &[f32], to: &mut [$weight]) -> (f32, i32) {
                float_weights(numbers, to)
            }

            fn words(numbers: &[f32], to: &mut [u32]) -> f32 {
                float_words(numbers, to)
            }

            fn add(rows: usize, tile: Tile<'_, $weight>, sums: &mut [f32]) {
                $(#[$attribute])*
                fn kernel<const R: usize>(tile: Tile<'_, $weight>, sums: &mut [f32]) {
                    add_products::<R, $outputs, $weight>(tile, sums);
                }
                by_rows!(rows, kernel(tile, sums), $($count)*);
            }
        }
    };
}

pub(super) use float;

float! {
    /// f32 on any processor.
    PortableF32<f32>: "portable", [], if true, 8 outputs, 4 rows: 1 2 3 4
}

float! {
    /// bf16 weights on any processor.
    PortableBf16<Bf16>: "portable", [], if true, 8 outputs, 4 rows: 1 2 3 4
}

impl<K: Microkernel<Weight = f32>> ColumnKernel for K {
    fn columns(numbers: &[f32], to: &mut [f32], _scales: &mut [f32]) {
        to.copy_from_slice(numbers);
    }
}
