//! Reads tensors from a source of weights, converts them, and puts them on the device, one at a time.

use std::path::Path;

use candle_core::{DType, Device, Tensor, WithDType};
use half::{bf16, f16};

use super::{
    super::{error::WeightsError, kernels::cpu::product::Numbers},
    checkpoint::Checkpoint,
    random::{self, RandomNumbers, RandomWeights},
    shape::TensorShape,
};

enum Source {
    Checkpoint(Checkpoint),
    Random(RandomWeights),
}

/// A model's weights and where they are to go.
pub struct Weights {
    source: Source,
    device: Device,
    dtype: DType,
    packing: Option<Numbers>,
}

impl Weights {
    /// Opens a checkpoint's files and reads their headers. Tensors will be put on `device` as `dtype`.
    ///
    /// # Errors
    /// When a file is missing or damaged.
    pub fn open(dir: &Path, device: &Device, dtype: DType) -> Result<Self, WeightsError> {
        Ok(Self {
            source: Source::Checkpoint(Checkpoint::open(dir)?),
            device: device.clone(),
            dtype,
            packing: None,
        })
    }

    /// Random weights of these shapes, without files.
    pub fn random(
        expected: impl IntoIterator<Item = TensorShape>,
        numbers: RandomNumbers,
        device: &Device,
        dtype: DType,
    ) -> Self {
        let source = Source::Random(RandomWeights::new(expected, numbers));
        Self { source, device: device.clone(), dtype, packing: None }
    }

    /// The same weights, and linear layers pack theirs in this way. None: they keep them as tensors.
    pub fn packed(self, packing: Option<Numbers>) -> Self {
        Self { packing, ..self }
    }

    /// How linear layers pack their weights.
    pub fn packing(&self) -> Option<Numbers> {
        self.packing
    }

    /// Checks that every expected tensor is there, with its shape and in a number format that can be read. The
    /// list is consumed lazily, up to the first tensor that is wrong.
    ///
    /// # Errors
    /// Names the first tensor that is missing or wrong.
    pub fn check(&self, expected: impl IntoIterator<Item = TensorShape>) -> Result<(), WeightsError> {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.check(expected),
            Source::Random(_) => Ok(()),
        }
    }

    /// Reads one tensor, converts it, and puts it on the device.
    ///
    /// # Errors
    /// When it does not exist, cannot be read, or does not fit into the device's memory.
    pub fn tensor(&self, name: &str) -> Result<Tensor, WeightsError> {
        match self.dtype {
            DType::F32 => self.convert(name, |x| x),
            DType::BF16 => self.convert(name, bf16::from_f32),
            DType::F16 => self.convert(name, f16::from_f32),
            other => Err(WeightsError::new(self.file(), format!("cannot be used as {}", other.as_str()))),
        }
    }

    /// The error for a tensor that was read but could not be used.
    pub fn unusable(&self, name: &str, why: candle_core::Error) -> WeightsError {
        WeightsError::new(self.file(), format!("{name}: {why}"))
    }

    /// The name of the source in errors that are not about one file.
    fn file(&self) -> &Path {
        match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.first_file(),
            Source::Random(_) => Path::new(random::SOURCE),
        }
    }

    fn convert<T: WithDType>(
        &self,
        name: &str,
        narrow: impl Fn(f32) -> T + Sync,
    ) -> Result<Tensor, WeightsError> {
        let (values, shape) = match &self.source {
            Source::Checkpoint(checkpoint) => checkpoint.values(name, narrow)?,
            Source::Random(random) => random.values(name, narrow)?,
        };
        Tensor::from_vec(values, shape, &self.device).map_err(|e| self.unusable(name, e))
    }
}
