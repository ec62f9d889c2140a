//! Which token follows, by the scores of all of them. Equal to the reference's (transformers 5.23.0,
//! `generation/logits_process.py`) in which tokens can be drawn; the random numbers are others.

use std::collections::BTreeSet;

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use super::error::Result;

/// How the next token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenSampling {
    /// The scores of tokens that have occurred are divided by this, or multiplied where they are below 0. 1: they stay.
    pub repetition_penalty: f64,
    /// How the token is drawn. `None`: the one with the highest score is taken.
    pub draw: Option<Draw>,
    /// How many of the most likely tokens are told beside the chosen one. `None`: no probabilities are.
    pub logprobs: Option<usize>,
}

/// The tokens that may follow: one bit each, 32 in a word, the lowest first. At least one may.
pub type TokenMask = Vec<u32>;

/// A chosen token.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// The token.
    pub id: u32,
    /// How likely it was, if that is asked for.
    pub likelihood: Option<Likelihood>,
}

/// Logarithms of probabilities among all tokens, before penalties, masks and temperature.
#[derive(Clone, Debug, PartialEq)]
pub struct Likelihood {
    /// Of the chosen token.
    pub logprob: f32,
    /// The most likely tokens and theirs, the most likely first.
    pub top: Vec<(u32, f32)>,
}

/// How a token is drawn: after the scores are divided by `temperature`, from those that `top_k` and then `top_p` leave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Above 0.
    pub temperature: f64,
    /// So many of the highest scores are left; those that equal the last of them, too. 0: all.
    pub top_k: usize,
    /// The most likely tokens that together have this probability are left; one at least. 1: all.
    pub top_p: f64,
    /// Of the random numbers.
    pub seed: u64,
}

impl TokenSampling {
    /// The token with the highest score.
    pub const GREEDY: Self = Self { repetition_penalty: 1.0, draw: None, logprobs: None };
}

/// Chooses the tokens of one sequence.
pub struct TokenSampler {
    repetition_penalty: f32,
    draw: Option<(Draw, LogitsProcessor)>,
    logprobs: Option<usize>,
    /// The tokens that have occurred; empty if they make no difference.
    seen: BTreeSet<u32>,
}

impl TokenSampler {
    /// A sampler for a sequence that begins with these tokens.
    pub fn new(sampling: TokenSampling, prompt: &[u32]) -> Self {
        let draw = sampling.draw.map(|draw| {
            let random = LogitsProcessor::from_sampling(draw.seed, Sampling::All { temperature: 1.0 });
            (draw, random)
        });
        let penalises = sampling.repetition_penalty != 1.0;
        let seen = if penalises { prompt.iter().copied().collect() } else { BTreeSet::new() };
        let repetition_penalty = sampling.repetition_penalty as f32;
        Self { repetition_penalty, draw, logprobs: sampling.logprobs, seen }
    }

    /// Chooses the next token, among those of `mask` if there is one. `highest`: the token with the highest score;
    /// `scores` gives the scores of all tokens.
    ///
    /// # Errors
    /// When the device fails.
    pub fn choose(
        &mut self,
        argmax: u32,
        mask: Option<&TokenMask>,
        scores: impl FnOnce() -> Result<Vec<f32>>,
    ) -> Result<Choice> {
        let penalises = self.repetition_penalty != 1.0;
        if !penalises && self.draw.is_none() && self.logprobs.is_none() && mask.is_none() {
            return Ok(Choice { id: argmax, likelihood: None });
        }
        let mut scores = scores()?;
        // Whoever completes the sequence sees that its scores are no numbers.
        if scores.iter().any(|score| !score.is_finite()) {
            return Ok(Choice { id: argmax, likelihood: None });
        }
        let logprobs = self.logprobs.map(|top| (top, log_softmax(&scores)));
        for id in &self.seen {
            let score = &mut scores[*id as usize];
            *score = if *score < 0.0 {
                *score * self.repetition_penalty
            } else {
                *score / self.repetition_penalty
            };
        }
        if let Some(mask) = mask {
            let allowed = |id: usize| mask.get(id / 32).is_some_and(|word| word >> (id % 32) & 1 == 1);
            let refused = scores.iter_mut().enumerate().filter(|(id, _)| !allowed(*id));
            refused.for_each(|(_, score)| *score = f32::NEG_INFINITY);
        }
        let id = match &mut self.draw {
            None => highest(&scores),
            Some((draw, random)) => {
                draw.keep(&mut scores);
                random.sample(&Tensor::new(scores, &Device::Cpu)?)?
            }
        };
        if penalises {
            self.seen.insert(id);
        }
        let likelihood = logprobs.map(|(top, logprobs)| Likelihood {
            logprob: logprobs[id as usize],
            top: most_likely(&logprobs, top),
        });
        Ok(Choice { id, likelihood })
    }
}

/// The logarithms of the probabilities that the scores stand for.
pub fn log_softmax(scores: &[f32]) -> Vec<f32> {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|score| f64::from(score - most).exp()).sum();
    scores.iter().map(|score| (f64::from(score - most) - sum.ln()) as f32).collect()
}

/// The `count` most likely tokens, the most likely first; of equals the lower id.
fn most_likely(logprobs: &[f32], count: usize) -> Vec<(u32, f32)> {
    let mut ids: Vec<usize> = (0..logprobs.len()).collect();
    let count = count.min(ids.len());
    let order = |a: &usize, b: &usize| logprobs[*b].total_cmp(&logprobs[*a]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, order);
        ids.truncate(count);
    }
    ids.sort_by(order);
    ids.into_iter().map(|id| (id as u32, logprobs[id])).collect()
}

