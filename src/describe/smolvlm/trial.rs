//! Whether other operations than candle's compute what candle's do, on the model and the device that are
//! there: pictures and words are taken through both.

use candle_core::{D, DType, Tensor};

use super::{
    Result,
    config::ModelConfig,
    connector::Connector,
    ops::{Ops, Plain, steps},
    text::Decoder,
    unwatched,
    vision::VisionTower,
};

/// Pictures at a time: one, and as many as a pass usually has more than.
const TILES: [usize; 2] = [1, 2];
/// Tokens of the rows of two batches: what runs few rows is not what runs many, and prompts go through in
/// several blocks.
const BATCHES: [&[usize]; 2] = [&[200, 20], &[150, 7, 1, 25, 133, 18]];
/// Steps of each batch: enough that one is captured where that is done.
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
    let see = |ops: &dyn Ops, tiles: usize| {
        let tiles: Vec<u8> = (0..tiles * vision.tile_bytes()).map(|i| (i * 31 % 251) as u8).collect();
        connector.forward(ops, &vision.forward(ops, &tiles, &mut unwatched)?)
    };
    let mut apart = vec![];
    for tiles in TILES {
        apart.push(share(&see(ours, tiles)?, &see(&Plain, tiles)?)?);
    }
    for rows in BATCHES {
        let (ours, plain) = (read(ours, decoder, config, rows)?, read(&Plain, decoder, config, rows)?);
        for (ours, plain) in ours.iter().zip(&plain) {
            apart.push(share(ours, plain)?);
        }
    }
    // Not `max`, which would lose what is no number.
    let larger = |a: f32, b: f32| if b.is_nan() || b > a { b } else { a };
    Ok(apart.into_iter().fold(0., larger))
}

/// The scores after prompts of so many tokens, and after each of some further words.
fn read(ops: &dyn Ops, decoder: &Decoder, config: &ModelConfig, rows: &[usize]) -> Result<Vec<Tensor>> {
    let slots = rows.iter().copied().max().unwrap_or(0);
    let mut cache = decoder.cache(rows.iter().map(|tokens| slots - tokens).collect(), slots + STEPS)?;
    let word = |i: usize| (i * 7919 % config.text.vocab_size) as u32;
    let words: Vec<u32> = (0..rows.len() * slots).map(word).collect();
    let vectors = decoder.embed(&words)?.reshape((rows.len(), slots, ()))?;
    let mut scores = vec![decoder.forward(ops, vectors, &mut cache, &mut unwatched)?];
    let mut way = steps(ops, decoder, &cache)?;
    for step in 0..STEPS {
        let words: Vec<u32> = (0..rows.len()).map(|row| word(step * 100 + row)).collect();
        scores.push(way.step(&words, &mut cache, &mut unwatched)?.logits.copy()?);
    }
    Ok(scores)
}

fn share(ours: &Tensor, plain: &Tensor) -> Result<f32> {
    let (ours, plain) = (ours.to_dtype(DType::F32)?, plain.to_dtype(DType::F32)?);
    let mean = |x: Tensor| x.abs()?.flatten_all()?.mean(D::Minus1)?.to_scalar::<f32>();
    Ok(mean((&ours - &plain)?)? / mean(plain)?)
}
