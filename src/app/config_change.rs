//! What differs between two configurations. Pure.

use std::collections::BTreeSet;

use super::status_reporter::OldTopics;
use crate::{
    camera::CameraId,
    config::{self, Config},
};

/// What differs between the active configuration and a new one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ConfigChange {
    /// Cameras that are no longer configured.
    pub removed: BTreeSet<CameraId>,
    /// Cameras that are disabled now.
    pub disabled: BTreeSet<CameraId>,
    /// Cameras to start or restart.
    pub started: BTreeSet<CameraId>,
    /// Cameras of which only what is asked about their clips, or the alerts that go by the answers, have changed. They
    /// are not restarted.
    pub asked: BTreeSet<CameraId>,
    /// Cameras of which the name for people has changed. That alone restarts none.
    pub renamed: BTreeSet<CameraId>,
    /// Whether the broker's settings have changed, and what becomes of the old topics.
    pub broker: Option<OldTopics>,
    /// The sections whose changes take effect only after a restart of camscribe.
    pub restart: Vec<&'static str>,
}

impl ConfigChange {
    /// Compares two configurations. In `new`, what cannot change without a restart is set back to `old`.
    pub fn between(old: &Config, new: &mut Config) -> Self {
        let mut change = Self { restart: revert_fixed_sections(old, new), ..Self::default() };
        for (id, camera) in &new.cameras {
            if old.cameras.get(id) == Some(camera) {
                continue;
            }
            let renamed = |old: &config::CameraSettings| old.name != camera.name;
            if old.cameras.get(id).is_some_and(renamed) {
                change.renamed.insert(id.clone());
            }
            let which = match old.cameras.get(id) {
                Some(old) if unnamed(old) == unnamed(camera) => continue,
                _ if !camera.enabled => &mut change.disabled,
                Some(old) if only_prompt_spec_differs(old, camera) => &mut change.asked,
                _ => &mut change.started,
            };
            which.insert(id.clone());
        }
        change.removed = old.cameras.keys().filter(|id| !new.cameras.contains_key(*id)).cloned().collect();
        if old.mqtt != new.mqtt {
            let address_and_topics = |config: &Config| {
                let mqtt = &config.mqtt;
                let topics = (mqtt.topic_prefix.clone(), mqtt.discovery_prefix.clone(), mqtt.commands);
                (mqtt.host.clone(), mqtt.port, topics)
            };
            let same = address_and_topics(old) == address_and_topics(new);
            change.broker = Some(if same { OldTopics::Keep } else { OldTopics::Clear });
        }
        change
    }

    /// Logs the change.
    pub fn log(&self) {
        let names =
            |ids: &BTreeSet<CameraId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let cameras = [
            ("started", &self.started),
            ("changed prompt, questions, alerts or gate", &self.asked),
            ("renamed", &self.renamed),
            ("disabled", &self.disabled),
            ("removed", &self.removed),
        ];
        let mut changes: Vec<_> = cameras
            .iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(what, ids)| format!("{what}: {}", names(ids)))
            .collect();
        if self.broker.is_some() {
            changes.push("reconnecting to the broker".into());
        }
        let changes = match (changes.is_empty(), self.restart.is_empty()) {
            (true, true) => "nothing changed".into(),
            (true, false) => "what changed needs a restart".into(),
            (false, _) => changes.join("; "),
        };
        tracing::info!("the configuration is active: {changes}");
        if !self.restart.is_empty() {
            tracing::warn!("changes in {} take effect after a restart of camscribe", self.restart.join(", "));
        }
    }
}

/// `[http]` where the token changes with the address, which stays until a restart.
const HTTP_WITH_TOKEN: &str = "[http] (also the token, which the old address asks for until then)";

/// Whether only what is asked about clips differs, so that the camera need not be restarted.
fn only_prompt_spec_differs(old: &config::CameraSettings, new: &config::CameraSettings) -> bool {
    let asked = config::CameraSettings { prompt_spec: new.prompt_spec.clone(), ..unnamed(old) };
    asked == unnamed(new)
}

/// The settings without the name for people.
fn unnamed(camera: &config::CameraSettings) -> config::CameraSettings {
    config::CameraSettings { name: None, ..camera.clone() }
}

