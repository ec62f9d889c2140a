//! What the benchmark found: one JSON document, and a table for people.

use std::fmt::{self, Write as _};

use serde::Serialize;

use super::{
    cameras::Cameras,
    model::{Model, Times},
    shapes::Shape,
    work,
};
use crate::{
    describe::smolvlm::config::ModelConfig,
    nn::{device::ComputeTarget, roofline::Roofline},
};

/// The whole document. Times are in seconds unless a name says otherwise.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    /// `cpu` or `cuda:N`.
    pub device: String,
    /// What the maker calls the device.
    pub hardware: String,
    /// `f32`, `bf16`, `f16` or `q8`.
    pub dtype: &'static str,
    /// Threads that compute on the CPU.
    pub threads: usize,
    /// Of the random weights.
    pub seed: u64,
    /// Frames of a clip, each one tile.
    pub frames: usize,
    /// Length of every answer, in tokens.
    pub new_tokens: usize,
    /// Timed runs of each batch, of which the median counts, after one for warming up.
    pub repeat: usize,
    /// Measured in this run: operations a second of a large matrix product in this number format.
    pub matrix_tflop_per_s: f64,
    /// Measured in this run: a large copy on a GPU (read and written), reading on the CPU.
    pub memory_gb_per_s: f64,
    /// One after the other.
    pub shapes: Vec<ShapeReport>,
}

/// One model.
#[derive(Debug, Serialize)]
pub struct ShapeReport {
    /// The published model of this size.
    pub shape: Shape,
    /// Its sizes, named as in config.json.
    pub config: ModelConfig,
    /// Numbers in its weights.
    pub parameters: usize,
    /// What computed: `candle`, `own` or `graphs`.
    pub kernels: &'static str,
    /// Tokens of every prompt, those of pictures included.
    pub prompt_tokens: usize,
    /// For making the weights and putting them on the device.
    pub load_s: f64,
    /// In the order in which they were run.
    pub batches: Vec<BatchReport>,
    /// Why no larger batch was run, where one was asked for.
    pub stopped: Option<String>,
    /// Nothing where it was not asked for.
    pub cameras: Option<Cameras>,
}

/// What a batch took.
pub struct Measured {
    /// Clips.
    pub batch: usize,
    pub times: Times,
    /// Bytes.
    pub peak_memory: usize,
}

/// One number of clips at a time.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    /// Clips at a time.
    pub batch: usize,
    /// All stages one after the other, as the product runs them.
    pub clips_per_s: f64,
    /// From having the frames to the first token of every answer.
    pub first_token_s: f64,
    /// A step makes one token of every answer.
    pub decode_ms_per_token: f64,
    /// By stage.
    #[serde(flatten)]
    pub times: Times,
    /// Operations that the vision tower and the prefill need, and bytes that the decoding reads.
    pub vision_flop: f64,
    pub prefill_flop: f64,
    pub decode_bytes: f64,
    /// Of the measured matrix rate: vision and prefill. Of the measured bandwidth: decode.
    pub vision_share: f64,
    pub prefill_share: f64,
    pub decode_share: f64,
    /// On a GPU the most of the device's memory that was in use, by whomever; on the CPU the most that the
    /// process held.
    pub peak_memory_mb: usize,
}

impl BatchReport {
    /// Holds what a batch took against what there was to do and what the device reaches.
    pub fn new(model: &Model, measured: Measured, rates: Roofline) -> Self {
        let Measured { batch, times, peak_memory } = measured;
        let (network, prompt, wall) = (&model.network, model.prompt_tokens(), times.wall);
        // The first token comes out of the prefill.
        let steps = (model.new_tokens - 1) as f64;
        // A step sees what is there and the token that goes in: `prompt + 1` to `prompt + steps`.
        let slots = prompt as f64 + (steps + 1.) / 2.;
        let bytes = (network.target.decoder_weight_bytes(), network.target.dtype.size_in_bytes());
        let vision_flop = (batch * model.frames()) as f64 * work::vision(&network.config);
        let prefill_flop = batch as f64 * work::prefill(&network.config, prompt);
        let decode_bytes = steps * work::decode_bytes(&network.config, (batch, slots), bytes);
        Self {
            batch,
            clips_per_s: batch as f64 / wall.total(),
            first_token_s: wall.total() - wall.decode_s,
            decode_ms_per_token: 1000. * wall.decode_s / steps,
            times,
            vision_flop,
            prefill_flop,
            decode_bytes,
            vision_share: vision_flop / wall.vision_s / rates.matrix,
            prefill_share: prefill_flop / wall.prefill_s / rates.matrix,
            decode_share: decode_bytes / wall.decode_s / rates.memory,
            peak_memory_mb: peak_memory >> 20,
        }
    }

    /// What stands over the rows.
    pub const HEADER: &str = "\
| batch | clips/s | first token, s | ms per token | vision, % of matrix rate | prefill, % | decode, % of bandwidth | memory, MB |
|------:|--------:|---------------:|-------------:|-------------------------:|-----------:|-----------------------:|-----------:|";
}

impl fmt::Display for BatchReport {
    /// A row of the table.
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

impl Report {
    pub fn new(target: &ComputeTarget, settings: &super::Settings, rates: Roofline) -> Self {
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
            matrix_tflop_per_s: rates.matrix / 1e12,
            memory_gb_per_s: rates.memory / 1e9,
            shapes: vec![],
        }
    }
}

impl fmt::Display for Report {
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

impl fmt::Display for Cameras {
    /// What the trials said, in sentences.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fewer = self.trials.last().filter(|trial| !trial.kept_up);
        let sustained =
            fewer.map_or(self.sustained.to_string(), |trial| format!("fewer than {}", trial.cameras));
        let mut text = format!(
            "cameras sustained: {sustained} (a clip every {} s each; batches of up to {}, linger {} ms)",
            self.period_s,
            self.max_batch,
            self.linger_s * 1000.
        );
        if self.trials.is_empty() {
            write!(text, "; not tried: one clip takes longer than that")?;
        }
        for trial in &self.trials {
            write!(
                text,
                "\n  {} cameras for {} clips each: 99 of 100 described within {:.2} s, half within {:.2} s, \
                 {} dropped: {}",
                trial.cameras,
                trial.periods,
                trial.p99_delay_s,
                trial.median_delay_s,
                trial.dropped,
                if trial.kept_up { "kept up" } else { "did not keep up" }
            )?;
        }
        f.write_str(&text)
    }
}
