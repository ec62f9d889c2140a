//! The arguments of `alerts`, and the rules that they make of a configuration.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::super::usage::UsageError;
use crate::{
    camera::CameraId,
    config::{AlertTrial, Config},
    events::replay::Rules,
};

/// Arguments of `alerts`.
#[derive(Debug, Args)]
pub struct AlertsArgs {
    /// File of events to judge again, one a line, in any order; - is standard input
    #[arg(long, value_name = "EVENTS")]
    pub replay: PathBuf,
    /// The configuration file [default: /etc/camscribe/camscribe.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Only the alerts of this camera
    #[arg(long, value_name = "NAME")]
    pub camera: Option<CameraId>,
    /// Try this `on` for all alerts [default: as configured]
    #[arg(long, value_name = "P")]
    pub on: Option<String>,
    /// Try this `off` for all alerts [default: as configured]
    #[arg(long, value_name = "P")]
    pub off: Option<String>,
    /// Try this `of` for all alerts, such as 2/3 [default: as configured]
    #[arg(long, value_name = "N/M")]
    pub of: Option<String>,
    /// Try this `cool_down` for all alerts [default: as configured]
    #[arg(long, value_name = "DURATION")]
    pub cool_down: Option<String>,
    /// How to print what came of it
    #[arg(long, value_enum, default_value = "text")]
    pub format: ReplayFormat,
}

/// The output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[expect(missing_docs, reason = "--help would show what stands at the variants")]
pub enum ReplayFormat {
    Text,
    Json,
}

impl AlertsArgs {
    /// What the options say in place of the rules.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn trial(&self) -> Result<AlertTrial, UsageError> {
        let options =
            [("on", &self.on), ("off", &self.off), ("of", &self.of), ("cool_down", &self.cool_down)];
        let options = options.into_iter().filter_map(|(key, text)| Some((key, text.as_deref()?)));
        AlertTrial::from_options(options).map_err(|why| UsageError(why.to_string()))
    }

    /// The rules of the cameras that are shown.
    ///
    /// # Errors
    /// When there are none, or the options do not go with one.
    pub fn rules(&self, config: &Config, trial: &AlertTrial) -> Result<Rules, UsageError> {
        let mut rules = Rules::new();
        let shown = |id: &CameraId| self.camera.as_ref().is_none_or(|camera| camera == id);
        for (id, camera) in config.cameras.iter().filter(|(id, _)| shown(id)) {
            let of_camera = rules.entry(id.clone()).or_default();
            for (name, rule) in &camera.prompt_spec.alerts {
                let rule = trial.apply(rule);
                let rule = rule.map_err(|why| UsageError(format!("alert {name} of camera {id}: {why}")))?;
                of_camera.insert(name.clone(), rule);
            }
        }
        let known: Vec<&str> = config.cameras.keys().map(CameraId::as_str).collect();
        match &self.camera {
            Some(camera) if rules.is_empty() => Err(UsageError(format!(
                "--camera: the configuration has no camera {camera}; it has {}",
                known.join(", ")
            ))),
            _ if rules.values().all(|rules| rules.is_empty()) => Err(UsageError(format!(
                "there is no alert to replay: write a section [cameras.{}.alerts.<name>] in the configuration",
                self.camera.as_ref().map_or("<camera>", CameraId::as_str)
            ))),
            _ => Ok(rules),
        }
    }
}
