//! The configuration that is active, and how it changes while the daemon runs: the file is read again, or a
//! subscriber sends a command. Only what differs is applied. A configuration with an error changes nothing.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    calibrations::warn_of_unfit,
    cameras::{CameraSpec, Cameras, camera_specs},
    config_change::ConfigChange,
    deps::CameraDeps,
    overrides::Overrides,
    settings::{camera_profiles, pipeline_mistakes, publish_settings},
    status_reporter::OldTopics,
};
use crate::{
    camera::CameraId,
    config::{self, Config, Loaded},
    publish::{Inboxes, Prepared, SettingsError, commands::CameraCommand},
    runtime_settings::{self, is_cut},
};

/// The active configuration, and what it is made of.
pub struct ActiveConfig {
    /// The configuration in the file.
    file: Config,
    overrides: Overrides,
    /// The file with the overrides applied.
    config: Config,
    /// Take what subscribers send.
    inboxes: Inboxes,
}

impl ActiveConfig {
    /// The configuration at the start. `inboxes` will take what subscribers send.
    pub fn new(file: Config, inboxes: Inboxes) -> Self {
        let overrides = Overrides::read(file.node.state_dir.as_deref());
        overrides.log(&file);
        Self { config: overrides.over(&file), file, overrides, inboxes }
    }

    /// The configuration that is active.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Forgets the overrides of cameras that are not configured any more. The state directory must be locked.
    pub fn forget_removed(&mut self) {
        self.overrides.forget_removed(&self.file);
    }

    /// Keeps commands that come too late to be applied, for the next start.
    pub fn keep(&mut self, mut commands: Vec<CameraCommand>) {
        self.leave_out_cut(&mut commands);
        self.overrides.apply(commands, &self.file);
    }

    /// Whether a subscriber disabled a camera, so that a command may start it again.
    pub fn more_may_start(&self) -> bool {
        self.overrides.disable_any(&self.file)
    }

    /// Returns what the publisher is started with.
    ///
    /// # Errors
    /// When the broker's settings cannot be used.
    pub fn prepare(&self) -> Result<Prepared, SettingsError> {
        Prepared::new(publish_settings(&self.config, Some(&self.inboxes)))
    }

    /// Publishes the settings of each camera.
    pub fn publish_camera_settings(&self, deps: &CameraDeps) {
        deps.reporter.set_accepts_settings(self.config.mqtt.commands);
        for (id, camera) in &self.config.cameras {
            deps.reporter.set_settings(id, runtime_settings::values(camera));
        }
    }

    /// Reads the configuration file again (none is the default one) and applies what has changed. Logs and
    /// reports why if it cannot be applied.
    pub async fn reload(&mut self, path: Option<PathBuf>, cameras: &mut Cameras, deps: &CameraDeps) {
        tracing::info!("reloading the configuration");
        let active = self.file.clone();
        let read = tokio::task::spawn_blocking(move || {
            let loaded = config::reload(path.as_deref(), &active).map_err(|errors| errors.to_string())?;
            let mistakes: Vec<_> = pipeline_mistakes(&loaded).collect();
            if mistakes.is_empty() { Ok(loaded) } else { Err(mistakes.join("\n")) }
        });
        let result = match read.await {
            Ok(Ok(loaded)) => self.apply_file(loaded, cameras, deps).await,
            Ok(Err(mistakes)) => Err(mistakes),
            Err(panic) => Err(panic.to_string()),
        };
        if let Err(why) = &result {
            log_rejected(why);
        }
        deps.reporter.reloaded(result);
    }

