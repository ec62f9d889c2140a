//! Home Assistant: what it must read to show each camera as a device without being configured.
//!
//! A node and its cameras come in, retained (topic, JSON) pairs go out, by the rules of
//! <https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery>. Pure.

use serde_json::{Value, json};

use super::topics::{BadTopic, Topics};
use crate::{camera::CameraId, config};

/// Home Assistant's side of the broker: where it reads configurations and says that it is up.
#[derive(Clone, Debug)]
pub struct Discovery {
    prefix: String,
    /// Cameras take commands.
    commands: bool,
}

impl Discovery {
    /// Below `prefix` (`homeassistant` unless its owner changed it); none when that is empty.
    /// `commands`: cameras take them.
    pub fn new(prefix: &str, commands: bool) -> Result<Option<Self>, BadTopic> {
        if prefix.is_empty() {
            return Ok(None);
        }
        config::check_prefix(prefix).map_err(BadTopic::Prefix)?;
        Ok(Some(Self { prefix: prefix.into(), commands }))
    }

    /// What configurations' topics begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where Home Assistant says `online` when it has started: configurations are sent again then.
    pub fn birth_topic(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// The retained configurations of a camera: its newest description and its newest picture, and
    /// what can be set.
    pub fn configs(&self, topics: &Topics, camera: &CameraId) -> Vec<(String, Value)> {
        let latest = topics.latest(camera);
        let sensor = json!({
            "name": "Description",
            "icon": "mdi:text-box-outline",
            "state_topic": latest,
            // A state of more than 255 characters becomes `unknown`; the whole text is an attribute.
            "value_template": "{{ value_json.description[:255] }}",
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
            let set = |what, name, icon| {
                json!({
                    "name": name,
                    "icon": icon,
                    "entity_category": "config",
                    "command_topic": topics.set(camera, what),
                    "state_topic": topics.state(camera, what),
                    // A camera that is switched off must still be there to be switched on.
                    "availability": [{ "topic": topics.status() }],
                })
            };
            let switch = set("enabled", "Watched", "mdi:cctv");
            let mut prompt = set("prompt", "Prompt", "mdi:comment-question-outline");
            // The most that Home Assistant takes; a longer one from elsewhere is shown cut.
            prompt["max"] = json!(255);
            prompt["value_template"] = json!("{{ value[:255] }}");
            configs.push(self.config(topics, camera, "switch", "enabled", switch));
            configs.push(self.config(topics, camera, "text", "prompt", prompt));
        }
        configs
    }

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
                // Home Assistant passes over any other word, and would go on showing the last picture.
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
        // Home Assistant's ids in topics have no dots, which host names may have.
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
    fn a_camera_is_one_device_with_its_newest_description_and_picture() {
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
    fn what_can_be_set_is_there_while_the_node_is_and_only_if_commands_are_taken() {
        let [.., (switch_topic, switch), (text_topic, text)] = configs("edge1", "porch");
        assert_eq!(switch_topic, "homeassistant/switch/camscribe-edge1/porch-enabled/config");
        assert_eq!(switch["command_topic"], "camscribe/edge1/porch/set/enabled");
        assert_eq!(switch["state_topic"], "camscribe/edge1/porch/state/enabled");
        assert_eq!(text_topic, "homeassistant/text/camscribe-edge1/porch-prompt/config");
        assert_eq!(text["command_topic"], "camscribe/edge1/porch/set/prompt");
        assert_eq!(text["state_topic"], "camscribe/edge1/porch/state/prompt");
        for config in [switch, text] {
            assert_eq!(config["availability"], json!([{ "topic": "camscribe/edge1/status" }]));
        }
        let deaf = Discovery::new("homeassistant", false).expect("a good prefix").expect("is on");
        let topics = Topics::new("camscribe", "edge1").expect("a good node");
        assert_eq!(deaf.configs(&topics, &"porch".parse().expect("a good name")).len(), 2);
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
