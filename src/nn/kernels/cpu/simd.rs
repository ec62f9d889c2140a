//! Function multiversioning, and reductions that compile to vector instructions.

use std::{array, hint::black_box};

/// Independent partial sums of a reduction: enough to fill the vector units. 32 lanes of f32 are two AVX-512 or four
/// AVX2 registers.
pub const LANES: usize = 32;

/// Compiles a function for AVX-512, for AVX2, and for the baseline of the target. A call runs the best version that the
/// processor supports. In the body, `FMA` says whether that has an instruction for `a * b + c`.
macro_rules! multiversion {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block) => {
        $(#[$doc])*
        pub fn $name($($arg: $type),*) $(-> $out)? {
            #[inline(always)]
            fn portable<const FMA: bool>($($arg: $type),*) $(-> $out)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f")]
                fn avx512($($arg: $type),*) $(-> $out)? { portable::<true>($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $type),*) $(-> $out)? { portable::<true>($($arg),*) }
                if is_x86_feature_detected!("avx512f") {
                    // SAFETY: the processor supports it.
                    return unsafe { avx512($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor supports it.
                    return unsafe { avx2($($arg),*) };
                }
            }
            portable::<{ cfg!(target_arch = "aarch64") }>($($arg),*)
        }
    };
}

pub(super) use multiversion;

/// e^x with an error of about one unit in the last place, without branches. It uses Cody and Waite's range reduction to
/// |r| <= ln 2 / 2 and the polynomial of Cephes (`expf.c`). `x` is clamped to -87 to 88; NaN
/// stays NaN. `FMA` is that of [`multiversion`].
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    // 1.5 * 2^23: adding it leaves the nearest integer in the low bits of the mantissa.
    const ROUND: f32 = 12_582_912.;
    let x = if x < -87. { -87. } else { x };
    let x = if x > 88. { 88. } else { x };
    let shifted = times_plus::<FMA>(x, std::f32::consts::LOG2_E, ROUND);
    let n = shifted - ROUND;
    let r = times_plus::<FMA>(n, 2.121_944_4e-4, times_plus::<FMA>(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for c in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
        p = times_plus::<FMA>(p, r, c);
    }
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1f32.to_bits()));
    (times_plus::<FMA>(p * r, r, r) + 1.) * two_to_n
}

/// `a * b + c`, rounded once if `FMA`. Without an instruction for it that would take a call.
#[inline(always)]
pub fn times_plus<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// `x * sigmoid(y)`. `FMA` is that of [`multiversion`].
#[inline(always)]
pub fn sigmoid_gated<const FMA: bool>(x: f32, y: f32) -> f32 {
    x / (1. + exp::<FMA>(-y))
}

/// The sum of all lanes, added in halves as vector units do.
#[inline(always)]
pub fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    // Stored as they are: otherwise the compiler arranges the loop that accumulates them after these halves, two lanes
    // to an instruction, which can take four times as long.
    let lanes = black_box(lanes);
    let mut lanes: [f32; LANES / 2] = array::from_fn(|i| lanes[i] + lanes[i + LANES / 2]);
    let mut width = LANES / 4;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The sum of `f(x)` over all values.
#[inline(always)]
pub fn sum(values: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = values.as_chunks::<LANES>();
    let mut lanes = [0f32; LANES];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += f(x);
        }
    }
    sum_lanes(lanes) + rest.iter().map(|&x| f(x)).sum::<f32>()
}
