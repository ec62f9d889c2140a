//! Configuration: a TOML file and the environment over it go in, a [`Config`] that the rest of the
//! house can trust comes out. Nothing is coerced and nothing unknown is ignored; every mistake is
//! found in one go and names where it stands and what to do.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    camera::CameraId,
    device::{DeviceChoice, DtypeChoice, KernelChoice},
    hub,
};

mod broker;
mod build;
pub mod keys;
mod layers;
mod mistake;
pub mod scene;
mod secret;
mod source;
pub mod units;
mod value;

pub use broker::check_prefix;
pub use build::{check_prompt, default_node_id};
use layers::Layers;
pub use mistake::ConfigError;
use mistake::{Place, Report};
pub use secret::{Secret, read as read_secret};
pub use source::{BadSource, ParsedSource, Rtsp, Source, mask};
use value::{Section, Value};

/// The file that is read when nobody names another.
pub const DEFAULT_FILE: &str = "/etc/camscribe/camscribe.toml";
/// The model that describes when nobody names another.
pub const DEFAULT_MODEL: &str = "HuggingFaceTB/SmolVLM2-500M-Video-Instruct";
/// Its revision.
pub const DEFAULT_REVISION: &str = "main";
/// What is asked about a clip when nobody asks anything else.
pub const DEFAULT_PROMPT: &str = "Describe what happens in this video in one or two sentences.";

/// Most windows of a camera that may be open at once, which bounds what is kept in memory.
pub const MAX_OVERLAP: u32 = 64;
/// The pipelines that camscribe brings along.
pub const PIPELINES: [&str; 8] =
    ["file", "file-nvdec", "rtsp", "rtsp-jetson", "rtsp-nvdec", "shapes", "test", "v4l2"];
/// The folder beside the configuration file for pipelines of the user's own.
const PIPELINES_DIR: &str = "pipelines";

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// This camscribe.
    pub node: Node,
    /// What describes.
    pub model: Model,
    /// Where descriptions go.
    pub mqtt: Mqtt,
    /// What waits for the broker.
    pub outbox: Outbox,
    /// What other programs may ask.
    pub http: Http,
    /// At least one, defaults applied; a disabled one is here too.
    pub cameras: BTreeMap<CameraId, Camera>,
    /// The folder for pipeline files of the user's own; it need not exist.
    pub pipelines: PathBuf,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// One level of a topic: 1 to 64 of `A-Z`, `a-z`, `0-9`, `_` and `-`.
    pub id: String,
    /// Where what must outlive the process is kept; `None`: nowhere.
    pub state_dir: Option<PathBuf>,
}

/// `[model]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// A hub id, or a directory.
    pub id: String,
    /// Branch, tag or commit on the hub.
    pub revision: String,
    /// Where it computes.
    pub device: DeviceChoice,
    /// What it computes in.
    pub dtype: DtypeChoice,
    /// Which operations compute.
    pub kernels: KernelChoice,
    /// Most clips of a batch, 1 to 64.
    pub max_batch: usize,
    /// How long a batch waits to fill.
    pub linger: Duration,
}

/// `[mqtt]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Name or address of the broker; an IPv6 address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What to speak with it.
    pub version: MqttVersion,
    /// How to speak TLS, if so.
    pub tls: Option<Tls>,
    /// As whom, if the broker asks.
    pub login: Option<Login>,
    /// First level or levels of every topic, no slash at either end.
    pub topic_prefix: String,
    /// Where Home Assistant looks for new devices; `None`: do not announce.
    pub discovery_prefix: Option<String>,
    /// Subscribers may switch cameras and change their prompts.
    pub commands: bool,
}

/// Which MQTT to speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MqttVersion {
    /// 5, or 3.1.1 with a broker that does not know 5.
    Auto,
    V5,
    V311,
}

/// How to speak TLS with the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM file of the authorities to trust; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// PEM files of the certificate to show, and its key.
    pub client_cert_and_key: Option<(PathBuf, PathBuf)>,
}

/// A user and a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    pub username: String,
    pub password: Secret,
}

/// `[outbox]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// Most bytes of events that wait for the broker.
    pub max_bytes: u64,
    /// Most bytes of snapshots that wait for the broker.
    pub snapshot_bytes: u64,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where metrics and health are told; `None`: nowhere.
    pub listen: Option<SocketAddr>,
}

/// `[cameras.<id>]`, defaults applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Camera {
    /// Where the pictures come from.
    pub source: Source,
    /// Whether it is watched.
    pub enabled: bool,
    /// As whom, if the camera asks: from `username` and `password_file`, or from the URI.
    pub login: Option<Login>,
    /// Name of the pipeline file; `None`: by the source.
    pub pipeline: Option<String>,
    /// How RTSP carries its media.
    pub transport: Transport,
    /// What one clip covers.
    pub window: Duration,
    /// From the start of one window to that of the next.
    pub stride: Duration,
    /// Frames of a clip, 1 to 64.
    pub frames: usize,
    /// A clip with fewer is not described; at most `frames`.
    pub min_frames: usize,
    /// What is asked about each clip.
    pub prompt: String,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
    /// Which frames are decoded.
    pub sampling: Sampling,
    /// Turns that it gets where a camera of priority 1 gets one, 1 to [`keys::MAX_PRIORITY`].
    pub priority: u64,
    /// How much of 255 a spot must become brighter or darker to count as a change; 0: every clip is
    /// described.
    pub change_threshold: u8,
    /// A still picture is described again after so long.
    pub heartbeat: Duration,
}

