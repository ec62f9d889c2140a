//! What the node shows in Home Assistant: how it is doing.

use serde_json::json;

use super::entity::{Entity, MAX_STATE, template, while_node_is_online};
use crate::publish::topics::Topics;

/// The entities of the node.
pub fn entities(topics: &Topics) -> Vec<Entity> {
    let count = |object, name, icon, class| {
        let config = json!({
            "name": name,
            "icon": icon,
            "state_class": class,
            "state_topic": topics.load(),
            "value_template": template(&format!("value_json.{object}"), "''"),
        });
        Entity::diagnostic("sensor", object, config).available(&[while_node_is_online(topics)])
    };
    vec![
        broker(topics),
        model(topics),
        count("queue_clips", "Clips that wait for the model", "mdi:tray-full", "measurement"),
        count("outbox_messages", "Descriptions that wait for the broker", "mdi:tray-arrow-up", "measurement"),
        count("dropped_clips", "Dropped clips", "mdi:tray-remove", "total_increasing"),
    ]
}

/// Whether the node is connected to the broker. Always available: this is what it tells.
fn broker(topics: &Topics) -> Entity {
    let config = json!({
        "name": "Broker",
        "device_class": "connectivity",
        "state_topic": topics.status(),
        "payload_on": "online",
        "payload_off": "offline",
    });
    Entity::diagnostic("binary_sensor", "broker", config)
}

fn model(topics: &Topics) -> Entity {
    let config = json!({
        "name": "Model",
        "icon": "mdi:brain",
        "state_topic": topics.info(),
        "value_template": template(&format!("value_json.model.id[:{MAX_STATE}]"), "''"),
        "json_attributes_topic": topics.info(),
        "json_attributes_template": template("value_json.model | to_json", "'{}'"),
    });
    Entity::diagnostic("sensor", "model", config).available(&[while_node_is_online(topics)])
}
