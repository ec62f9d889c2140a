//! What is published of a camera beside its states and events: its name for people, its questions, and its alerts.

use std::collections::BTreeMap;

/// What people and Home Assistant know of a camera.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CameraProfile {
    /// What people call it.
    pub name: String,
    /// It is not described.
    pub questions_only: bool,
    /// Its questions by name, and what each can be answered with.
    pub questions: BTreeMap<String, Vec<String>>,
    /// Its alerts by name, and the kind of binary sensor that each is for Home Assistant.
    pub alerts: BTreeMap<String, Option<String>>,
}

impl From<&str> for CameraProfile {
    /// A camera of this name that is asked nothing but its prompt.
    fn from(name: &str) -> Self {
        Self { name: name.into(), ..Self::default() }
    }
}
