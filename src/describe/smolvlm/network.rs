//! The whole network on its device: image tiles and token ids in, generated token ids out. The golden tests and
//! benchmarks use it directly.

use std::path::Path;

use candle_core::Tensor;

use super::{
    config::ModelConfig,
    connector::Connector,
    layout::{DECODER, layout},
    vision::VisionTower,
};
use crate::nn::{
    decoder::Decoder,
    device::ComputeTarget,
    error::{LoadError, Result},
    generate::{Generated, GenerationRequest, Group, OneGroup, Sequences, SpecialTokens, generate},
    kernels::{CandleKernels, Kernels},
    observer::{ActivationObserver, ActivationPoint, no_observer},
    score::{Scored, score},
    select::{SelectedKernels, select},
    self_check::decoder_logits,
    weights::{RandomNumbers, Weights},
};

/// Bytes that the widest activation of one pass through the vision tower may take. On the CPU activations should stay
/// in the caches and be reused by the allocator without new page faults; a GPU wants long launches.
const PASS_CPU: usize = 32 << 20;
const PASS_GPU: usize = 512 << 20;

/// Tiles at a time in the self-check: one, and two, which is the fewest that make a batch.
const CHECKED_TILES: [usize; 2] = [1, 2];

/// A loaded checkpoint.
pub struct Network {
    /// Its sizes.
    pub config: ModelConfig,
    /// What it runs on. `target.kernels` says which kernels run.
    pub target: ComputeTarget,
    /// Why own kernels, or graphs of them, do not run although they were wanted and exist for this device.
    pub refused: Option<String>,
    kernels: Box<dyn Kernels>,
    vision: VisionTower,
    connector: Connector,
    decoder: Decoder,
    special: SpecialTokens,
}

impl Network {
    /// Reads the weights of the checkpoint in `dir`, after checking them against its configuration.
    ///
    /// # Errors
    /// When weights are missing, damaged or another model's, or the device fails.
    pub fn load(dir: &Path, config: ModelConfig, target: ComputeTarget) -> Result<Self, LoadError> {
        let weights = Weights::open(dir, &target.device, target.dtype)?.packed(target.packing());
        weights.check(layout(&config))?;
        Self::build(&weights, config, target)
    }

    /// Makes a network of random weights. It takes as long as a trained one and needs no files.
    ///
    /// # Errors
    /// When the device fails.
    pub fn random(
        config: ModelConfig,
        numbers: RandomNumbers,
        target: ComputeTarget,
    ) -> Result<Self, LoadError> {
        let weights = Weights::random(layout(&config), numbers, &target.device, target.dtype);
        let weights = weights.packed(target.packing());
        Self::build(&weights, config, target)
    }

    fn build(weights: &Weights, config: ModelConfig, target: ComputeTarget) -> Result<Self, LoadError> {
        let mut network = Self {
            refused: None,
            kernels: Box::new(CandleKernels),
            vision: VisionTower::load(weights, &config.vision)?,
            connector: Connector::load(weights, config.scale_factor)?,
            decoder: Decoder::load(weights, DECODER, &config.text)?,
            special: config.special_tokens(),
            config,
            target,
        };
        let mut target = network.target.clone();
        let SelectedKernels { kernels, refused } = select(&mut target, &|kernels| network.probe(kernels))?;
        (network.kernels, network.refused, network.target) = (kernels, refused, target);
        Ok(network)
    }

    /// Runs the network on other kernels with input that is always the same: image features, then the scores of a few
    /// batches of tokens.
    pub(super) fn probe(&self, kernels: &dyn Kernels) -> Result<Vec<Tensor>> {
        let features = |tiles: usize| {
            let tiles: Vec<u8> = (0..tiles * self.tile_bytes()).map(|i| (i * 31 % 251) as u8).collect();
            self.connector.forward(kernels, &self.vision.forward(kernels, &tiles, &mut no_observer)?)
        };
        let mut all = CHECKED_TILES.into_iter().map(features).collect::<Result<Vec<_>>>()?;
        all.extend(decoder_logits(kernels, &self.decoder)?);
        Ok(all)
    }

