//! Reads all layers, checks them section by section, and builds the [`Config`].

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    camera::{CameraSettings, PIPELINES_DIR, URI},
    diagnostic::{ConfigError, Diagnostics, Location},
    history::HistorySettings,
    http::HttpSettings,
    key::Key,
    layers::Layers,
    log::LogSettings,
    model::{self, ModelSettings},
    mqtt::MqttSettings,
    named::{self, Named},
    node::NodeSettings,
    outbox::OutboxSettings,
    prompt::default_prompt,
    schema::{self, SectionSchema},
    secret::is_credential,
    section::Section,
    source::mask,
    value::Value,
};
use crate::{camera::CameraId, prompt_spec::NamedQuestion};

/// The file that is read where none is given.
pub const DEFAULT_FILE: &str = "/etc/camscribe/camscribe.toml";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This camscribe.
    pub node: NodeSettings,
    /// The model that describes clips.
    pub model: ModelSettings,
    /// The broker that descriptions are published to.
    pub mqtt: MqttSettings,
    /// The queue on disk for what the broker has not confirmed.
    pub outbox: OutboxSettings,
    /// What is kept of events and of what the model saw.
    pub history: HistorySettings,
    /// Metrics, health checks and questions to the model.
    pub http: HttpSettings,
    /// What is written to standard error.
    pub log: LogSettings,
    /// All cameras, at least one unless clients may ask the model, disabled ones included, with what they inherit from `[defaults]`.
    pub cameras: BTreeMap<CameraId, CameraSettings>,
    /// The folder for pipeline files of the user's own; it may not exist.
    pub pipelines: PathBuf,
}

/// A configuration as read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What works but should be changed, a line each.
    pub warnings: Vec<String>,
    /// The files of `conf.d` that were read after the main file.
    pub fragments: Vec<PathBuf>,
    /// All questions by name, those that no camera asks among them.
    pub questions: BTreeMap<String, NamedQuestion>,
    sections: Vec<(&'static SectionSchema, Section)>,
}

impl Loaded {
    /// Whether a password is a credential, which the service manager passes at the start.
    pub fn uses_credentials(&self) -> bool {
        self.sections.iter().any(|(schema, section)| {
            let mut files = ["password_file", "token_file"].into_iter().filter_map(|name| schema.find(name));
            files.any(|key| section.optional(key.name).is_some_and(is_credential))
        })
    }

    /// Where the value of a camera's key was written; the camera's section if it has its default.
    pub fn locate(&self, camera: &CameraId, key: &str) -> String {
        let path = schema::camera_path(camera);
        let section = self.sections.iter().find(|(_, section)| section.path() == path);
        match section.filter(|(_, section)| section.is_set(key)) {
            Some((_, section)) => section.entry(key).location.to_string(),
            None => path,
        }
    }

    /// The effective configuration as TOML: every key, defaults applied, credentials masked.
    pub fn to_toml(&self) -> String {
        let section = |(schema, section): &(&SectionSchema, Section)| {
            let value = |key: &Key| match &section.entry(key.name).value {
                Value::Text(text) if key.name == URI.name => Value::Text(mask(text)).to_string(),
                value => value.to_string(),
            };
            let keys = schema.keys.iter();
            match section.path().rsplitn(3, '.').collect::<Vec<_>>().as_slice() {
                // It goes on with the section before it.
                [name, table, _] if schema.is_inline => {
                    keys.map(|key| format!("{table}.{name} = {}\n", value(key))).collect()
                }
                _ => {
                    let keys = keys.map(|key| format!("{} = {}\n", key.name, value(key)));
                    format!("\n[{}]\n{}", section.path(), keys.collect::<String>())
                }
            }
        };
        let toml: String = self.sections.iter().map(section).collect();
        toml.trim_start().into()
    }
}

/// Reads the configuration from `file`, its fragments and the environment. `None` means [`DEFAULT_FILE`],
/// which may be missing if the environment says everything.
///
/// # Errors
/// All errors in the configuration, each with its location.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    read(file, None, Purpose::Watch)
}

/// As [`load`], for those who need the broker only: there may be no camera.
///
/// # Errors
/// As [`load`].
pub fn load_for_broker(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    read(file, None, Purpose::Broker)
}

/// As [`load`], for those who calibrate a question: there may be no camera, and the calibrations that there are need not
/// be readable, or fit.
///
/// # Errors
/// As [`load`].
pub fn load_to_calibrate(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    read(file, None, Purpose::Calibrate)
}

/// Reads the configuration again, as [`load`] does, while `active` is active. What needs a credential that the service
/// manager has not passed stays as it is in `active`, with a warning: the broker's settings, those of HTTP, a camera.
///
/// # Errors
/// All other errors in the configuration, each with its location.
pub fn reload(file: Option<&Path>, active: &Config) -> Result<Loaded, ConfigError> {
    read(file, Some(active), Purpose::Watch)
}

