//! The describer for a SmolVLM2 checkpoint.

use std::{num::NonZeroUsize, path::Path, sync::Arc, time::Instant};

use candle_core::Tensor;

use super::{
    super::{
        describer::{DescribeError, Describer, Description, Footage, StageTimes},
        options::LoadOptions,
    },
    config::{ModelConfig, ProcessorConfig},
    layout::layout,
    network::Network,
    preprocess::Preprocessor,
    prompt::{Prompt, Prompter},
    sampling::{FrameSampling, REFERENCE_SKIP},
};
use crate::{
    clip::Clip,
    device::{DeviceChoice, DeviceMemory, DtypeChoice, GpuInfo},
    event::{ModelInfo, Tokens},
    heartbeat::Heartbeat,
    nn::{
        device::{ComputeTarget, choose},
        error::{DeviceFailure, LoadError},
        generate::{Completion, GenerationRequest, TokenSampling},
        weights::Weights,
    },
    resize::{FrameScaling, RgbImage},
};

// Estimates for a usual clip, in tokens.
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
    file_sampling: FrameSampling,
    info: ModelInfo,
    heartbeat: Arc<Heartbeat>,
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
        let file_sampling = FrameSampling {
            fps: processor.video_fps,
            max_frames: processor.video_max_frames,
            skip: REFERENCE_SKIP,
        };
        let preprocessor = Preprocessor::new(&processor);
        Ok(Self { network, prompter, preprocessor, file_sampling, info, heartbeat: Arc::default() })
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

    /// Checks a clip and prepares its prompt and its frames.
    fn prepare<'a>(&self, clip: &'a Clip) -> Result<(Prompt, Vec<RgbImage<'a>>), DescribeError> {
        if clip.frames.is_empty() {
            return Err(DescribeError::Clip("the clip has no frames".into()));
        }
        let frames = clip.frames.iter().map(|f| RgbImage::new(&f.rgb, f.width, f.height));
        let frames = frames.collect::<Result<_, _>>().map_err(|e| DescribeError::Clip(e.to_string()))?;
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
        Ok((prompt, frames))
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
        let text = self.prompter.decode(&completion.ids).map_err(|e| DescribeError::Clip(e.to_string()))?;
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

    fn sample_file(&self, footage: Footage) -> Option<Vec<u64>> {
        Some(self.file_sampling.indices(footage))
    }

    fn gpu(&self) -> Option<GpuInfo> {
        self.network.target.gpu.clone()
    }

    fn max_clips(&self, frames: usize) -> Option<NonZeroUsize> {
        let prompt = frames * (self.network.config.tokens_per_tile() + FRAME_TOKENS) + TEXT_TOKENS;
        let clip = self.network.sequence_bytes(prompt + ANSWER_TOKENS);
        let fit = self.network.target.free_memory()? / 4 * 3 / clip;
        NonZeroUsize::new(fit.max(1))
    }

    fn device_memory(&self) -> Option<DeviceMemory> {
        self.network.target.memory()
    }

    fn describe(&mut self, clips: &[Clip]) -> Result<Vec<Result<Description, DescribeError>>, DescribeError> {
        let start = Instant::now();
        // One beat per layer of every forward pass; per token where own kernels decode.
        let heartbeat = Arc::clone(&self.heartbeat);
        let mut observe = |_, _: &Tensor| {
            heartbeat.beat();
            Ok(())
        };
        let mut prepared: Vec<_> = clips.iter().map(|clip| self.prepare(clip)).collect();
        let frames: Vec<RgbImage<'_>> =
            prepared.iter_mut().flatten().flat_map(|(_, frames)| std::mem::take(frames)).collect();
        let tiles = self.preprocessor.video_tiles(&frames);
        let mut stages = StageTimes { preprocess: start.elapsed(), ..StageTimes::default() };

        heartbeat.beat();
        let start = Instant::now();
        let features = self.network.encode(&tiles, &mut observe).map_err(|e| self.device_error(e))?;
        stages.vision = start.elapsed();

        let requests: Vec<GenerationRequest> = prepared
            .iter()
            .zip(clips)
            .filter_map(|(prepared, clip)| {
                let (prompt, _) = prepared.as_ref().ok()?;
                let max_tokens = clip.prompt_spec.max_tokens;
                Some(GenerationRequest {
                    ids: prompt.ids.clone(),
                    max_tokens,
                    sampling: TokenSampling::Greedy,
                })
            })
            .collect();
        let mut completions = Vec::new();
        if !requests.is_empty() {
            let generated = self
                .network
                .generate(&requests, features.as_ref(), &mut observe)
                .map_err(|e| self.device_error(e))?;
            (stages.prefill, stages.decode) = (generated.prefill, generated.decode);
            completions = generated.completions;
        }
        let mut completions = completions.into_iter();
        let describe = |prepared: Result<(Prompt, _), DescribeError>| {
            let (prompt, _) = prepared?;
            match completions.next() {
                Some(Ok(completion)) => self.description(&prompt, completion, stages),
                Some(Err(e)) => Err(DescribeError::Clip(e.to_string())),
                None => Err(DescribeError::Device("the network returned too few completions".into())),
            }
        };
        Ok(prepared.into_iter().map(describe).collect())
    }
}
