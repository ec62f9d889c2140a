//! SmolVLM2 on candle: the only place that imports it. Clips come in, descriptions go out; the
//! network equals the reference implementation's (transformers 5.23.0) on the same checkpoint.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Instant};

use candle_core::Tensor;

use self::{
    config::{ModelConfig, ProcessorConfig},
    device::Chosen,
    error::LoadError,
    generate::{Answer, Request, Sampling},
    network::Network,
    preprocess::{Picture, Preprocessor},
    prompt::{Prompt, Prompter},
    weights::Weights,
};
use super::{DescribeError, Describer, Description, DeviceMemory, Stages};
use crate::{
    clip::Clip,
    device::{DeviceChoice, DtypeChoice, Gpu, KernelChoice},
    event::{ModelInfo, Tokens},
    progress::Progress,
};

pub mod config;
pub mod connector;
mod cpu;
#[cfg(any(feature = "cuda", test))]
mod cuda;
pub mod device;
pub mod error;
pub mod generate;
mod keys;
pub mod network;
pub mod ops;
pub mod preprocess;
pub mod prompt;
pub mod rates;
pub mod sampling;
pub mod text;
#[cfg(any(feature = "cuda", test))]
mod trial;
pub mod vision;
pub mod weights;

/// A usual clip: tokens of a frame beside its picture, of the other words and of the answer.
const FRAME_TOKENS: usize = 13;
const WORDS: usize = 64;
const USUAL_ANSWER: usize = 96;

/// What computing gives: candle's errors, unless another kind is named.
pub type Result<T, E = candle_core::Error> = std::result::Result<T, E>;

/// A place in the network whose tensor can be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `(tiles, patches, width)`
    VisionEmbeddings,
    VisionLayer(usize),
    /// After the last norm.
    VisionOut,
    /// `(tiles, tokens, width)`
    ConnectorOut,
    /// `(rows, slots, width)`
    TextLayer(usize),
    /// Of the last slot: `(rows, 1, width)`
    TextNorm,
    /// Of the last slot: `(rows, vocabulary)`
    Logits,
}

/// Sees tensors as they are computed: for tests that hold them against the reference. A tensor's numbers are
/// what they are until the call returns.
pub type Watch<'a> = &'a mut (dyn FnMut(Stage, &Tensor) -> Result<()> + Send);

/// For everyone else.
pub fn unwatched(_: Stage, _: &Tensor) -> Result<()> {
    Ok(())
}

/// How a model is loaded and used.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub device: DeviceChoice,
    pub dtype: DtypeChoice,
    pub kernels: KernelChoice,
    pub sampling: Sampling,
    /// What events call the model: its hub id, or its directory.
    pub id: String,
    /// Branch, tag or commit on the hub; empty for a directory.
    pub revision: String,
}

/// The model.
pub struct SmolVlm {
    network: Network,
    prompter: Prompter,
    preprocessor: Preprocessor,
    sampling: Sampling,
    file_sampling: sampling::Sampling,
    info: ModelInfo,
    progress: Arc<Progress>,
}

impl SmolVlm {
    /// Loads the checkpoint in `dir`: everything small is checked before anything large is read.
    pub fn load(dir: &Path, options: Options) -> Result<Self, LoadError> {
        let (config, processor, prompter) = Self::read(dir)?;
        let chosen = Chosen { kernels: options.kernels, ..device::choose(options.device, options.dtype)? };
        let start = Instant::now();
        let info = ModelInfo {
            id: options.id,
            revision: options.revision,
            device: chosen.device_name(),
            dtype: chosen.dtype_name().into(),
        };
        let network = Network::load(dir, config, chosen)?;
        if let Some(why) = &network.refused {
            tracing::warn!("slower than it could be, for camscribe's own kernels do not all run here: {why}");
        }
        let (chosen, kernels) = (&network.chosen, network.chosen.kernels.as_str());
        tracing::info!("model {} loaded on {chosen} ({kernels}) in {:.1?}", info.id, start.elapsed());
        let preprocessor = Preprocessor::new(&processor);
        let file_sampling = sampling::Sampling {
            fps: processor.video_fps,
            max_frames: processor.video_max_frames,
            skip: sampling::REFERENCE_SKIP,
        };
        Ok(Self {
            network,
            prompter,
            preprocessor,
            sampling: options.sampling,
            file_sampling,
            info,
            progress: Arc::default(),
        })
    }

    /// Whether the checkpoint in `dir` can be loaded, and where it would run: all is read but the
    /// numbers in its weights.
    pub fn probe(dir: &Path, device: DeviceChoice, dtype: DtypeChoice) -> Result<Chosen, LoadError> {
        let (config, ..) = Self::read(dir)?;
        let chosen = device::choose(device, dtype)?;
        Weights::open(dir, &chosen.device, chosen.dtype)?.check(&config)?;
        Ok(chosen)
    }

    fn read(dir: &Path) -> Result<(ModelConfig, ProcessorConfig, Prompter), LoadError> {
        let config = ModelConfig::load(dir)?;
        let processor = ProcessorConfig::load(dir, &config)?;
        let prompter = Prompter::load(dir, &config, &processor)?;
        Ok((config, processor, prompter))
    }

