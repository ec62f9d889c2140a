//! Every micro-kernel that this processor has, against sums that are computed one by one.

use proptest::prelude::*;

#[cfg(target_arch = "aarch64")]
use super::aarch64::{DotInt8, NeonBf16, NeonF32};
#[cfg(target_arch = "x86_64")]
use super::amx::{AmxBf16, AmxBf16Weights, AmxF32, AmxInt8};
#[cfg(target_arch = "x86_64")]
use super::format::MAX16;
#[cfg(target_arch = "x86_64")]
use super::x86::{
    Avx2Bf16, Avx2F32, Avx2Int8, Avx2Int13, Avx512Bf16, Avx512F32, Avx512VnniInt8, Avx512VnniInt13,
    AvxVnniInt8, AvxVnniInt13, offset_bytes, weights_for_offset,
};
use super::{
    aligned::Aligned,
    float::{PortableBf16, PortableF32},
    format::{BLOCK, MAX8, MAX13},
    integer::{PortableInt8, PortableInt13},
    microkernel::{ColumnKernel, Microkernel, Tile, pack_panel, pack_rows},
    packed::{Epilogue, Packed, PackedWeights},
};

/// Weights `(outputs, inputs)` and inputs `(rows, inputs)`.
#[derive(Clone, Debug)]
struct Matrices {
    inputs: usize,
    weights: Vec<f32>,
    x: Vec<f32>,
}

impl Matrices {
    /// Numbers from -1 to 1, times one of `sizes` by block and row.
    fn new((inputs, outputs, rows): (usize, usize, usize), seed: u32, sizes: [f32; 4]) -> Self {
        let mut state = seed;
        let mut noise = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.
        };
        let size = |i: usize| sizes[(i % inputs / BLOCK + i / inputs) % 4];
        let weights = (0..outputs * inputs).map(|i| noise() * size(i)).collect();
        let x = (0..rows * inputs).map(|i| noise() * size(i / 3)).collect();
        Self { inputs, weights, x }
    }

    fn outputs(&self) -> usize {
        self.weights.len() / self.inputs
    }

    fn product<K: Microkernel>(&self, epilogue: Epilogue<'_>) -> Vec<f32> {
        Packed::<K>::new(&[&self.weights], self.inputs).product(&self.x, epilogue)
    }
}

/// What the kernels with `vpdpbusd` compute, one product after the other: on processors that lack it their packing is
/// tested all the same.
#[cfg(target_arch = "x86_64")]
struct OffsetInt8;

#[cfg(target_arch = "x86_64")]
impl Microkernel for OffsetInt8 {
    type Weight = i8;
    const NAME: &'static str = "offset";
    const ROWS: usize = 12;
    const OUTPUTS: usize = 32;
    const GROUP: usize = 4;
    const BLOCK: usize = BLOCK;
    const DEPTH: usize = 16 * BLOCK;
    const HAS_FIRST: bool = true;

    fn is_supported() -> bool {
        true
    }

    fn weights(numbers: &[f32], to: &mut [i8]) -> (f32, i32) {
        weights_for_offset(numbers, to)
    }

    fn words(numbers: &[f32], block: &mut [u32], row: usize, rows: usize) -> f32 {
        offset_bytes(numbers, &mut block[row..], rows)
    }

    fn add(rows: usize, tile: Tile<'_, i8>, sums: &mut [f32]) {
        let n = Self::OUTPUTS;
        let blocks = tile.x.chunks(rows * BLOCK / 4).zip(tile.weights.chunks(n * BLOCK)).enumerate();
        for (b, (x, weights)) in blocks {
            for (row, output) in (0..rows).flat_map(|row| (0..n).map(move |output| (row, output))) {
                let mut integer = tile.first[b * n + output];
                for (x, weights) in x.chunks_exact(rows).zip(weights.chunks_exact(4 * n)) {
                    let group = x[row].to_le_bytes().into_iter().zip(&weights[4 * output..]);
                    integer += group.map(|(x, w)| i32::from(x) * i32::from(*w)).sum::<i32>();
                }
                let scale = tile.x_scales[b * rows + row] * tile.scales[b * n + output];
                let sum = &mut sums[row * n + output];
                *sum = (integer as f32).mul_add(scale, *sum);
            }
        }
    }
}

