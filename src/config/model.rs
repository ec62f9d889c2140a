//! `[model]`: the model that describes clips.

use std::{path::Path, time::Duration};

use super::{
    diagnostic::Diagnostics,
    key::{Key, Kind},
    section::Section,
};
use crate::{
    device::{DeviceChoice, DtypeChoice, KernelChoice, UnknownChoice},
    hub,
};

/// The model where none is configured.
pub const DEFAULT_MODEL: &str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct";
/// The revision where none is configured.
pub const DEFAULT_REVISION: &str = "main";

pub const KEYS: &[Key] = &[
    Key::new(
        "id",
        Kind::Text,
        DEFAULT_MODEL,
        "A model on the hub, a directory, or the built-in model shapes",
    ),
    Key::new("revision", Kind::Text, DEFAULT_REVISION, "The branch, tag or commit on the hub"),
    Key::new(
        "device",
        Kind::Text,
        "auto",
        "The device: cpu, cuda, cuda:N, or auto: a GPU if there is one, else the CPU",
    ),
    Key::new(
        "dtype",
        Kind::Choice(&["auto", "f32", "bf16", "f16", "q8"]),
        "auto",
        "The number format; auto: bf16 on a GPU, f32 on the CPU",
    ),
    Key::new(
        "kernels",
        Kind::Choice(&["candle", "own", "graphs"]),
        "graphs",
        "The kernels: camscribe's own, with or without CUDA graphs, or candle's",
    ),
    Key::new("max_batch", Kind::Int(1, 64), "16", "The most clips that are described together"),
    Key::new(
        "linger",
        Kind::Duration(Duration::ZERO, Duration::from_secs(10)),
        "20ms",
        "How long a clip waits for others to share its batch",
    ),
];

/// The model that `id` names; a directory that begins with `.` is taken from `folder`.
pub(super) fn id(section: &Section, folder: &Path) -> String {
    let written = section.text("id");
    if written.starts_with('.') { folder.join(written).display().to_string() } else { written.into() }
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSettings {
    /// A hub id, a directory, or the name of the built-in model.
    pub id: String,
    /// Branch, tag or commit on the hub.
    pub revision: String,
    /// The device.
    pub device: DeviceChoice,
    /// The number format.
    pub dtype: DtypeChoice,
    /// The kernels.
    pub kernels: KernelChoice,
    /// The most clips of a batch, 1 to 64.
    pub max_batch: usize,
    /// How long a batch waits to fill.
    pub linger: Duration,
}

impl ModelSettings {
    /// The settings of a checked section; a directory that begins with `.` is taken from `folder`.
    pub(super) fn read(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        let id = id(section, folder);
        if let Err(e) = hub::check_id(&id) {
            diagnostics.error(&section.entry("id").location, e.to_string());
        }
        let revision = section.text("revision");
        if let Err(e) = hub::check_revision(revision) {
            diagnostics.error(&section.entry("revision").location, e.to_string());
        }
        let device = section.text("device").parse().unwrap_or_else(|why: UnknownChoice| {
            diagnostics.error(&section.entry("device").location, why.to_string());
            DeviceChoice::Auto
        });
        // The schema lets no other word through.
        let dtype: DtypeChoice = section.text("dtype").parse().unwrap_or_default();
        if let Err(e) = dtype.check(device) {
            diagnostics.error(&section.entry("dtype").location, e.to_string());
        }
        Self {
            id,
            revision: revision.into(),
            device,
            dtype,
            kernels: section.text("kernels").parse().unwrap_or_default(),
            max_batch: section.number("max_batch") as usize,
            linger: section.duration("linger"),
        }
    }
}

impl Default for ModelSettings {
    fn default() -> Self {
        Self::read(&Section::defaults("model", KEYS), Path::new(""), &mut Diagnostics::default())
    }
}
