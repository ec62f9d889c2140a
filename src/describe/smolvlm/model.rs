//! The describer for a SmolVLM2 checkpoint.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Instant};

use candle_core::Tensor;

use super::{
    super::{
        describer::{Answers, DescribeError, Describer, Description, Footage, StageTimes, TextObserver},
        options::LoadOptions,
    },
    config::{ModelConfig, ProcessorConfig},
    layout::layout,
    network::Network,
    preprocess::{Medium, Preprocessor},
    prompt::{Message, Part, Prompt, Prompter},
    sampling::{FrameSampling, REFERENCE_SKIP},
};
use crate::{
    device::{DeviceChoice, DeviceMemory, DtypeChoice, GpuInfo},
    event::{ModelInfo, Tokens},
    heartbeat::Heartbeat,
    nn::{
        device::{ComputeTarget, choose},
        error::{DeviceFailure, LoadError},
        generate::{Completion, GenerationRequest},
        sampler::{Draw, TokenSampling},
        weights::Weights,
    },
    plural::plural,
    request::{self, Content, ImageOptions, Picture, Request, Sampling, VideoSampling},
    resize::{FrameScaling, RgbImage},
};

// Estimates for a usual request, in tokens.
/// Tokens of a frame beside its image tokens: its time and the tokens around the image.
const FRAME_TOKENS: usize = 13;
/// Tokens of the rest of the prompt.
const TEXT_TOKENS: usize = 64;
/// Tokens of the answer.
const ANSWER_TOKENS: usize = 96;

/// A loaded SmolVLM2.
pub struct SmolVlm {
    network: Network,
    prompter: Prompter,
    preprocessor: Preprocessor,
    processor: ProcessorConfig,
    info: ModelInfo,
    heartbeat: Arc<Heartbeat>,
}

/// A batch that is ready for the network.
struct Batch {
    /// Of each request, or why it cannot be answered.
    prepared: Vec<Result<(Prompt, TokenSampling), DescribeError>>,
    /// Of all requests that can be answered, in order.
    tiles: Vec<u8>,
}

impl SmolVlm {
    /// Loads the checkpoint in `dir`. Everything small is checked before the weights are read.
    ///
    /// # Errors
    /// When a file is missing, damaged or another model's, or the device cannot be used.
    pub fn load(dir: &Path, options: LoadOptions) -> Result<Self, LoadError> {
        let (config, processor, prompter) = Self::read(dir)?;
        let target = ComputeTarget { kernels: options.kernels, ..choose(options.device, options.dtype)? };
        let start = Instant::now();
        let info = ModelInfo {
            id: options.id,
            revision: options.revision,
            device: target.device_name(),
            dtype: target.dtype_name().into(),
        };
        let network = Network::load(dir, config, target)?;
        if let Some(why) = &network.refused {
            tracing::warn!("camscribe's own kernels do not all run here, so the model is slower: {why}");
        }
        let (target, kernels) = (&network.target, network.target.kernels.as_str());
        tracing::info!("model {} loaded on {target} ({kernels}) in {:.1?}", info.id, start.elapsed());
        let preprocessor = Preprocessor::new(&processor);
        Ok(Self { network, prompter, preprocessor, processor, info, heartbeat: Arc::default() })
    }

    /// Checks that the checkpoint in `dir` can be loaded, without reading the numbers of its weights. Returns where it
    /// would run.
    ///
    /// # Errors
    /// As [`SmolVlm::load`].
    pub fn probe(dir: &Path, device: DeviceChoice, dtype: DtypeChoice) -> Result<ComputeTarget, LoadError> {
        let (config, ..) = Self::read(dir)?;
        let target = choose(device, dtype)?;
        Weights::open(dir, &target.device, target.dtype)?.check(layout(&config))?;
        Ok(target)
    }

    fn read(dir: &Path) -> Result<(ModelConfig, ProcessorConfig, Prompter), LoadError> {
        let config = ModelConfig::load(dir)?;
        let processor = ProcessorConfig::load(dir, &config)?;
        let prompter = Prompter::load(dir, &config, &processor)?;
        Ok((config, processor, prompter))
    }

