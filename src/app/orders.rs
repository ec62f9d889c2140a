//! What subscribers have ordered, above what the configuration says. It stands until they order
//! something else, and outlives the process: a camera that was switched off must not look again
//! because the power was gone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::state;
use crate::{
    config::{self, Config},
    frame::CameraId,
    publish::command::{Command, Order},
};

/// In the state directory.
const FILE: &str = "orders.json";

/// What was ordered of each camera.
#[derive(Debug, Default)]
pub struct Orders {
    /// None: nothing is kept beyond the process.
    file: Option<PathBuf>,
    cameras: BTreeMap<CameraId, Ordered>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Ordered {
    enabled: Option<bool>,
    prompt: Option<String>,
}

impl Orders {
    /// What was ordered while an earlier process ran.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let file = state_dir.map(|folder| folder.join(FILE));
        let cameras = file.as_deref().map_or_else(BTreeMap::new, |file| {
            read(file).unwrap_or_else(|error| {
                tracing::error!("what was ordered over MQTT is forgotten: {error:#}");
                BTreeMap::new()
            })
        });
        Self { file, cameras }
    }

    /// Takes an order; what the configuration `of_file` says anyway is none. Gives whether there is
    /// such a camera.
    pub fn take(&mut self, Command { camera, order }: Command, of_file: &Config) -> bool {
        let Some(written) = of_file.cameras.get(&camera) else { return false };
        let ordered = self.cameras.entry(camera.clone()).or_default();
        match order {
            Order::Enabled(on) => ordered.enabled = Some(on).filter(|on| *on != written.enabled),
            Order::Prompt(prompt) => ordered.prompt = prompt.filter(|prompt| *prompt != written.prompt),
        }
        if *ordered == Ordered::default() {
            self.cameras.remove(&camera);
        }
        if let Some(file) = &self.file
            && let Err(error) = state::write(file, &self.cameras)
        {
            tracing::error!("the order for camera {camera} will not outlive this process: {error:#}");
        }
        true
    }

    /// The configuration that is in force where the file says `of_file`.
    pub fn over(&self, of_file: &Config) -> Config {
        let mut config = of_file.clone();
        // Whoever turned commands off does not want their effects either.
        if !of_file.mqtt.commands {
            return config;
        }
        for (id, ordered) in &self.cameras {
            let Some(camera) = config.cameras.get_mut(id) else { continue };
            camera.enabled = ordered.enabled.unwrap_or(camera.enabled);
            if let Some(prompt) = &ordered.prompt {
                camera.prompt.clone_from(prompt);
            }
        }
        config
    }

    /// Whether a camera is left alone that may be wanted again.
    pub fn leave_one(&self) -> bool {
        self.cameras.values().any(|ordered| ordered.enabled == Some(false))
    }

    /// Says what is in force and does not stand in the file.
    pub fn tell(&self, of_file: &Config) {
        let known = |id: &&CameraId| of_file.mqtt.commands && of_file.cameras.contains_key(*id);
        let ids: Vec<_> = self.cameras.keys().filter(known).map(ToString::to_string).collect();
        if !ids.is_empty() {
            tracing::info!("not as the configuration says, but as ordered over MQTT: {}", ids.join(", "));
        }
    }
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<CameraId, Ordered>> {
    let cameras: BTreeMap<CameraId, Ordered> = state::read(file)?;
    for prompt in cameras.values().filter_map(|ordered| ordered.prompt.as_ref()) {
        config::check_prompt(prompt).map_err(|why| anyhow::anyhow!("{}: a prompt {why}", file.display()))?;
    }
    Ok(cameras)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn of_file(extra: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let text = format!("{extra}\n[cameras.a]\nuri = \"test://shapes\"\nprompt = \"What?\"\n");
        fs::write(&file, text).unwrap();
        config::load(Some(&file)).unwrap().config
    }

    fn order(orders: &mut Orders, order: Order, of_file: &Config) -> bool {
        orders.take(Command { camera: "a".parse().unwrap(), order }, of_file)
    }

    fn camera(config: &Config) -> (bool, &str) {
        let camera = config.cameras.values().next().unwrap();
        (camera.enabled, &camera.prompt)
    }

    #[test]
    fn orders_outlive_the_process_until_they_are_taken_back() {
        let (state, config) = (tempfile::tempdir().unwrap(), of_file(""));
        let mut orders = Orders::read(Some(state.path()));
        assert_eq!(orders.over(&config), config);
        assert!(order(&mut orders, Order::Enabled(false), &config));
        assert!(order(&mut orders, Order::Prompt(Some("Who?".into())), &config));
        assert_eq!(camera(&orders.over(&config)), (false, "Who?"));
        let mut orders = Orders::read(Some(state.path()));
        assert_eq!(camera(&orders.over(&config)), (false, "Who?"));
        assert!(order(&mut orders, Order::Prompt(None), &config));
        assert!(order(&mut orders, Order::Enabled(true), &config));
        assert_eq!(Orders::read(Some(state.path())).over(&config), config);
    }

    #[test]
    fn unknown_cameras_and_configurations_without_commands_are_left_alone() {
        let (config, deaf) = (of_file(""), of_file("mqtt.commands = false"));
        let mut orders = Orders::read(None);
        let other = Command { camera: "b".parse().unwrap(), order: Order::Enabled(false) };
        assert!(!orders.take(other, &config));
        assert!(order(&mut orders, Order::Enabled(false), &config));
        assert_eq!(orders.over(&deaf), deaf);
    }

    #[test]
    fn a_damaged_file_is_as_none() {
        let (state, config) = (tempfile::tempdir().unwrap(), of_file(""));
        for text in ["{", "[]", r#"{"a":{"prompt":"<image>"}}"#, r#"{"A b":{}}"#, "\0\0"] {
            fs::write(state.path().join(FILE), text).unwrap();
            assert_eq!(Orders::read(Some(state.path())).over(&config), config, "{text}");
        }
    }
}
