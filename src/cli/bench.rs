//! `camscribe bench`: how fast the model is on this machine.

use std::path::PathBuf;

use clap::Args;

use crate::{
    bench::{self, Settings, shapes::Shape},
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    logging,
};

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Sizes of models to measure
    #[arg(long, value_name = "SHAPE,…", value_delimiter = ',', default_value = "256M,500M,2.2B")]
    pub shapes: Vec<Shape>,
    /// Batch sizes in clips, ascending [default: 1, 2, 4 …, up to 128 on a GPU, up to 4 on the CPU]
    #[arg(long, value_name = "N,…", value_delimiter = ',')]
    pub batches: Vec<usize>,
    /// Frames of a clip
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub frames: usize,
    /// Tokens of every answer
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub new_tokens: usize,
    /// Timed runs of each batch, of which the median counts
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub repeat: usize,
    /// Clips per camera, one in 8 s, in trials of how many cameras the model keeps up with; 0: no trials
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub periods: u64,
    /// Seed of the random weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Device: auto, cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Number format: auto, f32, bf16, f16 or q8
    #[arg(long, value_name = "DTYPE", default_value = "auto")]
    pub dtype: DtypeChoice,
    /// Kernels: candle, own (camscribe's), graphs (camscribe's, with CUDA graphs on a GPU)
    #[arg(long, value_name = "KERNELS", default_value = "graphs")]
    pub kernels: KernelChoice,
    /// Write the results as JSON to this file, too
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Runs the benchmark and prints tables.
///
/// # Errors
/// When [`bench::run`] fails.
pub fn run(args: BenchArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    bench::run(&Settings {
        shapes: args.shapes,
        batches: args.batches,
        frames: args.frames,
        new_tokens: args.new_tokens,
        repeat: args.repeat,
        periods: args.periods,
        seed: args.seed,
        device: args.device,
        dtype: args.dtype,
        kernels: args.kernels,
        json: args.json,
    })
}
