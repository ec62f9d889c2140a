//! Completes prompts. A batch of prompts runs once as a whole (prefill), then one token per sequence at a time
//! (decode) until every sequence has ended. Sequences that have ended leave the batch when enough of them have.

use std::time::{Duration, Instant};

use candle_core::{D, Tensor};

use super::{
    decoder::Decoder,
    error::Result,
    forward::{decode_loop, forward},
    kernels::{Kernels, NextToken},
    observer::ActivationObserver,
    sampler::{TokenSampler, TokenSampling},
    sequence::indices,
};
use crate::event::FinishReason;

/// Ended sequences leave the batch when they are at least one in so many. On a GPU they cost less, and every
/// change of the batch captures a new graph.
const LEAVE_SHARE_CPU: usize = 4;
const LEAVE_SHARE_GPU: usize = 2;

/// One sequence of a batch.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// The prompt's tokens.
    pub ids: Vec<u32>,
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How its tokens are chosen.
    pub sampling: TokenSampling,
}

/// Tokens with a meaning of their own.
#[derive(Clone, Debug, PartialEq)]
pub struct SpecialTokens {
    /// Stands for one vector of an image's features.
    pub image: u32,
    /// Fills the left of shorter prompts in a batch. Must not be `image`.
    pub pad: u32,
    /// End a completion.
    pub stop: Vec<u32>,
}

/// A completed prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The generated tokens, without the stop token.
    pub ids: Vec<u32>,
    /// Why it ended.
    pub finish_reason: FinishReason,
}

/// A sequence's scores are not finite numbers.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "the model's scores are not finite numbers: the checkpoint is damaged, or too wide for f16 (use bf16 or f32)"
)]
pub struct NotFinite;

/// The completions of a batch and the time that they took.
pub struct Generated {
    /// In the order of the requests.
    pub completions: Vec<Result<Completion, NotFinite>>,
    /// The prompts' forward pass.
    pub prefill: Duration,
    /// All decode steps.
    pub decode: Duration,
}

/// Gets each token of an answer, with the number of its request.
pub type TokenObserver<'a> = &'a mut (dyn FnMut(usize, u32) + Send);

/// A sequence that is being completed.
struct Sequence {
    ids: Vec<u32>,
    max_tokens: usize,
    /// None for greedy sequences.
    sampler: Option<TokenSampler>,
    end: Option<Result<FinishReason, NotFinite>>,
}

/// Completes a batch of prompts. `features` holds the vectors that replace the image tokens of all prompts, in order,
/// `(image tokens, width)`; None if there are none. `on_token` gets each token of an answer as it is made, with the
/// number of its request.
///
/// # Errors
/// When a prompt is empty, the features are not as many as the image tokens, the device fails, or the observer
/// returns an error.
pub fn generate(
    kernels: &dyn Kernels,
    (decoder, special): (&Decoder, &SpecialTokens),
    requests: &[GenerationRequest],
    features: Option<&Tensor>,
    on_token: TokenObserver<'_>,
    observe: ActivationObserver<'_>,
) -> Result<Generated> {
    let start = Instant::now();
    let slots = requests.iter().map(|r| r.ids.len()).max().unwrap_or(0);
    if requests.iter().any(|r| r.ids.is_empty()) || slots == 0 {
        candle_core::bail!("a prompt is empty");
    }
    let positions = decoder.config.max_position_embeddings;
    let mut sequences: Vec<Sequence> = requests.iter().map(|r| Sequence::new(r, positions)).collect();
    let longest = sequences.iter().map(|it| it.max_tokens).max().unwrap_or(0);
    let starts = requests.iter().map(|r| slots - r.ids.len()).collect();
    let mut cache = decoder.cache(starts, slots + longest)?;
    let x = embed_prompts(decoder, special, requests, slots, features)?;
    let mut next = NextToken::of(forward(kernels, decoder, x, &mut cache, observe)?)?;
    // Indices of the sequences that are still in the batch.
    let mut batch: Vec<usize> = (0..sequences.len()).collect();
    for i in not_finite(&next.logits, &batch)? {
        sequences[i].end = Some(Err(NotFinite));
    }
    let prefill = start.elapsed();

    let start = Instant::now();
    let mut decode = decode_loop(kernels, decoder, &cache)?;
    let share = if decoder.embeddings.device().is_cpu() { LEAVE_SHARE_CPU } else { LEAVE_SHARE_GPU };
    loop {
        let NextToken { logits, argmax: mut tokens } = next;
        let mut ended = Vec::new();
        for (i, (sequence, token)) in batch.iter().zip(&mut tokens).enumerate() {
            let before = sequences[*sequence].ids.len();
            if sequences[*sequence].push(token, &logits, i, &special.stop)? {
                ended.push(i);
            }
            sequences[*sequence].ids[before..].iter().for_each(|id| on_token(*sequence, *id));
        }
        // Once a score is not finite, all later scores of its sequence are not: it is enough to look at the end.
        for i in not_finite(&logits, &ended)? {
            sequences[batch[i]].end = Some(Err(NotFinite));
        }
        let going: Vec<usize> = (0..batch.len()).filter(|i| sequences[batch[*i]].end.is_none()).collect();
        if going.is_empty() {
            break;
        }
        if (batch.len() - going.len()) * share >= batch.len() {
            // The loop holds tensors of the old batch: they are freed before the cache is copied.
            drop(decode);
            cache.keep(&going)?;
            tokens = going.iter().map(|i| tokens[*i]).collect();
            batch = going.iter().map(|i| batch[*i]).collect();
            decode = decode_loop(kernels, decoder, &cache)?;
        }
        next = decode.step(&tokens, &mut cache, observe)?;
    }
    let completions = sequences.into_iter().map(Sequence::completion).collect();
    Ok(Generated { completions, prefill, decode: start.elapsed() })
}

