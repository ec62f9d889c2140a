//! What a camera shows in Home Assistant.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::entity::{Entity, MAX_STATE, template, while_node_is_online};
use crate::{
    camera::{CameraId, CameraState},
    publish::{info::state_name, topics::Topics},
    runtime_settings::{Kind, MAX_SHOWN, RuntimeSetting, SETTINGS},
};

/// Whether an event is a description that automations should act on: not one of an unchanged clip, and not one that
/// waited for the broker for more than five minutes. The first 48 bits of the id are the time at which the event was
/// made, in milliseconds (RFC 9562, UUIDv7).
const IS_NEWS: &str = "value_json.type == 'description' and \
     now().timestamp() - ((value_json.id[:8] ~ value_json.id[9:13]) | int(0, 16)) / 1000 < 300";

/// What automations and people need of an event. Home Assistant's recorder stores attributes with every state: they
/// are kept small.
const DETAILS: &str = "'description': value_json.description, 'id': value_json.id, \
     'start': value_json.clip.start, 'end': value_json.clip.end";

/// The entities of a camera, and its device trigger. `commands`: it takes commands.
pub fn entities(topics: &Topics, camera: &CameraId, commands: bool) -> Vec<Entity> {
    let mut entities = vec![
        event(topics, camera),
        trigger(topics, camera),
        description(topics, camera),
        snapshot(topics, camera),
        state(topics, camera),
        last_clip(topics, camera),
    ];
    if commands {
        entities.extend(SETTINGS.iter().map(|setting| run_time_setting(topics, camera, setting)));
    }
    entities
}

/// An event for each description. Its topic is not retained, so that a restart of Home Assistant, the broker or
/// camscribe repeats none. It has no availability: a change from `unavailable` back to the last event would look
/// like an event to an automation, and an event that comes while it is unavailable would be lost.
fn event(topics: &Topics, camera: &CameraId) -> Entity {
    let attributes = format!("{{ 'event_type': 'description', {DETAILS} }}");
    let config = json!({
        "name": "New description",
        "icon": "mdi:message-text-outline",
        "state_topic": topics.description(camera),
        "event_types": ["description"],
        // What is empty is no event.
        "value_template": format!("{{% if {IS_NEWS} %}}{{{{ {attributes} | to_json }}}}{{% endif %}}"),
    });
    Entity { component: "event", object: "new_description", config }
}

/// The device trigger of the same events.
fn trigger(topics: &Topics, camera: &CameraId) -> Entity {
    let config = json!({
        "automation_type": "trigger",
        "type": "description",
        "subtype": "new",
        "topic": topics.description(camera),
        "payload": "new",
        "value_template": format!("{{% if {IS_NEWS} %}}new{{% endif %}}"),
    });
    Entity { component: "device_automation", object: "new_description", config }
}

/// A sensor for the newest description.
fn description(topics: &Topics, camera: &CameraId) -> Entity {
    let latest = topics.latest(camera);
    let config = json!({
        "name": "Description",
        "icon": "mdi:text-box-outline",
        "state_topic": latest,
        // The whole text is an attribute.
        "value_template": template(&format!("value_json.description[:{MAX_STATE}]"), "''"),
        "json_attributes_topic": latest,
        "json_attributes_template": template(&format!("{{ {DETAILS} }} | to_json"), "'{}'"),
    });
    Entity { component: "sensor", object: "description", config }.available(&while_online(topics, camera))
}

/// An image for the newest snapshot.
fn snapshot(topics: &Topics, camera: &CameraId) -> Entity {
    let config = json!({
        "name": "Snapshot",
        "image_topic": topics.snapshot(camera),
        "content_type": "image/jpeg",
    });
    Entity { component: "image", object: "snapshot", config }.available(&while_online(topics, camera))
}

/// The camera's state; the attribute `why` has the reason.
fn state(topics: &Topics, camera: &CameraId) -> Entity {
    let states = BTreeSet::from(CameraState::ALL.map(state_name));
    let config = json!({
        "name": "State",
        "icon": "mdi:cctv",
        "device_class": "enum",
        "options": states,
        "state_topic": topics.camera_status(camera),
        "value_template": template("value_json.state", "'offline'"),
        "json_attributes_topic": topics.camera_status(camera),
        "json_attributes_template": template("{ 'why': value_json.why } | to_json", "'{}'"),
    });
    Entity::diagnostic("sensor", "state", config).available(&[while_node_is_online(topics)])
}

/// The end of the last clip, described or unchanged. To the minute: a clip comes every few seconds, and Home
/// Assistant's recorder stores each new state.
fn last_clip(topics: &Topics, camera: &CameraId) -> Entity {
    let config = json!({
        "name": "Last clip",
        "device_class": "timestamp",
        "state_topic": topics.description(camera),
        "value_template": "{{ value_json.clip.end[:16] }}:00Z",
    });
    Entity::diagnostic("sensor", "last_clip", config).available(&[while_node_is_online(topics)])
}

/// The entity of a run-time setting.
fn run_time_setting(topics: &Topics, camera: &CameraId, setting: &'static RuntimeSetting) -> Entity {
    let mut config = json!({
        "name": setting.label,
        "icon": setting.icon,
        "entity_category": "config",
        "command_topic": topics.set(camera, setting.name),
        "state_topic": topics.state(camera, setting.name),
    });
    let component = match setting.kind {
        Kind::Switch { .. } => "switch",
        Kind::Text { .. } => {
            // A longer text is shown as `runtime_settings::is_cut` knows it.
            let (max, kept) = (MAX_SHOWN, MAX_SHOWN - 1);
            config["max"] = json!(max);
            config["value_template"] =
                json!(format!("{{{{ value if value | length <= {max} else value[:{kept}] ~ '…' }}}}"));
            "text"
        }
    };
    // A camera that is switched off must stay available, to be switched on again.
    Entity { component, object: setting.name, config }.available(&[while_node_is_online(topics)])
}

/// Holds while node and camera are online.
fn while_online(topics: &Topics, camera: &CameraId) -> [Value; 2] {
    // Home Assistant ignores any other word, and would go on showing the last snapshot.
    let online = template("('online' if value_json.state == 'online' else 'offline')", "'offline'");
    let camera = json!({ "topic": topics.camera_status(camera), "value_template": online });
    [while_node_is_online(topics), camera]
}
