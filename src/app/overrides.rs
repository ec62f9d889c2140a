//! The run-time settings that subscribers changed over MQTT. They override the configuration until they
//! are changed back, and they survive a restart: a camera that was switched off must not be switched on
//! by a power failure.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use anyhow::Context;

use super::state_file;
use crate::{
    camera::CameraId,
    config::Config,
    publish::commands::CameraCommand,
    runtime_settings::{ENABLED, RuntimeSetting, SETTINGS, Value, Values},
};

/// The file in the state directory.
const FILE: &str = "orders.json";

/// The settings that were changed, by camera.
#[derive(Debug, Default)]
pub struct Overrides {
    /// `None`: nothing is kept beyond the process.
    file: Option<PathBuf>,
    /// The file lacks the latest change.
    unsaved: bool,
    cameras: BTreeMap<CameraId, Values>,
}

impl Overrides {
    /// Reads the overrides of an earlier process. A file that cannot be read is logged, and counts as
    /// empty.
    pub fn read(state_dir: Option<&Path>) -> Self {
        let file = state_dir.map(|folder| folder.join(FILE));
        let cameras = file.as_deref().map_or_else(BTreeMap::new, |file| {
            read(file).unwrap_or_else(|error| {
                let kept = state_file::set_aside(file, &error);
                tracing::error!(
                    "the settings that were changed over MQTT are lost, the configuration applies: {error:#}{kept}"
                );
                BTreeMap::new()
            })
        });
        Self { file, unsaved: false, cameras }
    }

    /// Keeps what commands set for cameras of the configuration file, which is `written`. A value that the
    /// file has anyway is no override. Returns whether any override is different now.
    pub fn apply(&mut self, commands: Vec<CameraCommand>, written: &Config) -> bool {
        let before = self.cameras.clone();
        for CameraCommand { camera, setting, value } in commands {
            // A camera may have been removed since its command was received.
            let Some(in_file) = written.cameras.get(&camera) else { continue };
            let values = self.cameras.entry(camera.clone()).or_default();
            match value.filter(|value| *value != setting.get(in_file)) {
                Some(value) => values.insert(setting.name, value),
                None => values.remove(setting.name),
            };
            if values.is_empty() {
                self.cameras.remove(&camera);
            }
        }
        let changed = self.cameras != before;
        self.unsaved |= changed;
        self.save();
        changed
    }

    /// Forgets the overrides of cameras that the configuration file, which is `written`, does not have.
    pub fn forget_removed(&mut self, written: &Config) {
        let before = self.cameras.len();
        self.cameras.retain(|id, _| written.cameras.contains_key(id));
        self.unsaved |= self.cameras.len() < before;
        self.save();
    }

    /// Writes the file, unless it has the latest change.
    fn save(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.unsaved) else { return };
        match state_file::write(file, &self.stored()) {
            Ok(()) => self.unsaved = false,
            Err(error) => {
                tracing::error!(
                    "settings that were changed over MQTT will be lost at the next restart: {error:#}"
                );
            }
        }
    }

    /// The configuration with the overrides applied. `written`: as in the file.
    pub fn over(&self, written: &Config) -> Config {
        let mut config = written.clone();
        for (id, values) in self.active(written) {
            let Some(camera) = config.cameras.get_mut(id) else { continue };
            for setting in &SETTINGS {
                if let Some(value) = values.get(setting.name) {
                    setting.set(camera, value);
                }
            }
        }
        config
    }

    /// Whether a camera is switched off that a command may switch on again.
    pub fn disable_any(&self, written: &Config) -> bool {
        self.active(written).any(|(_, values)| values.get(ENABLED) == Some(&Value::Switch(false)))
    }

    /// The overrides of cameras of the configuration file, if commands are on. Where commands are off, earlier commands
    /// have no effect either.
    fn active(&self, written: &Config) -> impl Iterator<Item = (&CameraId, &Values)> {
        self.cameras.iter().filter(|(id, _)| written.mqtt.commands && written.cameras.contains_key(id))
    }

    /// Logs the cameras with overrides.
    pub fn log(&self, written: &Config) {
        let ids: Vec<_> = self.active(written).map(|(id, _)| id.to_string()).collect();
        if !ids.is_empty() {
            let ids = ids.join(", ");
            tracing::info!("settings that were changed over MQTT override the configuration of: {ids}");
        }
    }

    /// The content of the file: each setting by camera, `None` where the configuration applies.
    fn stored(&self) -> BTreeMap<&CameraId, BTreeMap<&str, Option<&Value>>> {
        let stored = self.cameras.iter().map(|(id, values)| {
            (id, SETTINGS.iter().map(|setting| (setting.name, values.get(setting.name))).collect())
        });
        stored.collect()
    }
}

