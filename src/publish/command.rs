//! What subscribers may ask of a camera: `…/<camera>/set/enabled` and `…/<camera>/set/prompt`.
//!
//! Anyone who may publish there can send anything, so topic and payload are untrusted: bounded and
//! checked here, and nothing that fails the checks goes further. Pure.

use std::fmt;

use super::topics::Topics;
use crate::{camera::CameraId, config};

/// `ON` and `OFF`: what Home Assistant's switches say, in any case.
const ON: &str = "ON";
const OFF: &str = "OFF";

/// Something asked of a camera.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Of which; perhaps there is no such camera.
    pub camera: CameraId,
    /// What.
    pub order: Order,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Watch it, or leave it.
    Enabled(bool),
    /// Ask this about its clips; none: what the configuration says.
    Prompt(Option<String>),
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enabled(true) => f.write_str("watch it"),
            Self::Enabled(false) => f.write_str("leave it"),
            Self::Prompt(Some(prompt)) => write!(f, "ask {prompt:?}"),
            Self::Prompt(None) => f.write_str("ask what the configuration says"),
        }
    }
}

/// A command that is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadCommand {
    /// The topic is not one that we take commands on.
    #[error("there are no commands but set/enabled and set/prompt, below a camera's name")]
    Topic,
    /// `set/enabled` with another word.
    #[error("write ON or OFF")]
    Switch,
    /// Not text.
    #[error("the payload is not UTF-8 text")]
    Bytes,
    /// A prompt that the configuration would not take either.
    #[error("the prompt {0}")]
    Prompt(String),
}

impl Command {
    /// What a message below `topics` asks for.
    ///
    /// # Errors
    /// When it is nothing that can be asked for.
    pub fn read(topics: &Topics, topic: &[u8], payload: &[u8]) -> Result<Self, BadCommand> {
        let topic = str::from_utf8(topic).map_err(|_| BadCommand::Topic)?;
        let (camera, what) = topics.command(topic).ok_or(BadCommand::Topic)?;
        let text = str::from_utf8(payload).map_err(|_| BadCommand::Bytes)?.trim();
        let order = match what {
            "enabled" if text.eq_ignore_ascii_case(ON) => Order::Enabled(true),
            "enabled" if text.eq_ignore_ascii_case(OFF) => Order::Enabled(false),
            "enabled" => return Err(BadCommand::Switch),
            "prompt" if text.is_empty() => Order::Prompt(None),
            "prompt" => {
                config::check_prompt(text).map_err(BadCommand::Prompt)?;
                Order::Prompt(Some(text.into()))
            }
            _ => return Err(BadCommand::Topic),
        };
        Ok(Self { camera, order })
    }
}

/// How a switch stands, as `state/enabled` says it.
pub(super) fn switch(on: bool) -> &'static str {
    if on { ON } else { OFF }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(topic: &str, payload: &[u8]) -> Result<Order, BadCommand> {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let command = Command::read(&topics, topic.as_bytes(), payload)?;
        assert_eq!(command.camera.as_str(), "porch");
        Ok(command.order)
    }

    #[test]
    fn a_camera_can_be_switched_and_asked_something_else() {
        for (payload, on) in [("ON", true), ("off", false), (" Off\n", false)] {
            assert_eq!(read("camscribe/edge1/porch/set/enabled", payload.as_bytes()), Ok(Order::Enabled(on)));
        }
        let prompt = |payload: &str| read("camscribe/edge1/porch/set/prompt", payload.as_bytes());
        assert_eq!(prompt("Who comes?"), Ok(Order::Prompt(Some("Who comes?".into()))));
        assert_eq!(prompt("  "), Ok(Order::Prompt(None)));
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
            assert_eq!(read(topic, b"x"), Err(BadCommand::Topic), "{topic}");
        }
        for payload in [&b"yes"[..], b"1", b""] {
            assert_eq!(read("camscribe/edge1/porch/set/enabled", payload), Err(BadCommand::Switch));
        }
        let prompt = |payload: &[u8]| read("camscribe/edge1/porch/set/prompt", payload);
        assert_eq!(prompt(b"\xff"), Err(BadCommand::Bytes));
        for payload in ["<image>".into(), "a\0b".into(), "x".repeat(5000)] {
            assert!(matches!(prompt(payload.as_bytes()), Err(BadCommand::Prompt(_))), "{payload}");
        }
    }
}
