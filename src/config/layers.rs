//! The layers of the configuration: built-in defaults, the file over them, the environment over that.
//! The crate `config` merges them.

use std::{collections::BTreeSet, path::Path};

use ::config::{Config, Value, ValueKind};

use super::{diagnostic::Diagnostics, environment, layer::Layer, schema, toml_file, value::Table};
use crate::camera::CameraId;

/// All layers merged.
#[derive(Debug)]
pub struct Layers {
    merged: Value,
    /// The cameras that any layer declares.
    pub cameras: BTreeSet<CameraId>,
}

impl Layers {
    /// Reads and merges all layers. `None`: `file` cannot be read, and `diagnostics` says why. A
    /// missing file counts as empty unless it is `required`.
    pub fn read(file: &Path, required: bool, diagnostics: &mut Diagnostics) -> Option<Self> {
        let mut layers = vec![defaults()];
        layers.push(toml_file::read(file, required, diagnostics)?);
        layers.push(environment::read(&cameras(&layers), diagnostics));
        let cameras = cameras(&layers);
        let merged = Config::builder().add_source(layers).build();
        let merged = merged.expect("layers lie in memory, and their paths are valid").cache;
        Some(Self { merged, cameras })
    }

    /// What is set in the section at `path`, such as `["cameras", "porch"]`.
    pub fn section(&self, path: &[&str]) -> Table {
        let found = path.iter().try_fold(&self.merged, |section, name| match &section.kind {
            ValueKind::Table(table) => table.get(*name),
            _ => None,
        });
        found.cloned().and_then(|section| section.into_table().ok()).unwrap_or_default()
    }
}

/// The lowest layer: the defaults of the schema, as text and without an origin.
fn defaults() -> Layer {
    let mut layer = Layer::default();
    for section in schema::SECTIONS {
        for key in section.keys {
            if let Some(text) = key.default {
                layer.set(section.name, key.name, Value::new(None, text));
            }
        }
    }
    layer
}

fn cameras(layers: &[Layer]) -> BTreeSet<CameraId> {
    layers.iter().flat_map(Layer::cameras).cloned().collect()
}
