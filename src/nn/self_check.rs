//! Checks that other kernels compute what candle's operations compute, with the loaded model on the device that
//! it runs on. The model runs the same input through both.

use candle_core::{D, DType, Tensor};

use super::{
    decoder::Decoder,
    error::Result,
    forward::{decode_loop, forward},
    kernels::{CandleKernels, Kernels},
    observer::no_observer,
};

/// Prompt lengths of two batches. A small batch takes other kernels than a large one, and the longest prompts take
/// several blocks of a kernel.
const BATCHES: [&[usize]; 2] = [&[200, 20], &[150, 7, 1, 25, 133, 18]];
/// Decode steps of each batch: enough for a step to be captured as a graph where that is done.
const STEPS: usize = 9;

/// Runs a model on given kernels with an input that is always the same, and returns the tensors to compare.
pub type Probe<'a> = &'a dyn Fn(&dyn Kernels) -> Result<Vec<Tensor>>;

/// The relative error from which on something is wrong. Rounding makes a few hundredths in bf16; an error in a kernel
/// makes about 1.
pub fn max_tolerated_error(dtype: DType) -> f32 {
    if dtype == DType::F32 { 1e-3 } else { 0.1 }
}

/// The largest relative error of `kernels` against candle's operations over the tensors of `probe`. The relative error
/// of a tensor is its mean absolute difference divided by the mean absolute value. NaN if any tensor has one.
///
/// # Errors
/// When the device fails.
pub fn max_relative_error(kernels: &dyn Kernels, probe: Probe<'_>) -> Result<f32> {
    let mut largest = 0f32;
    for (ours, reference) in probe(kernels)?.iter().zip(&probe(&CandleKernels)?) {
        let error = relative_error(ours, reference)?;
        // Not `f32::max`, which drops NaN.
        if error.is_nan() || error > largest {
            largest = error;
        }
        if largest.is_nan() {
            break;
        }
    }
    Ok(largest)
}

/// The scores after the prompts of `BATCHES` and after each decode step, with made-up tokens.
///
/// # Errors
/// When the device fails.
pub fn decoder_logits(kernels: &dyn Kernels, decoder: &Decoder) -> Result<Vec<Tensor>> {
    let mut all = Vec::new();
    for prompts in BATCHES {
        let (sequences, slots) = (prompts.len(), prompts.iter().copied().max().unwrap_or(0));
        let starts = prompts.iter().map(|tokens| slots - tokens).collect();
        let mut cache = decoder.cache(starts, slots + STEPS)?;
        let token = |i: usize| (i * 7919 % decoder.config.vocab_size) as u32;
        let ids: Vec<u32> = (0..sequences * slots).map(token).collect();
        let x = decoder.embed(&ids)?.reshape((sequences, slots, ()))?;
        all.push(forward(kernels, decoder, x, &mut cache, &mut no_observer)?);
        let mut decode = decode_loop(kernels, decoder, &cache)?;
        for step in 0..STEPS {
            let ids: Vec<u32> = (0..sequences).map(|i| token(step * 100 + i)).collect();
            all.push(decode.step(&ids, &mut cache, &mut no_observer)?.logits.copy()?);
        }
    }
    Ok(all)
}

fn relative_error(ours: &Tensor, reference: &Tensor) -> Result<f32> {
    let (ours, reference) = (ours.to_dtype(DType::F32)?, reference.to_dtype(DType::F32)?);
    let mean = |x: Tensor| x.abs()?.flatten_all()?.mean(D::Minus1)?.to_scalar::<f32>();
    Ok(mean((&ours - &reference)?)? / mean(reference)?)
}