    /// How the reference chooses the frames of a whole file for this model.
    pub fn reference_sampling(&self) -> sampling::Sampling {
        self.file_sampling
    }

    /// The prompt for a clip, and its frames as pictures: everything about it that can be wrong.
    fn prepare<'a>(&self, clip: &'a Clip) -> Result<(Prompt, Vec<Picture<'a>>), DescribeError> {
        if clip.frames.is_empty() {
            return Err(DescribeError::Clip("the clip has no frames".into()));
        }
        let pictures = clip.frames.iter().map(|f| Picture::new(&f.rgb, f.width, f.height));
        let pictures = pictures.collect::<Result<_, _>>().map_err(|e| DescribeError::Clip(e.to_string()))?;
        let prompt = self.prompter.clip(clip).map_err(|e| DescribeError::Clip(e.to_string()))?;
        tracing::trace!(camera = %clip.camera, clip = clip.seq, "prompt: {}", prompt.text);
        let (tokens, most) = (prompt.ids.len(), self.network.config.text.max_position_embeddings);
        if tokens >= most {
            return Err(DescribeError::Clip(format!(
                "{} frames and the prompt make {tokens} tokens, and the model ends at {most}: use fewer frames or a \
                 shorter prompt",
                clip.frames.len()
            )));
        }
        Ok((prompt, pictures))
    }

    /// What an error of the device means.
    fn broken(&self, error: candle_core::Error) -> DescribeError {
        let text = error.to_string();
        if device::is_out_of_memory(&text) {
            self.network.chosen.give_back();
            DescribeError::OutOfMemory(text)
        } else {
            DescribeError::Device(text)
        }
    }

    fn description(
        &self,
        prompt: &Prompt,
        answer: Answer,
        stages: Stages,
    ) -> Result<Description, DescribeError> {
        let text = self.prompter.decode(&answer.ids).map_err(|e| DescribeError::Clip(e.to_string()))?;
        Ok(Description {
            text,
            finish_reason: answer.finish_reason,
            tokens: Tokens {
                prompt: prompt.ids.len(),
                image: prompt.image_tokens,
                generated: answer.ids.len(),
            },
            stages,
        })
    }
}

impl Describer for SmolVlm {
    fn model(&self) -> ModelInfo {
        self.info.clone()
    }

    fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    fn frame_edge(&self) -> Option<usize> {
        Some(self.preprocessor.video_edge())
    }

    fn gpu(&self) -> Option<Gpu> {
        self.network.chosen.gpu.clone()
    }

    fn most_clips(&self, frames: usize) -> Option<NonZeroUsize> {
        let prompt = frames * (self.network.config.tokens_per_tile() + FRAME_TOKENS) + WORDS;
        let fit = self.network.chosen.free_memory()? / 4 * 3 / self.network.row_bytes(prompt + USUAL_ANSWER);
        NonZeroUsize::new(fit.max(1))
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.network.chosen.memory()
    }

    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
        let start = Instant::now();
        // Every layer of every pass is a step, and where kernels of ours decode every token: the longest
        // silence is that of one of them.
        let progress = Arc::clone(&self.progress);
        let mut step = |_, _: &Tensor| {
            progress.step();
            Ok(())
        };
        let mut prepared: Vec<_> = clips.iter().map(|clip| self.prepare(clip)).collect();
        let pictures: Vec<Picture<'_>> =
            prepared.iter_mut().flatten().flat_map(|(_, pictures)| std::mem::take(pictures)).collect();
        let tiles = self.preprocessor.video_tiles(&pictures);
        let mut stages = Stages { preprocess: start.elapsed(), ..Stages::default() };

        progress.step();
        let start = Instant::now();
        let features = self.network.encode(&tiles, &mut step).map_err(|e| self.broken(e))?;
        stages.vision = start.elapsed();

        let requests: Vec<Request> = prepared
            .iter()
            .zip(clips)
            .filter_map(|(prepared, clip)| {
                let (prompt, _) = prepared.as_ref().ok()?;
                let max_tokens = clip.prompt_spec.max_tokens;
                Some(Request { ids: prompt.ids.clone(), max_tokens, sampling: self.sampling })
            })
            .collect();
        let mut answers = Vec::new();
        if !requests.is_empty() {
            let made =
                self.network.generate(&requests, features.as_ref(), &mut step).map_err(|e| self.broken(e))?;
            (stages.prefill, stages.decode) = (made.prefill, made.decode);
            answers = made.answers;
        }
        let mut answers = answers.into_iter();
        let describe = |prepared: Result<(Prompt, _), DescribeError>| {
            let (prompt, _) = prepared?;
            match answers.next() {
                Some(Ok(answer)) => self.description(&prompt, answer, stages),
                Some(Err(e)) => Err(DescribeError::Clip(e.to_string())),
                None => Err(DescribeError::Device("the network gave too few answers".into())),
            }
        };
        Ok(prepared.into_iter().map(describe).collect())
    }
}
