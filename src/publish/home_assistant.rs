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
        (format!("{}/{component}/camscribe-{id}/{camera}-{object}/config", self.prefix), config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configs(node: &str, camera: &str) -> [(String, Value); 4] {
        let discovery = Discovery::new("homeassistant", true).expect("a good prefix").expect("is on");
        let topics = Topics::new("camscribe", node).expect("a good node");
        let configs = discovery.configs(&topics, &camera.parse().expect("a good name"));
        configs.try_into().expect("four of them")
    }

    #[test]
    fn a_camera_is_one_device_with_its_newest_description_and_snapshot() {
        let [(sensor_topic, sensor), (image_topic, image), ..] = configs("edge1", "porch");
        assert_eq!(sensor_topic, "homeassistant/sensor/camscribe-edge1/porch-description/config");
        assert_eq!(image_topic, "homeassistant/image/camscribe-edge1/porch-snapshot/config");
        assert_eq!(sensor["state_topic"], "camscribe/edge1/porch/latest");
        assert_eq!(sensor["json_attributes_topic"], "camscribe/edge1/porch/latest");
        assert_eq!(image["image_topic"], "camscribe/edge1/porch/snapshot");
        assert_eq!(image["content_type"], "image/jpeg");
        assert_eq!(sensor["device"], image["device"]);
        assert_ne!(sensor["unique_id"], image["unique_id"]);
    }

    #[test]
    fn a_state_is_cut_to_the_255_characters_that_home_assistant_takes() {
        let [(_, sensor), ..] = configs("edge1", "porch");
        assert_eq!(sensor["value_template"], "{{ value_json.description[:255] }}");
    }

    #[test]
    fn an_entity_is_available_only_while_node_and_camera_are() {
        for (_, config) in configs("edge1", "porch").into_iter().take(2) {
            assert_eq!(config["availability_mode"], "all");
            assert_eq!(config["availability"][0]["topic"], "camscribe/edge1/status");
            assert_eq!(config["availability"][1]["topic"], "camscribe/edge1/porch/status");
            let template = "{{ 'online' if value_json.state == 'online' else 'offline' }}";
            assert_eq!(config["availability"][1]["value_template"], template);
        }
    }

    #[test]
    fn settings_are_available_while_the_node_is_online_and_only_with_commands() {
        let [.., (switch_topic, switch), (text_topic, text)] = configs("edge1", "porch");
        assert_eq!(switch_topic, "homeassistant/switch/camscribe-edge1/porch-enabled/config");
        assert_eq!(switch["command_topic"], "camscribe/edge1/porch/set/enabled");
        assert_eq!(switch["state_topic"], "camscribe/edge1/porch/state/enabled");
        assert_eq!(text_topic, "homeassistant/text/camscribe-edge1/porch-prompt/config");
        assert_eq!(text["command_topic"], "camscribe/edge1/porch/set/prompt");
        assert_eq!(text["state_topic"], "camscribe/edge1/porch/state/prompt");
        assert_eq!((&text["max"], &text["value_template"]), (&json!(255), &json!("{{ value[:255] }}")));
        for config in [switch, text] {
            assert_eq!(config["availability"], json!([{ "topic": "camscribe/edge1/status" }]));
        }
        let without_commands = Discovery::new("homeassistant", false).expect("a good prefix").expect("is on");
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        assert_eq!(without_commands.configs(&topics, &"porch".parse().expect("a good name")).len(), 2);
    }

    #[test]
    fn names_that_join_to_the_same_text_stay_different_devices() {
        let [(one, a), ..] = configs("edge_a", "b");
        let [(two, b), ..] = configs("edge", "a_b");
        assert_ne!(one, two);
        assert_ne!(a["unique_id"], b["unique_id"]);
        assert_ne!(a["device"]["identifiers"], b["device"]["identifiers"]);
    }

    #[test]
    fn topics_hold_only_what_home_assistant_reads_in_an_object_id() {
        for (topic, _) in configs("Edge.example.org", "porch_2") {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
            assert!(topic.chars().all(good), "{topic}");
        }
    }

    #[test]
    fn an_empty_prefix_turns_discovery_off_and_a_bad_one_is_refused() {
        assert!(Discovery::new("", true).expect("off").is_none());
        assert!(Discovery::new("home/+", true).is_err());
    }
}