/// Sets the sections that only a restart can change back to `old`, and returns the names of those that
/// differed.
fn revert_fixed_sections(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut reverted = Vec::new();
    let mut revert = |section, differs: bool| {
        if differs {
            reverted.push(section);
        }
        differs
    };
    if revert("[node]", new.node != old.node) {
        new.node = old.node.clone();
    }
    if revert("[model]", new.model != old.model) {
        let (usual, other) = (config::default_prompt(&old.model.id), config::default_prompt(&new.model.id));
        for camera in new.cameras.values_mut().filter(|camera| camera.prompt_spec.prompt == other) {
            camera.prompt_spec.prompt.clone_from(&usual);
        }
        new.model = old.model.clone();
    }
    if revert("[outbox]", new.outbox != old.outbox) {
        new.outbox = old.outbox.clone();
    }
    if revert("[history]", new.history != old.history) {
        new.history = old.history.clone();
    }
    let kept = old.http.kept_beside(&new.http);
    let section = if new.http.token == kept.token { "[http]" } else { HTTP_WITH_TOKEN };
    if revert(section, new.http != kept) {
        new.http = kept;
    }
    if revert("[log]", new.log != old.log) {
        new.log = old.log;
    }
    reverted
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;

    fn config(cameras: &str, rest: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, format!("model.id = \"shapes\"\nnode.id = \"n\"\n{rest}\n{cameras}")).unwrap();
        let mut config = config::load(Some(&file)).unwrap().config;
        config.pipelines = PathBuf::new();
        config
    }

    fn set(ids: &[&str]) -> BTreeSet<CameraId> {
        ids.iter().map(|id| id.parse().unwrap()).collect()
    }

    const ALERT: &str = "[cameras.b.alerts.a]\nquestion = \"q\"\n";
    const TWO: &str = "[cameras.a]\nuri = \"test://shapes\"\n[cameras.b]\nuri = \"test://shapes\"\n";

    #[test]
    fn only_cameras_that_changed_are_touched() {
        let old = config(TWO, "");
        let mut same = config(TWO, "");
        assert_eq!(ConfigChange::between(&old, &mut same), ConfigChange::default());
        let mut new = config(&format!("{TWO}name = \"Back yard\"\n"), "");
        let renamed = ConfigChange { renamed: set(&["b"]), ..ConfigChange::default() };
        assert_eq!(ConfigChange::between(&old, &mut new), renamed);
        let asked = ConfigChange { asked: set(&["b"]), ..ConfigChange::default() };
        let mut new = config(&format!("{TWO}prompt = \"Why?\"\nheartbeat = \"1m\"\n"), "");
        assert_eq!(ConfigChange::between(&old, &mut new), asked);
        for (rest, cameras) in [("questions.q.ask = \"Why?\"", ""), ("questions.q.ask = \"Who?\"", ALERT)] {
            let asks = format!("{TWO}questions = [\"q\"]\n");
            let old = config(&asks, "questions.q.ask = \"Who?\"");
            let mut new = config(&format!("{asks}{cameras}"), rest);
            assert_eq!(ConfigChange::between(&old, &mut new), asked, "{rest}{cameras}");
        }
        for (cameras, rest, started, disabled, removed) in [
            (format!("{TWO}prompt = \"Why?\"\nframes = 4\n"), "", &["b"][..], &[][..], &[][..]),
            (format!("{TWO}window = \"3s\"\n"), "", &["b"], &[], &[]),
            (format!("{TWO}enabled = false\n"), "", &[], &["b"], &[]),
            (format!("{TWO}[cameras.c]\nuri = \"test://ball\"\n"), "", &["c"], &[], &[]),
            (TWO.replace("cameras.b", "cameras.c"), "", &["c"], &[], &["b"]),
            (TWO.into(), "defaults.frames = 4", &["a", "b"], &[], &[]),
        ] {
            let change = ConfigChange::between(&old, &mut config(&cameras, rest));
            let wanted = ConfigChange {
                started: set(started),
                disabled: set(disabled),
                removed: set(removed),
                ..ConfigChange::default()
            };
            assert_eq!(change, wanted, "{cameras}{rest}");
        }
    }

    #[test]
    fn a_new_password_keeps_the_retained_messages_and_new_topics_clear_the_old_ones() {
        let old = config(TWO, "mqtt.url = \"mqtt://a\"");
        for (rest, old_topics) in [
            ("mqtt.url = \"mqtt://a:1883\"", None),
            ("mqtt.url = \"mqtt://b\"", Some(OldTopics::Clear)),
            ("mqtt = { url = \"mqtt://a\", topic_prefix = \"x\" }", Some(OldTopics::Clear)),
            ("mqtt = { url = \"mqtt://a\", discovery_prefix = \"\" }", Some(OldTopics::Clear)),
            ("mqtt = { url = \"mqtt://a\", commands = false }", Some(OldTopics::Clear)),
            ("mqtt.url = \"mqtts://a:1883\"", Some(OldTopics::Keep)),
        ] {
            assert_eq!(ConfigChange::between(&old, &mut config(TWO, rest)).broker, old_topics, "{rest}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_named_and_reverted() {
        let old = config(TWO, "");
        let rest =
            "model.linger = \"1s\"\noutbox.max_bytes = \"1MiB\"\nhistory.keep = \"1d\"\nhttp.listen = \"\"";
        let mut new = config(&TWO.replace("cameras.b", "cameras.c"), rest);
        new.node.id = "m".into();
        let change = ConfigChange::between(&old, &mut new);
        assert_eq!(change.restart, ["[node]", "[model]", "[outbox]", "[history]", "[http]"]);
        assert_eq!(change.started, set(&["c"]));
        assert_eq!((&new.node, &new.model, &new.outbox), (&old.node, &old.model, &old.outbox));
        assert_eq!(new.http, old.http);
        // The next reload reports it again.
        assert_eq!(ConfigChange::between(&new.clone(), &mut config(TWO, rest)).restart.len(), 4);
    }

    #[test]
    fn an_address_that_waits_for_a_restart_keeps_its_token() {
        let http = |listen: &str, token: Option<&str>| {
            let mut config = config(TWO, &format!("http.listen = \"127.0.0.1:{listen}\""));
            config.http.token = token.map(config::Secret::new);
            config
        };
        for (old, new, kept, restart) in [
            (http("1", Some("a")), http("1", Some("b")), Some("b"), &[][..]),
            (http("1", Some("a")), http("2", Some("a")), Some("a"), &["[http]"]),
            (http("1", Some("a")), http("2", None), Some("a"), &[HTTP_WITH_TOKEN]),
            (http("1", None), http("2", Some("b")), None, &[HTTP_WITH_TOKEN]),
        ] {
            let mut new = new;
            assert_eq!(ConfigChange::between(&old, &mut new).restart, restart);
            assert_eq!(new.http, config::HttpSettings { token: kept.map(config::Secret::new), ..old.http });
        }
    }
}