    /// The images and frames of a request, in order.
    fn media<'a>(&self, request: &'a Request) -> Result<Vec<Medium<'a>>, DescribeError> {
        let ImageOptions { longest_edge, split, video_edge } = request.images;
        let edge = |wanted: Option<usize>, usual: usize| match wanted {
            Some(edge) if !(1..=ImageOptions::MAX_EDGE).contains(&edge) => Err(DescribeError::Request(
                format!("an edge of {edge} pixels is not possible: 1 to {} are", ImageOptions::MAX_EDGE),
            )),
            wanted => Ok(wanted.unwrap_or(usual)),
        };
        let image_edge = edge(longest_edge, self.processor.image_edge)?;
        let video_edge = edge(video_edge, self.processor.video_edge)?;
        let split = split.unwrap_or(self.processor.do_image_splitting);
        let rgb = |picture: &'a Picture| {
            RgbImage::new(&picture.rgb, picture.width, picture.height)
                .map_err(|error| DescribeError::Request(error.to_string()))
        };
        let mut media = Vec::with_capacity(request.pictures());
        for content in request.messages.iter().flat_map(|message| &message.content) {
            match content {
                Content::Text(_) => {}
                Content::Image(picture) => {
                    media.push(Medium::Image { image: rgb(picture)?, edge: image_edge, split });
                }
                Content::Video(video) if video.frames.is_empty() => {
                    return Err(DescribeError::Request("a video has no frames".into()));
                }
                Content::Video(video) => {
                    for (_, picture) in &video.frames {
                        media.push(Medium::Frame { image: rgb(picture)?, edge: video_edge });
                    }
                }
            }
        }
        Ok(media)
    }

    /// Prepares a batch: the prompts, and the tiles of the requests that can be answered.
    fn prepare(&self, requests: &[Request]) -> Batch {
        let mut media = Vec::new();
        let mut prepared = Vec::with_capacity(requests.len());
        for request in requests {
            prepared.push(self.media(request).and_then(|own| {
                let prepared = (self.prompt(request, &own)?, self.sampling(request.sampling)?);
                media.extend(own);
                Ok(prepared)
            }));
        }
        let tiles =
            self.preprocessor.tiles(&media).into_iter().map(|it| it.bytes).collect::<Vec<_>>().concat();
        Batch { prepared, tiles }
    }

    /// The prompt of a request with these images and frames.
    fn prompt(&self, request: &Request, media: &[Medium<'_>]) -> Result<Prompt, DescribeError> {
        let mut media = media.iter();
        let mut part = |content: &Content| match content {
            Content::Text(text) => Part::Text(text.clone()),
            Content::Image(_) => {
                let (rows, cols) = media.next().map_or((0, 0), |medium| self.preprocessor.cuts(medium));
                Part::Image { rows, cols }
            }
            Content::Video(video) => {
                media.by_ref().take(video.frames.len()).for_each(drop);
                let times = video.frames.iter().map(|(time, _)| *time).collect();
                Part::Video { times, duration: video.duration }
            }
        };
        let mut message = |message: &request::Message| Message {
            role: message.role,
            parts: message.content.iter().map(&mut part).collect(),
        };
        let messages: Vec<_> = request.messages.iter().map(&mut message).collect();
        let prompt = self.prompter.build(&messages).map_err(|e| DescribeError::Request(e.to_string()))?;
        tracing::trace!("prompt: {}", prompt.text);
        let (tokens, most) = (prompt.ids.len(), self.network.config.text.max_position_embeddings);
        if tokens >= most {
            return Err(DescribeError::Request(format!(
                "{} and the text make {tokens} tokens, and the model ends at {most}: use fewer frames, smaller \
                 images, or a shorter text",
                plural(request.pictures(), "picture")
            )));
        }
        Ok(prompt)
    }

    /// How the tokens of an answer are chosen.
    fn sampling(&self, asked: Sampling) -> Result<TokenSampling, DescribeError> {
        asked.check().map_err(DescribeError::Request)?;
        let usual = self.network.config.sampling;
        // Whoever says from which words to draw wants to draw.
        let draws = usual.do_sample || asked.top_p.is_some() || asked.top_k.is_some();
        let temperature = asked.temperature.unwrap_or(if draws { usual.temperature } else { 0.0 });
        let draw = Draw {
            temperature,
            top_k: asked.top_k.unwrap_or(usual.top_k),
            top_p: asked.top_p.unwrap_or(usual.top_p),
            seed: asked.seed,
        };
        let repetition_penalty = asked.repetition_penalty.unwrap_or(usual.repetition_penalty);
        Ok(TokenSampling { repetition_penalty, draw: (temperature > 0.0).then_some(draw) })
    }

    /// Classifies an error of the device. After too little memory, unused memory is released.
    fn device_error(&self, error: candle_core::Error) -> DescribeError {
        match DeviceFailure::classify(&error.to_string()) {
            DeviceFailure::OutOfMemory(reason) => {
                self.network.target.trim_pool();
                DescribeError::OutOfMemory(reason)
            }
            DeviceFailure::Unavailable { reason, retry_after } => {
                DescribeError::Unavailable { reason, retry_after }
            }
            DeviceFailure::Broken(reason) => DescribeError::Device(reason),
        }
    }

    fn description(
        &self,
        prompt: &Prompt,
        completion: Completion,
        stages: StageTimes,
    ) -> Result<Description, DescribeError> {
        let text =
            self.prompter.decode(&completion.ids).map_err(|e| DescribeError::Request(e.to_string()))?;
        Ok(Description {
            text,
            finish_reason: completion.finish_reason,
            tokens: Tokens {
                prompt: prompt.ids.len(),
                image: prompt.image_tokens,
                generated: completion.ids.len(),
            },
            stages,
        })
    }
}

