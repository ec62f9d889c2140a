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
    pub const GREEDY: Self = Self { repetition_penalty: 1.0, draw: None };
}

/// Chooses the tokens of one sequence.
pub struct TokenSampler {
    repetition_penalty: f32,
    draw: Option<(Draw, LogitsProcessor)>,
    /// The tokens that have occurred; empty if they make no difference.
    seen: BTreeSet<u32>,
}

impl TokenSampler {
    /// A sampler for a sequence that begins with these tokens. `None`: the highest score is taken as it is.
    pub fn new(sampling: TokenSampling, prompt: &[u32]) -> Option<Self> {
        let draw = sampling.draw.map(|draw| {
            let random = LogitsProcessor::from_sampling(draw.seed, Sampling::All { temperature: 1.0 });
            (draw, random)
        });
        let penalises = sampling.repetition_penalty != 1.0;
        let seen = if penalises { prompt.iter().copied().collect() } else { BTreeSet::new() };
        let repetition_penalty = sampling.repetition_penalty as f32;
        (penalises || draw.is_some()).then_some(Self { repetition_penalty, draw, seen })
    }

    /// Chooses the next token by the scores of all tokens, `(vocabulary)`.
    ///
    /// # Errors
    /// When the device fails.
    pub fn choose(&mut self, logits: &Tensor) -> Result<u32> {
        let mut scores = logits.to_vec1::<f32>()?;
        for id in &self.seen {
            let score = &mut scores[*id as usize];
            *score = if *score < 0.0 {
                *score * self.repetition_penalty
            } else {
                *score / self.repetition_penalty
            };
        }
        let token = match &mut self.draw {
            // Whoever completes the sequence sees that its scores are no numbers.
            _ if scores.iter().any(|score| !score.is_finite()) => highest(&scores),
            None => highest(&scores),
            Some((draw, random)) => {
                draw.keep(&mut scores);
                random.sample(&Tensor::new(scores, &Device::Cpu)?)?
            }
        };
        if self.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        Ok(token)
    }
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
        let logits = Tensor::new(&[2.0f32, 1.9, -1.0], &Device::Cpu).unwrap();
        assert!(TokenSampler::new(TokenSampling::GREEDY, &[0]).is_none());
        let penalty = TokenSampling { repetition_penalty: 1.2, draw: None };
        let mut sampler = TokenSampler::new(penalty, &[0]).unwrap();
        assert_eq!([(); 3].map(|()| sampler.choose(&logits).unwrap()), [1, 0, 0]);
        let drawn = Draw { temperature: 1.0, top_k: 0, top_p: 1.0, seed: 0 };
        let mut sampler = TokenSampler::new(TokenSampling { draw: Some(drawn), ..penalty }, &[0]).unwrap();
        let broken = Tensor::new(&[f32::NAN, f32::INFINITY, 1.0], &Device::Cpu).unwrap();
        sampler.choose(&broken).unwrap();
    }
}
