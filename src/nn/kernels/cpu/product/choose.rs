//! The best micro-kernel of this processor.

use std::sync::LazyLock;

#[cfg(target_arch = "aarch64")]
use super::aarch64::{DotInt8, NeonBf16, NeonF32};
#[cfg(target_arch = "x86_64")]
use super::amx::{AmxBf16, AmxBf16Weights, AmxF32, AmxInt8};
#[cfg(target_arch = "x86_64")]
use super::x86::{
    Avx2Bf16, Avx2F32, Avx2Int8, Avx2Int13, Avx512Bf16, Avx512F32, Avx512VnniInt8, Avx512VnniInt13,
    AvxVnniInt8, AvxVnniInt13,
};
use super::{
    float::{PortableBf16, PortableF32},
    format::{Numbers, RowCount, is_bf16},
    integer::{PortableInt8, PortableInt13},
    microkernel::{ColumnKernel, Microkernel},
    packed::{Packed, PackedWeights},
};

/// `CAMSCRIBE_INSTRUCTIONS`, to measure and to test what other processors run: the names of the instructions that may be
/// used, with commas between them. `portable` always may.
static ALLOWED: LazyLock<Option<Vec<String>>> = LazyLock::new(|| {
    let names = std::env::var("CAMSCRIBE_INSTRUCTIONS").ok()?;
    Some(names.split(',').map(|name| name.trim().to_lowercase()).collect())
});

fn may_run<K: Microkernel>() -> bool {
    let allowed = |names: &Vec<String>| names.contains(&K::NAME.to_lowercase());
    K::is_supported() && ALLOWED.as_ref().is_none_or(allowed)
}

/// Evaluates an expression with the first of these micro-kernels that the processor supports as the type `K`.
macro_rules! first_supported {
    ($K:ident: $($kernel:ident)*; $last:ident => $expression:expr) => {
        $(if may_run::<$kernel>() {
            type $K = $kernel;
            $expression
        } else)* {
            type $K = $last;
            $expression
        }
    };
}

/// Evaluates an expression with the best micro-kernel for 8-bit weights as the type `K`.
macro_rules! best_int8 {
    ($K:ident => $expression:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let value = first_supported!($K: AmxInt8 Avx512VnniInt8 AvxVnniInt8 Avx2Int8; PortableInt8 => $expression);
        #[cfg(target_arch = "aarch64")]
        let value = first_supported!($K: DotInt8; PortableInt8 => $expression);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let value = first_supported!($K:; PortableInt8 => $expression);
        value
    }};
}

/// The same for f32 weights.
macro_rules! best_f32 {
    ($K:ident => $expression:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let value = first_supported!($K: Avx512F32 Avx2F32; PortableF32 => $expression);
        #[cfg(target_arch = "aarch64")]
        let value = first_supported!($K: NeonF32; PortableF32 => $expression);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let value = first_supported!($K:; PortableF32 => $expression);
        value
    }};
}

/// The same for bf16 weights.
macro_rules! best_bf16 {
    ($K:ident => $expression:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let value = first_supported!($K: AmxBf16Weights Avx512Bf16 Avx2Bf16; PortableBf16 => $expression);
        #[cfg(target_arch = "aarch64")]
        let value = first_supported!($K: NeonBf16; PortableBf16 => $expression);
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let value = first_supported!($K:; PortableBf16 => $expression);
        value
    }};
}

/// The same for attention under 8-bit weights: with bf16 where AMX multiplies it, else with integers. They have 13 bits:
/// rounding to them costs less than bf16 would.
macro_rules! best_attention {
    ($K:ident => $expression:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let value = first_supported!($K: AmxBf16 Avx512VnniInt13 AvxVnniInt13 Avx2Int13; PortableInt13 => $expression);
        #[cfg(not(target_arch = "x86_64"))]
        let value = first_supported!($K:; PortableInt13 => $expression);
        value
    }};
}

/// The best micro-kernel for attention with f32.
macro_rules! best_f32_attention {
    ($K:ident => $expression:expr) => {{
        #[cfg(target_arch = "x86_64")]
        let value = first_supported!($K: AmxF32 Avx512F32 Avx2F32; PortableF32 => $expression);
        #[cfg(not(target_arch = "x86_64"))]
        let value = best_f32!($K => $expression);
        value
    }};
}

fn boxed<K: Microkernel>(parts: &[&[f32]], inputs: usize) -> Box<dyn PackedWeights> {
    Box::new(Packed::<K>::new(parts, inputs))
}

/// Packs weights, `(outputs, inputs)` each, as the outputs of one matrix, side by side, for the best micro-kernel.
///
/// Weights whose products always have many rows are held in bf16 in place of 8 bits where there is AMX: it multiplies that
/// as fast as 8-bit by 16-bit integers, needs no scales, and rounds less.
pub fn pack(parts: &[&[f32]], inputs: usize, numbers: Numbers, rows: RowCount) -> Box<dyn PackedWeights> {
    #[cfg(not(target_arch = "x86_64"))]
    let _ = rows;
    let narrow = || parts.iter().all(|part| part.iter().all(|number| is_bf16(*number)));
    match numbers {
        #[cfg(target_arch = "x86_64")]
        Numbers::Int8 if rows == RowCount::Many && may_run::<AmxBf16>() => boxed::<AmxBf16>(parts, inputs),
        Numbers::Int8 => best_int8!(K => boxed::<K>(parts, inputs)),
        Numbers::Exact if narrow() => best_bf16!(K => boxed::<K>(parts, inputs)),
        Numbers::Exact => best_f32!(K => boxed::<K>(parts, inputs)),
    }
}

/// The instructions that products with such weights use on this processor.
pub fn instructions(numbers: Numbers) -> &'static str {
    match numbers {
        Numbers::Int8 => best_int8!(K => K::NAME),
        Numbers::Exact => best_bf16!(K => K::NAME),
    }
}

/// What is done with a micro-kernel for attention.
pub trait WithKernel {
    /// Does it.
    fn run<K: ColumnKernel>(self);
}

/// Does `work` with the best micro-kernel for attention.
pub fn with_best(numbers: Numbers, work: impl WithKernel) {
    match numbers {
        Numbers::Int8 => best_attention!(K => work.run::<K>()),
        Numbers::Exact => best_f32_attention!(K => work.run::<K>()),
    }
}