impl Describer for SmolVlm {
    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn heartbeat(&self) -> Arc<Heartbeat> {
        Arc::clone(&self.heartbeat)
    }

    fn frame_scaling(&self) -> Option<FrameScaling> {
        Some(self.preprocessor.frame_scaling())
    }

    fn sample_file(&self, footage: Footage, asked: VideoSampling) -> Option<Vec<u64>> {
        let sampling = FrameSampling {
            fps: asked.fps.unwrap_or(self.processor.video_fps),
            max_frames: asked.max_frames.unwrap_or(self.processor.video_max_frames),
            skip: REFERENCE_SKIP,
        };
        Some(sampling.indices(footage))
    }

    fn gpu(&self) -> Option<GpuInfo> {
        self.network.target.gpu.clone()
    }

    fn max_batch(&self, pictures: usize) -> Option<NonZeroUsize> {
        let prompt = pictures * (self.network.config.tokens_per_tile() + FRAME_TOKENS) + TEXT_TOKENS;
        let request = self.network.sequence_bytes(prompt + ANSWER_TOKENS);
        let fit = self.network.target.free_memory()? / 4 * 3 / request;
        NonZeroUsize::new(fit.max(1))
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.network.target.memory()
    }

    fn answer(&mut self, requests: &[Request], on_text: TextObserver<'_>) -> Result<Answers, DescribeError> {
        let start = Instant::now();
        // One beat per layer of every forward pass; per token where own kernels decode.
        let heartbeat = Arc::clone(&self.heartbeat);
        let mut observe = |_, _: &Tensor| {
            heartbeat.beat();
            Ok(())
        };
        let Batch { prepared, tiles } = self.prepare(requests);
        let mut stages = StageTimes { preprocess: start.elapsed(), ..StageTimes::default() };

        heartbeat.beat();
        let start = Instant::now();
        let features = self.network.encode(&tiles, &mut observe).map_err(|e| self.device_error(e))?;
        stages.vision = start.elapsed();

        let good = || prepared.iter().enumerate().filter_map(|(i, it)| Some((i, it.as_ref().ok()?)));
        let generations: Vec<_> = good()
            .map(|(i, (prompt, sampling))| GenerationRequest {
                ids: prompt.ids.clone(),
                max_tokens: requests[i].max_tokens,
                sampling: *sampling,
            })
            .collect();
        let numbers: Vec<usize> = good().map(|(i, _)| i).collect();
        let mut streams: Vec<_> = numbers.iter().map(|_| self.prompter.text_stream()).collect();
        let mut on_token = |sequence: usize, id| {
            // An error of the tokenizer is that of the whole answer, too.
            let text = streams[sequence].push(id).unwrap_or_default();
            if !text.is_empty() {
                on_text(numbers[sequence], &text);
            }
        };
        let mut completions = Vec::new();
        if !generations.is_empty() {
            let generated = self
                .network
                .generate(&generations, features.as_ref(), &mut on_token, &mut observe)
                .map_err(|e| self.device_error(e))?;
            (stages.prefill, stages.decode) = (generated.prefill, generated.decode);
            completions = generated.completions;
        }
        for (stream, number) in streams.iter_mut().zip(&numbers) {
            let rest = stream.finish().unwrap_or_default();
            if !rest.is_empty() {
                on_text(*number, &rest);
            }
        }
        let mut completions = completions.into_iter();
        let answer = |prepared: Result<(Prompt, _), DescribeError>| {
            let (prompt, _) = prepared?;
            match completions.next() {
                Some(Ok(completion)) => self.description(&prompt, completion, stages),
                Some(Err(e)) => Err(DescribeError::Request(e.to_string())),
                None => Err(DescribeError::Device("the network returned too few completions".into())),
            }
        };
        Ok(prepared.into_iter().map(answer).collect())
    }
}