    /// The same network on other kernels.
    #[cfg(test)]
    pub fn with_kernels(self, kernels: Box<dyn Kernels>) -> Self {
        Self { kernels, ..self }
    }

    /// Bytes that a weight of the decoder's linear layers takes, on average.
    pub fn decoder_weight_bytes(&self) -> f64 {
        self.decoder.weight_bytes()
    }

    /// Bytes that one sequence of so many tokens takes beside the weights.
    pub fn sequence_bytes(&self, tokens: usize) -> usize {
        self.decoder.sequence_bytes(tokens)
    }

    /// Bytes of one tile.
    pub fn tile_bytes(&self) -> usize {
        self.vision.tile_bytes()
    }

    /// Encodes tiles: bytes in the order tile, channel, row, column. Returns the vectors that replace the `<image>`
    /// tokens of all tiles, `(image tokens, width)`; None if there are no tiles.
    ///
    /// # Errors
    /// When the device fails or the observer returns an error.
    pub fn encode(&self, tiles: &[u8], observe: ActivationObserver<'_>) -> Result<Option<Tensor>> {
        if tiles.is_empty() {
            return Ok(None);
        }
        self.on_pool(|| self.encode_in_passes(tiles, observe)).map(Some)
    }

    fn encode_in_passes(&self, tiles: &[u8], observe: ActivationObserver<'_>) -> Result<Tensor> {
        let pass = if self.target.device.is_cpu() { PASS_CPU } else { PASS_GPU };
        let widest = self.config.vision.grid().pow(2) * self.config.vision.intermediate_size * 4;
        let tiles_per_pass = (pass / widest).max(1);
        let kernels = &*self.kernels;
        let mut parts = Vec::new();
        for tiles in tiles.chunks(tiles_per_pass * self.tile_bytes()) {
            let tokens = self.connector.forward(kernels, &self.vision.forward(kernels, tiles, observe)?)?;
            observe(ActivationPoint::ConnectorOut, &tokens)?;
            parts.push(tokens.flatten_to(1)?);
        }
        let features = Tensor::cat(&parts, 0)?;
        // A GPU computes asynchronously: wait, so that the caller's clock counts this stage's time.
        self.target.device.synchronize()?;
        Ok(features)
    }

    /// Completes sequences until there are no more. They come and their tokens go while others are being completed.
    ///
    /// # Errors
    /// When a prompt is empty, tiles and image tokens do not match, the device fails, or the observer returns an
    /// error.
    pub fn generate(
        &self,
        sequences: &mut (dyn Sequences + Send),
        observe: ActivationObserver<'_>,
    ) -> Result<()> {
        let model = (&self.decoder, &self.special);
        self.on_pool(|| generate(&*self.kernels, model, sequences, observe))
    }

    /// Completes sequences that begin together. `features` is the result of [`Network::encode`] for the tiles of all of
    /// them.
    ///
    /// # Errors
    /// As [`Network::generate`].
    pub fn generate_group(
        &self,
        requests: &[GenerationRequest],
        features: Option<&Tensor>,
        observe: ActivationObserver<'_>,
    ) -> Result<Generated> {
        let mut group = OneGroup::new(Group { requests: requests.to_vec(), features: features.cloned() });
        self.generate(&mut group, observe)?;
        Ok(group.generated())
    }

    /// How likely tokens are after sequences that have the same images: see [`score`]. `features` is the result of
    /// [`Network::encode`] for the tiles of one of them.
    ///
    /// # Errors
    /// When tiles and image tokens do not match, the device fails, or the observer returns an error.
    pub fn score(
        &self,
        sequences: &[Scored],
        features: Option<&Tensor>,
        observe: ActivationObserver<'_>,
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let model = (&self.decoder, &self.special);
        self.on_pool(|| score(&*self.kernels, model, sequences, features, observe))
    }

    /// On the CPU, runs `work` on a thread of rayon's pool. From any other thread each of the hundreds of operations of
    /// a token would have to wake the pool.
    fn on_pool<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        if self.target.device.is_cpu() { rayon::scope(|_| work()) } else { work() }
    }
}
