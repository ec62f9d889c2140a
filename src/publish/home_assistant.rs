//! Home Assistant's discovery messages: with them it shows each camera as a device without being
//! configured. Pure.
//!
//! A node and a camera come in, retained (topic, JSON) pairs go out, by the rules of
//! <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>.

use serde_json::{Value, json};

use super::topics::{BadTopic, Topics};
use crate::{
    camera::CameraId,
    config,
    runtime_settings::{Kind, RuntimeSetting, SETTINGS},
};

/// The longest text that Home Assistant takes as a state, characters.
const MAX_STATE: usize = 255;
/// The last level of a discovery topic.
const CONFIG: &str = "config";

/// Makes discovery messages below Home Assistant's prefix.
#[derive(Clone, Debug)]
pub struct Discovery {
    prefix: String,
    /// Cameras take commands.
    commands: bool,
}

impl Discovery {
    /// Discovery below `prefix` (`homeassistant`, unless Home Assistant is configured otherwise);
    /// `None` when it is empty. `commands`: cameras take commands.
    ///
    /// # Errors
    /// When `prefix` cannot be part of a topic.
    pub fn new(prefix: &str, commands: bool) -> Result<Option<Self>, BadTopic> {
        if prefix.is_empty() {
            return Ok(None);
        }
        config::check_prefix(prefix).map_err(BadTopic::Prefix)?;
        Ok(Some(Self { prefix: prefix.into(), commands }))
    }

