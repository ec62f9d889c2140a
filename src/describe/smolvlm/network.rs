//! The whole network on its device: tiles and token ids go in, answers come out. What the golden
//! tests and benches drive directly; words and clips are the business of the room above.

use std::path::Path;

#[cfg(feature = "cuda")]
use candle_core::Device;
use candle_core::{DType, Tensor};

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
    weights::{Weights, WeightsError},
};
#[cfg(feature = "cuda")]
use super::{
    cuda::{Gpu, Kernels},
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
    /// Why our own kernels do not compute although they were wanted.
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
        Ok(Self::build(&weights, config, chosen)?)
    }

    /// A network of random weights: it computes as long as one that was trained, and needs no files.
    pub fn random(config: ModelConfig, seed: u64, chosen: Chosen) -> Result<Self, LoadError> {
        let weights = Weights::random(&config, seed, &chosen.device, chosen.dtype);
        Ok(Self::build(&weights, config, chosen)?)
    }

    fn build(weights: &Weights, config: ModelConfig, chosen: Chosen) -> Result<Self, WeightsError> {
        let ops: Box<dyn Ops> = match (chosen.kernels, chosen.device.is_cpu(), chosen.dtype) {
            (KernelChoice::Own | KernelChoice::Graphs, true, DType::F32) => Box::new(Cpu),
            _ => Box::new(Plain),
        };
        let network = Self {
            refused: None,
            ops,
            vision: VisionTower::load(weights, &config.vision)?,
            connector: Connector::load(weights, config.scale_factor)?,
            decoder: Decoder::load(weights, &config.text, chosen.quantised)?,
            config,
            chosen,
        };
        #[cfg(feature = "cuda")]
        let network = network.with_kernels().map_err(|e| weights.unusable("our own kernels", e))?;
        Ok(network)
    }

    /// The same network, computed by `ops`.
    #[cfg(test)]
    pub fn with_ops(self, ops: Box<dyn Ops>) -> Self {
        Self { ops, ..self }
    }

    /// On a GPU, our own kernels instead of candle's operations, if they compute the same there.
    #[cfg(feature = "cuda")]
    fn with_kernels(mut self) -> Result<Self> {
        let chosen = &mut self.chosen;
        let Device::Cuda(device) = &chosen.device else { return Ok(self) };
        if chosen.kernels == KernelChoice::Candle || !matches!(chosen.dtype, DType::F32 | DType::BF16) {
            chosen.kernels = KernelChoice::Candle;
            return Ok(self);
        }
        let record = chosen.kernels == KernelChoice::Graphs;
        let tried = Gpu::new(device).and_then(|gpu| {
            let ours = Kernels::new(Box::new(gpu), record);
            let apart = trial::apart((&self.vision, &self.connector, &self.decoder), &self.config, &ours)?;
            Ok((ours, apart))
        });
        let refused = match tried {
            Ok((ours, apart)) if apart < trial::too_far(chosen.dtype) => {
                self.ops = Box::new(ours);
                return Ok(self);
            }
            Ok((_, apart)) => format!("they are {apart:.1e} away from candle's operations"),
            Err(why) => why.to_string(),
        };
        chosen.kernels = KernelChoice::Candle;
        self.refused = Some(refused);
        // After some faults a device computes nothing any more.
        chosen.device.synchronize()?;
        Ok(self)
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
