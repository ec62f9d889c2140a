//! A loaded SmolVLM2 checkpoint, and what it makes of requests before the network sees them.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::{
    super::{
        answer_format::{FormatCompiler, FormatMatcher},
        options::LoadOptions,
    },
    config::{ModelConfig, ProcessorConfig},
    label_scoring::LabelScoring,
    layout::layout,
    network::Network,
    preprocess::{Medium, Preprocessor},
    prompt::{Message, Part, Prompt, PromptError, Prompter, Role},
};
use crate::{
    answer::DescribeError,
    device::{DeviceChoice, DtypeChoice},
    event::ModelInfo,
    heartbeat::Heartbeat,
    nn::{
        device::{ComputeTarget, choose},
        error::{DeviceFailure, LoadError},
        sampler::{Draw, TokenSampling},
        weights::Weights,
    },
    plural::plural,
    request::{self, AnswerFormat, Content, ImageOptions, Picture, Request},
    resize::RgbImage,
};

/// A loaded SmolVLM2.
pub struct SmolVlm {
    pub(super) network: Network,
    pub(super) prompter: Prompter,
    /// Made when a request first needs it.
    pub(super) formats: OnceLock<Result<FormatCompiler, String>>,
    pub(super) preprocessor: Preprocessor,
    pub(super) processor: ProcessorConfig,
    pub(super) info: ModelInfo,
    pub(super) heartbeat: Arc<Heartbeat>,
}

/// A request that is ready for the network.
pub(super) struct Ready {
    pub prompt: Prompt,
    pub sampling: TokenSampling,
    /// What the answer must follow.
    pub format: Option<FormatMatcher>,
    /// The questions about it.
    pub questions: LabelScoring,
}

/// Requests that are ready for the network.
pub(super) struct Prepared {
    /// Of each request, or why it cannot be answered.
    pub requests: Vec<Result<Ready, DescribeError>>,
    /// Of all requests that can be answered, in order.
    pub tiles: Vec<u8>,
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
        let (target, kernels) = (&network.target, network.target.kernels_name());
        tracing::info!("model {} loaded on {target} ({kernels}) in {:.1?}", info.id, start.elapsed());
        let preprocessor = Preprocessor::new(&processor);
        Ok(Self {
            network,
            prompter,
            formats: OnceLock::new(),
            preprocessor,
            processor,
            info,
            heartbeat: Arc::default(),
        })
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

    /// Prepares requests that begin together: the prompts, and the tiles of the requests that can be answered.
    pub(super) fn prepare(&self, requests: &[Request]) -> Prepared {
        let mut media = Vec::new();
        let mut prepared = Vec::with_capacity(requests.len());
        for request in requests {
            prepared.push(self.media(request).and_then(|own| {
                let (prompt, sampling) = (self.prompt(request, &own)?, self.sampling(request)?);
                let (format, questions) = (self.format(request)?, self.questions(request, &own)?);
                media.extend(own);
                Ok(Ready { prompt, sampling, format, questions })
            }));
        }
        let tiles =
            self.preprocessor.tiles(&media).into_iter().map(|it| it.bytes).collect::<Vec<_>>().concat();
        Prepared { requests: prepared, tiles }
    }

    /// The prompt of a conversation with these images and frames.
    fn prompt(&self, request: &Request, media: &[Medium<'_>]) -> Result<Prompt, DescribeError> {
        let mut messages = self.messages(&request.messages, media);
        if let Some(text) = &request.prompt {
            messages = asked(messages, text);
        }
        let prompt =
            if request.raw { self.prompter.build_raw(&messages) } else { self.prompter.build(&messages) };
        let prompt = prompt.map_err(|e| DescribeError::Request(e.to_string()))?;
        tracing::trace!("prompt: {}", prompt.text);
        if prompt.ids.is_empty() {
            return Err(DescribeError::Request("the prompt is empty".into()));
        }
        self.fits(prompt.ids.len(), request)?;
        Ok(prompt)
    }

    /// Messages as the prompter takes them.
    fn messages(&self, messages: &[request::Message], media: &[Medium<'_>]) -> Vec<Message> {
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
        messages.iter().map(&mut message).collect()
    }

    /// Checks that so many tokens fit into the model.
    fn fits(&self, tokens: usize, request: &Request) -> Result<(), DescribeError> {
        let most = self.network.config.text.max_position_embeddings;
        if tokens < most {
            return Ok(());
        }
        Err(DescribeError::Request(format!(
            "{} and the text make {tokens} tokens, and the model ends at {most}: use fewer frames, smaller images, or a \
             shorter text",
            plural(request.pictures(), "picture")
        )))
    }

    /// What must be scored to answer the questions of a request.
    fn questions(&self, request: &Request, media: &[Medium<'_>]) -> Result<LabelScoring, DescribeError> {
        let refused = |error: PromptError| DescribeError::Request(error.to_string());
        let messages = self.messages(&request.messages, media);
        let mut scoring = LabelScoring::default();
        for question in &request.questions {
            let messages = asked(messages.clone(), &question.text);
            let prompt = self.prompter.build(&messages).map_err(refused)?;
            let labels = question.labels.iter().map(|label| self.prompter.answer(label));
            let labels: Vec<Vec<u32>> = labels.collect::<Result<_, _>>().map_err(refused)?;
            let longest = labels.iter().map(Vec::len).max().unwrap_or(0);
            self.fits(prompt.ids.len() + longest, request)?;
            scoring.add(&prompt, &labels);
        }
        Ok(scoring)
    }

    /// What the answer must follow.
    fn format(&self, request: &Request) -> Result<Option<FormatMatcher>, DescribeError> {
        if request.format == AnswerFormat::Text {
            return Ok(None);
        }
        let end = self.network.config.special_tokens().stop.first().copied().unwrap_or_default();
        let compiler = self.formats.get_or_init(|| FormatCompiler::new(&self.prompter.vocabulary(), end));
        let matcher = compiler.as_ref().map_err(String::clone).and_then(|it| it.compile(&request.format));
        matcher.map_err(DescribeError::Request)
    }

    /// How the tokens of an answer are chosen.
    fn sampling(&self, request: &Request) -> Result<TokenSampling, DescribeError> {
        let asked = request.sampling;
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
        let draw = (temperature > 0.0).then_some(draw);
        Ok(TokenSampling { repetition_penalty, draw, logprobs: request.logprobs })
    }

    /// Classifies an error of the device. After too little memory, unused memory is released.
    pub(super) fn device_error(&self, error: candle_core::Error) -> DescribeError {
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
}

/// The messages with `text` after all that the last message of the user holds.
fn asked(mut messages: Vec<Message>, text: &str) -> Vec<Message> {
    let text = Part::Text(text.into());
    match messages.last_mut().filter(|message| message.role == Role::User) {
        Some(last) => {
            if matches!(last.parts.last(), Some(Part::Text(_))) {
                last.parts.push(Part::Text("\n".into()));
            }
            last.parts.push(text);
        }
        None => messages.push(Message { role: Role::User, parts: vec![text] }),
    }
    messages
}
