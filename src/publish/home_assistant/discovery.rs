//! The discovery messages of the node and its cameras, and their topics.

use serde_json::{Value, json};

use super::{camera, entity::Entity, node};
use crate::{
    camera::CameraId,
    config,
    publish::{
        profile::CameraProfile,
        topics::{BadTopic, Topics},
    },
};

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

    /// The topic filter that matches every discovery topic of a node, also one of an earlier version.
    pub fn filter(&self, topics: &Topics) -> String {
        format!("{}/+/{}/+/{CONFIG}", self.prefix, group(topics))
    }

    /// The discovery messages of the node, topic and payload. They go out before those of its cameras: a camera's
    /// device names the node's, which Home Assistant then knows.
    pub fn node(&self, topics: &Topics) -> Vec<(String, Value)> {
        let device = json!({ "identifiers": [node_id(topics)], "name": topics.node(), "model": "node" });
        // Of a camera's entities only, the name has a `-` before its last word: none is named like another.
        let name = |object: &str| object.into();
        self.configs(topics, device, node::entities(topics), name)
    }

    /// The discovery messages of a camera, topic and payload.
    pub fn camera(
        &self,
        topics: &Topics,
        camera: &CameraId,
        profile: &CameraProfile,
    ) -> Vec<(String, Value)> {
        let device = json!({
            "identifiers": [format!("{}/{camera}", node_id(topics))],
            "name": profile.name,
            "model": "camera",
            "via_device": node_id(topics),
        });
        let name = |object: &str| format!("{camera}-{object}");
        self.configs(topics, device, camera::entities(topics, camera, profile, self.commands), name)
    }

    /// The topics and payloads of the entities of a device. `name` names an entity among those of the node.
    fn configs(
        &self,
        topics: &Topics,
        mut device: Value,
        entities: Vec<Entity>,
        name: impl Fn(&str) -> String,
    ) -> Vec<(String, Value)> {
        let version = env!("CARGO_PKG_VERSION");
        device["manufacturer"] = json!("camscribe");
        device["sw_version"] = json!(version);
        let id = device["identifiers"][0].as_str().unwrap_or_default().to_owned();
        let config = |Entity { component, object, mut config }| {
            config["qos"] = json!(1);
            config["device"] = device.clone();
            config["origin"] = json!({ "name": "camscribe", "sw_version": version });
            // A device trigger is no entity.
            if component != "device_automation" {
                config["unique_id"] = json!(format!("{id}/{object}"));
            }
            let topic = format!("{}/{component}/{}/{}/{CONFIG}", self.prefix, group(topics), name(&object));
            (topic, config)
        };
        entities.into_iter().map(config).collect()
    }
}

/// The id of the node's device.
fn node_id(topics: &Topics) -> String {
    format!("camscribe/{}", topics.node())
}