fn matrices() -> impl Strategy<Value = Matrices> {
    let sizes =
        prop_oneof![Just([1.; 4]), Just([1., 1e-3, 0., 1e3]), Just([0.; 4]), Just([1e15, 1., 1e-15, 1e-20]),];
    let shape = (1..3 * BLOCK + 2, 1..70usize, 1..60usize);
    (shape, any::<u32>(), sizes).prop_map(|(shape, seed, sizes)| Matrices::new(shape, seed, sizes))
}

/// The integers of a block, one by one, and their scale.
fn rounded(numbers: &[f32], max: f32) -> (Vec<i64>, f32) {
    let highest = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
    if highest <= 1e-30 {
        return (vec![0; numbers.len()], 0.);
    }
    let inverse = max / highest;
    (numbers.iter().map(|x| (x * inverse).round_ties_even() as i64).collect(), highest / max)
}

/// The dot product of rounded numbers.
fn rounded_dot(x: &[f32], x_max: f32, w: &[f32], w_max: f32) -> f32 {
    x.chunks(BLOCK).zip(w.chunks(BLOCK)).fold(0., |sum, (x, w)| {
        let ((x, x_scale), (w, w_scale)) = (rounded(x, x_max), rounded(w, w_max));
        let integer: i64 = x.iter().zip(&w).map(|(x, w)| x * w).sum();
        (integer as f32).mul_add(x_scale * w_scale, sum)
    })
}

/// Whether the product is, bit for bit, that of integers up to these.
fn assert_integers<K: Microkernel>(matrices: &Matrices, x_max: f32, w_max: f32) {
    if !K::is_supported() {
        return;
    }
    let product = matrices.product::<K>(Epilogue::default());
    for (x, row) in matrices.x.chunks(matrices.inputs).zip(product.chunks(matrices.outputs())) {
        for (w, ours) in matrices.weights.chunks(matrices.inputs).zip(row) {
            let expected = rounded_dot(x, x_max, w, w_max);
            assert_eq!(ours.to_bits(), expected.to_bits(), "{}: {ours} for {expected}", K::NAME);
        }
    }
}

/// Whether the product is exact but for the rounding of f32, and for products that AMX takes for zero.
fn assert_floats<K: Microkernel>(matrices: &Matrices) {
    if !K::is_supported() {
        return;
    }
    let product = matrices.product::<K>(Epilogue::default());
    for (x, row) in matrices.x.chunks(matrices.inputs).zip(product.chunks(matrices.outputs())) {
        for (w, ours) in matrices.weights.chunks(matrices.inputs).zip(row) {
            let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
            let (exact, size) = terms.fold((0., 0.), |(sum, size), term| (sum + term, size + term.abs()));
            assert!(
                (f64::from(*ours) - exact).abs() <= 1e-5 * size + 1e-35,
                "{}: {ours} for {exact}",
                K::NAME
            );
        }
    }
}

/// Weights that bf16 holds.
fn narrow(matrices: &Matrices) -> Matrices {
    let weights = matrices.weights.iter().map(|w| f32::from_bits(w.to_bits() & 0xffff_0000)).collect();
    Matrices { weights, ..matrices.clone() }
}

