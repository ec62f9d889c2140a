//! How fast the device really is at the two things that a model is made of, measured: multiplying
//! matrices, and moving memory. What the model reaches is held against these, not against a data sheet.

use std::{hint::black_box, time::Instant};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{Result, device::Chosen};

/// Sides of the square matrices: large enough that nothing but arithmetic counts.
const SIDE_CPU: usize = 3072;
const SIDE_GPU: usize = 8192;
/// Bytes that are moved: far more than any cache holds.
const BYTES_CPU: usize = 1 << 29;
const BYTES_GPU: usize = 1 << 30;
/// Repetitions between two looks at the clock: a GPU is asked for many at once, for the look waits for it.
const AT_ONCE_CPU: usize = 1;
const AT_ONCE_GPU: usize = 50;
/// Looks at the clock. The fastest counts: nothing makes a device faster than it is.
const LOOKS: usize = 6;

/// What the device reaches.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Floating-point operations a second in the product of two large matrices of the model's own
    /// number format; a multiplication and an addition are two.
    pub matrix: f64,
    /// Bytes a second. On a GPU those that a large copy reads and writes, on the CPU those that all
    /// threads together read.
    pub memory: f64,
}

impl Rates {
    /// Takes a few seconds.
    pub fn measure(chosen: &Chosen) -> Result<Self> {
        let device = &chosen.device;
        let side = if device.is_cpu() { SIDE_CPU } else { SIDE_GPU };
        // Random numbers: a chip that multiplies zeros stays cool, and faster than it ever is at work.
        let matrix = Tensor::randn(0f32, 1., (side, side), device)?.to_dtype(chosen.dtype)?;
        let matrix = fastest(device, || matrix.matmul(&matrix).map(drop))?;
        let memory = if device.is_cpu() { read()? } else { copy(device)? };
        Ok(Self { matrix: 2. * (side as f64).powi(3) / matrix, memory })
    }
}

/// Bytes a second that all threads together read.
fn read() -> Result<f64> {
    let words = vec![1u64; BYTES_CPU / size_of::<u64>()];
    let seconds = fastest(&Device::Cpu, || {
        let sum = |part: &[u64]| part.iter().fold(0u64, |sum, word| sum.wrapping_add(*word));
        black_box(black_box(&words).par_chunks(1 << 16).map(sum).reduce(|| 0, u64::wrapping_add));
        Ok(())
    })?;
    Ok(BYTES_CPU as f64 / seconds)
}

/// Bytes a second that a copy within the device's memory reads and writes.
fn copy(device: &Device) -> Result<f64> {
    let from = Tensor::zeros(BYTES_GPU / DType::F32.size_in_bytes(), DType::F32, device)?;
    Ok(2. * BYTES_GPU as f64 / fastest(device, || from.copy().map(drop))?)
}

/// Seconds that `work` takes at its fastest, after once for warming up.
fn fastest(device: &Device, work: impl Fn() -> Result<()>) -> Result<f64> {
    let times = if device.is_cpu() { AT_ONCE_CPU } else { AT_ONCE_GPU };
    work()?;
    let mut fastest = f64::INFINITY;
    for _ in 0..LOOKS {
        device.synchronize()?;
        let start = Instant::now();
        for _ in 0..times {
            work()?;
        }
        device.synchronize()?;
        fastest = fastest.min(start.elapsed().as_secs_f64() / times as f64);
    }
    Ok(fastest)
}
