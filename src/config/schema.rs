//! Every section of the configuration and every key in it. The readers of file and environment, the
//! configuration that `camscribe check` prints, and the tests that compare `config/camscribe.toml` and
//! the reference with the code all use this table.

use super::{alert, camera, history, http, key::Key, log, mask, model, mqtt, node, outbox, question};
use crate::camera::{CameraId, NAME_RULE, is_name};

/// A section and its keys.
#[derive(Clone, Copy, Debug)]
pub struct SectionSchema {
    /// The name in the TOML file, such as `model`.
    pub name: &'static str,
    /// The meaning, in one sentence without a full stop.
    pub doc: &'static str,
    /// The keys, in the order of the reference.
    pub keys: &'static [Key],
    /// The tables of sections in it.
    pub groups: &'static [Group],
    /// Whether the value of its only key stands in its place: `masks.street = "…"`.
    pub is_inline: bool,
}

impl SectionSchema {
    const fn new(name: &'static str, doc: &'static str, keys: &'static [Key]) -> Self {
        Self { name, doc, keys, groups: &[], is_inline: false }
    }

    /// The key of this name.
    pub fn find(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A table of sections that people name, such as `[cameras.porch]`.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// The name of the table, such as `cameras`.
    pub name: &'static str,
    /// What each of its sections is, in one word, such as `camera`.
    pub noun: &'static str,
    /// What a section may be called, in hints.
    pub example: &'static str,
    /// The key that each section must set. An environment variable that sets it declares the section.
    pub required: &'static str,
    /// A value of that key, in hints.
    pub required_example: &'static str,
    /// Each of its sections.
    pub section: SectionSchema,
}

impl Group {
    /// Checks the name of a section.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        let wrong = || format!("{name:?} cannot name {} {}: use {NAME_RULE}", self.article(), self.noun);
        is_name(name).then_some(()).ok_or_else(wrong)
    }

    fn article(&self) -> &'static str {
        if self.noun.starts_with('a') { "an" } else { "a" }
    }
}

/// The sections that stand once in a configuration.
pub const SECTIONS: &[SectionSchema] = &[
    SectionSchema::new("node", "This camscribe", node::KEYS),
    SectionSchema::new("model", "The model that describes clips", model::KEYS),
    SectionSchema::new("mqtt", "The MQTT broker that descriptions are published to", mqtt::KEYS),
    SectionSchema::new("outbox", "The queue on disk for what the broker has not confirmed", outbox::KEYS),
    SectionSchema::new("history", "What is kept of events and of what the model saw", history::KEYS),
    SectionSchema::new(
        "http",
        "The page, metrics for Prometheus, health checks and questions to the model",
        http::KEYS,
    ),
    SectionSchema::new("log", "What is written to standard error", log::KEYS),
    SectionSchema::new(
        DEFAULTS,
        "Settings of every camera that does not set them itself",
        camera::SHARED_KEYS,
    ),
];

/// The section whose keys every camera inherits.
pub const DEFAULTS: &str = "defaults";

/// The questions that cameras may ask.
pub const QUESTIONS: Group = Group {
    name: "questions",
    noun: "question",
    example: "parcel",
    required: question::ASK.name,
    required_example: "Is a parcel lying at the door?",
    section: SectionSchema::new(
        "questions.<name>",
        "A question about a clip, answered by probabilities",
        question::KEYS,
    ),
};

/// The cameras.
pub const CAMERAS: Group = Group {
    name: "cameras",
    noun: "camera",
    example: "porch",
    required: camera::URI.name,
    required_example: "rtsp://192.0.2.10/stream1",
    section: SectionSchema {
        name: "cameras.<id>",
        doc: "One camera; its name is a level of its topics",
        keys: camera::KEYS,
        groups: &[MASKS, ALERTS],
        is_inline: false,
    },
};

/// The masks of a camera.
pub const MASKS: Group = Group {
    name: "masks",
    noun: "mask",
    example: "street",
    required: mask::POLYGON.name,
    required_example: "0,0 1,0 1,0.4 0,0.4",
    section: SectionSchema {
        name: "cameras.<id>.masks",
        doc: "What is black of the picture of the camera: polygons, by name",
        keys: mask::KEYS,
        groups: &[],
        is_inline: true,
    },
};

/// The alerts of a camera.
pub const ALERTS: Group = Group {
    name: "alerts",
    noun: "alert",
    example: "parcel",
    required: alert::QUESTION.name,
    required_example: "parcel",
    section: SectionSchema::new(
        "cameras.<id>.alerts.<name>",
        "What switches on and off with the answers to a question of the camera",
        alert::KEYS,
    ),
};

/// The tables of sections that people name.
pub const GROUPS: &[Group] = &[QUESTIONS, CAMERAS];

/// The path of a camera's section, such as `cameras.porch`.
pub fn camera_path(id: &CameraId) -> String {
    format!("{}.{id}", CAMERAS.name)
}

/// All sections, in the order of the reference: [`SECTIONS`], then those of the groups.
pub fn all() -> impl Iterator<Item = &'static SectionSchema> {
    SECTIONS.iter().chain([&QUESTIONS.section, &CAMERAS.section, &MASKS.section, &ALERTS.section])
}

/// The table of this name among [`GROUPS`].
pub fn group(name: &str) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.name == name)
}

/// The section of this name among [`SECTIONS`].
pub fn find(name: &str) -> Option<&'static SectionSchema> {
    SECTIONS.iter().find(|section| section.name == name)
}