fn assert_all(matrices: &Matrices) {
    assert_integers::<PortableInt8>(matrices, MAX8, MAX8);
    assert_integers::<PortableInt13>(matrices, MAX13, MAX13);
    assert_floats::<PortableF32>(matrices);
    assert_floats::<PortableBf16>(&narrow(matrices));
    #[cfg(target_arch = "x86_64")]
    {
        assert_integers::<OffsetInt8>(matrices, MAX8, MAX8);
        assert_integers::<Avx2Int8>(matrices, MAX16, MAX8);
        assert_integers::<AmxInt8>(matrices, MAX16, MAX8);
        assert_integers::<Avx2Int13>(matrices, MAX13, MAX13);
        assert_integers::<AvxVnniInt13>(matrices, MAX13, MAX13);
        assert_integers::<Avx512VnniInt13>(matrices, MAX13, MAX13);
        assert_integers::<AvxVnniInt8>(matrices, MAX8, MAX8);
        assert_integers::<Avx512VnniInt8>(matrices, MAX8, MAX8);
        assert_floats::<Avx2F32>(matrices);
        assert_floats::<Avx512F32>(matrices);
        assert_floats::<AmxF32>(matrices);
        assert_floats::<AmxBf16Weights>(&narrow(matrices));
        assert_floats::<Avx2Bf16>(&narrow(matrices));
        assert_floats::<Avx512Bf16>(&narrow(matrices));
    }
    #[cfg(target_arch = "aarch64")]
    {
        assert_integers::<DotInt8>(matrices, MAX8, MAX8);
        assert_floats::<NeonF32>(matrices);
        assert_floats::<NeonBf16>(&narrow(matrices));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_micro_kernel_computes_what_single_sums_do(matrices in matrices()) {
        assert_all(&matrices);
    }
}

#[test]
fn weights_whose_sum_is_zero_count() {
    let (inputs, outputs, rows) = (2 * BLOCK, 3, 2);
    let weights = (0..outputs * inputs).map(|i| [1., -1.][i % 2]).collect();
    let x = (0..rows * inputs).map(|i| [1., 0.][i % 2]).collect();
    assert_all(&Matrices { inputs, weights, x });
}

#[test]
fn the_largest_integers_do_not_saturate() {
    for signs in [[1., 1.], [1., -1.], [-1., -1.]] {
        let (inputs, outputs, rows) = (4 * BLOCK, 33, 13);
        let weights = (0..outputs * inputs).map(|i| signs[i % 2]).collect();
        let x = (0..rows * inputs).map(|i| signs[i / 2 % 2]).collect();
        assert_all(&Matrices { inputs, weights, x });
    }
}

#[test]
fn more_inputs_than_go_through_a_tile_at_a_time_and_parts_side_by_side() {
    let matrices = Matrices::new((16 * BLOCK + 70, 5, 3), 7, [1.; 4]);
    assert_all(&matrices);
    let (first, second) = matrices.weights.split_at(2 * matrices.inputs);
    let parts = Packed::<PortableInt8>::new(&[first, second], matrices.inputs);
    assert_eq!(parts.outputs(), 5);
    assert_eq!(
        parts.product(&matrices.x, Epilogue::default()),
        matrices.product::<PortableInt8>(Epilogue::default())
    );
}

#[test]
fn the_bias_is_added_before_gelu() {
    let matrices = Matrices { inputs: 1, weights: vec![1., 2.], x: vec![1.5, -0.25] };
    let bias = [0.5, -1.];
    let product = matrices.product::<PortableF32>(Epilogue { bias: Some(&bias), gelu: true });
    // torch.nn.functional.gelu(approximate="tanh") of 2, 2, 0.25, -1.5
    let expected = [1.954_597_7, 1.954_597_7, 0.149_675_35, -0.100_428_42];
    for (ours, expected) in product.iter().zip(expected) {
        assert!((ours - expected).abs() < 1e-6, "{product:?}");
    }
}

#[test]
fn what_is_not_finite_makes_its_own_outputs_and_rows_not_finite() {
    fn assert_spreads<K: Microkernel>() {
        if !K::is_supported() {
            return;
        }
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = vec![1.; 3 * BLOCK];
            weights[BLOCK + 3] = bad;
            let mut x = vec![1.; 2 * BLOCK];
            let finite = |matrices: &Matrices| -> Vec<bool> {
                matrices.product::<K>(Epilogue::default()).iter().map(|y| y.is_finite()).collect()
            };
            let matrices = Matrices { inputs: BLOCK, weights, x: x.clone() };
            assert_eq!(finite(&matrices), [true, false, true, true, false, true]);
            x[BLOCK] = bad;
            let matrices = Matrices { weights: vec![1.; 3 * BLOCK], x, ..matrices };
            assert_eq!(finite(&matrices), [true, true, true, false, false, false]);
            let matrices = Matrices { weights: vec![bad; 3 * BLOCK], x: vec![1.; 2 * BLOCK], ..matrices };
            assert_eq!(finite(&matrices), [false; 6]);
        }
    }
    assert_spreads::<PortableInt8>();
    assert_spreads::<PortableInt13>();
    assert_spreads::<PortableF32>();
    #[cfg(target_arch = "x86_64")]
    {
        assert_spreads::<OffsetInt8>();
        assert_spreads::<Avx2Int8>();
        assert_spreads::<Avx2Int13>();
        assert_spreads::<Avx2F32>();
        assert_spreads::<AvxVnniInt8>();
        assert_spreads::<Avx512VnniInt8>();
        assert_spreads::<AvxVnniInt13>();
        assert_spreads::<Avx512VnniInt13>();
        assert_spreads::<Avx512F32>();
        assert_spreads::<AmxInt8>();
        assert_spreads::<AmxBf16>();
        assert_spreads::<AmxF32>();
        assert_spreads::<AmxBf16Weights>();
    }
    #[cfg(target_arch = "aarch64")]
    {
        assert_spreads::<DotInt8>();
        assert_spreads::<NeonF32>();
    }
}

