//! The settings of a camera that can be changed while camscribe runs: one row of [`SETTINGS`] each.
//!
//! The table is all that the rest of the program knows of them. From it come the command topics
//! `…/<camera>/set/<name>`, the state topics `…/<camera>/state/<name>`, Home Assistant's entities, and the
//! overrides that are kept in the state directory. A new switch or text is a row here; a setting of another type
//! needs a [`Kind`] and a [`Value`], too, and its kind of entity in `publish/home_assistant/camera.rs`.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::config::{self, CameraSettings};

/// Name of the setting that switches a camera on and off.
pub const ENABLED: &str = "enabled";
/// Name of the setting that is what the model is asked.
pub const PROMPT: &str = "prompt";

/// All settings. Their order is the order in which they are published.
pub static SETTINGS: [RuntimeSetting; 2] = [
    RuntimeSetting {
        name: ENABLED,
        label: "Watched",
        icon: "mdi:cctv",
        kind: Kind::Switch { get: |camera| camera.enabled, set: |camera, on| camera.enabled = on },
    },
    RuntimeSetting {
        name: PROMPT,
        label: "Prompt",
        icon: "mdi:comment-question-outline",
        kind: Kind::Text {
            check: config::check_prompt,
            get: |camera| &camera.prompt_spec.prompt,
            set: |camera, prompt| camera.prompt_spec.prompt = prompt,
        },
    },
];

const ON: &str = "ON";
const OFF: &str = "OFF";

/// A setting of a camera that can be changed while camscribe runs.
#[derive(Debug)]
pub struct RuntimeSetting {
    /// The last level of its topics, and its key in the overrides file.
    pub name: &'static str,
    /// The name that Home Assistant shows.
    pub label: &'static str,
    /// The icon that Home Assistant shows.
    pub icon: &'static str,
    /// What values it takes, and where they are in a camera's configuration.
    pub kind: Kind,
}

/// The kinds of settings. Each is one kind of Home Assistant entity.
#[derive(Debug)]
pub enum Kind {
    /// `ON` or `OFF`, upper or lower case.
    Switch {
        /// Reads the setting.
        get: fn(&CameraSettings) -> bool,
        /// Writes the setting.
        set: fn(&mut CameraSettings, bool),
    },
    /// Text. An empty text goes back to the configuration.
    Text {
        /// Says what is wrong with a text; a sentence without its subject.
        check: fn(&str) -> Result<(), String>,
        /// Reads the setting.
        get: fn(&CameraSettings) -> &str,
        /// Writes the setting.
        set: fn(&mut CameraSettings, String),
    },
}

/// The value of a setting. It is shown as the payload of the setting's state topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// Of a [`Kind::Switch`].
    Switch(bool),
    /// Of a [`Kind::Text`].
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Switch(true) => ON,
            Self::Switch(false) => OFF,
            Self::Text(text) => text,
        })
    }
}

/// The longest text that Home Assistant shows and sends, characters.
pub const MAX_SHOWN: usize = 255;

/// Whether `sent` is what Home Assistant shows of the longer text `current`: saving that would destroy the text.
pub fn is_cut(sent: &Value, current: &Value) -> bool {
    let (Value::Text(sent), Value::Text(current)) = (sent, current) else { return false };
    let begins = |kept| current.starts_with(kept) && current.chars().count() > MAX_SHOWN;
    sent.chars().count() == MAX_SHOWN && sent.strip_suffix('…').is_some_and(begins)
}

/// Values by the name of their setting.
pub type Values = BTreeMap<&'static str, Value>;

impl RuntimeSetting {
    /// The setting of this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// The value that a payload of the command topic asks for; `None` goes back to the configuration.
    ///
    /// # Errors
    /// What is wrong with the payload.
    pub fn parse(&self, payload: &str) -> Result<Option<Value>, String> {
        let payload = payload.trim();
        match self.kind {
            Kind::Switch { .. } if payload.eq_ignore_ascii_case(ON) => Ok(Some(Value::Switch(true))),
            Kind::Switch { .. } if payload.eq_ignore_ascii_case(OFF) => Ok(Some(Value::Switch(false))),
            Kind::Switch { .. } => Err(format!("write {ON} or {OFF}")),
            Kind::Text { .. } if payload.is_empty() => Ok(None),
            Kind::Text { .. } => {
                let value = Value::Text(payload.into());
                self.check(&value).map(|()| Some(value))
            }
        }
    }

