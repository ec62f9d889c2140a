//! Every section of the configuration and every key in it. The readers of file and environment, the
//! configuration that `camscribe check` prints, and the tests that compare `config/camscribe.toml` and
//! the reference with the code all use this table.

use super::{camera, http, key::Key, log, model, mqtt, node, outbox};
use crate::camera::CameraId;

/// A section and its keys.
#[derive(Clone, Copy, Debug)]
pub struct SectionSchema {
    /// The name in the TOML file, such as `model`.
    pub name: &'static str,
    /// The meaning, in one sentence without a full stop.
    pub doc: &'static str,
    /// The keys, in the order of the reference.
    pub keys: &'static [Key],
}

impl SectionSchema {
    /// The key of this name.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// The sections that stand once in a configuration.
pub const SECTIONS: &[SectionSchema] = &[
    SectionSchema { name: "node", doc: "This camscribe", keys: node::KEYS },
    SectionSchema { name: "model", doc: "The model that describes clips", keys: model::KEYS },
    SectionSchema {
        name: "mqtt",
        doc: "The MQTT broker that descriptions are published to",
        keys: mqtt::KEYS,
    },
    SectionSchema {
        name: "outbox",
        doc: "The queue on disk for what the broker has not confirmed",
        keys: outbox::KEYS,
    },
    SectionSchema {
        name: "http",
        doc: "Metrics for Prometheus, health checks and questions to the model",
        keys: http::KEYS,
    },
    SectionSchema { name: "log", doc: "What is written to standard error", keys: log::KEYS },
    SectionSchema {
        name: DEFAULTS,
        doc: "Settings of every camera that does not set them itself",
        keys: camera::SHARED_KEYS,
    },
];

/// The section whose keys every camera inherits.
pub const DEFAULTS: &str = "defaults";

/// The section that holds a table per camera.
pub const CAMERAS: &str = "cameras";

/// The path of a camera's section, such as `cameras.porch`.
pub fn camera_path(id: &CameraId) -> String {
    format!("{CAMERAS}.{id}")
}

/// A table of [`CAMERAS`].
pub const CAMERA: SectionSchema = SectionSchema {
    name: "cameras.<id>",
    doc: "One camera; its name is a level of its topics",
    keys: camera::KEYS,
};

/// All sections, in the order of the reference: [`SECTIONS`], then [`CAMERA`].
pub fn all() -> impl Iterator<Item = &'static SectionSchema> {
    SECTIONS.iter().chain([&CAMERA])
}

/// The section of this name among [`SECTIONS`].
pub fn find(name: &str) -> Option<&'static SectionSchema> {
    SECTIONS.iter().find(|section| section.name == name)
}