/// Columns of numbers as weights give what the same numbers give as rows of weights.
#[test]
fn weights_may_come_in_columns() {
    fn assert_same<K: ColumnKernel>() {
        if !K::is_supported() {
            return;
        }
        let (inputs, n) = (3 * BLOCK - 1, K::OUTPUTS);
        let matrices = Matrices::new((inputs, n, 3), 5, [1., 10., 0., 1e-3]);
        let columns: Vec<f32> = (0..inputs * n).map(|i| matrices.weights[i % n * inputs + i / n]).collect();
        let mut by_row = Aligned::zeros(K::padded(inputs) * n);
        let blocks = inputs.div_ceil(K::BLOCK);
        let (mut row_scales, mut first) = (Aligned::zeros(blocks * n), vec![0; blocks * n]);
        pack_panel::<K>(matrices.weights.chunks(inputs), &mut by_row, &mut row_scales, &mut first);
        let (mut weights, mut scales) = (Aligned::default(), Aligned::default());
        let (by_column, scales) = K::columns(&columns, &mut weights, &mut scales);
        let x: Vec<&[f32]> = matrices.x.chunks(inputs).collect();
        let x = pack_rows::<K>(&x, inputs);
        let sums = |weights: &[K::Weight], scales: &[f32]| {
            let mut sums = vec![0.; 3 * n];
            let tile = Tile { x: &x.words, x_scales: &x.scales, weights, scales, first: &[] };
            K::add(3, tile, &mut sums);
            sums
        };
        assert_eq!(sums(&by_row, &row_scales), sums(by_column, scales), "{}", K::NAME);
    }
    assert_same::<PortableInt13>();
    assert_same::<PortableF32>();
    #[cfg(target_arch = "x86_64")]
    {
        assert_same::<Avx2Int13>();
        assert_same::<AvxVnniInt13>();
        assert_same::<Avx512VnniInt13>();
        assert_same::<Avx2F32>();
        assert_same::<Avx512F32>();
        assert_same::<AmxBf16>();
        assert_same::<AmxF32>();
        assert_same::<AmxBf16Weights>();
    }
}
