//! From prompts to answers: a batch of prompts is run once as a whole (prefill), then one token at
//! a time (decode) until every row has said its stop token or is long enough. Rows that are done leave
//! the batch when enough of them are.

use std::time::{Duration, Instant};

use candle_core::{D, Tensor};
use candle_transformers::generation::LogitsProcessor;

use super::{
    Result, Watch,
    config::ModelConfig,
    ops::{Next, Ops, on_device, steps},
    text::Decoder,
};
use crate::event::FinishReason;

/// Rows that are done leave their batch when they are one in so many. They cost a GPU less, and when they
/// leave, it has to capture a new graph.
const DONE_CPU: usize = 4;
const DONE_GPU: usize = 2;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Sampling {
    /// The likeliest one.
    #[default]
    Greedy,
    /// Drawn from the likeliest that together hold a share `top_p` of the probability, after
    /// dividing the scores by `temperature`. The same seed draws the same.
    TopP { temperature: f64, top_p: f64, seed: u64 },
}

/// One row of a batch.
#[derive(Clone, Debug)]
pub struct Request {
    /// The prompt. Its `<image>` tokens are as many as the tokens of its tiles.
    pub ids: Vec<u32>,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    pub sampling: Sampling,
}

/// What the model answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Without the stop token.
    pub ids: Vec<u32>,
    pub finish_reason: FinishReason,
}

/// The scores of this row are not numbers: the number format is too narrow for the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error(
    "the model's scores are not finite numbers: the checkpoint is damaged, or too wide for f16 (use bf16 or f32)"
)]
pub struct NotFinite;

/// Answers of a batch, in order, and what they took.
pub struct Generated {
    pub answers: Vec<Result<Answer, NotFinite>>,
    pub prefill: Duration,
    pub decode: Duration,
}

/// A row whose answer is being made.
struct Row {
    answer: Vec<u32>,
    limit: usize,
    /// Nothing for greedy rows.
    sampler: Option<LogitsProcessor>,
    end: Option<Result<FinishReason, NotFinite>>,
}

/// Answers a batch. `features` holds what stands for the `<image>` tokens of all rows in order,
/// `(tokens, width)`; a batch without pictures has none.
pub fn generate(
    ops: &dyn Ops,
    (decoder, config): (&Decoder, &ModelConfig),
    requests: &[Request],
    features: Option<&Tensor>,
    watch: Watch<'_>,
) -> Result<Generated> {
    let start = Instant::now();
    let prompt = requests.iter().map(|r| r.ids.len()).max().unwrap_or(0);
    if requests.iter().any(|r| r.ids.is_empty()) || prompt == 0 {
        candle_core::bail!("a prompt is empty");
    }
    let mut rows: Vec<Row> =
        requests.iter().map(|r| Row::new(r, config.text.max_position_embeddings)).collect();
    let longest = rows.iter().map(|row| row.limit).max().unwrap_or(0);
    let starts = requests.iter().map(|r| prompt - r.ids.len()).collect();
    let mut cache = decoder.cache(starts, prompt + longest)?;
    let vectors = splice(decoder, config, requests, prompt, features)?;
    let mut next = Next::of(decoder.forward(ops, vectors, &mut cache, watch)?)?;
    // The rows that are still in the batch, by number.
    let mut batch: Vec<usize> = (0..rows.len()).collect();
    for i in not_finite(&next.logits, &batch)? {
        rows[i].end = Some(Err(NotFinite));
    }
    let prefill = start.elapsed();

    let start = Instant::now();
    let mut way = steps(ops, decoder, &cache)?;
    let one_in = if decoder.embeddings.device().is_cpu() { DONE_CPU } else { DONE_GPU };
    loop {
        let Next { logits, mut likeliest } = next;
        let mut ended = Vec::new();
        for (i, (row, token)) in batch.iter().zip(&mut likeliest).enumerate() {
            if rows[*row].push(token, &logits, i, &config.eos_token_ids)? {
                ended.push(i);
            }
        }
        // What is no number once is none any more.
        for i in not_finite(&logits, &ended)? {
            rows[batch[i]].end = Some(Err(NotFinite));
        }
        let going: Vec<usize> = (0..batch.len()).filter(|i| rows[batch[*i]].end.is_none()).collect();
        if going.is_empty() {
            break;
        }
        if (batch.len() - going.len()) * one_in >= batch.len() {
            // It holds on to what is left behind.
            drop(way);
            cache.keep(&going)?;
            likeliest = going.iter().map(|i| likeliest[*i]).collect();
            batch = going.iter().map(|i| batch[*i]).collect();
            way = steps(ops, decoder, &cache)?;
        }
        next = way.step(&likeliest, &mut cache, watch)?;
    }
    Ok(Generated { answers: rows.into_iter().map(Row::answer).collect(), prefill, decode: start.elapsed() })
}

