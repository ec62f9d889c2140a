//! Measures the device's peak rates: floating-point operations per second in a matrix product, and memory bandwidth.
//! The benchmark compares what a model reaches with these, not with a data sheet.

use std::{hint::black_box, time::Instant};

use candle_core::{DType, Device, Tensor};
use rayon::prelude::*;

use super::{device::ComputeTarget, error::Result};

/// Sides of the square matrices: large enough for arithmetic to dominate.
const SIDE_CPU: usize = 3072;
const SIDE_GPU: usize = 8192;
/// Bytes that are moved: far more than any cache holds.
const BYTES_CPU: usize = 1 << 29;
const BYTES_GPU: usize = 1 << 30;
/// Repetitions per timing. A GPU gets many at once, because reading the clock synchronises with it.
const REPETITIONS_CPU: usize = 1;
const REPETITIONS_GPU: usize = 50;
/// Timings. The fastest counts, because nothing makes a device faster than it is.
const TIMINGS: usize = 6;

/// Peak rates of a device.
#[derive(Clone, Copy, Debug)]
pub struct Roofline {
    /// Floating-point operations per second in the product of two large matrices in the model's number format. A
    /// multiplication and an addition count as two.
    pub matrix: f64,
    /// Bytes per second: on a GPU read and written by a large copy, on the CPU read by all threads together.
    pub memory: f64,
}

impl Roofline {
    /// Measures the rates, which takes a few seconds.
    ///
    /// # Errors
    /// When the device fails or has too little memory.
    pub fn measure(target: &ComputeTarget) -> Result<Self> {
        let device = &target.device;
        let side = if device.is_cpu() { SIDE_CPU } else { SIDE_GPU };
        // Random numbers: a chip that multiplies zeros stays cooler, and runs faster, than with real data.
        let matrix = Tensor::randn(0f32, 1., (side, side), device)?.to_dtype(target.dtype)?;
        let matrix = fastest(device, || matrix.matmul(&matrix).map(drop))?;
        let memory = if device.is_cpu() { read()? } else { copy(device)? };
        Ok(Self { matrix: 2. * (side as f64).powi(3) / matrix, memory })
    }
}

/// Bytes per second that all threads together read.
fn read() -> Result<f64> {
    let numbers = vec![1u64; BYTES_CPU / size_of::<u64>()];
    let seconds = fastest(&Device::Cpu, || {
        let sum = |part: &[u64]| part.iter().fold(0u64, |sum, number| sum.wrapping_add(*number));
        black_box(black_box(&numbers).par_chunks(1 << 16).map(sum).reduce(|| 0, u64::wrapping_add));
        Ok(())
    })?;
    Ok(BYTES_CPU as f64 / seconds)
}

/// Bytes per second that a copy within the device's memory reads and writes.
fn copy(device: &Device) -> Result<f64> {
    let from = Tensor::zeros(BYTES_GPU / DType::F32.size_in_bytes(), DType::F32, device)?;
    Ok(2. * BYTES_GPU as f64 / fastest(device, || from.copy().map(drop))?)
}

/// The shortest time of `work` in seconds, after one run to warm up.
fn fastest(device: &Device, work: impl Fn() -> Result<()>) -> Result<f64> {
    let times = if device.is_cpu() { REPETITIONS_CPU } else { REPETITIONS_GPU };
    work()?;
    let mut fastest = f64::INFINITY;
    for _ in 0..TIMINGS {
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
