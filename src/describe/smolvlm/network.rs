//! The whole network on its device: tiles and token ids go in, answers come out. What the golden
//! tests and benches drive directly; words and clips are the business of the room above.

use std::path::Path;

use candle_core::{DType, Device, Tensor};

use super::{
    Result, Stage, Watch,
    config::ModelConfig,
    connector::Connector,
    cpu::Cpu,
    device::Chosen,
    error::LoadError,
    generate::{Generated, Request, generate},
    ops::{Ops, Plain},
    text::Decoder,
    vision::VisionTower,
    weights::Weights,
};
#[cfg(feature = "cuda")]
use super::{
    cuda::{Gpu, Kernels},
    device::has_bf16,
    trial,
};
use crate::device::KernelChoice;

/// Bytes that the widest activation of one pass through the vision tower may take. On the CPU they
/// should stay near the caches and be given back by the allocator without new page faults; a GPU
/// wants long launches.
const PASS_CPU: usize = 32 << 20;
const PASS_GPU: usize = 512 << 20;

/// A loaded checkpoint.
pub struct Network {
    pub config: ModelConfig,
    pub chosen: Chosen,
    /// Why our own kernels, or graphs of them, do not compute although they were wanted and there are some.
    pub refused: Option<String>,
    ops: Box<dyn Ops>,
    vision: VisionTower,
    connector: Connector,
    decoder: Decoder,
}

impl Network {
    /// Reads the weights of the checkpoint in `dir`, after holding them against its configuration.
    pub fn load(dir: &Path, config: ModelConfig, chosen: Chosen) -> Result<Self, LoadError> {
        let weights = Weights::open(dir, &chosen.device, chosen.dtype)?;
        weights.check(&config)?;
        Self::build(&weights, config, chosen)
    }

    /// A network of random weights: it computes as long as one that was trained, and needs no files.
    pub fn random(config: ModelConfig, seed: u64, chosen: Chosen) -> Result<Self, LoadError> {
        let weights = Weights::random(&config, seed, &chosen.device, chosen.dtype);
        Self::build(&weights, config, chosen)
    }

    fn build(weights: &Weights, config: ModelConfig, chosen: Chosen) -> Result<Self, LoadError> {
        let mut network = Self {
            refused: None,
            ops: Box::new(Plain),
            vision: VisionTower::load(weights, &config.vision)?,
            connector: Connector::load(weights, config.scale_factor)?,
            decoder: Decoder::load(weights, &config.text, chosen.quantised)?,
            config,
            chosen,
        };
        if network.chosen.kernels != KernelChoice::Candle {
            network.take_own_kernels()?;
        }
        Ok(network)
    }

    /// Our own operations instead of candle's, where there are some for this device and number format.
    /// `chosen.kernels` is what computes then.
    fn take_own_kernels(&mut self) -> Result<(), LoadError> {
        let chosen = &mut self.chosen;
        match (&chosen.device, chosen.dtype) {
            (Device::Cpu, DType::F32) => {
                chosen.kernels = KernelChoice::Own;
                self.ops = Box::new(Cpu);
            }
            #[cfg(feature = "cuda")]
            (Device::Cuda(device), DType::F32 | DType::BF16) if chosen.gpu.as_ref().is_some_and(has_bf16) => {
                let graphs = chosen.kernels == KernelChoice::Graphs;
                chosen.kernels = KernelChoice::Candle;
                match Gpu::new(device) {
                    Ok(gpu) => return self.try_kernels(Kernels::new(Box::new(gpu), graphs)),
                    Err(why) => self.refused = Some(why.to_string()),
                }
            }
            _ => {
                chosen.kernels = KernelChoice::Candle;
                tracing::info!("in {} candle's operations compute on this device", chosen.dtype.as_str());
            }
        }
        Ok(())
    }

