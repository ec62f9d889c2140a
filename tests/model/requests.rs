//! Requests of every kind are answered as by the reference, each alone and all in one batch: its answers are in
//! `tests/golden-data/requests`, those of the built-in model and, 1 to 96 tokens long, those of random weights.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use camscribe::{
    answer::{DescribeError, Description, Piece},
    describe::{self, Describer, LoadOptions, RoomFor, Work},
    device::{DeviceChoice, DtypeChoice},
    event::FinishReason,
    request::{AnswerFormat, Content, Message, Request, Role, Sampling},
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::{
    checkpoint,
    given::{GivenMessage, Options, conversation, picture},
};

#[derive(Deserialize)]
struct Golden {
    #[serde(flatten)]
    weights: Weights,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Weights {
    /// The digest of the built-in model's.
    WeightsSha256(String),
    /// The seed of random ones in the built-in model's sizes.
    RandomSeed(u64),
}

#[derive(Deserialize)]
struct Case {
    name: String,
    messages: Vec<GivenMessage>,
    options: Options,
    repetition_penalty: Option<f64>,
    max_tokens: usize,
    n_tokens: usize,
    n_image_tokens: usize,
    ids: Vec<u32>,
    stopped: bool,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The built-in model.
fn shapes() -> PathBuf {
    root().join("models/shapes")
}

/// The cases of a file, and the model that they are for.
fn golden(file: &str) -> (Vec<Case>, Box<dyn Describer>) {
    let text = fs::read_to_string(root().join("tests/golden-data/requests").join(file)).unwrap();
    let Golden { weights, cases } = serde_json::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    let model = match weights {
        Weights::WeightsSha256(expected) => {
            let weights = fs::read(shapes().join("model.safetensors")).unwrap();
            let digest: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected, "the answers were made with other weights");
            load(&shapes())
        }
        Weights::RandomSeed(seed) => load(checkpoint::random_shapes(seed).path()),
    };
    (cases, model)
}

impl Case {
    fn request(&self) -> Request {
        Request {
            messages: conversation(&self.messages),
            max_tokens: self.max_tokens,
            sampling: Sampling { repetition_penalty: self.repetition_penalty, ..Sampling::default() },
            images: self.options.images(),
            ..Request::default()
        }
    }

    fn check(&self, answer: &Description, streamed: &str, how: &str) {
        let name = format!("{} {how}", self.name);
        let tokens = answer.tokens;
        assert_eq!((tokens.prompt, tokens.image), (self.n_tokens, self.n_image_tokens), "{name}");
        assert_eq!(answer.text, self.text.trim(), "{name}");
        assert_eq!(tokens.generated, self.ids.len(), "{name}");
        assert_eq!(answer.finish_reason == FinishReason::Stop, self.stopped, "{name}");
        assert_eq!(streamed, answer.text, "{name}");
    }
}

fn load(dir: &Path) -> Box<dyn Describer> {
    let options =
        LoadOptions { device: DeviceChoice::Cpu, dtype: DtypeChoice::F32, ..LoadOptions::default() };
    describe::load(dir, options).unwrap()
}

/// The answers, and the texts that came as they were made.
fn answers(model: &mut dyn Describer, requests: &[Request]) -> Vec<(Description, String)> {
    let mut streamed = vec![String::new(); requests.len()];
    let answers = model.answer(requests, &mut |i, piece| streamed[i] += &piece.text).unwrap();
    answers.into_iter().map(Result::unwrap).zip(streamed).collect()
}

fn each_is_answered_alone(file: &str) {
    let (cases, mut model) = golden(file);
    for case in cases {
        let (answer, streamed) = answers(&mut *model, &[case.request()]).remove(0);
        case.check(&answer, &streamed, "alone");
    }
}

#[test]
fn each_request_is_answered_alone_as_by_the_reference() {
    each_is_answered_alone("shapes.json");
}

#[test]
fn short_and_long_answers_are_those_of_the_reference() {
    each_is_answered_alone("random.json");
}

#[test]
fn requests_of_every_kind_are_answered_in_one_batch_as_alone() {
    for (file, part) in [("shapes.json", 10..15), ("random.json", 0..5)] {
        let (cases, mut model) = golden(file);
        for batch in [&cases[..], &cases[part]] {
            let requests: Vec<_> = batch.iter().map(Case::request).collect();
            for (case, (answer, streamed)) in batch.iter().zip(answers(&mut *model, &requests)) {
                case.check(&answer, &streamed, "in a batch");
            }
        }
    }
}

/// Requests that come while others are being answered.
struct Joining {
    waiting: VecDeque<Request>,
    most: usize,
    /// Calls until the next one comes.
    pause: usize,
    given: usize,
    /// Of those that are given up before they are complete.
    given_up: Vec<usize>,
    texts: BTreeMap<usize, String>,
    answers: BTreeMap<usize, Description>,
    /// Most that were answered at once.
    together: usize,
}

impl Joining {
    fn new(requests: impl Iterator<Item = Request>, most: usize) -> Self {
        let waiting = requests.collect();
        let (texts, answers) = (BTreeMap::new(), BTreeMap::new());
        Self { waiting, most, pause: 0, given: 0, given_up: Vec::new(), texts, answers, together: 0 }
    }
}

impl Work for Joining {
    fn more(&mut self, running: usize, _room_for: RoomFor<'_>) -> Vec<Request> {
        self.together = self.together.max(running);
        if running > 0 && (self.pause > 0 || running >= self.most) {
            self.pause = self.pause.saturating_sub(1);
            return Vec::new();
        }
        // One, two or three at a time, after none to four steps.
        self.pause = self.given * 7 % 5;
        let count = (1 + self.given % 3).min(self.waiting.len());
        self.given += count;
        self.waiting.drain(..count).collect()
    }