/// Reads and checks the file. Settings that this version does not know are left out.
fn read(file: &Path) -> anyhow::Result<BTreeMap<CameraId, Values>> {
    let stored: BTreeMap<CameraId, BTreeMap<String, serde_json::Value>> = state_file::read(file)?;
    let mut cameras = BTreeMap::new();
    for (id, stored) in stored {
        let mut values = Values::new();
        for (name, value) in stored {
            let Some(setting) = RuntimeSetting::find(&name) else { continue };
            let value: Option<Value> = serde_json::from_value(value)
                .with_context(|| format!("{}: {name} of camera {id}", file.display()))?;
            if let Some(value) = value {
                setting.check(&value).map_err(|why| anyhow::anyhow!("{}: {why}", file.display()))?;
                values.insert(setting.name, value);
            }
        }
        cameras.insert(id, values);
    }
    Ok(cameras)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::MetadataExt};

    use super::*;
    use crate::config;

    fn written(extra: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        let text = format!("{extra}\n[cameras.a]\nuri = \"test://shapes\"\nprompt = \"What?\"\n");
        fs::write(&file, text).unwrap();
        config::load(Some(&file)).unwrap().config
    }

    fn set(overrides: &mut Overrides, name: &str, payload: &str, written: &Config) {
        let camera = written.cameras.keys().next().unwrap().clone();
        let setting = RuntimeSetting::find(name).unwrap();
        let value = setting.parse(payload).unwrap();
        overrides.apply(vec![CameraCommand { camera, setting, value }], written);
    }

    fn camera(config: &Config) -> (bool, &str) {
        let camera = config.cameras.values().next().unwrap();
        (camera.enabled, &camera.prompt_spec.prompt)
    }

    #[test]
    fn overrides_survive_a_restart_until_they_are_reset() {
        let (state, config) = (tempfile::tempdir().unwrap(), written(""));
        let mut overrides = Overrides::read(Some(state.path()));
        assert_eq!(overrides.over(&config), config);
        set(&mut overrides, "enabled", "OFF", &config);
        set(&mut overrides, "prompt", "Who?", &config);
        assert_eq!(camera(&overrides.over(&config)), (false, "Who?"));
        let mut overrides = Overrides::read(Some(state.path()));
        assert_eq!(camera(&overrides.over(&config)), (false, "Who?"));
        set(&mut overrides, "prompt", "", &config);
        set(&mut overrides, "enabled", "ON", &config);
        assert_eq!(Overrides::read(Some(state.path())).over(&config), config);
    }

    #[test]
    fn the_file_has_the_format_of_version_0_1() {
        let (state, config) = (tempfile::tempdir().unwrap(), written(""));
        let file = state.path().join(FILE);
        let mut overrides = Overrides::read(Some(state.path()));
        set(&mut overrides, "enabled", "OFF", &config);
        let stored = fs::read_to_string(&file).unwrap();
        assert!(stored.starts_with(r#"{"a":{"#) && stored.contains(r#""enabled":false"#), "{stored}");
        assert!(stored.contains(r#""prompt":null"#), "{stored}");
        fs::write(&file, r#"{"a":{"enabled":null,"prompt":"Who?","of_a_later_version":7.5}}"#).unwrap();
        assert_eq!(camera(&Overrides::read(Some(state.path())).over(&config)), (true, "Who?"));
    }

    #[test]
    fn the_overrides_of_a_removed_camera_are_forgotten() {
        let (state, config) = (tempfile::tempdir().unwrap(), written(""));
        let mut overrides = Overrides::read(Some(state.path()));
        set(&mut overrides, "enabled", "OFF", &config);
        overrides.forget_removed(&config);
        assert!(overrides.disable_any(&config));
        let mut without_camera = config.clone();
        without_camera.cameras.clear();
        overrides.forget_removed(&without_camera);
        assert_eq!(fs::read_to_string(state.path().join(FILE)).unwrap(), "{}");
        // A later camera of the same name starts as it is configured.
        assert_eq!(Overrides::read(Some(state.path())).over(&config), config);
    }

    #[test]
    fn a_command_that_changes_nothing_writes_nothing() {
        let (state, config) = (tempfile::tempdir().unwrap(), written(""));
        let file = state.path().join(FILE);
        let mut overrides = Overrides::read(Some(state.path()));
        set(&mut overrides, "enabled", "ON", &config);
        set(&mut overrides, "prompt", "", &config);
        assert!(!file.exists());
        set(&mut overrides, "prompt", "Who?", &config);
        // Each write makes a new file, which takes the place of the old one.
        let inode = || fs::metadata(&file).unwrap().ino();
        let first = inode();
        set(&mut overrides, "prompt", "Who?", &config);
        assert_eq!(inode(), first);
        set(&mut overrides, "prompt", "What?", &config);
        assert_ne!(inode(), first);
    }

    #[test]
    fn a_change_that_could_not_be_written_is_written_with_the_next_command() {
        let (parent, config) = (tempfile::tempdir().unwrap(), written(""));
        let state = parent.path().join("state");
        let mut overrides = Overrides::read(Some(&state));
        set(&mut overrides, "enabled", "OFF", &config);
        fs::create_dir(&state).unwrap();
        set(&mut overrides, "enabled", "OFF", &config);
        assert_eq!(camera(&Overrides::read(Some(&state)).over(&config)), (false, "What?"));
    }

    #[test]
    fn overrides_of_removed_cameras_and_with_commands_off_do_not_apply() {
        let (config, without_commands) = (written(""), written("mqtt.commands = false"));
        let mut without_camera = config.clone();
        without_camera.cameras.clear();
        let mut overrides = Overrides::read(None);
        set(&mut overrides, "enabled", "OFF", &config);
        assert!(overrides.disable_any(&config));
        for other in [without_commands, without_camera] {
            assert_eq!(overrides.over(&other), other);
            assert!(!overrides.disable_any(&other));
        }
    }

    #[test]
    fn a_damaged_file_counts_as_empty_and_is_kept() {
        let (state, config) = (tempfile::tempdir().unwrap(), written(""));
        let texts = [
            "{",
            "[]",
            r#"{"a":{"prompt":"<image>"}}"#,
            r#"{"a":{"prompt":true}}"#,
            r#"{"a":{"prompt":7.5}}"#,
            r#"{"a":{"enabled":"OFF"}}"#,
            r#"{"A b":{}}"#,
            "\0\0",
        ];
        for text in texts {
            fs::write(state.path().join(FILE), text).unwrap();
            assert_eq!(Overrides::read(Some(state.path())).over(&config), config, "{text}");
            let kept: Vec<_> =
                fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
            let [kept] = &kept[..] else { panic!("{kept:?}") };
            assert!(kept.to_str().unwrap().contains("orders.json.damaged-"), "{kept:?}");
            assert_eq!(fs::read_to_string(kept).unwrap(), text);
            fs::remove_file(kept).unwrap();
        }
    }
}
