//! The names of the topics. Pure.
//!
//! The prefix and the node are checked once. From then on no topic can contain a wildcard, because a
//! camera's id cannot either.

use crate::{camera::CameraId, config, runtime_settings::RuntimeSetting};

/// The longest topic of a caller's that an answer goes to, bytes.
const MAX_RESPONSE_TOPIC: usize = 256;

/// The topics of one node.
#[derive(Clone, Debug)]
pub struct Topics {
    root: String,
    node: String,
}

/// A node or a prefix that cannot be part of a topic.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTopic {
    /// The node's name.
    #[error("{0:?} cannot name a node: use 1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'")]
    Node(String),
    /// A prefix of topics, and what is wrong with it.
    #[error("the prefix {0}")]
    Prefix(String),
}

/// Checks that `node` can be a level of a topic.
///
/// # Errors
/// When it cannot.
pub fn check_node(node: &str) -> Result<(), BadTopic> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let good = (1..=64).contains(&node.len()) && node.bytes().all(allowed);
    if good { Ok(()) } else { Err(BadTopic::Node(node.into())) }
}

impl Topics {
    /// The topics below `prefix`/`node`.
    ///
    /// # Errors
    /// When the prefix or the node cannot be part of a topic.
    pub fn new(prefix: &str, node: &str) -> Result<Self, BadTopic> {
        config::check_prefix(prefix).map_err(BadTopic::Prefix)?;
        check_node(node)?;
        Ok(Self { root: format!("{prefix}/{node}"), node: node.into() })
    }

    /// The node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// `online` or `offline`, retained. The topic of the will.
    pub fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    /// What runs here: retained JSON.
    pub fn info(&self) -> String {
        format!("{}/info", self.root)
    }

    /// How the node keeps up: retained JSON.
    pub fn load(&self) -> String {
        format!("{}/load", self.root)
    }

    /// The state of a camera and the reason for it: retained JSON.
    pub fn camera_status(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/status", self.root)
    }

    /// Every event of a camera: JSON.
    pub fn description(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/description", self.root)
    }

    /// The newest event of a camera: retained JSON.
    pub fn latest(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/latest", self.root)
    }

    /// A frame that the model saw: retained JPEG.
    pub fn snapshot(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/snapshot", self.root)
    }

    /// The newest answer to a question of a camera: retained JSON.
    pub fn answer(&self, camera: &CameraId, question: &str) -> String {
        format!("{}/{camera}/answer/{question}", self.root)
    }

    /// The state of an alert of a camera: retained JSON.
    pub fn alert(&self, camera: &CameraId, alert: &str) -> String {
        format!("{}/{camera}/alert/{alert}", self.root)
    }

    /// Each time that an alert of a camera goes on or off: JSON.
    pub fn alerts(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/alerts", self.root)
    }

    /// Questions about what a camera shows now.
    pub fn ask(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/ask", self.root)
    }

    /// The answers to these, where they go to no topic of the caller's.
    pub fn ask_answer(&self, camera: &CameraId) -> String {
        format!("{}/{camera}/ask/answer", self.root)
    }

    /// Whether a topic is one of [`Topics::ask_answer`].
    pub fn is_ask_answer(&self, topic: &str) -> bool {
        topic.strip_suffix("/answer").is_some_and(|topic| self.asked(topic).is_some())
    }

    /// The topic filter that matches all questions about cameras.
    pub fn asks(&self) -> String {
        format!("{}/+/ask", self.root)
    }

    /// The camera that a question is about by its topic; `None` for another topic.
    pub fn asked(&self, topic: &str) -> Option<CameraId> {
        topic.strip_prefix(&self.root)?.strip_prefix('/')?.strip_suffix("/ask")?.parse().ok()
    }

    /// Whether an answer may go to a topic of the caller's: it lies under one of `filters`, and is no topic of this node.
    pub fn may_reply(&self, topic: &str, filters: &[String]) -> bool {
        let is_good = topic.len() <= MAX_RESPONSE_TOPIC
            && !topic.is_empty()
            && !topic.contains(|c: char| matches!(c, '+' | '#' | '$') || c.is_control());
        let is_own =
            topic.strip_prefix(&self.root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_good && !is_own && filters.iter().any(|filter| matches(topic, filter))
    }

    /// The command topic of a run-time setting of a camera.
    pub fn set(&self, camera: &CameraId, setting: &str) -> String {
        format!("{}/{camera}/set/{setting}", self.root)
    }

    /// The value of a run-time setting of a camera: retained text.
    pub fn state(&self, camera: &CameraId, setting: &str) -> String {
        format!("{}/{camera}/state/{setting}", self.root)
    }

    /// The topic filter that matches all command topics.
    pub fn commands(&self) -> String {
        format!("{}/+/set/+", self.root)
    }

    /// The topic filters that match everything that is retained of the node, and some of its neighbours' topics, which
    /// [`Topics::is_own`] tells apart.
    pub fn retained_filters(&self) -> Vec<String> {
        ["+", "+/status", "+/latest", "+/snapshot", "+/state/+", "+/answer/+", "+/alert/+"]
            .map(|it| format!("{}/{it}", self.root))
            .into()
    }

    /// Whether this node or one of its cameras has this topic.
    pub fn is_own(&self, topic: &str) -> bool {
        let below = topic.strip_prefix(&self.root).and_then(|rest| rest.strip_prefix('/'));
        let levels: Vec<_> = below.unwrap_or_default().split('/').collect();
        let is_camera = |camera: &str| camera.parse::<CameraId>().is_ok();
        match levels[..] {
            ["status" | "info" | "load"] => true,
            [camera, "status" | "description" | "latest" | "snapshot" | "alerts" | "ask"] => {
                is_camera(camera)
            }
            [camera, "ask", "answer"] => is_camera(camera),
            // Questions and alerts have names like those of cameras.
            [camera, "answer" | "alert", name] => is_camera(camera) && is_camera(name),
            [camera, "set" | "state", setting] => {
                is_camera(camera) && RuntimeSetting::find(setting).is_some()
            }
            _ => false,
        }
    }

    /// The camera and the setting that a command topic names; `None` for another topic.
    pub fn command<'a>(&self, topic: &'a str) -> Option<(CameraId, &'a str)> {
        let (camera, setting) = topic.strip_prefix(&self.root)?.strip_prefix('/')?.split_once("/set/")?;
        Some((camera.parse().ok()?, setting))
    }
}

