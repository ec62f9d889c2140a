//! What the model is asked: a conversation, and how it is to be answered. A clip of a camera makes one request.

use std::{sync::Arc, time::Duration};

use crate::{camera::CameraId, clip::Clip, decision::Question};

/// One question to the model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    /// The conversation so far; the model answers next.
    pub messages: Vec<Message>,
    /// Whether the contents follow one another as they are, without the model's chat template: the model continues them.
    pub raw: bool,
    /// What is asked for words, after all that the last message of the user holds. `None`: the messages say it. Like each
    /// of the questions it is asked by itself.
    pub prompt: Option<String>,
    /// Questions about the conversation that are answered by probabilities, each by itself.
    pub questions: Vec<Question>,
    /// The longest answer, in tokens. 0: there is none, and nothing but the questions is answered.
    pub max_tokens: usize,
    /// How the words are chosen.
    pub sampling: Sampling,
    /// How images and frames are prepared.
    pub images: ImageOptions,
    /// Texts that end the answer. They are not part of it.
    pub stop: Vec<String>,
    /// How many of the most likely tokens are told beside each token of the answer. `None`: no probabilities are.
    pub logprobs: Option<usize>,
    /// What form the answer has.
    pub format: AnswerFormat,
    /// The camera whose clip this is about, if it is about one.
    pub camera: Option<CameraId>,
}

/// A message of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Its author.
    pub role: Role,
    /// What it holds, in order.
    pub content: Vec<Content>,
}

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// Questions.
    User,
    /// The model's answers.
    Assistant,
}

/// A piece of a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// Text.
    Text(String),
    /// A still image.
    Image(Picture),
    /// Frames of a video.
    Video(Video),
}

/// An image of RGB triples: `height` rows of `width`, top to bottom, no padding.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The bytes.
    pub rgb: Arc<[u8]>,
}

/// Frames of a video.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Video {
    /// The frames, each with its time since the start of the video.
    pub frames: Vec<(Duration, Picture)>,
    /// Length of the video. The prompt names it in whole seconds.
    pub duration: Duration,
}

/// How the words of an answer are chosen. What is `None` is as the checkpoint's `generation_config.json` says, and
/// without that as in the reference: always the most likely word.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampling {
    /// Above 0, words are drawn: the scores are divided by it. 0 takes the most likely word.
    pub temperature: Option<f64>,
    /// Only the most likely words that together have this probability are drawn.
    pub top_p: Option<f64>,
    /// Only so many of the most likely words are drawn.
    pub top_k: Option<usize>,
    /// Above 1, words that were used already, in the question too, become less likely.
    pub repetition_penalty: Option<f64>,
    /// The same seed draws the same words.
    pub seed: u64,
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// Which number is out of its range.
    pub fn check(&self) -> Result<(), String> {
        let numbers = [
            ("temperature", self.temperature, 0.0..=100.0),
            ("top_p", self.top_p, 0.0..=1.0),
            ("repetition_penalty", self.repetition_penalty, 0.01..=100.0),
        ];
        for (name, number, range) in numbers {
            if let Some(number) = number.filter(|number| !range.contains(number)) {
                let (least, most) = (range.start(), range.end());
                return Err(format!("{name} is {number}: it must be from {least} to {most}"));
            }
        }
        Ok(())
    }
}

/// The form of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum AnswerFormat {
    /// Any text.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON that this JSON schema allows.
    Schema(Arc<serde_json::Value>),
}

/// Which frames are taken of a whole video. What is `None` is as the checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VideoSampling {
    /// Frames per second; above 0.
    pub fps: Option<f64>,
    /// Most frames; at least 1.
    pub max_frames: Option<usize>,
}

/// How images and frames are prepared. What is `None` is as the checkpoint says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageOptions {
    /// The longer side of an image, in pixels, before it is cut into tiles: 1 to [`ImageOptions::MAX_EDGE`].
    pub longest_edge: Option<usize>,
    /// Whether images are cut into tiles.
    pub split: Option<bool>,
    /// The longer side of a frame after the first of its two resizes, in pixels: 1 to [`ImageOptions::MAX_EDGE`].
    pub video_edge: Option<usize>,
}

impl ImageOptions {
    /// The longest side that the reference resizes anything to (`MAX_IMAGE_SIZE`).
    pub const MAX_EDGE: usize = 4096;
}

impl Request {
    /// How many images and frames it holds.
    pub fn pictures(&self) -> usize {
        let pictures = |content: &Content| match content {
            Content::Text(_) => 0,
            Content::Image(_) => 1,
            Content::Video(video) => video.frames.len(),
        };
        self.messages.iter().flat_map(|message| &message.content).map(pictures).sum()
    }
}

impl From<&Clip> for Request {
    /// The frames of the clip with their times. What is asked about them are the camera's prompt and questions.
    fn from(clip: &Clip) -> Self {
        let picture = |i: usize| {
            let frame = &clip.frames[i];
            let picture = Picture { width: frame.width, height: frame.height, rgb: Arc::clone(&frame.rgb) };
            (clip.offset(i), picture)
        };
        let video = Video { frames: (0..clip.frames.len()).map(picture).collect(), duration: clip.duration };
        let spec = &clip.prompt_spec;
        Self {
            messages: vec![Message { role: Role::User, content: vec![Content::Video(video)] }],
            prompt: Some(spec.prompt.clone()),
            questions: spec.questions.iter().flat_map(|asked| asked.decision.questions()).collect(),
            max_tokens: if spec.describe { spec.max_tokens } else { 0 },
            camera: Some(clip.camera.clone()),
            ..Self::default()
        }
    }
}