    fn is_cancelled(&self, number: usize) -> bool {
        self.given_up.contains(&number) && self.texts.get(&number).is_some_and(|text| text.len() > 2)
    }

    fn piece(&mut self, number: usize, piece: Piece) {
        *self.texts.entry(number).or_default() += &piece.text;
    }

    fn answered(&mut self, number: usize, answer: Result<Description, DescribeError>) {
        assert!(self.answers.insert(number, answer.unwrap()).is_none(), "{number} is answered once");
    }
}

#[test]
fn requests_that_join_while_others_are_answered_are_answered_as_alone() {
    for file in ["shapes.json", "random.json"] {
        let (cases, mut model) = golden(file);
        let mut work = Joining::new(cases.iter().map(Case::request), 6);
        model.run(&mut work).unwrap();
        assert!(work.together >= 4, "{} were answered together", work.together);
        for (number, case) in cases.iter().enumerate() {
            let streamed = work.texts.get(&number).map_or("", String::as_str);
            case.check(&work.answers[&number], streamed, "joining others");
        }
    }
}

#[test]
fn requests_that_nobody_wants_any_more_leave_and_the_others_are_answered_as_alone() {
    let (cases, mut model) = golden("shapes.json");
    let mut work = Joining::new(cases.iter().map(Case::request), 6);
    // Those whose answers are long enough to be given up.
    work.given_up = (0..cases.len()).filter(|i| i % 3 == 0 && cases[*i].ids.len() > 6).collect();
    model.run(&mut work).unwrap();
    let mut left = 0;
    for (number, case) in cases.iter().enumerate() {
        match work.answers.get(&number) {
            Some(answer) => case.check(answer, &work.texts[&number], "beside those that left"),
            None => {
                assert!(work.given_up.contains(&number), "{} has no answer", case.name);
                left += 1;
            }
        }
    }
    assert!(left > 0, "none left");
}

fn question(text: &str) -> Request {
    let content = vec![Content::Image(picture(96, 96, 3)), Content::Text(text.into())];
    Request { messages: vec![Message { role: Role::User, content }], max_tokens: 60, ..Request::default() }
}

/// The answer to one request, and its pieces.
fn answer(model: &mut dyn Describer, request: Request) -> (Description, Vec<Piece>) {
    let mut pieces = Vec::new();
    let mut answers = model.answer(&[request], &mut |_, piece| pieces.push(piece)).unwrap();
    (answers.remove(0).unwrap(), pieces)
}

#[test]
fn an_answer_ends_before_a_stop_text() {
    let mut model = load(&shapes());
    let (whole, _) = answer(&mut *model, question("What do you see?"));
    let middle: String = whole.text.chars().skip(4).take(5).collect();
    let request = Request { stop: vec!["never".into(), middle.clone()], ..question("What do you see?") };
    let (cut, pieces) = answer(&mut *model, request);
    assert_eq!(cut.text, whole.text[..whole.text.find(&middle).unwrap()]);
    assert_eq!(cut.finish_reason, FinishReason::Stop);
    assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), cut.text);
    assert!(cut.tokens.generated < whole.tokens.generated);
}

#[test]
fn each_token_comes_with_its_probability_and_those_of_the_most_likely() {
    let mut model = load(&shapes());
    let request = Request { logprobs: Some(3), ..question("What do you see?") };
    let (told, pieces) = answer(&mut *model, request);
    assert_eq!(told.text, answer(&mut *model, question("What do you see?")).0.text);
    let scores: Vec<_> = pieces.into_iter().flat_map(|piece| piece.scores).collect();
    assert_eq!(scores.len(), told.tokens.generated);
    let bytes: Vec<u8> = scores.iter().flat_map(|score| score.token.bytes.clone()).collect();
    assert_eq!(String::from_utf8(bytes).unwrap().trim(), told.text);
    for score in &scores {
        assert_eq!(score.top.len(), 3);
        // The most likely token is taken, and the others follow.
        assert_eq!(score.top[0], (score.token.clone(), score.logprob));
        assert!(score.top.is_sorted_by(|a, b| a.1 >= b.1));
        assert!(score.top.iter().map(|(_, logprob)| logprob.exp()).sum::<f32>() <= 1.0 + 1e-5);
    }
}

#[test]
fn an_answer_follows_a_json_schema() {
    let mut model = load(&shapes());
    let schema = json!({
        "type": "object",
        "properties": {
            "shape": {"enum": ["circle", "square", "triangle"]},
            "moves": {"type": "boolean"},
            "count": {"type": "integer", "minimum": 0, "maximum": 9},
        },
        "required": ["shape", "moves", "count"],
        "additionalProperties": false,
    });
    let format = AnswerFormat::Schema(Arc::new(schema.clone()));
    for seed in 0..4 {
        let temperature = (seed > 0).then_some(1.5);
        let sampling = Sampling { temperature, seed, ..Sampling::default() };
        let request = Request { format: format.clone(), sampling, ..question("Answer in JSON.") };
        let (told, _) = answer(&mut *model, request);
        let document: serde_json::Value = serde_json::from_str(&told.text).expect(&told.text);
        assert!(jsonschema::is_valid(&schema, &document), "{document}");
        assert_eq!(told.finish_reason, FinishReason::Stop);
    }
    let format = AnswerFormat::Schema(Arc::new(json!({"type": "nonsense"})));
    let refused = model.answer(&[Request { format, ..question("?") }], &mut |_, _| ()).unwrap().remove(0);
    assert!(matches!(refused, Err(DescribeError::Request(why)) if why.contains("schema")));
}
