//! Whether other operations than candle's compute what candle's do, on the model and the device that are
//! there: one picture and a few words are taken through both.

use candle_core::{D, DType, Tensor};

use super::{
    Result,
    config::ModelConfig,
    connector::Connector,
    ops::{Ops, Plain},
    text::Decoder,
    unwatched,
    vision::VisionTower,
};

/// Tokens of the rows of two batches: what runs few rows is not what runs many, and prompts go through in
/// several blocks.
const BATCHES: [&[usize]; 2] = [&[200, 20], &[150, 7, 1, 25, 133, 18]];
/// Steps of each batch: enough that they are recorded where that is done.
const STEPS: usize = 9;

/// The share from which on something is wrong: rounding makes a few hundredths in bf16, and what is wrong is
/// about as large as what is right.
pub fn too_far(dtype: DType) -> f32 {
    if dtype == DType::F32 { 1e-3 } else { 0.1 }
}

/// How far `ours` is from candle's operations: the mean difference as a share of the mean value, the largest
/// of everything that was compared.
pub fn apart(
    (vision, connector, decoder): (&VisionTower, &Connector, &Decoder),
    config: &ModelConfig,
    ours: &dyn Ops,
) -> Result<f32> {
    let tile: Vec<u8> = (0..vision.tile_bytes()).map(|i| (i * 31 % 251) as u8).collect();
    let see = |ops: &dyn Ops| connector.forward(ops, &vision.forward(ops, &tile, &mut unwatched)?);
    let mut most = share(&see(ours)?, &see(&Plain)?)?;
    for rows in BATCHES {
        for (ours, plain) in
            read(ours, decoder, config, rows)?.iter().zip(&read(&Plain, decoder, config, rows)?)
        {
            // Not `max`, which would lose what is no number.
            let apart = share(ours, plain)?;
            most = if apart <= most { most } else { apart };
        }
    }
    Ok(most)
}

/// The scores after prompts of so many tokens, and after each of some further words.
fn read(ops: &dyn Ops, decoder: &Decoder, config: &ModelConfig, rows: &[usize]) -> Result<Vec<Tensor>> {
    let slots = rows.iter().copied().max().unwrap_or(0);
    let mut cache = decoder.cache(rows.iter().map(|tokens| slots - tokens).collect(), slots + STEPS)?;
    let word = |i: usize| (i * 7919 % config.text.vocab_size) as u32;
    let words: Vec<u32> = (0..rows.len() * slots).map(word).collect();
    let vectors = decoder.embed(&words)?.reshape((rows.len(), slots, ()))?;
    let mut scores = vec![decoder.forward(ops, vectors, &mut cache, &mut unwatched)?];
    let mut steps = ops.steps(decoder, &cache)?;
    for step in 0..STEPS {
        let words: Vec<u32> = (0..rows.len()).map(|row| word(step * 100 + row)).collect();
        scores.push(match &mut steps {
            // The next step writes to the same place.
            Some(steps) => steps.step(&words, &mut cache)?.logits.copy()?,
            None => decoder.forward(ops, decoder.embed(&words)?.unsqueeze(1)?, &mut cache, &mut unwatched)?,
        });
    }
    Ok(scores)
}

fn share(ours: &Tensor, plain: &Tensor) -> Result<f32> {
    let (ours, plain) = (ours.to_dtype(DType::F32)?, plain.to_dtype(DType::F32)?);
    let mean = |x: Tensor| x.abs()?.flatten_all()?.mean(D::Minus1)?.to_scalar::<f32>();
    Ok(mean((&ours - &plain)?)? / mean(plain)?)
}
