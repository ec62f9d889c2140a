//! Completes prompts, many at a time. Prompts that begin together run once as a whole (prefill) and join the batch;
//! then every sequence of the batch gets one token at a time (decode). A sequence leaves the batch when it has ended.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use candle_core::{D, Tensor};

use super::{
    decoder::Decoder,
    embed::embed,
    error::Result,
    forward::{decode_loop, forward},
    kernels::{DecodeLoop, Kernels, NextToken},
    observer::ActivationObserver,
    sampler::{Choice, TokenMask, TokenSampler, TokenSampling},
    sequence::KvCache,
};
use crate::event::FinishReason;

/// Ended sequences leave the batch when they are at least one in so many. On a GPU they cost less, and every
/// change of the batch captures a new graph.
const LEAVE_SHARE_CPU: usize = 4;
const LEAVE_SHARE_GPU: usize = 2;

/// Sequences may join the batch after so many steps. On a GPU, where every change of the batch captures a new graph,
/// these take some tens of milliseconds.
const JOIN_STEPS_CPU: usize = 1;
const JOIN_STEPS_GPU: usize = 8;

/// Tokens of each sequence that there is room for at a time. Answers are seldom as long as they may be.
const ROOM: usize = 256;

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

/// Sequences that begin together.
pub struct Group {
    /// The sequences.
    pub requests: Vec<GenerationRequest>,
    /// The vectors that replace the image tokens of all prompts, in order, `(image tokens, width)`; None if there are
    /// none.
    pub features: Option<Tensor>,
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

/// What a sequence does after a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It goes on.
    Continue,
    /// It ends here, as at a stop token.
    Stop,
}

/// Gives the sequences that are completed, and takes their tokens. A sequence's number counts those that were given
/// before it.
pub trait Sequences {
    /// The sequences that join now, beside `running` others; an empty group if there are none. When none are running
    /// either, the work is done.
    ///
    /// # Errors
    /// When the device fails.
    fn join(&mut self, running: usize) -> Result<Group>;

    /// Whether this sequence is not wanted any more. It leaves the batch, and has no end.
    fn is_cancelled(&self, number: usize) -> bool;

    /// The tokens that may follow. `None`: all.
    fn mask(&mut self, _number: usize) -> Option<TokenMask> {
        None
    }

    /// A token of a completion; never a stop token.
    fn token(&mut self, number: usize, choice: &Choice) -> Then;

    /// A sequence has ended.
    fn ended(&mut self, number: usize, completion: Result<Completion, NotFinite>);

    /// The prompts of these sequences have taken so long.
    fn prefilled(&mut self, numbers: Range<usize>, time: Duration);

    /// One step of these sequences has taken so long.
    fn stepped(&mut self, numbers: &[usize], time: Duration);
}

/// A sequence of the batch.
struct Row {
    number: usize,
    ids: Vec<u32>,
    max_tokens: usize,
    sampler: TokenSampler,
    /// The token that the next step appends.
    last: u32,
    /// It has ended, or nobody wants it.
    done: bool,
}

/// The sequences that are being completed.
struct Batch<'a> {
    rows: Vec<Row>,
    cache: KvCache,
    decode: Box<dyn DecodeLoop + 'a>,
}

/// What does not change while sequences come and go.
struct Generator<'a> {
    kernels: &'a dyn Kernels,
    decoder: &'a Decoder,
    special: &'a SpecialTokens,
}