/// Those of `which` whose scores are not all finite. `logits` is `(sequences, vocabulary)`.
fn not_finite(logits: &Tensor, which: &[usize]) -> Result<Vec<usize>> {
    if which.is_empty() {
        return Ok(Vec::new());
    }
    let sums = logits.sum(D::Minus1)?.to_vec1::<f32>()?;
    Ok(which.iter().copied().filter(|i| !sums[*i].is_finite()).collect())
}

/// Embeds the left-padded prompts: `(sequences, slots, width)`. Each image token is replaced by the next vector of
/// `features`.
fn embed_prompts(
    decoder: &Decoder,
    special: &SpecialTokens,
    requests: &[GenerationRequest],
    slots: usize,
    features: Option<&Tensor>,
) -> Result<Tensor> {
    let mut ids = Vec::with_capacity(requests.len() * slots);
    for request in requests {
        ids.extend(std::iter::repeat_n(special.pad, slots - request.ids.len()));
        ids.extend_from_slice(&request.ids);
    }
    let is_image = |id: &u32| *id == special.image;
    let text: Vec<u32> = ids.iter().copied().filter(|id| !is_image(id)).collect();
    let (wanted, given) = (ids.len() - text.len(), features.map_or(0, |f| f.dims()[0]));
    if wanted != given {
        candle_core::bail!("the prompts have {wanted} image tokens, the images {given}");
    }
    let embeddings = decoder.embed(&text)?;
    let embeddings = match features {
        Some(features) => {
            // The features follow the text's embeddings in one table; every slot looks up its own row.
            let (mut next_text, mut next_image) = (0.., text.len()..);
            let row = |id| if is_image(id) { next_image.next() } else { next_text.next() };
            let rows: Vec<usize> = ids.iter().filter_map(row).collect();
            let rows = indices(&rows, features.device())?;
            Tensor::cat(&[&embeddings, features], 0)?.index_select(&rows, 0)?
        }
        None => embeddings,
    };
    embeddings.reshape((requests.len(), slots, ()))
}

impl Sequence {
    /// `positions`: the longest sequence that the model takes, prompt included.
    fn new(request: &GenerationRequest, positions: usize) -> Self {
        let max_tokens = request.max_tokens.min(positions.saturating_sub(request.ids.len()));
        let sampler = TokenSampler::new(request.sampling, &request.ids);
        let end = (max_tokens == 0).then_some(Ok(FinishReason::Length));
        Self { ids: Vec::with_capacity(max_tokens), max_tokens, sampler, end }
    }

    /// Appends the next token. `token` is the one with the highest score; a sequence with a sampler draws another one
    /// and writes it there. `index`: the sequence's row in `logits`. Returns whether the sequence has ended with it.
    fn push(&mut self, token: &mut u32, logits: &Tensor, index: usize, stop: &[u32]) -> Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        if let Some(sampler) = &mut self.sampler {
            *token = sampler.choose(&logits.get(index)?)?;
        }
        if stop.contains(token) {
            self.end = Some(Ok(FinishReason::Stop));
            return Ok(true);
        }
        self.ids.push(*token);
        if self.ids.len() == self.max_tokens {
            self.end = Some(Ok(FinishReason::Length));
        }
        Ok(self.end.is_some())
    }

    fn completion(self) -> Result<Completion, NotFinite> {
        let finish_reason = self.end.unwrap_or(Ok(FinishReason::Length))?;
        Ok(Completion { ids: self.ids, finish_reason })
    }
}
