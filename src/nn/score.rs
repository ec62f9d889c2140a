//! How likely tokens are at given places, without generating any: many continuations of one beginning. What they have in
//! common runs once; its keys and values serve all of them.

use candle_core::Tensor;

use super::{
    decoder::Decoder, embed::embed, error::Result, forward::forward_scoring, generate::SpecialTokens,
    kernels::Kernels, observer::ActivationObserver, sampler::log_softmax, sequence::KvCache,
};

/// Sequences that run at a time: each has a copy of the common keys and values.
const AT_A_TIME: usize = 16;

/// A sequence of which is asked what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scored {
    /// Its tokens.
    pub ids: Vec<u32>,
    /// After how many of the last tokens is asked what follows; at least 1, and at most all.
    pub last: usize,
}

/// The logarithms of the probabilities of all tokens after each of the `last` tokens of each sequence, in order. Every
/// sequence has the same images, whose `features` are `(image tokens of one sequence, width)`.
///
/// # Errors
/// When a sequence is empty, the features do not fit, the device fails, or the observer returns an error.
pub fn score(
    kernels: &dyn Kernels,
    (decoder, special): (&Decoder, &SpecialTokens),
    sequences: &[Scored],
    features: Option<&Tensor>,
    observe: ActivationObserver<'_>,
) -> Result<Vec<Vec<Vec<f32>>>> {
    if sequences.iter().any(|it| it.last == 0 || it.ids.len() < it.last) {
        candle_core::bail!("a sequence has nothing that could be scored");
    }
    let common = common(sequences);
    let image = special.image;
    let images = |ids: &[u32]| ids.iter().filter(|id| **id == image).count();
    let beginning = match sequences.first() {
        Some(first) if common > 0 => {
            let ids = &first.ids[..common];
            let mut cache = decoder.cache(vec![0], common)?;
            let x = embed(decoder, image, ids, features, 0..images(ids))?.unsqueeze(0)?;
            forward_scoring(kernels, decoder, x, &mut cache, 1, observe)?;
            Some(cache)
        }
        _ => None,
    };
    let mut scores = Vec::with_capacity(sequences.len());
    for sequences in sequences.chunks(AT_A_TIME) {
        // All end at the same slot. A shorter one begins later, and the end of the common beginning runs again for it.
        let own = sequences.iter().map(|it| it.ids.len() - common).max().unwrap_or(0);
        let starts: Vec<usize> = sequences.iter().map(|it| own + common - it.ids.len()).collect();
        let mut cache = continued(decoder, beginning.as_ref(), common, own, &starts)?;
        let (mut ids, mut rows) = (Vec::new(), Vec::new());
        for (it, start) in sequences.iter().zip(&starts) {
            let from = common.saturating_sub(*start);
            ids.extend(std::iter::repeat_n(special.pad, start.saturating_sub(common)));
            ids.extend_from_slice(&it.ids[from..]);
            let before = images(&it.ids[..from]);
            rows.extend(before..before + images(&it.ids[from..]));
        }
        let x = embed(decoder, image, &ids, features, rows)?.reshape((sequences.len(), own, ()))?;
        let last = sequences.iter().map(|it| it.last).max().unwrap_or(1);
        let logits = forward_scoring(kernels, decoder, x, &mut cache, last, observe)?.to_vec3::<f32>()?;
        for (it, logits) in sequences.iter().zip(logits) {
            scores.push(logits[last - it.last..].iter().map(|logits| log_softmax(logits)).collect());
        }
    }
    Ok(scores)
}

/// How many tokens at the beginning all sequences have in common, before those after which is asked what follows.
fn common(sequences: &[Scored]) -> usize {
    let Some((first, others)) = sequences.split_first() else { return 0 };
    let most = sequences.iter().map(|it| it.ids.len() - it.last).min().unwrap_or(0);
    let shared = |it: &Scored| first.ids.iter().zip(&it.ids).take_while(|(a, b)| a == b).count();
    others.iter().map(shared).fold(most, usize::min)
}

/// A cache of `common + own` slots with the beginning of each sequence in the slots from its start to `common`.
fn continued(
    decoder: &Decoder,
    beginning: Option<&KvCache>,
    common: usize,
    own: usize,
    starts: &[usize],
) -> Result<KvCache> {
    let mut cache = decoder.cache(starts.to_vec(), common + own)?;
    cache.len = common;
    for ((keys, values), (old_keys, old_values)) in
        cache.layers.iter().zip(beginning.iter().flat_map(|cache| &cache.layers))
    {
        for (row, start) in starts.iter().enumerate().filter(|(_, start)| **start < common) {
            let copy = |to: &Tensor, from: &Tensor| {
                to.narrow(0, row, 1)?.slice_set(&from.narrow(2, 0, common - start)?.contiguous()?, 2, *start)
            };
            copy(keys, old_keys)?;
            copy(values, old_values)?;
        }
    }
    Ok(cache)
}