    /// Checks a value that was read from a file.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        match (&self.kind, value) {
            (Kind::Switch { .. }, Value::Switch(_)) => Ok(()),
            (Kind::Text { check, .. }, Value::Text(text)) => {
                check(text).map_err(|why| format!("the {} {why}", self.name))
            }
            (Kind::Switch { .. }, _) => Err(format!("{} must be true or false", self.name)),
            (Kind::Text { .. }, _) => Err(format!("{} must be text", self.name)),
        }
    }

    /// The value that `camera` has.
    pub fn get(&self, camera: &CameraSettings) -> Value {
        match self.kind {
            Kind::Switch { get, .. } => Value::Switch(get(camera)),
            Kind::Text { get, .. } => Value::Text(get(camera).into()),
        }
    }

    /// Gives `camera` a value. A value that [`RuntimeSetting::check`] refuses for its type changes
    /// nothing.
    pub fn set(&self, camera: &mut CameraSettings, value: &Value) {
        match (&self.kind, value) {
            (Kind::Switch { set, .. }, Value::Switch(on)) => set(camera, *on),
            (Kind::Text { set, .. }, Value::Text(text)) => set(camera, text.clone()),
            _ => {}
        }
    }
}

/// The values of all settings of `camera`.
pub fn values(camera: &CameraSettings) -> Values {
    SETTINGS.iter().map(|setting| (setting.name, setting.get(camera))).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn camera() -> CameraSettings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, "[cameras.a]\nuri = \"test://shapes\"\nprompt = \"What?\"\n").unwrap();
        let config = config::load(Some(&file)).unwrap().config;
        config.cameras.into_values().next().unwrap()
    }

    #[test]
    fn a_payload_of_the_state_topic_is_a_command_that_changes_nothing() {
        let camera = camera();
        for setting in &SETTINGS {
            let value = setting.get(&camera);
            assert_eq!(setting.parse(&value.to_string()), Ok(Some(value.clone())), "{}", setting.name);
            let mut same = camera.clone();
            setting.set(&mut same, &value);
            assert_eq!(same, camera, "{}", setting.name);
        }
    }

    #[test]
    fn every_setting_changes_its_own_field_only() {
        for setting in &SETTINGS {
            let mut camera = camera();
            let (unchanged, before) = (camera.clone(), values(&camera));
            let other = match setting.get(&camera) {
                Value::Switch(on) => Value::Switch(!on),
                Value::Text(text) => Value::Text(format!("{text} And now?")),
            };
            setting.set(&mut camera, &other);
            let changed = values(&camera).into_iter().filter(|(name, value)| before[name] != *value);
            assert_eq!(changed.collect::<Vec<_>>(), [(setting.name, other)]);
            // Set back, it leaves nothing changed in the fields that are no run-time settings.
            setting.set(&mut camera, &before[setting.name]);
            assert_eq!(camera, unchanged, "{}", setting.name);
        }
    }

    #[test]
    fn a_value_of_another_type_is_refused_and_changes_nothing() {
        for (name, wrong) in [(ENABLED, Value::Text("x".into())), ("prompt", Value::Switch(false))] {
            let (setting, mut camera) = (RuntimeSetting::find(name).unwrap(), camera());
            assert!(setting.check(&wrong).unwrap_err().contains(name));
            let before = values(&camera);
            setting.set(&mut camera, &wrong);
            assert_eq!(values(&camera), before);
        }
    }

    #[test]
    fn a_text_that_was_shown_cut_is_known_when_it_comes_back() {
        let text = |count: usize| Value::Text("é".repeat(count));
        let cut = Value::Text(format!("{}…", "é".repeat(254)));
        assert!(is_cut(&cut, &text(256)) && is_cut(&cut, &text(3000)));
        assert!(!is_cut(&cut, &text(255)) && !is_cut(&cut, &Value::Text("e".repeat(300))));
        assert!(!is_cut(&text(255), &text(256)) && !is_cut(&cut, &cut));
    }

    #[test]
    fn names_are_levels_of_topics_and_unique() {
        for setting in &SETTINGS {
            assert!(setting.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", setting.name);
            assert_eq!(SETTINGS.iter().filter(|other| other.name == setting.name).count(), 1);
        }
    }

    #[test]
    fn the_reference_lists_the_topics_of_every_setting() {
        let topics = include_str!("../docs/reference/topics.md");
        for RuntimeSetting { name, .. } in &SETTINGS {
            for topic in
                [format!("/set/{name}`"), format!("/state/{name}`"), format!("<camera>-{name}/config`")]
            {
                assert!(topics.contains(&topic), "docs/reference/topics.md lacks {topic}");
            }
        }
    }
}
