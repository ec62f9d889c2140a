//! Commands that subscribers send to a camera: `…/<camera>/set/<setting>`, a row of
//! [`SETTINGS`] each. Pure.
//!
//! Anybody who may publish on these topics can send anything. Topic and payload are therefore checked
//! here, and nothing that fails the checks goes further.

use std::fmt;

use super::topics::Topics;
use crate::{
    camera::CameraId,
    runtime_settings::{RuntimeSetting, SETTINGS, Value},
};

/// A command to change a setting of a camera.
#[derive(Clone, Debug)]
pub struct CameraCommand {
    /// The camera that the topic names. It may not exist.
    pub camera: CameraId,
    /// The setting to change.
    pub setting: &'static RuntimeSetting,
    /// The value to set; `None` goes back to the configuration.
    pub value: Option<Value>,
}

impl fmt::Display for CameraCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.setting.name;
        match &self.value {
            Some(value) => write!(f, "set {name} to {:?}", value.to_string()),
            None => write!(f, "reset {name} to the configuration"),
        }
    }
}

/// Why a message is not a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// No command has such a topic.
    #[error(
        "there are no commands but {} below the id of a camera, which is in small letters",
        command_levels()
    )]
    Topic,
    /// The payload is not text.
    #[error("the payload is not UTF-8 text")]
    NotUtf8,
    /// The setting cannot have this value, for this reason.
    #[error("{0}")]
    Value(String),
}

/// The last levels of all command topics, for people.
fn command_levels() -> String {
    SETTINGS.iter().map(|setting| format!("set/{}", setting.name)).collect::<Vec<_>>().join(" and ")
}

impl CameraCommand {
    /// The command that a message on `topic` below `topics` carries.
    ///
    /// # Errors
    /// When the message is not a command.
    pub fn parse(topics: &Topics, topic: &[u8], payload: &[u8]) -> Result<Self, BadCommand> {
        let topic = str::from_utf8(topic).map_err(|_| BadCommand::Topic)?;
        let (camera, name) = topics.command(topic).ok_or(BadCommand::Topic)?;
        let setting = RuntimeSetting::find(name).ok_or(BadCommand::Topic)?;
        let payload = str::from_utf8(payload).map_err(|_| BadCommand::NotUtf8)?;
        let value = setting.parse(payload).map_err(BadCommand::Value)?;
        Ok(Self { camera, setting, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of the setting and the value that a message asks for.
    fn parse(topic: &str, payload: &[u8]) -> Result<(&'static str, Option<Value>), BadCommand> {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let command = CameraCommand::parse(&topics, topic.as_bytes(), payload)?;
        assert_eq!(command.camera.as_str(), "porch");
        Ok((command.setting.name, command.value))
    }

    #[test]
    fn a_camera_can_be_switched_and_its_prompt_changed() {
        for (payload, on) in [("ON", true), ("off", false), (" Off\n", false)] {
            let expected = Ok(("enabled", Some(Value::Switch(on))));
            assert_eq!(parse("camscribe/edge1/porch/set/enabled", payload.as_bytes()), expected);
        }
        let prompt = |payload: &str| parse("camscribe/edge1/porch/set/prompt", payload.as_bytes());
        assert_eq!(prompt("Who comes?"), Ok(("prompt", Some(Value::Text("Who comes?".into())))));
        assert_eq!(prompt("  "), Ok(("prompt", None)));
    }

    #[test]
    fn nothing_else_is_a_command() {
        for topic in [
            "camscribe/edge1/porch/set",
            "camscribe/edge1/porch/set/uri",
            "camscribe/edge1/porch/set/prompt/x",
            "camscribe/edge1/PORCH/set/prompt",
            "camscribe/edge1/../set/prompt",
            "camscribe/edge2/porch/set/prompt",
            "camscribe/edge1/porch/state/prompt",
        ] {
            assert_eq!(parse(topic, b"x"), Err(BadCommand::Topic), "{topic}");
        }
        for payload in [&b"yes"[..], b"1", b""] {
            let refused = parse("camscribe/edge1/porch/set/enabled", payload);
            assert_eq!(refused, Err(BadCommand::Value("write ON or OFF".into())));
        }
        let prompt = |payload: &[u8]| parse("camscribe/edge1/porch/set/prompt", payload);
        assert_eq!(prompt(b"\xff"), Err(BadCommand::NotUtf8));
        for payload in ["<image>".into(), "a\0b".into(), "x".repeat(5000)] {
            assert!(matches!(prompt(payload.as_bytes()), Err(BadCommand::Value(_))), "{payload}");
        }
    }

    #[test]
    fn the_error_names_every_command_and_a_command_is_shown_with_its_value() {
        for setting in &SETTINGS {
            assert!(BadCommand::Topic.to_string().contains(&format!("set/{}", setting.name)));
        }
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        for (topic, payload, shown) in [
            ("camscribe/edge1/porch/set/enabled", "off", "set enabled to \"OFF\""),
            ("camscribe/edge1/porch/set/prompt", "Who comes?", "set prompt to \"Who comes?\""),
            ("camscribe/edge1/porch/set/prompt", "", "reset prompt to the configuration"),
        ] {
            let command = CameraCommand::parse(&topics, topic.as_bytes(), payload.as_bytes());
            assert_eq!(command.expect("a command").to_string(), shown);
        }
    }
}