/// How RTSP carries its media.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Inside the RTSP connection: nothing is lost and nothing needs opening in a firewall.
    Tcp,
    /// Datagrams: less delay, losses show.
    Udp,
    /// Datagrams if they arrive, the RTSP connection otherwise.
    Auto,
}

/// Which frames are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Keyframes where they are frequent enough, else by rate.
    Auto,
    /// All are decoded, and those nearest the wanted times are kept.
    Rate,
    /// Only keyframes are decoded, however rare they are.
    Keyframes,
}

/// A configuration as read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub config: Config,
    /// What works but should not stay, a sentence each.
    pub warnings: Vec<String>,
    sections: Vec<(String, Section)>,
}

impl Loaded {
    /// The effective configuration as TOML: every key, defaults applied, credentials masked.
    pub fn to_toml(&self) -> String {
        let mut toml = String::new();
        for (name, section) in &self.sections {
            let gap = if toml.is_empty() { "" } else { "\n" };
            let keys: Vec<_> = match keys::SECTIONS.iter().find(|(known, _)| known == name) {
                Some((_, keys)) => keys.to_vec(),
                None => keys::camera(),
            };
            toml += &format!("{gap}[{name}]\n");
            for key in keys {
                let value = match &section.entry(key.name).value {
                    Value::Text(text) if key.name == keys::URI.name => Value::Text(mask(text)),
                    other => other.clone(),
                };
                toml += &format!("{} = {value}\n", key.name);
            }
        }
        toml
    }
}

/// What is asked where nothing is written: the model inside the program was made for one question.
pub fn usual_prompt(model: &str) -> &'static str {
    if model == hub::BUILTIN { hub::BUILTIN_PROMPT } else { DEFAULT_PROMPT }
}

/// Reads the configuration from `file` and the environment; `None` is [`DEFAULT_FILE`], which may
/// be missing when the environment says everything.
///
/// # Errors
/// All mistakes, each with its place.
pub fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    let path = file.unwrap_or(Path::new(DEFAULT_FILE));
    let mut report = Report::new(path.into());
    let layers = Layers::read(path, file.is_some(), &mut report);
    if layers.cameras.is_empty() && report.is_clean() {
        let missing = if path.exists() { "" } else { " (this file does not exist)" };
        let text = format!("there is no camera: write a [cameras.<id>] section with a uri{missing}");
        report.mistake(&Place::Nowhere { key: String::new() }, text);
    }
    let folder = path.parent().unwrap_or(Path::new(""));

    let none = BTreeMap::new();
    let mut sections = BTreeMap::new();
    for (name, keys) in keys::SECTIONS {
        let leaves = layers.sections.get(name).unwrap_or(&none);
        sections.insert(*name, Section::check(name, keys, leaves, None, &mut report));
    }
    let usual = usual_prompt(sections["model"].text("id"));
    if let Some(defaults) = sections.get_mut("defaults").filter(|it| !it.is_written("prompt")) {
        defaults.derive("prompt", Value::Text(usual.into()));
    }
    let defaults = &sections["defaults"];
    let mut effective = Vec::new();
    let mut cameras = BTreeMap::new();
    for (id, leaves) in &layers.cameras {
        let name = format!("{}.{id}", keys::CAMERAS);
        let mut section = Section::check(&name, &keys::camera(), leaves, Some(defaults), &mut report);
        cameras
            .insert(id.clone(), build::camera(&mut section, leaves.contains_key("uri"), folder, &mut report));
        effective.push((name, section));
    }
    if !cameras.is_empty() && cameras.values().all(|c| !c.enabled) {
        report.warning(
            &Place::Nowhere { key: keys::CAMERAS.into() },
            "no camera is enabled: nothing is watched",
        );
    }
    let config = Config {
        node: Node {
            id: build::node_id(&sections["node"], &mut report),
            state_dir: Some(build::state_dir(&sections["node"], folder)),
        },
        model: build::model(&sections["model"], folder, &mut report),
        mqtt: broker::build(&sections["mqtt"], folder, &mut report),
        outbox: Outbox {
            max_bytes: sections["outbox"].number("max_bytes"),
            snapshot_bytes: sections["outbox"].number("snapshot_bytes"),
        },
        http: build::http(&sections["http"], &mut report),
        cameras,
        pipelines: folder.join(PIPELINES_DIR),
    };
    let warnings = report.finish()?;
    if let Some(node) = sections.get_mut("node") {
        node.derive("id", Value::Text(config.node.id.clone()));
        if let Some(folder) = &config.node.state_dir {
            node.derive("state_dir", Value::Text(folder.display().to_string()));
        }
    }
    let order = keys::SECTIONS.iter().filter(|(name, _)| *name != "defaults");
    let fixed = order.filter_map(|(name, _)| Some((name.to_string(), sections.remove(name)?)));
    let sections = fixed.chain(effective).collect();
    Ok(Loaded { config, warnings, sections })
}
