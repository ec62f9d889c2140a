//! What changes while the work goes on: the configuration is read again, or a subscriber orders
//! something. What is different is applied, what is not is left alone. A configuration with a
//! mistake changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use tokio::{signal::unix::Signal, sync::mpsc};

use super::{
    board::Move,
    cameras::{Cameras, Plan, Site, plans},
    orders::Orders,
    publish_settings,
};
use crate::{
    camera::CameraId,
    config::{self, Config, Loaded},
    publish::{Prepared, SettingsError, command::Command},
};

/// When and from where the configuration is read again.
pub struct Reload {
    /// The file; none is the default one.
    pub file: Option<PathBuf>,
    /// Asks for it.
    pub hangups: Signal,
}

impl Reload {
    /// The next time that it is asked for; never, where it cannot be.
    pub async fn asked(reload: &mut Option<Self>) -> Option<PathBuf> {
        if let Some(reload) = reload
            && reload.hangups.recv().await.is_some()
        {
            return reload.file.clone();
        }
        std::future::pending().await
    }
}

/// What is different between two configurations.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    /// No longer there.
    removed: BTreeSet<CameraId>,
    /// There already, and switched off now.
    disabled: BTreeSet<CameraId>,
    /// To be started, anew or again.
    started: BTreeSet<CameraId>,
    /// Only what is asked about their clips is new.
    asked: BTreeSet<CameraId>,
    /// Of the broker, if anything.
    broker: Option<Move>,
    /// What takes effect only after a restart.
    restart: Vec<&'static str>,
}

/// What is in force, and what it is made of.
pub struct InForce {
    /// What the file says.
    of_file: Config,
    orders: Orders,
    /// Both together.
    config: Config,
    /// Where orders come in.
    orderers: mpsc::Sender<Command>,
}

impl InForce {
    /// At the start. `orderers` is what subscribers tell.
    pub fn new(of_file: Config, orderers: mpsc::Sender<Command>) -> Self {
        let orders = Orders::read(of_file.node.state_dir.as_deref());
        orders.tell(&of_file);
        Self { config: orders.over(&of_file), of_file, orders, orderers }
    }

    /// The configuration that is in force.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a subscriber switched a camera off, which can be switched on again.
    pub fn may_grow(&self) -> bool {
        self.orders.leave_one(&self.of_file)
    }

    /// How to publish by it.
    ///
    /// # Errors
    /// When the broker's settings cannot be used.
    pub fn prepare(&self) -> Result<Prepared, SettingsError> {
        Prepared::new(publish_settings(&self.config, Some(&self.orderers)))
    }

    /// Says how each camera is set.
    pub fn tell_settings(&self, site: &Site) {
        for (id, camera) in &self.config.cameras {
            site.board.set(id, camera.enabled, &camera.prompt);
        }
    }

