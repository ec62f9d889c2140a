//! A model of random weights with camscribe's own preprocessing and generation. Clips go in; the times of each stage
//! come out, and answers without meaning. It has no tokenizer: a prompt is made of token ids, as many as the
//! reference's prompt for such a clip has.

use std::{iter::repeat_n, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use chrono::{TimeDelta, Utc};
use serde::Serialize;

use super::{
    settings::Settings,
    shapes::Shape,
    stopwatch::{Elapsed, Stopwatch},
};
use crate::{
    answer::{DescribeError, Description, StageTimes},
    camera::CameraId,
    clip::Clip,
    describe::{
        Describer, Work, in_batches,
        smolvlm::{config::ModelConfig, network::Network, preprocess::Preprocessor},
    },
    device::GpuInfo,
    event::{FinishReason, ModelInfo, Tokens},
    frame::{Clock, Frame},
    heartbeat::Heartbeat,
    nn::{
        device::ComputeTarget, generate::GenerationRequest, observer::ActivationPoint,
        sampler::TokenSampling, weights::RandomNumbers,
    },
    prompt_spec::PromptSpec,
    request::{Content, Request},
    resize::RgbImage,
};

/// Tokens before the first frame, up to the empty line: "User: You are provided …".
const INTRO: usize = 32;
/// Tokens before and after the image tokens of a frame: "Frame from 00:00:" and the markers around the image.
const AROUND_IMAGE: (usize, usize) = (12, 1);
/// Tokens after the last frame: the question ("Describe this video in detail.") and "Assistant:".
const QUESTION: usize = 13;
/// The id of a token of text.
const TEXT_TOKEN: u32 = 1000;

/// A model of random weights.
pub struct RandomModel {
    /// The network.
    pub network: Network,
    preprocessor: Preprocessor,
    prompt: Vec<u32>,
    /// Tokens of every answer.
    pub new_tokens: usize,
    /// The images of every clip, RGB.
    images: Vec<Arc<[u8]>>,
    info: ModelInfo,
    heartbeat: Arc<Heartbeat>,
}

/// The times that the stages of a batch took.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct StageSeconds {
    /// Wall time.
    #[serde(flatten)]
    pub wall: ByStage<f64>,
    /// CPU time of all threads together. None if the Linux kernel does not count it.
    pub cpu: ByStage<Option<f64>>,
}

/// A number of seconds for each stage.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct ByStage<T> {
    pub preprocess_s: T,
    pub vision_s: T,
    pub prefill_s: T,
    pub decode_s: T,
}

impl ByStage<f64> {
    /// The sum over all stages.
    pub fn total(self) -> f64 {
        self.preprocess_s + self.vision_s + self.prefill_s + self.decode_s
    }
}

impl RandomModel {
    /// Makes the weights on the device.
    ///
    /// # Errors
    /// When the device fails or has too little memory, or our own kernels are wanted and do not run.
    pub fn new(shape: Shape, settings: &Settings, target: ComputeTarget) -> Result<Self> {
        let (config, processor) = (shape.config(), shape.processor());
        let info = ModelInfo {
            id: format!("random-{shape}"),
            revision: String::new(),
            device: target.device_name(),
            dtype: target.dtype_name().into(),
        };
        let side = config.vision.image_size;
        // Published checkpoints are in bf16.
        let numbers = RandomNumbers { seed: settings.seed, bf16: true };
        let network = Network::random(config.clone(), numbers, target)?;
        if let Some(why) = &network.refused {
            bail!("our own kernels do not run: {why} (measure candle's with --kernels candle)");
        }
        Ok(Self {
            prompt: prompt(&config, settings.frames),
            preprocessor: Preprocessor::new(&processor),
            new_tokens: settings.new_tokens,
            images: (0..settings.frames).map(|t| gradient_image(side, t)).collect(),
            network,
            info,
            heartbeat: Arc::default(),
        })
    }

    /// Tokens of the prompt of a clip.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// Frames of a clip.
    pub fn frames(&self) -> usize {
        self.images.len()
    }

    /// Clip number `seq` of a camera.
    pub fn clip(&self, camera: &CameraId, seq: u64) -> Clip {
        let (start, side) = (Utc::now(), self.network.config.vision.image_size as u32);
        let frame = |(i, rgb): (usize, &Arc<[u8]>)| Frame {
            camera: camera.clone(),
            captured_at: start,
            clock: Clock::Arrival,
            pts: Duration::from_secs(i as u64),
            width: side,
            height: side,
            rgb: Arc::clone(rgb),
            original: None,
        };
        let seconds = self.images.len();
        let prompt_spec = PromptSpec::new("", self.new_tokens);
        Clip {
            camera: camera.clone(),
            seq,
            start,
            end: start + TimeDelta::seconds(seconds as i64),
            clock: Clock::Arrival,
            start_pts: Duration::ZERO,
            duration: Duration::from_secs(seconds as u64),
            frames: self.images.iter().enumerate().map(frame).collect(),
            gap: false,
            view: None,
            prompt_spec: Arc::new(prompt_spec),
        }
    }