/// The first token with the highest score.
fn highest(scores: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (0..scores.len()).reduce(better).unwrap_or_default() as u32
}

impl Draw {
    /// Divides the scores by the temperature, and sets those that cannot be drawn to minus infinity.
    fn keep(&self, scores: &mut [f32]) {
        // Less the highest one, which changes no probability: a temperature near 0 makes no infinity of it.
        let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let warm = |score: f32| (f64::from(score - most) / self.temperature) as f32;
        scores.iter_mut().for_each(|score| *score = warm(*score));
        let mut sorted = scores.to_vec();
        sorted.sort_by(|a, b| b.total_cmp(a));
        if self.top_k > 0 {
            let least = sorted[self.top_k.min(sorted.len()) - 1];
            sorted.retain(|score| *score >= least);
        }
        if self.top_p < 1.0 {
            let powers: Vec<f64> = sorted.iter().map(|score| f64::from(score - sorted[0]).exp()).collect();
            let all: f64 = powers.iter().sum();
            // A token stays if those before it do not have the probability yet.
            let mut before = 0.0;
            let stays = powers.iter().take_while(|power| {
                let stays = before / all < self.top_p;
                before += **power;
                stays
            });
            let count = stays.count().max(1);
            sorted.truncate(count);
        }
        let Some(least) = sorted.last().copied() else { return };
        scores.iter_mut().filter(|score| **score < least).for_each(|score| *score = f32::NEG_INFINITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(draw: Draw, scores: &[f32]) -> Vec<usize> {
        let mut scores = scores.to_vec();
        draw.keep(&mut scores);
        (0..scores.len()).filter(|i| scores[*i].is_finite()).collect()
    }

    #[test]
    fn only_the_most_likely_tokens_can_be_drawn() {
        // Probabilities 0.64, 0.24, 0.09, 0.03 in another order.
        let scores = [1.0, 3.0, 0.0, 2.0];
        let all = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };
        assert_eq!(kept(all, &scores), [0, 1, 2, 3]);
        assert_eq!(kept(Draw { top_k: 2, ..all }, &scores), [1, 3]);
        assert_eq!(kept(Draw { top_k: 2, ..all }, &[1.0, 1.0, 1.0]), [0, 1, 2]);
        assert_eq!(kept(Draw { top_p: 0.7, ..all }, &scores), [1, 3]);
        assert_eq!(kept(Draw { top_p: 0.0, ..all }, &scores), [1]);
        // Of those that are left by the first, the two most likely have 0.72 and 0.28.
        assert_eq!(kept(Draw { top_k: 2, top_p: 0.7, ..all }, &scores), [1]);
        // Near 0 only the most likely one is left.
        let mut cold = scores;
        Draw { temperature: 1e-40, ..all }.keep(&mut cold);
        assert_eq!(cold, [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY, f32::NEG_INFINITY]);
        // A high temperature makes them more alike.
        assert_eq!(kept(Draw { temperature: 100.0, top_p: 0.7, ..all }, &scores), [0, 1, 3]);
    }

    #[test]
    fn a_penalty_makes_tokens_that_occurred_less_likely() {
        let scores = || Ok(vec![2.0f32, 1.9, -1.0]);
        let penalty = TokenSampling { repetition_penalty: 1.2, ..TokenSampling::GREEDY };
        let mut sampler = TokenSampler::new(penalty, &[0]);
        assert_eq!([(); 3].map(|()| sampler.choose(0, None, scores).unwrap().id), [1, 0, 0]);
        let drawn = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };
        let mut sampler = TokenSampler::new(TokenSampling { draw: Some(drawn), ..penalty }, &[0]);
        let broken = || Ok(vec![f32::NAN, f32::INFINITY, 1.0]);
        assert_eq!(sampler.choose(1, None, broken).unwrap().id, 1);
    }

    #[test]
    fn a_token_outside_the_mask_is_never_chosen_and_changes_no_probability() {
        let scores = || Ok(vec![0.0f32, 3.0, 1.0, 2.0]);
        let asked = TokenSampling { logprobs: Some(2), ..TokenSampling::GREEDY };
        let mask = vec![0b1001];
        let Choice { id, likelihood } = TokenSampler::new(asked, &[]).choose(1, Some(&mask), scores).unwrap();
        let Likelihood { logprob, top } = likelihood.unwrap();
        assert_eq!(id, 3);
        assert!((logprob - -1.440_189_7).abs() < 1e-6, "{logprob}");
        assert_eq!(top.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 3]);
        assert!((top[0].1 - -0.440_189_7).abs() < 1e-6, "{top:?}");
        let drawn = Draw { temperature: 100.0, top_k: 0, top_p: 1.0, seed: 3 };
        let mut sampler = TokenSampler::new(TokenSampling { draw: Some(drawn), ..asked }, &[]);
        for _ in 0..50 {
            assert!([0, 3].contains(&sampler.choose(1, Some(&mask), scores).unwrap().id));
        }
        // Without wishes the scores are not even read.
        let unread = || candle_core::bail!("they were read");
        assert_eq!(TokenSampler::new(TokenSampling::GREEDY, &[0]).choose(7, None, unread).unwrap().id, 7);
    }
}
