//! One discovery message, without the topic's prefix and without what all messages have.

use serde_json::{Value, json};

use crate::publish::topics::Topics;

/// The longest text that Home Assistant takes as a state, characters. A longer one becomes `unknown`.
pub const MAX_STATE: usize = 255;

/// An entity or a device trigger of Home Assistant.
pub struct Entity {
    /// Its kind, a level of its discovery topic: `sensor`, for example.
    pub component: &'static str,
    /// Its name among those of its device, for topic and unique id.
    pub object: String,
    /// Its configuration.
    pub config: Value,
}

impl Entity {
    /// An entity that tells how the node or a camera is doing.
    pub fn diagnostic(component: &'static str, object: &str, mut config: Value) -> Self {
        config["entity_category"] = json!("diagnostic");
        Self { component, object: object.into(), config }
    }

    /// The same entity, available under these conditions only.
    pub fn available(mut self, conditions: &[Value]) -> Self {
        self.config["availability"] = json!(conditions);
        self.config["availability_mode"] = json!("all");
        self
    }
}

/// The template for `expression`, or for `otherwise` where a topic was cleared. Home Assistant removes an entity some
/// moments after its configuration is cleared, and meanwhile sees the topics that the entity reads being cleared: then
/// there is no `value_json`, and each use of it would be an error in its log.
pub fn template(expression: &str, otherwise: &str) -> String {
    format!("{{{{ {expression} if value_json is defined else {otherwise} }}}}")
}

/// Holds while the node is connected to the broker.
pub fn while_node_is_online(topics: &Topics) -> Value {
    json!({ "topic": topics.status() })
}
