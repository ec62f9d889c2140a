//! A model of random weights with what surrounds the network in the product: clips go in, answers
//! that mean nothing come out, and what each stage took. It has no tokenizer: prompts are made of ids,
//! as many as the reference's prompt for such a clip has.

use std::{iter::repeat_n, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use chrono::{TimeDelta, Utc};
use serde::Serialize;

use super::{
    Settings,
    clock::{Clock, Spent},
    shapes::Shape,
};
use crate::{
    camera::CameraId,
    clip::Clip,
    describe::{
        DescribeError, Describer, Description, StageTimes,
        smolvlm::{config::ModelConfig, network::Network, preprocess::Preprocessor},
    },
    event::{FinishReason, ModelInfo, Tokens},
    frame::{Clock as FrameClock, Frame},
    heartbeat::Heartbeat,
    nn::{
        device::ComputeTarget,
        generate::{Request, TokenSampling},
        observer::ActivationPoint,
    },
    prompt_spec::PromptSpec,
    resize::RgbImage,
};

/// Tokens before the first frame, up to the empty line: "User: You are provided …".
const INTRO: usize = 32;
/// Tokens of a frame that are no picture: "Frame from 00:00:" and what stands around the picture.
const AROUND: (usize, usize) = (12, 1);
/// Tokens after the last frame: the question ("Describe this video in detail.") and "Assistant:".
const QUESTION: usize = 13;
/// An ordinary word.
const WORD: u32 = 1000;

/// The model.
pub struct Model {
    pub network: Network,
    preprocessor: Preprocessor,
    prompt: Vec<u32>,
    /// Length of every answer.
    pub new_tokens: usize,
    /// The frames of every clip.
    pictures: Vec<Arc<[u8]>>,
    info: ModelInfo,
    heartbeat: Arc<Heartbeat>,
}

/// What a batch took, stage by stage.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    #[serde(flatten)]
    pub wall: Seconds<f64>,
    /// Of all threads together; nothing where the kernel does not count it.
    pub cpu: Seconds<Option<f64>>,
}

/// Seconds by stage.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Seconds<T> {
    pub preprocess_s: T,
    pub vision_s: T,
    pub prefill_s: T,
    pub decode_s: T,
}

impl Seconds<f64> {
    /// Of all stages.
    pub fn total(self) -> f64 {
        self.preprocess_s + self.vision_s + self.prefill_s + self.decode_s
    }
}

impl Model {
    /// Makes the weights and puts them on the device.
    pub fn new(shape: Shape, settings: &Settings, target: ComputeTarget) -> Result<Self> {
        let (config, processor) = (shape.config(), shape.processor());
        let info = ModelInfo {
            id: format!("random-{shape}"),
            revision: String::new(),
            device: target.device_name(),
            dtype: target.dtype_name().into(),
        };
        let side = config.vision.image_size;
        let network = Network::random(config.clone(), settings.seed, target)?;
        if let Some(why) = &network.refused {
            bail!("our own kernels do not run: {why} (measure candle's with --kernels candle)");
        }
        Ok(Self {
            prompt: prompt(&config, settings.frames),
            preprocessor: Preprocessor::new(&processor),
            new_tokens: settings.new_tokens,
            pictures: (0..settings.frames).map(|t| picture(side, t)).collect(),
            network,
            info,
            heartbeat: Arc::default(),
        })
    }