/// Completes sequences until there are no more.
///
/// # Errors
/// When a prompt is empty, features are not as many as image tokens, the device fails, or the observer returns an
/// error.
pub fn generate(
    kernels: &dyn Kernels,
    (decoder, special): (&Decoder, &SpecialTokens),
    sequences: &mut dyn Sequences,
    observe: ActivationObserver<'_>,
) -> Result<()> {
    let generator = Generator { kernels, decoder, special };
    let on_cpu = decoder.embeddings.device().is_cpu();
    let (join_steps, share) =
        if on_cpu { (JOIN_STEPS_CPU, LEAVE_SHARE_CPU) } else { (JOIN_STEPS_GPU, LEAVE_SHARE_GPU) };
    let (mut batch, mut steps, mut given): (Option<Batch<'_>>, usize, usize) = (None, 0, 0);
    loop {
        for row in batch.iter_mut().flat_map(|batch| &mut batch.rows) {
            row.done |= sequences.is_cancelled(row.number);
        }
        let going = batch.iter().flat_map(|batch| &batch.rows).filter(|row| !row.done).count();
        if going == 0 {
            batch = None;
        }
        if going == 0 || steps.is_multiple_of(join_steps) {
            let group = sequences.join(going)?;
            if !group.requests.is_empty() {
                let numbers = given..given + group.requests.len();
                given = numbers.end;
                let alone = batch.is_none();
                let joining = generator.prefill(group, numbers, alone, sequences, observe)?;
                batch = generator.join(batch, joining)?;
                continue;
            }
        }
        let Some(running) = &mut batch else { return Ok(()) };
        let done = running.rows.len() - going;
        if done > 0 && done * share >= running.rows.len() {
            batch = batch.map(|batch| generator.leave(batch)).transpose()?;
        }
        if let Some(running) = &mut batch {
            if running.cache.is_full()? {
                batch = batch.map(|batch| generator.grow(batch)).transpose()?;
                continue;
            }
            generator.step(running, sequences, observe)?;
            steps += 1;
        }
    }
}

impl<'a> Generator<'a> {
    /// Runs the prompts of a group and chooses the first token of each. `alone`: it joins no others, so that its cache
    /// has room for all tokens that follow.
    fn prefill(
        &self,
        group: Group,
        numbers: Range<usize>,
        alone: bool,
        sequences: &mut dyn Sequences,
        observe: ActivationObserver<'_>,
    ) -> Result<(Vec<Row>, KvCache)> {
        let start = Instant::now();
        let Group { requests, features } = group;
        let slots = requests.iter().map(|r| r.ids.len()).max().unwrap_or(0);
        if requests.iter().any(|r| r.ids.is_empty()) {
            candle_core::bail!("a prompt is empty");
        }
        let positions = self.decoder.config.max_position_embeddings;
        let row = |(request, number)| Row::new(request, number, positions);
        let mut rows: Vec<Row> = requests.iter().zip(numbers.clone()).map(row).collect();
        let starts = requests.iter().map(|r| slots - r.ids.len()).collect();
        let longest = rows.iter().map(|row| row.max_tokens).max().unwrap_or(0);
        let mut cache = self.decoder.cache(starts, if alone { slots + longest.min(ROOM) } else { slots })?;
        let padding = |ids: &[u32]| std::iter::repeat_n(self.special.pad, slots - ids.len());
        let ids: Vec<u32> =
            requests.iter().flat_map(|it| padding(&it.ids).chain(it.ids.iter().copied())).collect();
        let images = ids.iter().filter(|id| **id == self.special.image).count();
        let given = features.as_ref().map_or(0, |features| features.dims()[0]);
        if images != given {
            candle_core::bail!("the prompts have {images} image tokens, the images {given}");
        }
        let x = embed(self.decoder, self.special.image, &ids, features.as_ref(), 0..images)?;
        let x = x.reshape((requests.len(), slots, ()))?;
        let next = NextToken::of(forward(self.kernels, self.decoder, x, &mut cache, observe)?)?;
        let all: Vec<usize> = (0..rows.len()).collect();
        for i in not_finite(&next.logits, &all)? {
            rows[i].done = true;
            sequences.ended(rows[i].number, Err(NotFinite));
        }
        sequences.prefilled(numbers, start.elapsed());
        for row in &mut rows {
            if !row.done && row.max_tokens == 0 {
                row.done = true;
                let completion = Completion { ids: Vec::new(), finish_reason: FinishReason::Length };
                sequences.ended(row.number, Ok(completion));
            }
        }
        self.take_tokens(&mut rows, &next, sequences)?;
        Ok((rows, cache))
    }

    /// The batch with these sequences, and without those that are done. None if all are.
    fn join(
        &self,
        batch: Option<Batch<'a>>,
        (mut rows, mut cache): (Vec<Row>, KvCache),
    ) -> Result<Option<Batch<'a>>> {
        let kept = going(&rows);
        match batch {
            // The loop holds tensors of the old batch: it is dropped before the caches are copied.
            Some(Batch { rows: mut old_rows, cache: old_cache, .. }) => {
                let mut parts = vec![(old_cache, going(&old_rows))];
                if !kept.is_empty() {
                    parts.push((cache, kept));
                }
                old_rows.append(&mut rows);
                rows = old_rows;
                rows.retain(|row| !row.done);
                let left = rows.iter().map(Row::tokens_left).max().unwrap_or(0);
                cache = KvCache::join(parts, left.min(ROOM))?;
            }
            None if kept.is_empty() => return Ok(None),
            None => {
                if kept.len() < rows.len() {
                    cache.keep(&kept)?;
                }
                rows.retain(|row| !row.done);
            }
        }
        let decode = decode_loop(self.kernels, self.decoder, &cache)?;
        Ok(Some(Batch { rows, cache, decode }))
    }

    /// The batch without the sequences that are done.
    fn leave(&self, Batch { mut rows, mut cache, decode }: Batch<'a>) -> Result<Batch<'a>> {
        // The loop holds tensors of the old batch: they are freed before the cache is copied.
        drop(decode);
        cache.keep(&going(&rows))?;
        rows.retain(|row| !row.done);
        let decode = decode_loop(self.kernels, self.decoder, &cache)?;
        Ok(Batch { rows, cache, decode })
    }

    /// The batch with room for more tokens, and without the sequences that are done.
    fn grow(&self, Batch { mut rows, cache, decode }: Batch<'a>) -> Result<Batch<'a>> {
        // The loop holds tensors of the old batch: they are freed before the cache is copied.
        drop(decode);
        let kept = going(&rows);
        rows.retain(|row| !row.done);
        let left = rows.iter().map(Row::tokens_left).max().unwrap_or(0);
        let cache = KvCache::join(vec![(cache, kept)], left.min(ROOM))?;
        let decode = decode_loop(self.kernels, self.decoder, &cache)?;
        Ok(Batch { rows, cache, decode })
    }

    /// Gives each sequence of the batch its next token.
    fn step(
        &self,
        batch: &mut Batch<'_>,
        sequences: &mut dyn Sequences,
        observe: ActivationObserver<'_>,
    ) -> Result<()> {
        let start = Instant::now();
        let numbers: Vec<usize> = batch.rows.iter().filter(|row| !row.done).map(|row| row.number).collect();
        let tokens: Vec<u32> = batch.rows.iter().map(|row| row.last).collect();
        let next = batch.decode.step(&tokens, &mut batch.cache, observe)?;
        self.take_tokens(&mut batch.rows, &next, sequences)?;
        sequences.stepped(&numbers, start.elapsed());
        Ok(())
    }

    /// Chooses the next token of each sequence that is not done.
    fn take_tokens(&self, rows: &mut [Row], next: &NextToken, sequences: &mut dyn Sequences) -> Result<()> {
        let mut ended = Vec::new();
        for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| !row.done) {
            let mask = sequences.mask(row.number);
            let scores = || next.logits.get(i)?.to_vec1();
            let choice = row.sampler.choose(next.argmax[i], mask.as_ref(), scores)?;
            row.last = choice.id;
            let reason = if self.special.stop.contains(&choice.id) {
                Some(FinishReason::Stop)
            } else {
                row.ids.push(choice.id);
                let full = row.ids.len() == row.max_tokens;
                match sequences.token(row.number, &choice) {
                    Then::Stop => Some(FinishReason::Stop),
                    Then::Continue => full.then_some(FinishReason::Length),
                }
            };
            if let Some(finish_reason) = reason {
                row.done = true;
                ended.push((i, finish_reason));
            }
        }
        // Once a score is not finite, all later scores of its sequence are not: it is enough to look at the end.
        let which: Vec<usize> = ended.iter().map(|(i, _)| *i).collect();
        let broken = not_finite(&next.logits, &which)?;
        for (i, finish_reason) in ended {
            let ids = std::mem::take(&mut rows[i].ids);
            let completion = Completion { ids, finish_reason };
            let completion = if broken.contains(&i) { Err(NotFinite) } else { Ok(completion) };
            sequences.ended(rows[i].number, completion);
        }
        Ok(())
    }
}

/// The indices of the sequences that are not done.
fn going(rows: &[Row]) -> Vec<usize> {
    (0..rows.len()).filter(|i| !rows[*i].done).collect()
}

/// Those of `which` whose scores are not all finite. `logits` is `(sequences, vocabulary)`.
fn not_finite(logits: &Tensor, which: &[usize]) -> Result<Vec<usize>> {
    if which.is_empty() {
        return Ok(Vec::new());
    }
    let sums = logits.sum(D::Minus1)?.to_vec1::<f32>()?;
    Ok(which.iter().copied().filter(|i| !sums[*i].is_finite()).collect())
}

impl Row {
    /// `positions`: the longest sequence that the model takes, prompt included.
    fn new(request: &GenerationRequest, number: usize, positions: usize) -> Self {
        let max_tokens = request.max_tokens.min(positions.saturating_sub(request.ids.len()));
        let sampler = TokenSampler::new(request.sampling, &request.ids);
        Self { number, ids: Vec::with_capacity(max_tokens), max_tokens, sampler, last: 0, done: false }
    }

    /// Most tokens that may still follow.
    fn tokens_left(&self) -> usize {
        self.max_tokens - self.ids.len()
    }
}

/// The completions of a batch and the time that they took.
#[derive(Default)]
pub struct Generated {
    /// In the order of the requests.
    pub completions: Vec<Result<Completion, NotFinite>>,
    /// The prompts' forward pass.
    pub prefill: Duration,
    /// All decode steps.
    pub decode: Duration,
}

/// Sequences that all begin together.
pub struct OneGroup {
    group: Option<Group>,
    completions: Vec<Option<Result<Completion, NotFinite>>>,
    generated: Generated,
}

impl OneGroup {
    /// The sequences of this group.
    pub fn new(group: Group) -> Self {
        let completions = vec![None; group.requests.len()];
        Self { group: Some(group), completions, generated: Generated::default() }
    }

    /// What has become of them, after [`generate`].
    pub fn generated(self) -> Generated {
        let completions = self.completions.into_iter().flatten().collect();
        Generated { completions, ..self.generated }
    }
}

impl Sequences for OneGroup {
    fn join(&mut self, _running: usize) -> Result<Group> {
        Ok(self.group.take().unwrap_or(Group { requests: Vec::new(), features: None }))
    }

    fn is_cancelled(&self, _number: usize) -> bool {
        false
    }

    fn token(&mut self, _number: usize, _choice: &Choice) -> Then {
        Then::Continue
    }

    fn ended(&mut self, number: usize, completion: Result<Completion, NotFinite>) {
        self.completions[number] = Some(completion);
    }

    fn prefilled(&mut self, _numbers: Range<usize>, time: Duration) {
        self.generated.prefill += time;
    }

    fn stepped(&mut self, _numbers: &[usize], time: Duration) {
        self.generated.decode += time;
    }
}