    /// Reads `file`, and applies what it changes.
    pub async fn reload(&mut self, file: Option<PathBuf>, cameras: &mut Cameras, site: &Site) {
        tracing::info!("reading the configuration again");
        let read = tokio::task::spawn_blocking(move || config::load(file.as_deref())).await;
        let loaded = match read {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(mistakes)) => return refuse(&mistakes.to_string()),
            Err(fault) => return refuse(&fault.to_string()),
        };
        let Loaded { config: new, warnings, .. } = loaded;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        let (mut in_force, of_file) = (self.orders.over(&new), new);
        let mut change = Change::between(&self.config, &mut in_force);
        // Certificates may have been renewed in files of the same name: they are read again.
        if in_force.mqtt.tls.is_some() {
            change.broker.get_or_insert(Move::Stay);
        }
        // What kept them from being watched may have been mended elsewhere: a plugin, a pipeline's file.
        let watched = |id: &&CameraId| in_force.cameras.get(*id).is_some_and(|camera| camera.enabled);
        change.started.extend(cameras.failed().filter(watched).cloned());
        self.apply(change, in_force, of_file.cameras, cameras, site).await;
        self.orders.tell(&self.of_file);
    }

    /// Does what a subscriber orders.
    pub async fn obey(&mut self, command: Command, cameras: &mut Cameras, site: &Site) {
        let Command { camera, order } = &command;
        let Some(written) = self.of_file.cameras.get(camera) else {
            return tracing::warn!("the command for camera {camera} is not obeyed: there is no such camera");
        };
        tracing::info!(%camera, "ordered over MQTT: {order}");
        self.orders.take(command, written);
        let mut new = self.orders.over(&self.of_file);
        let change = Change::between(&self.config, &mut new);
        self.apply(change, new, self.of_file.cameras.clone(), cameras, site).await;
    }

    /// Puts `new` in force, which differs by `change`; `of_file`: its cameras as the file has them.
    async fn apply(
        &mut self,
        change: Change,
        new: Config,
        of_file: BTreeMap<CameraId, config::Camera>,
        cameras: &mut Cameras,
        site: &Site,
    ) {
        // Everything that can go wrong does so before anything is touched.
        let mut plans = match plans(&new) {
            Ok(plans) => plans,
            Err(error) => return refuse(&format!("{error:#}")),
        };
        let settings = publish_settings(&new, Some(&self.orderers));
        let broker = match change.broker.map(|going| Ok((Prepared::new(settings)?, going))) {
            None => None,
            Some(Ok(broker)) => Some(broker),
            Some(Err::<_, SettingsError>(error)) => return refuse(&error.to_string()),
        };
        let stopping: Vec<_> = change.removed.iter().chain(&change.disabled).chain(&change.started).collect();
        cameras.stop(&stopping).await;
        change.removed.iter().for_each(|id| site.board.remove(id));
        change.disabled.iter().for_each(|id| site.board.disable(id));
        if let Some((prepared, going)) = broker {
            site.board.reconnect(prepared, going).await;
        }
        let starting: Vec<Plan> = change.started.iter().filter_map(|id| plans.remove(id)).collect();
        starting.into_iter().for_each(|plan| cameras.start(plan));
        change.asked.iter().for_each(|id| cameras.ask(id, &new.cameras[id]));
        change.tell();
        self.of_file = Config { cameras: of_file, ..new.clone() };
        self.config = new;
        self.tell_settings(site);
    }
}

fn refuse(why: &str) {
    tracing::error!("the configuration is not taken over; the one before stays in force");
    why.lines().for_each(|line| tracing::error!("{line}"));
}

impl Change {
    /// What `new` changes in `old`. What cannot change without a restart is put back in `new`.
    fn between(old: &Config, new: &mut Config) -> Self {
        let mut change = Self { restart: keep(old, new), ..Self::default() };
        for (id, camera) in &new.cameras {
            if old.cameras.get(id) == Some(camera) {
                continue;
            }
            let which = match old.cameras.get(id) {
                _ if !camera.enabled => &mut change.disabled,
                Some(old) if asks_only(old, camera) => &mut change.asked,
                _ => &mut change.started,
            };
            which.insert(id.clone());
        }
        change.removed = old.cameras.keys().filter(|id| !new.cameras.contains_key(*id)).cloned().collect();
        if old.mqtt != new.mqtt {
            let place = |config: &Config| {
                let mqtt = &config.mqtt;
                let topics = (mqtt.topic_prefix.clone(), mqtt.discovery_prefix.clone(), mqtt.commands);
                (mqtt.host.clone(), mqtt.port, topics)
            };
            change.broker = Some(if place(old) == place(new) { Move::Stay } else { Move::Leave });
        }
        change
    }

    fn tell(&self) {
        let names =
            |ids: &BTreeSet<CameraId>| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let cameras = [
            ("started", &self.started),
            ("asked something else", &self.asked),
            ("switched off", &self.disabled),
            ("removed", &self.removed),
        ];
        let mut news: Vec<_> = cameras
            .iter()
            .filter(|(_, ids)| !ids.is_empty())
            .map(|(what, ids)| format!("{what}: {}", names(ids)))
            .collect();
        if self.broker.is_some() {
            news.push("connecting to the broker anew".into());
        }
        let news = if news.is_empty() { "nothing changed".into() } else { news.join("; ") };
        tracing::info!("the configuration is in force: {news}");
        if !self.restart.is_empty() {
            tracing::warn!(
                "not taken over until camscribe is restarted: what changed in {}",
                self.restart.join(", ")
            );
        }
    }
}

/// Whether nothing differs but what is asked about clips: the camera need not be started again.
fn asks_only(old: &config::Camera, new: &config::Camera) -> bool {
    let asked = config::Camera {
        prompt: new.prompt.clone(),
        max_tokens: new.max_tokens,
        change_threshold: new.change_threshold,
        heartbeat: new.heartbeat,
        ..old.clone()
    };
    asked == *new
}