/// Those of the rows `which` whose scores are not all numbers.
fn not_finite(logits: &Tensor, which: &[usize]) -> Result<Vec<usize>> {
    if which.is_empty() {
        return Ok(Vec::new());
    }
    let sums = logits.sum(D::Minus1)?.to_vec1::<f32>()?;
    Ok(which.iter().copied().filter(|row| !sums[*row].is_finite()).collect())
}

/// Vectors of the left-padded prompts, `(rows, slots, width)`, pictures in the places of `<image>`.
fn splice(
    decoder: &Decoder,
    config: &ModelConfig,
    requests: &[Request],
    slots: usize,
    features: Option<&Tensor>,
) -> Result<Tensor> {
    let mut ids = Vec::with_capacity(requests.len() * slots);
    for request in requests {
        ids.extend(std::iter::repeat_n(config.pad_token_id, slots - request.ids.len()));
        ids.extend_from_slice(&request.ids);
    }
    // The padding token is not `<image>`: `ModelConfig` takes none such.
    let image = |id: &u32| *id == config.image_token_id;
    let words: Vec<u32> = ids.iter().copied().filter(|id| !image(id)).collect();
    let (wanted, given) = (ids.len() - words.len(), features.map_or(0, |f| f.dims()[0]));
    if wanted != given {
        candle_core::bail!("the prompts have {wanted} image tokens, the pictures {given}");
    }
    let vectors = decoder.embed(&words)?;
    let vectors = match features {
        Some(features) => {
            // Behind the words come the pictures.
            let (mut word, mut picture) = (0.., words.len()..);
            let place = |id| if image(id) { picture.next() } else { word.next() };
            let places: Vec<usize> = ids.iter().filter_map(place).collect();
            let places = on_device(&places, features.device())?;
            Tensor::cat(&[&vectors, features], 0)?.index_select(&places, 0)?
        }
        None => vectors,
    };
    vectors.reshape((requests.len(), slots, ()))
}

impl Row {
    fn new(request: &Request, positions: usize) -> Self {
        let limit = request.max_tokens.min(positions.saturating_sub(request.ids.len()));
        let sampler = match request.sampling {
            Sampling::Greedy => None,
            Sampling::TopP { temperature, top_p, seed } => {
                Some(LogitsProcessor::new(seed, Some(temperature), Some(top_p)))
            }
        };
        let end = (limit == 0).then_some(Ok(FinishReason::Length));
        Self { answer: Vec::with_capacity(limit), limit, sampler, end }
    }

    /// Takes the next token: `token`, the likeliest, unless the row draws its own, which is then
    /// left there. Gives whether that was its last.
    fn push(&mut self, token: &mut u32, logits: &Tensor, index: usize, stop: &[u32]) -> Result<bool> {
        if self.end.is_some() {
            return Ok(false);
        }
        if let Some(sampler) = &mut self.sampler {
            *token = sampler.sample(&logits.get(index)?)?;
        }
        if stop.contains(token) {
            self.end = Some(Ok(FinishReason::Stop));
            return Ok(true);
        }
        self.answer.push(*token);
        if self.answer.len() == self.limit {
            self.end = Some(Ok(FinishReason::Length));
        }
        Ok(self.end.is_some())
    }

    fn answer(self) -> Result<Answer, NotFinite> {
        let finish_reason = self.end.unwrap_or(Ok(FinishReason::Length))?;
        Ok(Answer { ids: self.answer, finish_reason })
    }
}