    /// Tokens of a clip's prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt.len()
    }

    /// Of a clip.
    pub fn frames(&self) -> usize {
        self.pictures.len()
    }

    /// A camera's clip of this number.
    pub fn clip(&self, camera: &CameraId, seq: u64) -> Clip {
        let (start, side) = (Utc::now(), self.network.config.vision.image_size as u32);
        let frame = |(i, rgb): (usize, &Arc<[u8]>)| Frame {
            camera: camera.clone(),
            captured_at: start,
            clock: FrameClock::Arrival,
            pts: Duration::from_secs(i as u64),
            width: side,
            height: side,
            rgb: Arc::clone(rgb),
            original: None,
        };
        let seconds = self.pictures.len();
        let prompt_spec = PromptSpec { prompt: String::new(), max_tokens: self.new_tokens, gate: None };
        Clip {
            camera: camera.clone(),
            seq,
            start,
            end: start + TimeDelta::seconds(seconds as i64),
            clock: FrameClock::Arrival,
            start_pts: Duration::ZERO,
            duration: Duration::from_secs(seconds as u64),
            frames: self.pictures.iter().enumerate().map(frame).collect(),
            gap: false,
            prompt_spec: Arc::new(prompt_spec),
        }
    }

    /// Answers a batch; `step` is called after every layer of every pass, or after every token where our own
    /// kernels decode.
    pub fn answer(&self, clips: &[Clip], step: &mut (dyn FnMut() + Send)) -> Result<Times> {
        let clock = Clock::start();
        let frames = clips.iter().flat_map(|clip| &clip.frames);
        let pictures = frames.map(|f| RgbImage::new(&f.rgb, f.width, f.height));
        let tiles = self.preprocessor.video_tiles(&pictures.collect::<Result<Vec<_>, _>>()?);
        let preprocess = clock.spent();

        let clock = Clock::start();
        let features = self.network.encode(&tiles, &mut |_, _| {
            step();
            Ok(())
        })?;
        let vision = clock.spent();

        let request = Request {
            ids: self.prompt.clone(),
            max_tokens: self.new_tokens,
            sampling: TokenSampling::Greedy,
        };
        let clock = Clock::start();
        let mut prefill: Option<Spent> = None;
        let requests = vec![request; clips.len()];
        let made = self.network.generate(&requests, features.as_ref(), &mut |stage, _| {
            step();
            if stage == ActivationPoint::Logits && prefill.is_none() {
                // What the CPU does while it waits for the GPU is part of it.
                self.network.target.device.synchronize()?;
                prefill = Some(clock.spent());
            }
            Ok(())
        })?;
        let whole = clock.spent();
        let prefill = prefill.context("there was no prefill")?;
        for answer in made.answers {
            let tokens = answer?.ids.len();
            if tokens != self.new_tokens {
                bail!("an answer has {tokens} tokens and not {}: the prompt is too long", self.new_tokens);
            }
        }
        Ok(Times {
            wall: Seconds {
                preprocess_s: preprocess.wall,
                vision_s: vision.wall,
                prefill_s: made.prefill.as_secs_f64(),
                decode_s: made.decode.as_secs_f64(),
            },
            cpu: Seconds {
                preprocess_s: preprocess.cpu,
                vision_s: vision.cpu,
                prefill_s: prefill.cpu,
                decode_s: whole.cpu.zip(prefill.cpu).map(|(whole, prefill)| whole - prefill),
            },
        })
    }
}

impl Describer for Model {
    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
        let broken = |e: anyhow::Error| DescribeError::Device(format!("{e:#}"));
        let spent = self.answer(clips, &mut || self.heartbeat.beat()).map_err(broken)?.wall;
        let description = Description {
            text: String::new(),
            finish_reason: FinishReason::Length,
            tokens: Tokens {
                prompt: self.prompt.len(),
                image: self.pictures.len() * self.network.config.tokens_per_tile(),
                generated: self.new_tokens,
            },
            stages: StageTimes {
                preprocess: Duration::from_secs_f64(spent.preprocess_s),
                vision: Duration::from_secs_f64(spent.vision_s),
                prefill: Duration::from_secs_f64(spent.prefill_s),
                decode: Duration::from_secs_f64(spent.decode_s),
            },
        };
        Ok(clips.iter().map(|_| Ok(description.clone())).collect())
    }
}

/// As many ids as the prompt for a clip of so many frames has, `<image>` where pictures go.
fn prompt(config: &ModelConfig, frames: usize) -> Vec<u32> {
    let mut ids = vec![WORD; INTRO];
    for _ in 0..frames {
        ids.extend(repeat_n(WORD, AROUND.0));
        ids.extend(repeat_n(config.image_token_id, config.tokens_per_tile()));
        ids.extend(repeat_n(WORD, AROUND.1));
    }
    ids.extend(repeat_n(WORD, QUESTION));
    ids
}

/// RGB bytes of a smooth picture, so that nothing in the network saturates; what it shows does not
/// change its time.
fn picture(side: usize, t: usize) -> Arc<[u8]> {
    (0..side * side).flat_map(|i| [(i % side + t) as u8, (i / side) as u8, (t * 29) as u8]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_have_as_many_tokens_as_the_references() {
        // Counted by transformers 5.23.0 for the question "Describe this video in detail."
        let (small, large) = (Shape::M256.config(), Shape::B2.config());
        assert_eq!(prompt(&small, 3).len(), 276);
        assert_eq!(prompt(&small, 8).len(), 661);
        assert_eq!(prompt(&large, 8).iter().filter(|id| **id == 49_190).count(), 8 * 81);
    }
}
