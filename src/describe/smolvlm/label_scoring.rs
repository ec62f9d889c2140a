//! Questions as sequences to be scored, and their scores as those of labels.

use super::prompt::Prompt;
use crate::nn::score::Scored;

/// The questions of one request.
#[derive(Debug, Default)]
pub struct LabelScoring {
    /// What is scored. Labels of one token share a sequence, and so do those that differ in their last token.
    pub sequences: Vec<Scored>,
    /// Of each question, of each label: its sequence and its tokens.
    labels: Vec<Vec<(usize, Vec<u32>)>>,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
}

impl LabelScoring {
    /// Adds a question: its prompt, and the tokens of its labels.
    pub fn add(&mut self, prompt: &Prompt, labels: &[Vec<u32>]) {
        let first = self.sequences.len();
        let mut of_question = Vec::new();
        for label in labels {
            // What follows the last token is not asked.
            let before = label.len().saturating_sub(1);
            let scored =
                Scored { ids: [&prompt.ids[..], &label[..before]].concat(), last: label.len().max(1) };
            let at = match self.sequences[first..].iter().position(|it| *it == scored) {
                Some(at) => first + at,
                None => {
                    self.sequences.push(scored);
                    self.sequences.len() - 1
                }
            };
            of_question.push((at, label.clone()));
        }
        self.labels.push(of_question);
        self.prompt_tokens += prompt.ids.len();
    }

    /// The logarithm of the probability of each label of each question. `scores` are those of the sequences.
    pub fn labels(&self, scores: &[Vec<Vec<f32>>]) -> Vec<Vec<f32>> {
        let label = |(sequence, ids): &(usize, Vec<u32>)| {
            let places = scores[*sequence].iter().zip(ids);
            places.map(|(place, id)| place[*id as usize]).sum()
        };
        self.labels.iter().map(|labels| labels.iter().map(label).collect()).collect()
    }
}
