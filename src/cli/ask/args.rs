//! The arguments of `ask`, and what clap cannot check of them.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::usage::UsageError;
use crate::{
    camera::CameraId,
    config,
    device::{DeviceChoice, DtypeChoice},
    request::{ImageOptions, Sampling, VideoSampling},
};

/// What a running camscribe is not asked with: it has its model, and its cameras the frames.
const OF_A_MODEL: [&str; 20] = [
    "images",
    "videos",
    "system",
    "raw",
    "chat",
    "model",
    "device",
    "dtype",
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "repetition_penalty",
    "seed",
    "split",
    "no_split",
    "longest_edge",
    "video_edge",
    "fps",
    "max_frames",
];

/// Arguments of `ask`.
#[derive(Debug, Args)]
pub struct AskArgs {
    /// The question
    #[arg(value_name = "QUESTION", required_unless_present_any = ["chat", "camera"], conflicts_with = "chat")]
    pub question: Option<String>,
    /// Images that the question is about, in order
    #[arg(value_name = "IMAGE")]
    pub images: Vec<PathBuf>,
    /// A video that the question is about; may be given several times
    #[arg(long = "video", value_name = "FILE")]
    pub videos: Vec<PathBuf>,
    /// Ask the running camscribe what this camera shows now; without a question, its own prompt
    #[arg(long, value_name = "NAME", conflicts_with_all = OF_A_MODEL)]
    pub camera: Option<CameraId>,
    /// How much of the camera's newest frames the question is about, such as 8s [default: its window]
    #[arg(long, value_name = "TIME", requires = "camera")]
    pub last: Option<String>,
    /// The possible answers, separated by commas, of which the most likely is printed
    #[arg(long, value_name = "ANSWERS", value_delimiter = ',', requires = "camera")]
    pub answers: Vec<String>,
    /// The configuration file of the running camscribe [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE", requires = "camera")]
    pub config: Option<PathBuf>,
    /// Instructions that come before the question
    #[arg(long, value_name = "TEXT", conflicts_with = "chat")]
    pub system: Option<String>,
    /// Leave out the chat template: the model continues the text as it stands, after images and videos
    #[arg(long, conflicts_with = "system")]
    pub raw: bool,
    /// A whole conversation in place of a question: JSON with messages in the format of OpenAI; - is standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["images", "videos"])]
    pub chat: Option<PathBuf>,
    /// Hub id or directory of the model; `shapes` is the small one inside this program
    #[arg(long, value_name = "M", default_value = config::DEFAULT_MODEL)]
    pub model: String,
    /// Where to compute: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Compute in: auto, f32, bf16, f16 or q8
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    pub dtype: DtypeChoice,
    /// Length limit of the answer, in tokens
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=8192))]
    pub max_tokens: u64,
    /// Draw words: the scores are divided by this; 0 takes the most likely word [default: as the model says]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub temperature: Option<f64>,
    /// Draw from the most likely words that together have this probability
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub top_p: Option<f64>,
    /// Draw from so many of the most likely words; 0 is all
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// Make words less likely that were used already
    #[arg(long, value_name = "F", allow_negative_numbers = true)]
    pub repetition_penalty: Option<f64>,
    /// Draw the same words for the same number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Cut images into tiles [default: as the model says]
    #[arg(long, overrides_with = "no_split")]
    pub split: bool,
    /// Do not cut images into tiles
    #[arg(long)]
    pub no_split: bool,
    /// The longer side of an image before it is cut, in pixels [default: as the model says]
    #[arg(long, value_name = "PIXELS", value_parser = edge)]
    pub longest_edge: Option<usize>,
    /// The longer side of a video's frames, in pixels [default: as the model says]
    #[arg(long, value_name = "PIXELS", value_parser = edge)]
    pub video_edge: Option<usize>,
    /// Frames per second that are taken of a video [default: as the model says]
    #[arg(long, value_name = "FPS", allow_negative_numbers = true)]
    pub fps: Option<f64>,
    /// Most frames that are taken of a video [default: as the model says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=128))]
    pub max_frames: Option<u64>,
    /// How to print the answer
    #[arg(long, value_enum, default_value = "text")]
    pub format: AnswerFormat,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum AnswerFormat {
    Text,
    Json,
}

fn edge(text: &str) -> Result<usize, String> {
    let in_range = |edge: &usize| (1..=ImageOptions::MAX_EDGE).contains(edge);
    let edge = text.parse().ok().filter(in_range);
    edge.ok_or_else(|| format!("it must be a number of pixels from 1 to {}", ImageOptions::MAX_EDGE))
}

impl AskArgs {
    /// How the words are chosen.
    ///
    /// # Errors
    /// When a number cannot be used.
    pub fn sampling(&self) -> Result<Sampling, UsageError> {
        self.dtype.check(self.device).map_err(|why| UsageError(why.to_string()))?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        };
        sampling.check().map_err(UsageError)?;
        Ok(sampling)
    }

    /// How images are prepared.
    pub fn image_options(&self) -> ImageOptions {
        let split = if self.split { Some(true) } else { self.no_split.then_some(false) };
        ImageOptions { longest_edge: self.longest_edge, split, video_edge: self.video_edge }
    }

    /// Which frames are taken of a video.
    ///
    /// # Errors
    /// When the rate cannot be used.
    pub fn video_sampling(&self) -> Result<VideoSampling, UsageError> {
        if self.fps.is_some_and(|fps| !(fps > 0.0 && fps <= 1000.0)) {
            return Err(UsageError("--fps must be above 0 and at most 1000".into()));
        }
        Ok(VideoSampling { fps: self.fps, max_frames: self.max_frames.map(|most| most as usize) })
    }
}
