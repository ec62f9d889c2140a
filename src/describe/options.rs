//! How a model is loaded.

use crate::device::{DeviceChoice, DtypeChoice, KernelChoice};

/// What the user chose, and what events call the model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceChoice,
    /// In which number format.
    pub dtype: DtypeChoice,
    /// With which kernels.
    pub kernels: KernelChoice,
    /// The model's name in events: its hub id, or its directory.
    pub id: String,
    /// Branch, tag or commit on the hub; empty for a directory.
    pub revision: String,
}
