//! The configured model: found on this machine and loaded.

use anyhow::Context;

use crate::{
    config,
    describe::{self, Describer, LoadOptions},
    hub,
};

/// Finds the model and loads it.
///
/// # Errors
/// When it is not on this machine, is damaged, or the device cannot be used.
pub fn load_model(model: &config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> {
    let found = hub::resolve(&model.id, &model.revision)?;
    let options = LoadOptions {
        device: model.device,
        dtype: model.dtype,
        kernels: model.kernels,
        id: found.id,
        revision: found.revision,
    };
    describe::load(&found.path, options).with_context(|| format!("model {:?} cannot be used", model.id))
}
