//! One layer of the configuration: a source for the crate `config`, which merges layers.

use std::collections::BTreeSet;

use ::config::{ConfigError, Map, Source, Value};

use crate::camera::CameraId;

/// What one layer sets, by dotted path such as `cameras.porch.frames`. Each value has its
/// [`Location`](super::diagnostic::Location) as its origin. All paths are in the
/// [schema](super::schema); the types of the values are checked after the merge.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    values: Map<String, Value>,
    cameras: BTreeSet<CameraId>,
}

impl Layer {
    /// Sets the key `key` of the section `section`, such as `model`.
    pub fn set(&mut self, section: &str, key: &str, value: Value) {
        self.values.insert(format!("{section}.{key}"), value);
    }

    /// Declares a camera, which may set no key at all.
    pub fn add_camera(&mut self, id: &CameraId) {
        self.cameras.insert(id.clone());
    }

    /// The cameras that this layer declares.
    pub fn cameras(&self) -> &BTreeSet<CameraId> {
        &self.cameras
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.values.clone())
    }
}