    /// The first level or levels of the discovery topics.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The topic on which Home Assistant publishes `online` when it has started. The discovery messages
    /// are sent again then.
    pub fn birth_topic(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// The discovery messages of a camera, topic and payload: a sensor for its newest description, an
    /// image for its newest snapshot and, if commands are on, an entity for each run-time setting.
    pub fn configs(&self, topics: &Topics, camera: &CameraId) -> Vec<(String, Value)> {
        let latest = topics.latest(camera);
        let sensor = json!({
            "name": "Description",
            "icon": "mdi:text-box-outline",
            "state_topic": latest,
            // A longer state becomes `unknown`. The whole text is an attribute.
            "value_template": format!("{{{{ value_json.description[:{MAX_STATE}] }}}}"),
            "json_attributes_topic": latest,
        });
        let image = json!({
            "name": "Snapshot",
            "image_topic": topics.snapshot(camera),
            "content_type": "image/jpeg",
        });
        let mut configs = vec![
            self.config(topics, camera, "sensor", "description", sensor),
            self.config(topics, camera, "image", "snapshot", image),
        ];
        if self.commands {
            configs.extend(SETTINGS.iter().map(|setting| self.setting(topics, camera, setting)));
        }
        configs
    }

    /// The entity of a run-time setting.
    fn setting(&self, topics: &Topics, camera: &CameraId, setting: &RuntimeSetting) -> (String, Value) {
        let mut config = json!({
            "name": setting.label,
            "icon": setting.icon,
            "entity_category": "config",
            "command_topic": topics.set(camera, setting.name),
            "state_topic": topics.state(camera, setting.name),
            // A camera that is switched off must stay available, to be switched on again.
            "availability": [{ "topic": topics.status() }],
        });
        let component = match setting.kind {
            Kind::Switch { .. } => "switch",
            Kind::Text { .. } => {
                // A longer text, set by another client, is shown cut.
                config["max"] = json!(MAX_STATE);
                config["value_template"] = json!(format!("{{{{ value[:{MAX_STATE}] }}}}"));
                "text"
            }
        };
        self.config(topics, camera, component, setting.name, config)
    }

    /// The topic and the payload of an entity: `config` and what all entities have.
    fn config(
        &self,
        topics: &Topics,
        camera: &CameraId,
        component: &str,
        object: &str,
        mut config: Value,
    ) -> (String, Value) {
        let node = topics.node();
        let version = env!("CARGO_PKG_VERSION");
        let common = json!({
            "unique_id": format!("camscribe/{node}/{camera}/{object}"),
            "qos": 1,
            "availability_mode": "all",
            "availability": [
                { "topic": topics.status() },
                // Home Assistant ignores any other word, and would go on showing the last snapshot.
                {
                    "topic": topics.camera_status(camera),
                    "value_template": "{{ 'online' if value_json.state == 'online' else 'offline' }}",
                },
            ],
            "device": {
                "identifiers": [format!("camscribe/{node}/{camera}")],
                "name": camera.as_str(),
                "manufacturer": "camscribe",
                "model": format!("camera of {node}"),
                "sw_version": version,
            },
            "origin": { "name": "camscribe", "sw_version": version },
        });
        if let (Value::Object(config), Value::Object(common)) = (&mut config, common) {
            for (key, value) in common {
                config.entry(key).or_insert(value);
            }
        }
        // Home Assistant allows no dots in the ids of topics. Host names may have dots.
        let id = node.replace('.', "_");
        (format!("{}/{component}/camscribe-{id}/{camera}-{object}/{CONFIG}", self.prefix), config)
    }
}

/// Whether a topic of camscribe, also of an earlier configuration, is one of Home Assistant's discovery. No other
/// topic has this last level.
pub fn is_config(topic: &str) -> bool {
    topic.rsplit('/').next() == Some(CONFIG)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SENSOR: &str = "homeassistant/sensor/camscribe-edge1/porch-description/config";
    const IMAGE: &str = "homeassistant/image/camscribe-edge1/porch-snapshot/config";
    const SWITCH: &str = "homeassistant/switch/camscribe-edge1/porch-enabled/config";
    const TEXT: &str = "homeassistant/text/camscribe-edge1/porch-prompt/config";

    /// The discovery messages of a camera by topic.
    fn configs(node: &str, camera: &str, commands: bool) -> BTreeMap<String, Value> {
        let discovery = Discovery::new("homeassistant", commands).expect("a good prefix").expect("is on");
        let topics = Topics::new("camscribe", node).expect("a good node");
        discovery.configs(&topics, &camera.parse().expect("a good name")).into_iter().collect()
    }

    #[test]
    fn a_camera_is_one_device_with_its_newest_description_and_snapshot() {
        let configs = configs("edge1", "porch", true);
        let (sensor, image) = (&configs[SENSOR], &configs[IMAGE]);
        assert_eq!(sensor["state_topic"], "camscribe/edge1/porch/latest");
        assert_eq!(sensor["json_attributes_topic"], "camscribe/edge1/porch/latest");
        assert_eq!(image["image_topic"], "camscribe/edge1/porch/snapshot");
        assert_eq!(image["content_type"], "image/jpeg");
        assert!(configs.values().all(|config| config["device"] == sensor["device"]));
        assert_ne!(sensor["unique_id"], image["unique_id"]);
    }

    #[test]
    fn a_state_is_cut_to_the_255_characters_that_home_assistant_takes() {
        let configs = configs("edge1", "porch", true);
        assert_eq!(configs[SENSOR]["value_template"], "{{ value_json.description[:255] }}");
        assert_eq!(configs[TEXT]["value_template"], "{{ value[:255] }}");
        assert_eq!(configs[TEXT]["max"], 255);
    }

    #[test]
    fn an_entity_is_available_only_while_node_and_camera_are() {
        for config in configs("edge1", "porch", false).values() {
            assert_eq!(config["availability_mode"], "all");
            assert_eq!(config["availability"][0]["topic"], "camscribe/edge1/status");
            assert_eq!(config["availability"][1]["topic"], "camscribe/edge1/porch/status");
            let template = "{{ 'online' if value_json.state == 'online' else 'offline' }}";
            assert_eq!(config["availability"][1]["value_template"], template);
        }
    }

    #[test]
    fn settings_are_available_while_the_node_is_online_and_only_with_commands() {
        let with_commands = configs("edge1", "porch", true);
        for (topic, name) in [(SWITCH, "enabled"), (TEXT, "prompt")] {
            let config = &with_commands[topic];
            assert_eq!(config["command_topic"], format!("camscribe/edge1/porch/set/{name}"));
            assert_eq!(config["state_topic"], format!("camscribe/edge1/porch/state/{name}"));
            assert_eq!(config["availability"], json!([{ "topic": "camscribe/edge1/status" }]));
        }
        assert_eq!(with_commands.len(), 2 + SETTINGS.len());
        let without_commands = configs("edge1", "porch", false);
        assert_eq!(without_commands.into_keys().collect::<Vec<_>>(), [IMAGE, SENSOR]);
    }

    #[test]
    fn names_that_join_to_the_same_text_stay_different_devices() {
        let (one, two) = (configs("edge_a", "b", true), configs("edge", "a_b", true));
        assert!(one.keys().all(|topic| !two.contains_key(topic)));
        for (a, b) in one.values().flat_map(|a| two.values().map(move |b| (a, b))) {
            assert_ne!(a["unique_id"], b["unique_id"]);
            assert_ne!(a["device"]["identifiers"], b["device"]["identifiers"]);
        }
    }

    #[test]
    fn topics_hold_only_what_home_assistant_reads_in_an_object_id() {
        for topic in configs("Edge.example.org", "porch_2", true).keys() {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
            assert!(topic.chars().all(good), "{topic}");
        }
    }

    #[test]
    fn only_discovery_topics_end_as_such() {
        assert!(configs("edge1", "porch", true).keys().all(|topic| is_config(topic)));
        let topics = Topics::new("config", "config").expect("a good node");
        let camera = "config".parse().expect("a good name");
        for topic in [
            topics.status(),
            topics.info(),
            topics.camera_status(&camera),
            topics.latest(&camera),
            topics.snapshot(&camera),
        ] {
            assert!(!is_config(&topic), "{topic}");
        }
        for setting in &SETTINGS {
            assert!(!is_config(&topics.state(&camera, setting.name)), "{}", setting.name);
        }
    }

    #[test]
    fn an_empty_prefix_turns_discovery_off_and_a_bad_one_is_refused() {
        assert!(Discovery::new("", true).expect("off").is_none());
        assert!(Discovery::new("home/+", true).is_err());
    }
}