    /// Applies what has changed in the file.
    async fn apply_file(
        &mut self,
        loaded: Loaded,
        cameras: &mut Cameras,
        deps: &CameraDeps,
    ) -> Result<(), String> {
        for warning in &loaded.warnings {
            tracing::warn!("{warning}");
        }
        if loaded.uses_credentials() {
            tracing::info!(
                "passwords are those that systemd has passed (LoadCredential=): one that is still the old one needs a restart"
            );
        }
        let file = loaded.config;
        let mut new = self.overrides.over(&file);
        let mut change = ConfigChange::between(&self.config, &mut new);
        // Certificates may have been renewed in files of the same name: they are read again.
        if new.mqtt.tls.is_some() {
            change.broker.get_or_insert(OldTopics::Keep);
        }
        // The cause of a failure may have been fixed elsewhere: a missing plugin, a pipeline file.
        let watched = |id: &&CameraId| new.cameras.get(*id).is_some_and(|camera| camera.enabled);
        change.started.extend(cameras.failed().filter(watched).cloned());
        self.apply(&change, new, file.cameras, cameras, deps).await?;
        change.log();
        warn_of_unfit(&self.config, &deps.model);
        self.overrides.forget_removed(&self.file);
        self.overrides.log(&self.file);
        Ok(())
    }

    /// Applies commands of subscribers.
    pub async fn apply_commands(
        &mut self,
        mut commands: Vec<CameraCommand>,
        cameras: &mut Cameras,
        deps: &CameraDeps,
    ) {
        for command in &commands {
            tracing::info!(camera = %command.camera, "command: {command}");
        }
        self.leave_out_cut(&mut commands);
        if !self.overrides.apply(commands, &self.file) {
            return;
        }
        let mut new = self.overrides.over(&self.file);
        let change = ConfigChange::between(&self.config, &mut new);
        if let Err(why) = self.apply(&change, new, self.file.cameras.clone(), cameras, deps).await {
            log_rejected(&why);
        }
    }

    /// Leaves out commands that set a text to what Home Assistant shows of it.
    fn leave_out_cut(&self, commands: &mut Vec<CameraCommand>) {
        commands.retain(|command| {
            let current = self.config.cameras.get(&command.camera).map(|camera| command.setting.get(camera));
            let cut =
                command.value.as_ref().zip(current).is_some_and(|(sent, current)| is_cut(sent, &current));
            if cut {
                tracing::warn!(
                    camera = %command.camera,
                    "not applied: it is the beginning of the {} that is set, as Home Assistant shows it",
                    command.setting.name
                );
            }
            !cut
        });
    }

    /// Makes `new` the active configuration. `change` is how it differs, `in_file` are the cameras of the file.
    ///
    /// # Errors
    /// Why it cannot be active; nothing has changed then.
    async fn apply(
        &mut self,
        change: &ConfigChange,
        new: Config,
        in_file: BTreeMap<CameraId, config::CameraSettings>,
        cameras: &mut Cameras,
        deps: &CameraDeps,
    ) -> Result<(), String> {
        // Everything that can fail is done before anything is changed.
        let mut specs = camera_specs(&new).map_err(|error| format!("{error:#}"))?;
        let settings = publish_settings(&new, Some(&self.inboxes));
        let broker = change.broker.map(|old_topics| Ok((Prepared::new(settings)?, old_topics)));
        let broker = broker.transpose().map_err(|error: SettingsError| error.to_string())?;
        let stopping: Vec<_> = change.removed.iter().chain(&change.disabled).chain(&change.started).collect();
        // From here on nothing leaves that shows more than the new configuration allows.
        let seen_anew = deps.views.set(&new);
        deps.recording.hide();
        seen_anew.iter().for_each(|id| deps.reporter.forget_snapshot(id));
        cameras.stop(&stopping).await;
        change.removed.iter().for_each(|id| deps.reporter.remove(id));
        deps.reporter.set_profiles(camera_profiles(&new));
        change.disabled.iter().for_each(|id| deps.reporter.disable(id));
        if let Some((prepared, old_topics)) = broker {
            deps.reporter.reconnect(prepared, old_topics, &seen_anew).await;
        }
        let starting: Vec<CameraSpec> = change.started.iter().filter_map(|id| specs.remove(id)).collect();
        starting.into_iter().for_each(|spec| cameras.start(spec));
        change.asked.iter().for_each(|id| cameras.set_prompt_spec(id, &new.cameras[id]));
        self.file = Config { cameras: in_file, ..new.clone() };
        self.config = new;
        self.publish_camera_settings(deps);
        Ok(())
    }
}

fn log_rejected(why: &str) {
    tracing::error!("the new configuration is rejected; the previous one stays active");
    why.lines().for_each(|line| tracing::error!("{line}"));
}