/// The level of the discovery topics that is the node's.
fn group(topics: &Topics) -> String {
    // Home Assistant allows no dots in the ids of topics. Host names may have dots.
    format!("camscribe-{}", topics.node().replace('.', "_"))
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
    use crate::runtime_settings::SETTINGS;

    /// The discovery messages of a camera by `component/object`.
    fn configs(node: &str, camera: &str, commands: bool) -> BTreeMap<String, Value> {
        let short = |topic: String| {
            let levels: Vec<_> = topic.split('/').collect();
            format!("{}/{}", levels[1], levels[3].rsplit('-').next().unwrap_or_default())
        };
        messages(node, camera, commands).into_iter().map(|(topic, config)| (short(topic), config)).collect()
    }

    fn discovery(commands: bool) -> Discovery {
        Discovery::new("homeassistant", commands).expect("a good prefix").expect("is on")
    }

    fn topics(node: &str) -> Topics {
        Topics::new("camscribe", node).expect("a good node")
    }

    fn messages(node: &str, camera: &str, commands: bool) -> BTreeMap<String, Value> {
        let camera = camera.parse().expect("a good name");
        discovery(commands).camera(&topics(node), &camera, &"Front porch".into()).into_iter().collect()
    }

    #[test]
    fn a_camera_is_a_device_with_its_name_that_names_the_device_of_its_node() {
        let node: BTreeMap<_, _> = discovery(true).node(&topics("edge1")).into_iter().collect();
        let node_device = &node["homeassistant/sensor/camscribe-edge1/model/config"]["device"];
        assert_eq!(node_device["identifiers"], json!(["camscribe/edge1"]));
        assert_eq!(node_device["name"], "edge1");
        assert!(node.values().all(|config| config["device"] == *node_device));
        let messages = messages("edge1", "porch", true);
        let device = &messages["homeassistant/sensor/camscribe-edge1/porch-description/config"]["device"];
        assert_eq!(device["identifiers"], json!(["camscribe/edge1/porch"]));
        assert_eq!(
            (&device["name"], &device["via_device"]),
            (&json!("Front porch"), &json!("camscribe/edge1"))
        );
        assert!(messages.values().all(|config| config["device"] == *device));
    }

    #[test]
    fn a_description_is_an_event_a_device_trigger_and_a_state_with_small_attributes() {
        let configs = configs("edge1", "porch", true);
        let (event, trigger) =
            (&configs["event/new_description"], &configs["device_automation/new_description"]);
        assert_eq!(event["event_types"], json!(["description"]));
        assert_eq!(event["state_topic"], "camscribe/edge1/porch/description");
        // It must not change to `unavailable` and back: an automation would take that for an event.
        assert_eq!(event.get("availability"), None);
        assert_eq!(trigger["topic"], "camscribe/edge1/porch/description");
        assert_eq!((&trigger["automation_type"], &trigger["payload"]), (&json!("trigger"), &json!("new")));
        assert_eq!(trigger.get("unique_id"), None);
        let sensor = &configs["sensor/description"];
        assert_eq!(sensor["state_topic"], "camscribe/edge1/porch/latest");
        for template in [&event["value_template"], &sensor["json_attributes_template"]] {
            let template = template.as_str().unwrap();
            for field in ["frames", "timing", "tokens", "model", "prompt"] {
                assert!(!template.contains(field), "{field}: {template}");
            }
        }
        assert_eq!(configs["image/snapshot"]["image_topic"], "camscribe/edge1/porch/snapshot");
        assert_eq!(configs["image/snapshot"]["content_type"], "image/jpeg");
    }

    #[test]
    fn the_state_of_a_camera_is_one_of_the_words_of_its_status_topic() {
        let configs = configs("edge1", "porch", false);
        let state = &configs["sensor/state"];
        assert_eq!(state["options"], json!(["connecting", "disabled", "offline", "online"]));
        assert_eq!(state["state_topic"], "camscribe/edge1/porch/status");
        assert_eq!(
            (&state["device_class"], &state["entity_category"]),
            (&json!("enum"), &json!("diagnostic"))
        );
        let last = &configs["sensor/last_clip"];
        assert_eq!(
            (&last["device_class"], &last["entity_category"]),
            (&json!("timestamp"), &json!("diagnostic"))
        );
    }

    #[test]
    fn a_state_is_cut_to_the_255_characters_that_home_assistant_takes() {
        let configs = configs("edge1", "porch", true);
        let template = configs["sensor/description"]["value_template"].as_str().unwrap_or_default();
        assert!(template.starts_with("{{ value_json.description[:255] if "), "{template}");
        assert_eq!(
            configs["text/prompt"]["value_template"],
            "{{ value if value | length <= 255 else value[:254] ~ '…' }}"
        );
        assert_eq!(configs["text/prompt"]["max"], 255);
    }

    #[test]
    fn description_and_snapshot_are_available_while_node_and_camera_are_and_the_rest_while_the_node_is() {
        let node = json!({ "topic": "camscribe/edge1/status" });
        let template = "{{ ('online' if value_json.state == 'online' else 'offline') if value_json is defined \
                        else 'offline' }}";
        let camera = json!({ "topic": "camscribe/edge1/porch/status", "value_template": template });
        let configs = configs("edge1", "porch", true);
        for (name, config) in configs.iter().filter(|(name, _)| !name.ends_with("/new_description")) {
            assert_eq!(config["availability_mode"], "all", "{name}");
            let of_camera =
                matches!(name.as_str(), "sensor/description" | "image/snapshot" | "button/describe_now");
            let wanted = if of_camera { json!([node, camera]) } else { json!([node]) };
            assert_eq!(config["availability"], wanted, "{name}");
        }
    }

    #[test]
    fn settings_are_entities_only_with_commands() {
        let with_commands = configs("edge1", "porch", true);
        for name in ["switch/enabled", "text/prompt"] {
            let (config, setting) = (&with_commands[name], name.rsplit('/').next().unwrap());
            assert_eq!(config["command_topic"], format!("camscribe/edge1/porch/set/{setting}"));
            assert_eq!(config["state_topic"], format!("camscribe/edge1/porch/state/{setting}"));
        }
        let button = &with_commands["button/describe_now"];
        assert_eq!(
            (&button["command_topic"], &button["payload_press"]),
            (&json!("camscribe/edge1/porch/ask"), &json!("{}"))
        );
        assert_eq!(with_commands["sensor/asked"]["state_topic"], "camscribe/edge1/porch/ask/answer");
        let without_commands = configs("edge1", "porch", false);
        assert_eq!(with_commands.len(), without_commands.len() + SETTINGS.len() + 2);
        assert!(
            without_commands
                .keys()
                .all(|name| !["switch", "text", "button"].iter().any(|it| name.starts_with(it)))
        );
    }

    #[test]
    fn names_that_join_to_the_same_text_stay_different_devices() {
        let node: BTreeMap<_, _> = discovery(true).node(&topics("edge")).into_iter().collect();
        let cameras = [("edge_a", "b"), ("edge", "a_b"), ("edge", "model"), ("edge", "broker-model")];
        let all: Vec<_> =
            cameras.iter().map(|(node, camera)| messages(node, camera, true)).chain([node]).collect();
        for (i, one) in all.iter().enumerate() {
            for two in &all[i + 1..] {
                assert!(one.keys().all(|topic| !two.contains_key(topic)));
                for (a, b) in one.values().flat_map(|a| two.values().map(move |b| (a, b))) {
                    assert!(a["unique_id"].is_null() || a["unique_id"] != b["unique_id"]);
                    assert_ne!(a["device"]["identifiers"], b["device"]["identifiers"]);
                }
            }
        }
    }

    #[test]
    fn topics_hold_only_what_home_assistant_reads_in_an_object_id() {
        let node = discovery(true).node(&topics("Edge.example.org"));
        let camera = messages("Edge.example.org", "porch_2", true);
        for topic in node.iter().map(|(topic, _)| topic).chain(camera.keys()) {
            let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '/');
            assert!(topic.chars().all(good), "{topic}");
        }
    }

    #[test]
    fn only_discovery_topics_end_as_such() {
        assert!(messages("edge1", "porch", true).keys().all(|topic| is_config(topic)));
        let topics = topics("config");
        let camera = "config".parse().expect("a good name");
        for topic in [
            topics.status(),
            topics.info(),
            topics.load(),
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
