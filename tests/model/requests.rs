//! Requests of every kind are answered as by the reference, each alone and all in one batch: its answers are in
//! `tests/golden-data/requests`.

use std::{fs, path::Path, time::Duration};

use camscribe::{
    describe::{self, Describer, Description, LoadOptions},
    device::{DeviceChoice, DtypeChoice},
    event::FinishReason,
    request::{Content, ImageOptions, Message, Picture, Request, Role, Sampling, Video},
};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::support::picture::frame;

#[derive(Deserialize)]
struct Golden {
    weights_sha256: String,
    cases: Vec<Case>,
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

#[derive(Deserialize)]
struct Options {
    longest_edge: Option<usize>,
    split: Option<bool>,
    video_edge: Option<usize>,
}

#[derive(Deserialize)]
struct GivenMessage {
    role: String,
    content: Vec<GivenContent>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum GivenContent {
    Text { text: String },
    Image { w: u32, h: u32, first: u32 },
    Video { w: u32, h: u32, n: u32, first: u32, fps: f64, frames_indices: Vec<u32>, duration: f64 },
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn golden() -> Golden {
    let text = fs::read_to_string(root().join("tests/golden-data/requests/shapes.json")).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    let weights = fs::read(root().join("models/shapes/model.safetensors")).unwrap();
    let digest: String = Sha256::digest(&weights).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(digest, golden.weights_sha256, "the answers were made with other weights");
    golden
}

fn picture(w: u32, h: u32, t: u32) -> Picture {
    Picture { width: w, height: h, rgb: frame(t, w, h).into() }
}

impl Case {
    fn request(&self) -> Request {
        let content = |content: &GivenContent| match content {
            GivenContent::Text { text } => Content::Text(text.clone()),
            GivenContent::Image { w, h, first } => Content::Image(picture(*w, *h, *first)),
            GivenContent::Video { w, h, n, first, fps, frames_indices, duration } => {
                let time = |i: u32| Duration::from_secs_f64(f64::from(frames_indices[i as usize]) / fps);
                let frames = (0..*n).map(|i| (time(i), picture(*w, *h, first + i))).collect();
                Content::Video(Video { frames, duration: Duration::from_secs_f64(*duration) })
            }
        };
        let message = |message: &GivenMessage| Message {
            role: match message.role.as_str() {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                other => panic!("unknown role {other}"),
            },
            content: message.content.iter().map(content).collect(),
        };
        let Options { longest_edge, split, video_edge } = self.options;
        Request {
            messages: self.messages.iter().map(message).collect(),
            max_tokens: self.max_tokens,
            sampling: Sampling { repetition_penalty: self.repetition_penalty, ..Sampling::default() },
            images: ImageOptions { longest_edge, split, video_edge },
            camera: None,
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

fn load() -> Box<dyn Describer> {
    let options =
        LoadOptions { device: DeviceChoice::Cpu, dtype: DtypeChoice::F32, ..LoadOptions::default() };
    describe::load(&root().join("models/shapes"), options).unwrap()
}

/// The answers, and the texts that came as they were made.
fn answers(model: &mut dyn Describer, requests: &[Request]) -> Vec<(Description, String)> {
    let mut streamed = vec![String::new(); requests.len()];
    let answers = model.answer(requests, &mut |i, text| streamed[i] += text).unwrap();
    answers.into_iter().map(Result::unwrap).zip(streamed).collect()
}

#[test]
fn each_request_is_answered_alone_as_by_the_reference() {
    let mut model = load();
    for case in golden().cases {
        let (answer, streamed) = answers(&mut *model, &[case.request()]).remove(0);
        case.check(&answer, &streamed, "alone");
    }
}

#[test]
fn requests_of_every_kind_are_answered_in_one_batch_as_alone() {
    let mut model = load();
    let cases = golden().cases;
    for batch in [&cases[..], &cases[10..15]] {
        let requests: Vec<_> = batch.iter().map(Case::request).collect();
        for (case, (answer, streamed)) in batch.iter().zip(answers(&mut *model, &requests)) {
            case.check(&answer, &streamed, "in a batch");
        }
    }
}
