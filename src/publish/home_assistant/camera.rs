//! What a camera shows in Home Assistant.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::entity::{Entity, MAX_STATE, template, while_node_is_online};
use crate::{
    camera::{CameraId, CameraState},
    publish::{info::state_name, profile::CameraProfile, topics::Topics},
    runtime_settings::{Kind, MAX_SHOWN, RuntimeSetting, SETTINGS},
};

/// Whether the event of this id was made in the last five minutes.
macro_rules! is_recent {
    () => {
        "now().timestamp() - ((value_json.id[:8] ~ value_json.id[9:13]) | int(0, 16)) / 1000 < 300"
    };
}

/// Whether an event is a description that automations should act on: not one of an unchanged clip, and not one that
/// waited for the broker for more than five minutes. The first 48 bits of the id are the time at which the event was
/// made, in milliseconds (RFC 9562, UUIDv7).
const IS_NEWS: &str = concat!("value_json.type == 'description' and ", is_recent!());
const IS_RECENT: &str = is_recent!();

/// What automations and people need of an event. Home Assistant's recorder stores attributes with every state: they
/// are kept small.
const DETAILS: &str = "'description': value_json.description, 'id': value_json.id, \
     'start': value_json.clip.start, 'end': value_json.clip.end";

/// The entities of a camera, and its device trigger. `commands`: it takes commands.
pub fn entities(topics: &Topics, camera: &CameraId, profile: &CameraProfile, commands: bool) -> Vec<Entity> {
    let mut entities = Vec::new();
    if !profile.questions_only {
        entities.extend([event(topics, camera), trigger(topics, camera), description(topics, camera)]);
    }
    entities.extend([snapshot(topics, camera), state(topics, camera), last_clip(topics, camera)]);
    entities.extend(profile.questions.iter().map(|(name, answers)| answer(topics, camera, name, answers)));
    entities.extend(profile.alerts.iter().map(|(name, class)| alert(topics, camera, name, class.as_deref())));
    entities.extend((!profile.alerts.is_empty()).then(|| transitions(topics, camera, profile)));
    if commands {
        entities.extend(SETTINGS.iter().map(|setting| run_time_setting(topics, camera, setting)));
        entities.extend([describe_now(topics, camera), asked(topics, camera)]);
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
    Entity { component: "event", object: "new_description".into(), config }
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
    Entity { component: "device_automation", object: "new_description".into(), config }
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
    Entity { component: "sensor", object: "description".into(), config }
        .available(&while_online(topics, camera))
}

/// A sensor for the newest answer to a question.
fn answer(topics: &Topics, camera: &CameraId, question: &str, answers: &[String]) -> Entity {
    let topic = topics.answer(camera, question);
    let said = "(value_json.answer if value_json.type == 'predicate' else value_json.choice)";
    let attributes = "{ 'confidence': value_json.confidence, 'id': value_json.id, 'time': value_json.time, \
         'probability': value_json.probability if value_json.type == 'predicate' else \
         (value_json.probabilities | map(attribute='probability') | max) } | to_json";
    let config = json!({
        "name": words(question),
        "icon": "mdi:comment-question-outline",
        "device_class": "enum",
        "options": answers,
        "state_topic": topic,
        // An answer that is none of the options would be an error.
        "value_template": template(said, "none"),
        "json_attributes_topic": topic,
        "json_attributes_template": template(attributes, "'{}'"),
    });
    let object = format!("answer_{}", level(question));
    Entity { component: "sensor", object, config }.available(&while_online(topics, camera))
}

/// A binary sensor for an alert. It keeps its state while the camera is offline: what is not seen neither switches an
/// alert on nor off.
fn alert(topics: &Topics, camera: &CameraId, alert: &str, class: Option<&str>) -> Entity {
    let topic = topics.alert(camera, alert);
    let attributes =
        "{ 'probability': value_json.probability, 'since': value_json.since, 'id': value_json.id } | to_json";
    let mut config = json!({
        "name": words(alert),
        "state_topic": topic,
        "value_template": template("value_json.state", "none"),
        "json_attributes_topic": topic,
        "json_attributes_template": template(attributes, "'{}'"),
    });
    if let Some(class) = class {
        config["device_class"] = json!(class);
    }
    let object = format!("alert_{}", level(alert));
    Entity { component: "binary_sensor", object, config }.available(&[while_node_is_online(topics)])
}

/// An event each time that an alert of the camera goes on or off. As that of descriptions it has no availability, and its
/// topic is not retained.
fn transitions(topics: &Topics, camera: &CameraId, profile: &CameraProfile) -> Entity {
    let types = profile.alerts.keys().flat_map(|alert| ["on", "off"].map(|state| format!("{alert}_{state}")));
    let attributes = "{ 'event_type': value_json.alert ~ '_' ~ (value_json.state | lower), 'alert': value_json.alert, \
         'state': value_json.state, 'probability': value_json.probability, 'since': value_json.since, \
         'id': value_json.id } | to_json";
    let config = json!({
        "name": "Alert",
        "icon": "mdi:alarm-light-outline",
        "state_topic": topics.alerts(camera),
        "event_types": types.collect::<Vec<_>>(),
        // What is empty is no event: neither is what waited for the broker for long.
        "value_template": format!("{{% if {IS_RECENT} %}}{{{{ {attributes} }}}}{{% endif %}}"),
    });
    Entity { component: "event", object: "alerts".into(), config }
}

/// A button that asks the camera's prompt about what it shows now.
fn describe_now(topics: &Topics, camera: &CameraId) -> Entity {
    let config = json!({
        "name": "Describe now",
        "icon": "mdi:text-search",
        "command_topic": topics.ask(camera),
        "payload_press": "{}",
    });
    Entity { component: "button", object: "describe_now".into(), config }
        .available(&while_online(topics, camera))
}

/// A sensor for the answer to the last question that went to no topic of its caller's.
fn asked(topics: &Topics, camera: &CameraId) -> Entity {
    let topic = topics.ask_answer(camera);
    let attributes = "{ 'question': value_json.question | default(none), 'text': value_json.text | default(none), \
         'request': value_json.request | default(none), 'end': value_json.end | default(none), \
         'error': value_json.error.code if value_json.error is defined else none } | to_json";
    let config = json!({
        "name": "Asked",
        "icon": "mdi:comment-text-outline",
        "state_topic": topic,
        // The whole text is an attribute.
        "value_template": format!(
            "{{{{ (value_json.text if value_json.text is defined else value_json.error.message)[:{MAX_STATE}] }}}}"
        ),
        "json_attributes_topic": topic,
        "json_attributes_template": format!("{{{{ {attributes} }}}}"),
    });
    Entity { component: "sensor", object: "asked".into(), config }.available(&[while_node_is_online(topics)])
}

/// A name as people read it: `half_open` is `Half open`.
fn words(name: &str) -> String {
    let words = name.replace(['_', '-'], " ");
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A name as the last word of a discovery topic, which has no `-`. No two names of a camera become the same: the
/// configuration refuses those that differ by `-` and `_` only.
fn level(name: &str) -> String {
    name.replace('-', "_")
}

/// An image for the newest snapshot.
fn snapshot(topics: &Topics, camera: &CameraId) -> Entity {
    let config = json!({
        "name": "Snapshot",
        "image_topic": topics.snapshot(camera),
        "content_type": "image/jpeg",
    });
    Entity { component: "image", object: "snapshot".into(), config }.available(&while_online(topics, camera))
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
    Entity { component, object: setting.name.into(), config }.available(&[while_node_is_online(topics)])
}

/// Holds while node and camera are online.
fn while_online(topics: &Topics, camera: &CameraId) -> [Value; 2] {
    // Home Assistant ignores any other word, and would go on showing the last snapshot.
    let online = template("('online' if value_json.state == 'online' else 'offline')", "'offline'");
    let camera = json!({ "topic": topics.camera_status(camera), "value_template": online });
    [while_node_is_online(topics), camera]
}
