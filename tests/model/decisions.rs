//! Labels are as likely as the reference finds them (`tests/golden-data/decisions`), whatever else is asked.

use std::{fs, path::Path};

use camscribe::{
    answer::DescribeError,
    decision::Question,
    describe::{self, Describer, LoadOptions},
    device::{DeviceChoice, DtypeChoice},
    request::{Content, Request, Role},
};
use serde::Deserialize;

use crate::support::given::{GivenMessage, Options, conversation};

#[derive(Deserialize)]
struct Golden {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<GivenMessage>,
    options: Options,
    labels: Vec<Label>,
    n_tokens: usize,
    n_image_tokens: usize,
}

#[derive(Deserialize)]
struct Label {
    label: String,
    whole: f32,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cases() -> Vec<Case> {
    let text = fs::read_to_string(root().join("tests/golden-data/decisions/shapes.json")).unwrap();
    serde_json::from_str::<Golden>(&text).unwrap().cases
}

fn load() -> Box<dyn Describer> {
    let options =
        LoadOptions { device: DeviceChoice::Cpu, dtype: DtypeChoice::F32, ..LoadOptions::default() };
    describe::load(&root().join("models/shapes"), options).unwrap()
}

impl Case {
    /// The request without its question, and the question: the last text of the last message.
    fn request(&self) -> (Request, Question) {
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

    fn check(&self, logprobs: &[f32], how: &str) {
        assert_eq!(logprobs.len(), self.labels.len());
        for (label, ours) in self.labels.iter().zip(logprobs) {
            let (name, theirs) = (&self.name, label.whole);
            assert!((ours - theirs).abs() < 2e-3, "{name} {how}, {}: {ours}, not {theirs}", label.label);
        }
    }
}

fn labels(model: &mut dyn Describer, request: Request) -> Vec<Vec<f32>> {
    let answer = model.answer(&[request], &mut |_, _| panic!("nothing is said")).unwrap().remove(0).unwrap();
    assert_eq!((answer.text.as_str(), answer.tokens.generated), ("", 0));
    answer.labels
}

#[test]
fn labels_are_as_likely_as_the_reference_finds_them() {
    let mut model = load();
    for case in cases() {
        let (request, question) = case.request();
        let alone = Request { questions: vec![question.clone()], ..request.clone() };
        let answer = model.answer(&[alone], &mut |_, _| ()).unwrap().remove(0).unwrap();
        let tokens = answer.tokens;
        assert_eq!((tokens.prompt, tokens.image), (case.n_tokens, case.n_image_tokens), "{}", case.name);
        case.check(&answer.labels[0], "alone");
        // Longer and shorter questions beside it share its beginning.
        let other = |text: &str, labels: &[&str]| Question {
            text: text.into(),
            labels: labels.iter().map(|label| label.to_string()).collect(),
        };
        let questions = vec![
            other("?", &["Yes"]),
            question,
            other(
                "What else is there that one could possibly ask here? Answer in one word.",
                &["a", "Nothing at all", "1"],
            ),
        ];
        let all = labels(&mut *model, Request { questions, ..request });
        case.check(&all[1], "beside others");
        assert_eq!(all.iter().map(Vec::len).collect::<Vec<_>>(), [1, case.labels.len(), 3]);
    }
}

#[test]
fn questions_and_a_description_are_answered_together() {
    let mut model = load();
    let cases = cases();
    let case = cases.iter().find(|case| case.name == "video_yes_no").unwrap();
    let (request, question) = case.request();
    let described = Request { max_tokens: 40, ..request };
    let mut plain = described.clone();
    plain.messages[0].content.push(Content::Text("What happens?".into()));
    let both = Request { prompt: Some("What happens?".into()), questions: vec![question], ..described };
    let answers = model.answer(&[both, plain], &mut |_, _| ()).unwrap();
    let [both, plain] = answers.try_into().unwrap();
    let (both, plain) = (both.unwrap(), plain.unwrap());
    assert_eq!(both.text, plain.text);
    assert!(!both.text.is_empty());
    assert_eq!((both.labels.len(), plain.labels.len()), (1, 0));
    case.check(&both.labels[0], "beside a description");
}

#[test]
fn more_than_fits_into_a_pass_is_answered_and_what_does_not_fit_the_model_is_refused() {
    let mut model = load();
    let (request, question) = cases()[0].request();
    let questions: Vec<_> =
        (0..40).map(|i| Question { text: format!("{}{i}", question.text), ..question.clone() }).collect();
    let all = labels(&mut *model, Request { questions: questions.clone(), ..request.clone() });
    let last = labels(&mut *model, Request { questions: questions[39..].to_vec(), ..request.clone() });
    for (together, alone) in all[39].iter().zip(&last[0]) {
        assert!((together - alone).abs() < 1e-3, "{together} {alone}");
    }
    let long = Question { text: "word ".repeat(20_000), ..question };
    let refused = model.answer(&[Request { questions: vec![long], ..request }], &mut |_, _| ()).unwrap();
    assert!(
        matches!(&refused[0], Err(DescribeError::Request(why)) if why.contains("shorter text")),
        "{refused:?}"
    );
}
