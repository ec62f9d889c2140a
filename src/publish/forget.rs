//! Makes a broker forget a node that is retired: what it retains of it for subscribers and for Home Assistant.

use std::fmt;

use serde_json::Value;

use super::{
    home_assistant::{Discovery, is_config},
    mqtt::{SessionError, ShortSession},
    publisher::SettingsError,
    settings::Settings,
    topics::Topics,
};
use crate::plural::plural;

/// Why a node is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The node, or a prefix of topics, cannot be part of a topic, or a certificate cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The broker cannot be used.
    #[error(transparent)]
    Session(SessionError),
    /// The node is connected, or the broker has not noticed that it is not.
    #[error(
        "{topic} says online: stop camscribe on that machine first. If the machine is gone and the broker has not \
         noticed, as after a power cut, add --force"
    )]
    Online {
        /// The topic of the node's status.
        topic: String,
    },
    /// The broker has kept topics.
    #[error("{0}")]
    Kept(Kept),
}

impl From<SessionError> for ForgetError {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Tls(error) => Self::Settings(error.into()),
            error @ SessionError::Broker(_) => Self::Session(error),
        }
    }
}

/// Topics that the broker has kept.
#[derive(Debug)]
pub struct Kept {
    topics: Vec<String>,
    removed: usize,
    why: Option<&'static str>,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { topics, removed, why } = self;
        let why = why.unwrap_or("its access rules may not let this user publish there");
        write!(f, "the broker has kept {} ({why}), and removed {removed}: ", plural(topics.len(), "topic"))?;
        f.write_str(&topics.join(", "))
    }
}

/// Makes the broker of `settings` forget its node. Returns the topics that it retained. `force`: also if the node's
/// status says that it is online. What belongs to another node is left alone, whatever the names have in common.
///
/// # Errors
/// When the node is online, the broker cannot be used, or it keeps topics.
pub async fn forget(settings: &Settings, force: bool) -> Result<Vec<String>, ForgetError> {
    let topics = Topics::new(&settings.topic_prefix, &settings.node).map_err(SettingsError::from)?;
    let discovery = Discovery::new(&settings.discovery_prefix, true).map_err(SettingsError::from)?;
    let mut filters = topics.retained_filters();
    filters.extend(discovery.iter().map(|discovery| discovery.filter(&topics)));
    let mut session = ShortSession::open(settings).await?;
    let result = clear_all(&mut session, &topics, &filters, force).await;
    session.close().await;
    result
}

async fn clear_all(
    session: &mut ShortSession,
    topics: &Topics,
    filters: &[String],
    force: bool,
) -> Result<Vec<String>, ForgetError> {
    let retained = session.retained(filters).await?;
    if !force && retained.get(&topics.status()).is_some_and(|payload| **payload == *b"online") {
        return Err(ForgetError::Online { topic: topics.status() });
    }
    let is_own = |(topic, payload): &(&String, &[u8])| is_of_node(topics, topic, payload);
    let own = retained.iter().map(|(topic, payload)| (topic, &**payload)).filter(is_own);
    let mut own: Vec<String> = own.map(|(topic, _)| topic.clone()).collect();
    // Home Assistant's entities are gone before the topics that they read are cleared.
    own.sort_by_key(|topic| !is_config(topic));
    let mut refusal = None;
    for topic in &own {
        refusal = session.clear(topic).await?.or(refusal);
    }
    if own.is_empty() {
        return Ok(own);
    }
    // A broker need not say that it has kept something.
    let left = session.retained(filters).await?;
    let (kept, removed): (Vec<_>, Vec<_>) = own.into_iter().partition(|topic| left.contains_key(topic));
    if kept.is_empty() {
        return Ok(removed);
    }
    Err(ForgetError::Kept(Kept { topics: kept, removed: removed.len(), why: refusal }))
}

/// Whether a retained message is the node's. With the prefix `a`, the node `b` and its camera `c` have the status
/// topic of a node `c` with the prefix `a/b`: the payload tells which it is. Two nodes of one name with different
/// prefixes share discovery topics: the topics in the payload tell whose it is.
fn is_of_node(topics: &Topics, topic: &str, payload: &[u8]) -> bool {
    if is_config(topic) {
        let Ok(config) = serde_json::from_slice::<Value>(payload) else { return false };
        let read = ["state_topic", "image_topic", "command_topic", "topic"];
        return read.iter().filter_map(|key| config[key].as_str()).any(|topic| topics.is_own(topic));
    }
    let is_node_status = matches!(payload, b"online" | b"offline");
    let fits = !topic.ends_with("/status") || is_node_status == (topic == topics.status());
    fits && topics.is_own(topic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_node_itself_retains_is_its_own() {
        let topics = Topics::new("camscribe", "a").expect("a good node");
        let config = "homeassistant/sensor/camscribe-a/porch-description/config";
        for (topic, payload) in [
            ("camscribe/a/status", "offline"),
            ("camscribe/a/info", "{}"),
            ("camscribe/a/load", "{}"),
            ("camscribe/a/porch/status", r#"{"state":"online"}"#),
            ("camscribe/a/porch/latest", "{}"),
            ("camscribe/a/porch/snapshot", "\u{0}"),
            ("camscribe/a/porch/state/enabled", "ON"),
            (config, r#"{"state_topic":"camscribe/a/porch/latest"}"#),
            (config, r#"{"topic":"camscribe/a/porch/description"}"#),
        ] {
            assert!(is_of_node(&topics, topic, payload.as_bytes()), "{topic} {payload}");
        }
        for (topic, payload) in [
            // Other nodes of the same prefix.
            ("camscribe/ab/status", "offline"),
            ("camscribe/A/status", "offline"),
            // The node `b` with the prefix `camscribe/a`.
            ("camscribe/a/b/status", "offline"),
            ("camscribe/a/b/info", "{}"),
            ("camscribe/a/b/porch/status", r#"{"state":"online"}"#),
            ("camscribe/a/b/state/latest", "{}"),
            // The camera `a` of a node `camscribe`.
            ("camscribe/a/status", r#"{"state":"online"}"#),
            // The node `a` with other prefixes.
            (config, r#"{"state_topic":"home/a/porch/latest"}"#),
            (config, r#"{"state_topic":"camscribe/a/a/porch/latest"}"#),
            (config, r#"{"state_topic":"camscribe/ab/latest"}"#),
            (config, "not JSON"),
            // Of somebody else.
            ("camscribe/a/porch/set/enabled/x", "ON"),
            ("camscribe/a/notes", "x"),
        ] {
            assert!(!is_of_node(&topics, topic, payload.as_bytes()), "{topic} {payload}");
        }
    }
}