/// What a configuration is read for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Everything.
    Watch,
    /// The broker alone.
    Broker,
    /// A new calibration of a question.
    Calibrate,
}

fn read(file: Option<&Path>, active: Option<&Config>, purpose: Purpose) -> Result<Loaded, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut diagnostics = Diagnostics::new(path.into());
    let Some(layers) = Layers::read(path, file.is_some(), &mut diagnostics) else {
        return Err(diagnostics.into_error());
    };
    let was_read = diagnostics.is_clean();
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut sections = check_sections(&layers, folder, &mut diagnostics);
    let has_camera = layers.declared.names(schema::CAMERAS.name).next().is_some();
    let has_work = has_camera || sections["http"].bool("api");
    if purpose == Purpose::Watch && !has_work && was_read {
        let missing = if path.exists() { "" } else { "this file does not exist, and " };
        let text = format!(
            "{missing}there is no camera: write a [cameras.<id>] section with a uri, or set http.api = true to serve \
             the model alone"
        );
        diagnostics.error(&Location::Unset { key: String::new() }, text);
    }
    let calibrated = purpose == Purpose::Watch;
    let Named { questions, cameras, sections: named } =
        named::read(&layers, &sections[schema::DEFAULTS], folder, calibrated, &mut diagnostics);
    let mut config = Config {
        node: NodeSettings::read(&sections["node"], folder, &mut diagnostics),
        model: ModelSettings::read(&sections["model"], folder, &mut diagnostics),
        mqtt: MqttSettings::read(&sections["mqtt"], folder, &mut diagnostics),
        outbox: OutboxSettings::read(&sections["outbox"]),
        history: HistorySettings::read(&sections["history"]),
        http: HttpSettings::read(&sections["http"], folder, &mut diagnostics),
        log: LogSettings::read(&sections["log"]),
        cameras,
        pipelines: folder.join(PIPELINES_DIR),
    };
    if let Some(active) = active {
        diagnostics.defer_credentials().iter().for_each(|section| config.keep(section, active));
    }
    let warnings = diagnostics.finish()?;
    if let Some(node) = sections.get_mut("node") {
        node.derive("id", Value::Text(config.node.id.clone()));
        if let Some(folder) = &config.node.state_dir {
            node.derive("state_dir", Value::Text(folder.display().to_string()));
        }
    }
    let fixed = schema::SECTIONS.iter().filter(|schema| schema.name != schema::DEFAULTS);
    let fixed = fixed.filter_map(|schema| Some((schema, sections.remove(schema.name)?)));
    let sections = fixed.chain(named).collect();
    Ok(Loaded { config, warnings, fragments: layers.fragments, questions, sections })
}

impl Config {
    /// Sets the section `section`, which has a secret, back to what it is in `active`.
    fn keep(&mut self, section: &str, active: &Self) {
        if section == "mqtt" {
            self.mqtt = active.mqtt.clone();
        }
        if section == "http" {
            self.http = active.http.clone();
        }
        self.cameras.retain(|id, camera| {
            if schema::camera_path(id) != section {
                return true;
            }
            let kept = active.cameras.get(id);
            kept.inspect(|kept| camera.clone_from(kept)).is_some()
        });
    }
}

/// The checked [`schema::SECTIONS`], by name.
fn check_sections(
    layers: &Layers,
    folder: &Path,
    diagnostics: &mut Diagnostics,
) -> BTreeMap<&'static str, Section> {
    let mut check = |schema: &'static SectionSchema| {
        Section::check(schema.name, schema.keys, &layers.section(schema.name), None, diagnostics)
    };
    let mut sections: BTreeMap<_, _> =
        schema::SECTIONS.iter().map(|schema| (schema.name, check(schema))).collect();
    let prompt = default_prompt(&model::id(&sections["model"], folder));
    if let Some(defaults) = sections.get_mut(schema::DEFAULTS).filter(|defaults| !defaults.is_set("prompt")) {
        defaults.derive("prompt", Value::Text(prompt));
    }
    sections
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::source::Source, *};

    #[test]
    fn default_settings_are_those_of_a_file_that_sets_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        fs::write(&file, "[cameras.a]\nuri = \"/a.mp4\"\n").unwrap();
        let config = load(Some(&file)).unwrap().config;
        assert_eq!(config.model, ModelSettings::default());
        assert_eq!(config.mqtt, MqttSettings::default());
        assert_eq!(config.outbox, OutboxSettings::default());
        assert_eq!(config.history, HistorySettings::default());
        assert_eq!(config.http, HttpSettings::default());
        let cameras: Vec<_> = config.cameras.into_values().collect();
        assert_eq!(cameras, [CameraSettings::new(Source::file("/a.mp4"))]);
    }
}
