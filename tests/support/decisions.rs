//! How likely the reference finds labels (`tests/golden-data/decisions`), beside how likely a model here finds them.

use std::{fs, path::Path};

use camscribe::{
    decision::Question,
    describe::Describer,
    request::{Content, Request, Role},
};
use serde::Deserialize;

use super::given::{GivenMessage, Options, conversation};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

/// A question about a conversation.
#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    messages: Vec<GivenMessage>,
    options: Options,
    labels: Vec<Label>,
    n_tokens: usize,
    pub n_image_tokens: usize,
}

#[derive(Deserialize)]
struct Label {
    label: String,
    whole: f32,
}

/// The largest differences from the reference.
#[derive(Clone, Copy, Debug, Default)]
pub struct Error {
    /// Of a logarithm of a probability.
    pub logprob: f32,
    /// Of a probability.
    pub probability: f32,
}

impl Error {
    /// In f32, where sums are only in another order.
    pub const F32: Self = Self { logprob: 1e-4, probability: 1e-4 };

    /// In bf16 and q8, where weights are rounded: about twice what was measured. The logarithms of what is unlikely move
    /// most.
    #[allow(dead_code, reason = "not every program that has this file needs it")]
    pub const ROUNDED: Self = Self { logprob: 1., probability: 0.025 };

    fn max(self, other: Self) -> Self {
        Self {
            logprob: self.logprob.max(other.logprob),
            probability: self.probability.max(other.probability),
        }
    }

    pub fn is_within(self, most: Self) -> bool {
        self.logprob <= most.logprob && self.probability <= most.probability
    }
}

/// The cases of the built-in model.
pub fn cases() -> Vec<Case> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden-data/decisions/shapes.json");
    serde_json::from_str::<Golden>(&fs::read_to_string(path).unwrap()).unwrap().cases
}

impl Case {
    /// The request without its question, and the question: the last text of the last message.
    pub fn request(&self) -> (Request, Question) {
        let mut messages = conversation(&self.messages);
        let last = messages.last_mut().unwrap();
        assert_eq!(last.role, Role::User);
        let Some(Content::Text(text)) = last.content.pop() else { panic!("{}: no question", self.name) };
        if last.content.is_empty() {
            messages.pop();
        }
        let labels = self.labels.iter().map(|label| label.label.clone()).collect();
        let request = Request { messages, images: self.options.images(), ..Request::default() };
        (request, Question { text, labels })
    }

    /// The request with its question.
    fn asked(&self) -> Request {
        let (request, question) = self.request();
        Request { questions: vec![question], ..request }
    }

    /// How far these logarithms of probabilities are from the reference's.
    pub fn error(&self, logprobs: &[f32]) -> Error {
        assert_eq!(logprobs.len(), self.labels.len(), "{}", self.name);
        assert!(logprobs.iter().all(|it| it.is_finite()), "{}: {logprobs:?}", self.name);
        let each = self.labels.iter().zip(logprobs).map(|(label, ours)| Error {
            logprob: (ours - label.whole).abs(),
            probability: (ours.exp() - label.whole.exp()).abs(),
        });
        each.fold(Error::default(), Error::max)
    }
}

/// The logarithms of the labels' probabilities of every question of each request.
fn labels(model: &mut dyn Describer, requests: &[Request]) -> Vec<Vec<Vec<f32>>> {
    let mut all = Vec::new();
    for answer in model.answer(requests, &mut |_, _| panic!("nothing is said")).unwrap() {
        let answer = answer.unwrap();
        assert_eq!((answer.text.as_str(), answer.tokens.generated), ("", 0));
        all.push(answer.labels);
    }
    all
}

/// Holds these cases against the reference: asked alone, in a batch with all others, and beside a shorter and a longer
/// question that share its beginning.
///
/// # Panics
/// When one is further from it than `most`.
pub fn all_equal_the_reference(model: &mut dyn Describer, cases: &[Case], most: Error) {
    let other = |text: &str, labels: &[&str]| Question {
        text: text.into(),
        labels: labels.iter().map(|label| label.to_string()).collect(),
    };
    let mut worst = Error::default();
    let mut hold = |case: &Case, how: &str, logprobs: &[f32]| {
        let error = case.error(logprobs);
        assert!(error.is_within(most), "{} {how}: {error:?}", case.name);
        worst = worst.max(error);
    };
    let all: Vec<Request> = cases.iter().map(Case::asked).collect();
    let together = labels(model, &all);
    assert_eq!(together.len(), cases.len());
    for (case, labels) in cases.iter().zip(together) {
        hold(case, "in a batch", &labels[0]);
    }
    for (case, alone) in cases.iter().zip(&all) {
        let answer = model.answer(std::slice::from_ref(alone), &mut |_, _| ()).unwrap().remove(0).unwrap();
        let tokens = (answer.tokens.prompt, answer.tokens.image);
        assert_eq!(tokens, (case.n_tokens, case.n_image_tokens), "{}", case.name);
        hold(case, "alone", &answer.labels[0]);
        let (request, question) = case.request();
        let long = "What else is there that one could possibly ask here? Answer in one word.";
        let questions = vec![other("?", &["Yes"]), question, other(long, &["a", "Nothing at all", "1"])];
        let beside = labels(model, &[Request { questions, ..request }]).remove(0);
        hold(case, "beside others", &beside[1]);
        assert_eq!(beside.iter().map(Vec::len).collect::<Vec<_>>(), [1, case.labels.len(), 3]);
    }
    println!("{} cases, largest differences: {worst:?}", cases.len());
}