/// Whether a topic matches a filter: `+` stands for one level, `#` at the end for any number of them.
fn matches(topic: &str, filter: &str) -> bool {
    let (mut topic, mut filter) = (topic.split('/'), filter.split('/'));
    loop {
        match (topic.next(), filter.next()) {
            (_, Some("#")) => return true,
            (Some(level), Some(wanted)) if wanted == "+" || wanted == level => {}
            (None, None) => return true,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::runtime_settings::SETTINGS;

    #[test]
    fn topics_are_those_of_the_contract() {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let porch: CameraId = "porch".parse().expect("a good name");
        assert_eq!(topics.status(), "camscribe/edge1/status");
        assert_eq!(topics.info(), "camscribe/edge1/info");
        assert_eq!(topics.load(), "camscribe/edge1/load");
        assert_eq!(topics.camera_status(&porch), "camscribe/edge1/porch/status");
        assert_eq!(topics.description(&porch), "camscribe/edge1/porch/description");
        assert_eq!(topics.latest(&porch), "camscribe/edge1/porch/latest");
        assert_eq!(topics.snapshot(&porch), "camscribe/edge1/porch/snapshot");
    }

    #[test]
    fn an_answer_goes_only_where_the_configuration_allows_it() {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let filters = ["camscribe/reply/#".to_owned(), "app/+/in".to_owned()];
        for topic in ["camscribe/reply/x", "camscribe/reply/x/y", "camscribe/reply", "app/7/in"] {
            assert!(topics.may_reply(topic, &filters), "{topic}");
        }
        let long = format!("camscribe/reply/{}", "x".repeat(300));
        for topic in ["", "app/in", "app/7/8/in", "other", "$SYS/x", "camscribe/reply/+", "app/#", "ä", &long]
        {
            assert!(!topics.may_reply(topic, &filters), "{topic}");
        }
        let all = ["#".to_owned()];
        assert!(topics.may_reply("ä/b", &all) && topics.may_reply("camscribe/edge10/x", &all));
        for topic in ["camscribe/edge1", "camscribe/edge1/porch/ask", "$SYS/x", "a\0b"] {
            assert!(!topics.may_reply(topic, &all), "{topic}");
        }
        assert_eq!(topics.asked("camscribe/edge1/porch/ask"), "porch".parse().ok());
        assert!(topics.is_ask_answer("camscribe/edge1/porch/ask/answer"));
        assert!(!topics.is_ask_answer("camscribe/edge2/porch/ask/answer"));
        for topic in ["camscribe/edge1/porch/ask/answer", "camscribe/edge1/ask", "camscribe/edge1/a/b/ask"] {
            assert_eq!(topics.asked(topic), None, "{topic}");
        }
    }

    #[test]
    fn every_topic_of_a_node_is_its_own() {
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        let camera: CameraId = "porch".parse().expect("a good name");
        let mut all = vec![topics.status(), topics.info(), topics.load(), topics.camera_status(&camera)];
        all.extend([topics.description(&camera), topics.latest(&camera), topics.snapshot(&camera)]);
        for setting in &SETTINGS {
            all.extend([topics.set(&camera, setting.name), topics.state(&camera, setting.name)]);
        }
        assert!(all.iter().all(|topic| topics.is_own(topic)), "{all:?}");
    }

    #[test]
    fn a_node_or_prefix_that_would_change_a_topics_meaning_is_refused() {
        for node in ["", "a/b", "+", "#", "a b", "ä", "$SYS", "a\0", &"n".repeat(65)] {
            assert_eq!(Topics::new("camscribe", node).err(), Some(BadTopic::Node(node.into())));
        }
        for prefix in ["", "/", "a/", "/a", "a//b", "a/+", "#", "$share/a", "a b", "a\nb", &"p".repeat(129)] {
            assert!(matches!(Topics::new(prefix, "edge1"), Err(BadTopic::Prefix(_))), "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn no_topic_ever_holds_a_wildcard(prefix in "\\PC{0,12}", node in "\\PC{0,12}", camera in "\\PC{0,12}") {
            let (Ok(topics), Ok(camera)) = (Topics::new(&prefix, &node), camera.parse()) else { return Ok(()) };
            for topic in [topics.status(), topics.info(), topics.load(), topics.camera_status(&camera),
                topics.description(&camera), topics.latest(&camera), topics.snapshot(&camera)] {
                prop_assert!(!topic.contains(['+', '#', '\0', '$']), "{}", topic);
                prop_assert!(topic.split('/').all(|level| !level.is_empty()));
            }
        }
    }
}
