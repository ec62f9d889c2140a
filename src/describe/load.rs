//! Loads a checkpoint: the only place that knows which model families there are.

use std::path::Path;

use super::{describer::Describer, options::LoadOptions, smolvlm::model::SmolVlm};
use crate::{
    device::{DeviceChoice, DtypeChoice},
    nn::{device::ComputeTarget, error::LoadError, json_config::JsonConfig},
};

/// A model family. Each has a folder of its own in `describe/`.
enum Family {
    SmolVlm,
}

impl Family {
    /// Reads the family of the checkpoint in `dir` from `model_type` in its config.json.
    fn of(dir: &Path) -> Result<Self, LoadError> {
        let config = JsonConfig::read(dir, "config.json")?;
        match config.text("model_type")? {
            Some("smolvlm") => Ok(Self::SmolVlm),
            Some(other) => {
                Err(config.wrong("model_type", format!("is {other:?}: this program only runs \"smolvlm\"")))
            }
            None => Err(config.wrong("model_type", "is missing: this program only runs \"smolvlm\"")),
        }
    }
}

/// Loads the checkpoint in `dir`. Everything small is checked before the weights are read.
///
/// # Errors
/// When a file is missing, damaged or of an unknown model, or the device cannot be used.
pub fn load(dir: &Path, options: LoadOptions) -> Result<Box<dyn Describer>, LoadError> {
    Ok(match Family::of(dir)? {
        Family::SmolVlm => Box::new(SmolVlm::load(dir, options)?),
    })
}

/// Checks that the checkpoint in `dir` can be loaded, without reading the numbers of its weights. Returns where it
/// would run.
///
/// # Errors
/// As [`load`].
pub fn probe(dir: &Path, device: DeviceChoice, dtype: DtypeChoice) -> Result<ComputeTarget, LoadError> {
    match Family::of(dir)? {
        Family::SmolVlm => SmolVlm::probe(dir, device, dtype),
    }
}
