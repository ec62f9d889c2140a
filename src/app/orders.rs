//! What subscribers have ordered, above what the configuration says. It stands until they order
//! something else, and outlives the process: a camera that was switched off must not look again
//! because the power was gone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::state_file;
use crate::{
    camera::CameraId,
    config::{self, Config},
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

    /// Takes an order for a camera that the file has as `written`; what that says anyway is none.
    pub fn take(&mut self, Command { camera, order }: Command, written: &config::Camera) {
        let ordered = self.cameras.entry(camera.clone()).or_default();
        match order {
            Order::Enabled(on) => ordered.enabled = Some(on).filter(|on| *on != written.enabled),
            Order::Prompt(prompt) => ordered.prompt = prompt.filter(|prompt| *prompt != written.prompt),
        }
        if *ordered == Ordered::default() {
            self.cameras.remove(&camera);
        }
        if let Some(file) = &self.file
            && let Err(error) = state_file::write(file, &self.cameras)
        {
            tracing::error!("the order for camera {camera} will not outlive this process: {error:#}");
        }
    }

    /// The configuration that is in force where the file says `of_file`.
    pub fn over(&self, of_file: &Config) -> Config {
        let mut config = of_file.clone();
        for (id, ordered) in self.in_force(of_file) {
            let Some(camera) = config.cameras.get_mut(id) else { continue };
            camera.enabled = ordered.enabled.unwrap_or(camera.enabled);
            if let Some(prompt) = &ordered.prompt {
                camera.prompt.clone_from(prompt);
            }
        }
        config
    }

    /// Whether a camera is left alone that may be wanted again.
    pub fn leave_one(&self, of_file: &Config) -> bool {
        self.in_force(of_file).any(|(_, ordered)| ordered.enabled == Some(false))
    }

    /// Those that count where the file says `of_file`.
    fn in_force(&self, of_file: &Config) -> impl Iterator<Item = (&CameraId, &Ordered)> {
        // Whoever turned commands off does not want their effects either.
        self.cameras.iter().filter(|(id, _)| of_file.mqtt.commands && of_file.cameras.contains_key(id))
    }

    /// Says what is in force and does not stand in the file.
    pub fn tell(&self, of_file: &Config) {
        let ids: Vec<_> = self.in_force(of_file).map(|(id, _)| id.to_string()).collect();
        if !ids.is_empty() {
            tracing::info!("not as the configuration says, but as ordered over MQTT: {}", ids.join(", "));
        }
    }
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<CameraId, Ordered>> {
    let cameras: BTreeMap<CameraId, Ordered> = state_file::read(file)?;
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

    fn order(orders: &mut Orders, order: Order, of_file: &Config) {
        let (camera, written) = of_file.cameras.first_key_value().unwrap();
        orders.take(Command { camera: camera.clone(), order }, written);
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
        order(&mut orders, Order::Enabled(false), &config);
        order(&mut orders, Order::Prompt(Some("Who?".into())), &config);
        assert_eq!(camera(&orders.over(&config)), (false, "Who?"));
        let mut orders = Orders::read(Some(state.path()));
        assert_eq!(camera(&orders.over(&config)), (false, "Who?"));
        order(&mut orders, Order::Prompt(None), &config);
        order(&mut orders, Order::Enabled(true), &config);
        assert_eq!(Orders::read(Some(state.path())).over(&config), config);
    }

    #[test]
    fn cameras_that_are_gone_and_configurations_without_commands_are_left_alone() {
        let (config, deaf) = (of_file(""), of_file("mqtt.commands = false"));
        let mut without = config.clone();
        without.cameras.clear();
        let mut orders = Orders::read(None);
        order(&mut orders, Order::Enabled(false), &config);
        assert!(orders.leave_one(&config));
        for other in [deaf, without] {
            assert_eq!(orders.over(&other), other);
            assert!(!orders.leave_one(&other));
        }
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
