//! The benchmark's results: a JSON document, and a table in Markdown.

use std::fmt;

use serde::Serialize;

use super::{
    camera_trials::CameraTrials,
    cost,
    random_model::{RandomModel, StageSeconds},
    settings::Settings,
    shapes::Shape,
};
use crate::{
    describe::smolvlm::config::ModelConfig,
    nn::{device::ComputeTarget, roofline::Roofline},
};

/// The document. Field names are the JSON keys, which `benches/reference.py` reads.
#[derive(Debug, Serialize)]
pub struct BenchReport {
    /// Version of camscribe.
    pub version: &'static str,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// Name of the GPU or of the processor.
    pub hardware: String,
    /// `f32`, `bf16`, `f16` or `q8`.
    pub dtype: &'static str,
    /// Threads that compute on the CPU.
    pub threads: usize,
    /// Seed of the random weights.
    pub seed: u64,
    /// Frames of a clip, each one tile.
    pub frames: usize,
    /// Tokens of every answer.
    pub new_tokens: usize,
    /// Timed runs of each batch, after one to warm up. The median counts.
    pub repeat: usize,
    /// The device's peak rate of floating-point operations, in 10^12 per second, measured in this run
    /// ([`Roofline::matrix`]).
    pub matrix_tflop_per_s: f64,
    /// The device's peak memory bandwidth in 10^9 bytes per second, measured in this run ([`Roofline::memory`]).
    pub memory_gb_per_s: f64,
    /// In the order in which they were measured.
    pub shapes: Vec<ShapeReport>,
}

/// The results of one model.
#[derive(Debug, Serialize)]
pub struct ShapeReport {
    /// The published model that has this size.
    pub shape: Shape,
    /// Its sizes, named as in `config.json`.
    pub config: ModelConfig,
    /// Its parameters.
    pub parameters: usize,
    /// The kernels that ran: `candle`, `own` or `graphs`.
    pub kernels: &'static str,
    /// Tokens of every prompt, image tokens included.
    pub prompt_tokens: usize,
    /// Seconds that making the weights on the device took.
    pub load_s: f64,
    /// In the order in which they were run.
    pub batches: Vec<BatchReport>,
    /// Why larger batches were not measured. None if all were.
    pub stopped: Option<String>,
    /// None if no trials were asked for.
    pub cameras: Option<CameraTrials>,
}

/// What was measured of one batch size.
pub struct Measurement {
    /// Clips in a batch.
    pub batch: usize,
    /// Times of the stages.
    pub times: StageSeconds,
    /// Peak memory in bytes, as [`BatchReport::peak_memory_mb`].
    pub peak_memory: usize,
}

/// The results of one batch size.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    /// Clips in a batch.
    pub batch: usize,
    /// Clips per second. The stages run one after the other, as camscribe runs them.
    pub clips_per_s: f64,
    /// Seconds from the frames to the first token of every answer.
    pub first_token_s: f64,
    /// Milliseconds of a decode step, which makes one token of every answer.
    pub decode_ms_per_token: f64,
    /// Times of the stages.
    #[serde(flatten)]
    pub times: StageSeconds,
    /// Floating-point operations of the vision tower and the connector.
    pub vision_flop: f64,
    /// Floating-point operations of the prefill.
    pub prefill_flop: f64,
    /// Bytes that all decode steps read.
    pub decode_bytes: f64,
    /// Rate of the vision stage, as a fraction of the measured peak rate of operations.
    pub vision_share: f64,
    /// Rate of the prefill, as a fraction of the measured peak rate of operations.
    pub prefill_share: f64,
    /// Rate of the decode steps, as a fraction of the measured peak bandwidth.
    pub decode_share: f64,
    /// Peak memory in MiB: on a GPU the device's memory in use by all processes, on the CPU the resident memory of
    /// this process.
    pub peak_memory_mb: usize,
}

impl BatchReport {
    /// Computes rates from times and costs, and compares them with the device's peak rates.
    pub fn new(model: &RandomModel, measurement: Measurement, roofline: Roofline) -> Self {
        let Measurement { batch, times, peak_memory } = measurement;
        let (network, prompt, wall) = (&model.network, model.prompt_tokens(), times.wall);
        // The prefill makes the first token.
        let steps = (model.new_tokens - 1) as f64;
        // The mean over all steps: they attend to `prompt + 1` to `prompt + steps` slots.
        let slots = prompt as f64 + (steps + 1.) / 2.;
        let bytes = (network.decoder_weight_bytes(), network.target.dtype.size_in_bytes());
        let vision_flop = (batch * model.frames()) as f64 * cost::vision_flop(&network.config);
        let prefill_flop = batch as f64 * cost::prefill_flop(&network.config, prompt);
        let decode_bytes = steps * cost::decode_step_bytes(&network.config, (batch, slots), bytes);
        Self {
            batch,
            clips_per_s: batch as f64 / wall.total(),
            first_token_s: wall.total() - wall.decode_s,
            decode_ms_per_token: 1000. * wall.decode_s / steps,
            times,
            vision_flop,
            prefill_flop,
            decode_bytes,
            vision_share: vision_flop / wall.vision_s / roofline.matrix,
            prefill_share: prefill_flop / wall.prefill_s / roofline.matrix,
            decode_share: decode_bytes / wall.decode_s / roofline.memory,
            peak_memory_mb: peak_memory >> 20,
        }
    }

    /// The header of the table.
    pub const HEADER: &str = "\
| batch | clips/s | first token, s | ms per token | vision, % of matrix rate | prefill, % | decode, % of bandwidth | memory, MB |
|------:|--------:|---------------:|-------------:|-------------------------:|-----------:|-----------------------:|-----------:|";
}

impl fmt::Display for BatchReport {
    /// A line of the table.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [vision, prefill, decode] =
            [self.vision_share, self.prefill_share, self.decode_share].map(|share| 100. * share);
        write!(
            f,
            "| {:5} | {:7.3} | {:14.3} | {:12.2} | {vision:24.1} | {prefill:10.1} | {decode:22.1} | {:10} |",
            self.batch, self.clips_per_s, self.first_token_s, self.decode_ms_per_token, self.peak_memory_mb
        )
    }
}

impl BenchReport {
    /// A report without results.
    pub fn new(target: &ComputeTarget, settings: &Settings, roofline: Roofline) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            device: target.device_name(),
            hardware: target.hardware(),
            dtype: target.dtype_name(),
            threads: rayon::current_num_threads(),
            seed: settings.seed,
            frames: settings.frames,
            new_tokens: settings.new_tokens,
            repeat: settings.repeat,
            matrix_tflop_per_s: roofline.matrix / 1e12,
            memory_gb_per_s: roofline.memory / 1e9,
            shapes: vec![],
        }
    }
}

impl fmt::Display for BenchReport {
    /// What is the same for all shapes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}), {}, {} CPU threads; measured: {:.3} TFLOP/s in matrix products, {:.1} GB/s of memory\n\
             clips of {} frames, answers of {} tokens",
            self.hardware,
            self.device,
            self.dtype,
            self.threads,
            self.matrix_tflop_per_s,
            self.memory_gb_per_s,
            self.frames,
            self.new_tokens
        )
    }
}