/// Puts back what only a restart can change, and names it.
fn keep(old: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let mut put_back = |section, differs: bool| {
        if differs {
            kept.push(section);
        }
        differs
    };
    if put_back("[node]", new.node != old.node) {
        new.node = old.node.clone();
    }
    if put_back("[model]", new.model != old.model) {
        let (usual, other) = (config::usual_prompt(&old.model.id), config::usual_prompt(&new.model.id));
        for camera in new.cameras.values_mut().filter(|camera| camera.prompt == other) {
            camera.prompt = usual.into();
        }
        new.model = old.model.clone();
    }
    if put_back("[outbox]", new.outbox != old.outbox) {
        new.outbox = old.outbox.clone();
    }
    if put_back("[http]", new.http != old.http) {
        new.http = old.http.clone();
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    const TWO: &str = "[cameras.a]\nuri = \"test://shapes\"\n[cameras.b]\nuri = \"test://shapes\"\n";

    #[test]
    fn only_cameras_that_changed_are_touched() {
        let old = config(TWO, "");
        let mut same = config(TWO, "");
        assert_eq!(Change::between(&old, &mut same), Change::default());
        let asked = Change { asked: set(&["b"]), ..Change::default() };
        let mut new = config(&format!("{TWO}prompt = \"Why?\"\nheartbeat = \"1m\"\n"), "");
        assert_eq!(Change::between(&old, &mut new), asked);
        for (cameras, rest, started, disabled, removed) in [
            (format!("{TWO}prompt = \"Why?\"\nframes = 4\n"), "", &["b"][..], &[][..], &[][..]),
            (format!("{TWO}window = \"3s\"\n"), "", &["b"], &[], &[]),
            (format!("{TWO}enabled = false\n"), "", &[], &["b"], &[]),
            (format!("{TWO}[cameras.c]\nuri = \"test://ball\"\n"), "", &["c"], &[], &[]),
            (TWO.replace("cameras.b", "cameras.c"), "", &["c"], &[], &["b"]),
            (TWO.into(), "defaults.frames = 4", &["a", "b"], &[], &[]),
        ] {
            let change = Change::between(&old, &mut config(&cameras, rest));
            let wanted = Change {
                started: set(started),
                disabled: set(disabled),
                removed: set(removed),
                ..Change::default()
            };
            assert_eq!(change, wanted, "{cameras}{rest}");
        }
    }

    #[test]
    fn a_new_password_stays_at_the_broker_and_new_topics_leave_the_old_ones() {
        let old = config(TWO, "mqtt.url = \"mqtt://a\"");
        for (rest, going) in [
            ("mqtt.url = \"mqtt://a:1883\"", None),
            ("mqtt.url = \"mqtt://b\"", Some(Move::Leave)),
            ("mqtt = { url = \"mqtt://a\", topic_prefix = \"x\" }", Some(Move::Leave)),
            ("mqtt = { url = \"mqtt://a\", discovery_prefix = \"\" }", Some(Move::Leave)),
            ("mqtt = { url = \"mqtt://a\", commands = false }", Some(Move::Leave)),
            ("mqtt.url = \"mqtts://a:1883\"", Some(Move::Stay)),
        ] {
            assert_eq!(Change::between(&old, &mut config(TWO, rest)).broker, going, "{rest}");
        }
    }

    #[test]
    fn what_needs_a_restart_is_named_and_put_back() {
        let old = config(TWO, "");
        let rest = "model.linger = \"1s\"\noutbox.max_bytes = \"1MiB\"\nhttp.listen = \"\"";
        let mut new = config(&TWO.replace("cameras.b", "cameras.c"), rest);
        new.node.id = "m".into();
        let change = Change::between(&old, &mut new);
        assert_eq!(change.restart, ["[node]", "[model]", "[outbox]", "[http]"]);
        assert_eq!(change.started, set(&["c"]));
        assert_eq!((&new.node, &new.model, &new.outbox), (&old.node, &old.model, &old.outbox));
        assert_eq!(new.http, old.http);
        // Said again at the next reload, as long as it is so.
        assert_eq!(Change::between(&new.clone(), &mut config(TWO, rest)).restart.len(), 3);
    }
}