    /// Answers a batch and returns the times of the stages. `step` is called after every layer of a forward pass, or
    /// after every token if a decode loop of our own runs.
    ///
    /// # Errors
    /// When the device fails, or the prompt and the answer exceed the model's context.
    pub fn time(&self, requests: &[Request], step: &mut (dyn FnMut() + Send)) -> Result<StageSeconds> {
        let stopwatch = Stopwatch::start();
        let content = requests.iter().flat_map(|request| &request.messages[0].content);
        let videos = content.filter_map(|it| if let Content::Video(video) = it { Some(video) } else { None });
        let pictures = videos.flat_map(|video| &video.frames);
        let frames = pictures.map(|(_, it)| RgbImage::new(&it.rgb, it.width, it.height));
        let frames: Vec<_> =
            frames.map(|it| it.map(|it| self.preprocessor.frame(it))).collect::<Result<_, _>>()?;
        let tiles =
            self.preprocessor.tiles(&frames).into_iter().map(|it| it.bytes).collect::<Vec<_>>().concat();
        let preprocess = stopwatch.elapsed();

        let stopwatch = Stopwatch::start();
        let features = self.network.encode(&tiles, &mut |_, _| {
            step();
            Ok(())
        })?;
        let vision = stopwatch.elapsed();

        let request = GenerationRequest {
            ids: self.prompt.clone(),
            max_tokens: self.new_tokens,
            sampling: TokenSampling::GREEDY,
        };
        let stopwatch = Stopwatch::start();
        let mut prefill: Option<Elapsed> = None;
        let generations = vec![request; requests.len()];
        let generated = self.network.generate_group(&generations, features.as_ref(), &mut |point, _| {
            step();
            if point == ActivationPoint::Logits && prefill.is_none() {
                // Waits for the GPU, so that the CPU time of the wait counts for the prefill.
                self.network.target.device.synchronize()?;
                prefill = Some(stopwatch.elapsed());
            }
            Ok(())
        })?;
        let total = stopwatch.elapsed();
        let prefill = prefill.context("there was no prefill")?;
        for answer in generated.completions {
            let tokens = answer?.ids.len();
            if tokens != self.new_tokens {
                bail!("an answer has {tokens} tokens and not {}: the prompt is too long", self.new_tokens);
            }
        }
        Ok(StageSeconds {
            wall: ByStage {
                preprocess_s: preprocess.wall,
                vision_s: vision.wall,
                prefill_s: generated.prefill.as_secs_f64(),
                decode_s: generated.decode.as_secs_f64(),
            },
            cpu: ByStage {
                preprocess_s: preprocess.cpu,
                vision_s: vision.cpu,
                prefill_s: prefill.cpu,
                decode_s: total.cpu.zip(prefill.cpu).map(|(total, prefill)| total - prefill),
            },
        })
    }
}

impl Describer for RandomModel {
    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn gpu(&self) -> Option<GpuInfo> {
        self.network.target.gpu.clone()
    }

    fn run(&mut self, work: &mut dyn Work) -> Result<(), DescribeError> {
        in_batches(work, &|_| None, |requests| {
            let broken = |e: anyhow::Error| DescribeError::Device(format!("{e:#}"));
            let seconds = self.time(requests, &mut || self.heartbeat.beat()).map_err(broken)?.wall;
            let description = Description {
                text: String::new(),
                labels: Vec::new(),
                finish_reason: FinishReason::Length,
                tokens: Tokens {
                    prompt: self.prompt.len(),
                    image: self.images.len() * self.network.config.tokens_per_tile(),
                    generated: self.new_tokens,
                },
                stages: StageTimes {
                    preprocess: Duration::from_secs_f64(seconds.preprocess_s),
                    vision: Duration::from_secs_f64(seconds.vision_s),
                    prefill: Duration::from_secs_f64(seconds.prefill_s),
                    decode: Duration::from_secs_f64(seconds.decode_s),
                },
            };
            Ok(requests.iter().map(|_| Ok(description.clone())).collect())
        })
    }
}

/// Token ids of the prompt for a clip of `frames` frames, with the image token's id for every image token.
fn prompt(config: &ModelConfig, frames: usize) -> Vec<u32> {
    let mut ids = vec![TEXT_TOKEN; INTRO];
    for _ in 0..frames {
        ids.extend(repeat_n(TEXT_TOKEN, AROUND_IMAGE.0));
        ids.extend(repeat_n(config.image_token_id, config.tokens_per_tile()));
        ids.extend(repeat_n(TEXT_TOKEN, AROUND_IMAGE.1));
    }
    ids.extend(repeat_n(TEXT_TOKEN, QUESTION));
    ids
}

/// RGB bytes of a colour gradient of `side` by `side` pixels. It is smooth, so that nothing in the network saturates;
/// the content of an image does not change the time that it takes.
fn gradient_image(side: usize, t: usize) -> Arc<[u8]> {
    (0..side * side).flat_map(|i| [(i % side + t) as u8, (i / side) as u8, (t * 29) as u8]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_as_many_tokens_as_those_of_the_reference() {
        // Counted by transformers 5.23.0 for the question "Describe this video in detail."
        let (small, large) = (Shape::M256.config(), Shape::B2.config());
        assert_eq!(prompt(&small, 3).len(), 276);
        assert_eq!(prompt(&small, 8).len(), 661);
        assert_eq!(prompt(&large, 8).iter().filter(|id| **id == 49_190).count(), 8 * 81);
    }
}