    /// Our own kernels, if they compute on this GPU what candle's operations do.
    #[cfg(feature = "cuda")]
    fn try_kernels(&mut self, ours: Kernels) -> Result<(), LoadError> {
        let (chosen, graphs) = (&mut self.chosen, ours.graphs());
        match trial::apart((&self.vision, &self.connector, &self.decoder), &self.config, &ours) {
            Ok(apart) if apart < trial::too_far(chosen.dtype) => {
                tracing::info!("camscribe's own kernels compute: {apart:.1e} away from candle's operations");
                chosen.kernels = if ours.graphs() { KernelChoice::Graphs } else { KernelChoice::Own };
                if graphs && !ours.graphs() {
                    self.refused = Some("steps of decoding cannot be captured as CUDA graphs".into());
                }
                self.ops = Box::new(ours);
            }
            Ok(apart) => {
                self.refused = Some(format!(
                    "they are {apart:.1e} away from candle's operations on this GPU; please report it with the \
                     name of the GPU"
                ));
            }
            Err(why) => {
                // After some faults a device computes nothing any more, and giving anything back fails, too.
                if chosen.device.synchronize().is_err() {
                    std::mem::forget(ours);
                    return Err(LoadError::BrokenByKernels {
                        device: chosen.device_name(),
                        why: why.to_string(),
                    });
                }
                self.refused = Some(why.to_string());
            }
        }
        Ok(())
    }

    /// The same network, computed by `ops`.
    #[cfg(test)]
    pub fn with_ops(self, ops: Box<dyn Ops>) -> Self {
        Self { ops, ..self }
    }

    /// Bytes that answering a row of so many tokens takes beside the weights: its keys and values, and what
    /// a layer holds at a time while the prompt goes through it.
    pub fn row_bytes(&self, tokens: usize) -> usize {
        let text = &self.config.text;
        let cache = text.num_hidden_layers * 2 * text.num_key_value_heads * text.head_dim;
        // Gate, up and their product; what the layer adds to, its norm, attention and the sum.
        let layer = 3 * text.intermediate_size + 4 * text.hidden_size;
        tokens * (cache + layer) * self.chosen.dtype.size_in_bytes()
    }

    /// Bytes of one tile.
    pub fn tile_bytes(&self) -> usize {
        self.vision.tile_bytes()
    }

    /// What stands for the `<image>` tokens of these tiles: `(tokens, width)`, or nothing where
    /// there are no tiles. Tiles are bytes in the order channel, row, column, one after the other.
    pub fn encode(&self, tiles: &[u8], watch: Watch<'_>) -> Result<Option<Tensor>> {
        if tiles.is_empty() {
            return Ok(None);
        }
        self.on_pool(|| self.encode_passes(tiles, watch)).map(Some)
    }

    fn encode_passes(&self, tiles: &[u8], watch: Watch<'_>) -> Result<Tensor> {
        let pass = if self.chosen.device.is_cpu() { PASS_CPU } else { PASS_GPU };
        let widest = self.config.vision.grid().pow(2) * self.config.vision.intermediate_size * 4;
        let tiles_per_pass = (pass / widest).max(1);
        let ops = &*self.ops;
        let mut parts = Vec::new();
        for tiles in tiles.chunks(tiles_per_pass * self.tile_bytes()) {
            let tokens = self.connector.forward(ops, &self.vision.forward(ops, tiles, watch)?)?;
            watch(Stage::ConnectorOut, &tokens)?;
            parts.push(tokens.flatten_to(1)?);
        }
        let features = Tensor::cat(&parts, 0)?;
        // So that the time is counted where it is spent.
        self.chosen.device.synchronize()?;
        Ok(features)
    }

    /// Answers a batch of prompts; `features` is [`Network::encode`] of the tiles of all of them.
    pub fn generate(
        &self,
        requests: &[Request],
        features: Option<&Tensor>,
        watch: Watch<'_>,
    ) -> Result<Generated> {
        self.on_pool(|| generate(&*self.ops, (&self.decoder, &self.config), requests, features, watch))
    }

    /// On the CPU, runs `work` on a thread of the pool that its operations are split over: called
    /// from any other thread, each of the hundreds of operations of a token has to wake the pool.
    fn on_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.chosen.device.is_cpu() { rayon::scope(|_| work()) } else { work() }
    }
}
