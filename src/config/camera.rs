//! `[cameras.<id>]`: one camera, and `[defaults]`: the keys that every camera inherits.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use super::{
    diagnostic::{ConfigError, Diagnostics},
    key::{Key, Kind, names},
    login,
    prompt::{DEFAULT_PROMPT, check_prompt},
    rtsp_tls::{self, TlsVerify, VERIFY_CHOICES},
    secret::Login,
    section::Section,
    source::{Origin, ParsedSource, Source, Transport, shipped_pipelines},
    units,
    value::Value,
};
use crate::{
    camera::CameraId,
    prompt_spec::{GateConfig, PromptSpec},
    view::View,
};

/// The most windows of a camera that may be open at once, which bounds the frames that are kept.
pub const MAX_OVERLAP: u32 = 64;
/// The longest name of a camera for people, characters.
const MAX_NAME: usize = 100;
/// The highest priority of a camera.
pub const MAX_PRIORITY: u64 = 10;
/// The folder beside the configuration file for pipelines of the user's own.
pub const PIPELINES_DIR: &str = "pipelines";

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

const TRANSPORTS: [(&str, Transport); 3] =
    [("tcp", Transport::Tcp), ("udp", Transport::Udp), ("auto", Transport::Auto)];
const SAMPLINGS: [(&str, FrameSampling); 3] =
    [("auto", FrameSampling::Auto), ("rate", FrameSampling::Rate), ("keyframes", FrameSampling::Keyframes)];
const CLOCKS: [(&str, ClockChoice); 3] =
    [("auto", ClockChoice::Auto), ("camera", ClockChoice::Camera), ("arrival", ClockChoice::Arrival)];

/// The key that each camera must set itself, and that `[defaults]` does not have.
pub const URI: Key =
    Key::required("uri", Kind::Text, "The source of the frames: a URI, or the path of a file");

/// The keys of a camera: those of its own, then [`SHARED_KEYS`].
pub const KEYS: &[Key] = &[
    URI,
    Key::new(
        "name",
        Kind::Text,
        "",
        "The camera's name for people, as Home Assistant shows it; empty: the id",
    ),
    Key::new(
        "crop",
        Kind::Text,
        "",
        "The part of the picture that is seen: its top left and bottom right corners, in parts of the picture; empty: \
         all of it",
    ),
    Key::new("enabled", Kind::Bool, "true", "Whether the camera is watched"),
    Key::new("username", Kind::Text, "", "The user name at an RTSP camera; empty: no login"),
    Key::new(
        "password_file",
        Kind::Text,
        "",
        "The file that holds the password, by absolute path or by name in $CREDENTIALS_DIRECTORY",
    ),
    Key::new(
        "pipeline",
        Kind::Text,
        "",
        "The pipeline file, by name without folder and ending; empty: the one for the uri's scheme",
    ),
    Key::new(
        "transport",
        Kind::Choice(&names(&TRANSPORTS)),
        "tcp",
        "The transport of RTSP media; auto: udp, or tcp when nothing arrives",
    ),
    Key::new(
        "tls_ca_file",
        Kind::Text,
        "",
        "The PEM file of the authorities that may certify an rtsps camera; empty: those of the system",
    ),
    Key::new(
        "tls_verify",
        Kind::Choice(&names(&VERIFY_CHOICES)),
        "full",
        "How an rtsps camera shows that it is the camera: full: by a certificate for its name from a trusted \
         authority; fingerprint: by the certificate of tls_fingerprint; off: not at all",
    ),
    Key::new(
        "tls_fingerprint",
        Kind::Text,
        "",
        "The SHA-256 fingerprint of an rtsps camera's own certificate, for tls_verify = \"fingerprint\"",
    ),
    Key::new(
        "window",
        Kind::Duration(Duration::from_millis(500), HOUR),
        "8s",
        "The time that one clip covers",
    ),
    Key::new(
        "stride",
        Kind::Duration(Duration::from_millis(100), DAY),
        "8s",
        "The time from the start of one clip to the start of the next; unset: as long as window",
    ),
    Key::new("frames", Kind::Int(1, 64), "8", "The frames of a clip, spread over its window"),
    Key::new(
        "min_frames",
        Kind::Int(1, 64),
        "2",
        "The least frames of a clip that is described; at most frames",
    ),
    Key::new(
        "prompt",
        Kind::Text,
        DEFAULT_PROMPT,
        "The prompt for each clip; unset: the one that the card of the model names, if it names one",
    ),
    Key::new("max_tokens", Kind::Int(1, 2048), "96", "The most tokens of an answer"),
    Key::new("describe", Kind::Bool, "true", "Whether the prompt is asked; without it, only the questions"),
    Key::new(
        "questions",
        Kind::List,
        "",
        "The questions about each clip, by the names of their sections; at most 32",
    ),
    Key::new(
        "sampling",
        Kind::Choice(&names(&SAMPLINGS)),
        "auto",
        "The frames that are decoded: all, only keyframes, or auto: keyframes where they come often enough",
    ),
    Key::new(
        "clock",
        Kind::Choice(&names(&CLOCKS)),
        "auto",
        "What dates the frames of a live source: the camera's own clock, their arrival here, or auto: the \
         camera's clock while it is within a minute of ours",
    ),
    Key::new(
        "look_back",
        Kind::Duration(SECOND, Duration::from_secs(300)),
        "30s",
        "How long frames are kept for questions about what the camera shows now; at most 32 frames",
    ),
    Key::new(
        "priority",
        Kind::Int(1, MAX_PRIORITY),
        "1",
        "The share of the model's time when it cannot keep up",
    ),
    Key::new(
        "change_threshold",
        Kind::Int(0, 255),
        "10",
        "The change of brightness, of 255, from which a clip differs from the last one described; 0: every clip is described",
    ),
    Key::new(
        "heartbeat",
        Kind::Duration(SECOND, DAY),
        "10m",
        "The time after which an unchanged view is described again",
    ),
];

/// The keys that stand in a camera's section only: `uri`, `name` and `crop`.
pub const OWN_KEYS: &[Key] = KEYS.split_at(3).0;
/// The keys of `[defaults]`: all of a camera but its own.
pub const SHARED_KEYS: &[Key] = KEYS.split_at(OWN_KEYS.len()).1;

/// `[cameras.<id>]`, with what it inherits from `[defaults]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraSettings {
    /// The camera's name for people; `None`: its id.
    pub name: Option<String>,
    /// The source of the frames.
    pub source: Source,
    /// What of the picture is seen: `crop` and `masks`. `None`: all of it.
    pub view: Option<Arc<View>>,
    /// Whether the camera is watched.
    pub enabled: bool,
    /// The login, from `username` and `password_file` or from the URI.
    pub login: Option<Login>,
    /// The name of the pipeline file; `None`: the one for the source.
    pub pipeline: Option<String>,
    /// The transport of RTSP media.
    pub transport: Transport,
    /// Whom to trust at an `rtsps://` address.
    pub tls: TlsVerify,
    /// The time that one clip covers.
    pub window: Duration,
    /// The time from the start of one window to the start of the next.
    pub stride: Duration,
    /// The frames of a clip, 1 to 64.
    pub frames: usize,
    /// A clip with fewer frames is not described; at most `frames`.
    pub min_frames: usize,
    /// What to ask about each clip, and when.
    pub prompt_spec: PromptSpec,
    /// The frames that are decoded.
    pub sampling: FrameSampling,
    /// What dates the frames of a live source.
    pub clock: ClockChoice,
    /// How long frames are kept for questions about what the camera shows now.
    pub look_back: Duration,
    /// The share of the model's time where a camera of priority 1 has one part: 1 to [`MAX_PRIORITY`].
    pub priority: u64,
}

/// Which frames are decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameSampling {
    /// Keyframes where they come often enough, else by rate.
    Auto,
    /// All frames are decoded, and those nearest to the wanted times are kept.
    Rate,
    /// Only keyframes are decoded, however rare they are.
    Keyframes,
}

/// What dates the frames of a live source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChoice {
    /// The camera's clock while it agrees with ours, else arrival.
    Auto,
    /// The camera's clock, once it has stated a time later than 2001.
    Camera,
    /// The arrival of a frame.
    Arrival,
}

impl CameraSettings {
    /// The defaults for a camera with this source.
    pub fn new(source: Source) -> Self {
        Self::of(&Section::defaults("defaults", KEYS), source, None, TlsVerify::Full(None))
    }

    /// What people call this camera, whose id is `id`.
    pub fn display_name<'a>(&'a self, id: &'a CameraId) -> &'a str {
        self.name.as_deref().unwrap_or(id.as_str())
    }

    /// The settings of a checked section, without view, questions and alerts; relative files are taken from `folder`.
    /// Defaults that follow from other keys are put into `section`.
    pub(super) fn read(section: &mut Section, folder: &Path, diagnostics: &mut Diagnostics) -> Self {
        check_clips(section, diagnostics);
        let (source, login) = source_and_login(section, diagnostics);
        check_name(section, diagnostics);
        check_pipeline(section, folder, diagnostics);
        let tls = rtsp_tls::read(section, folder, diagnostics);
        Self::of(section, source.relative_to(folder), login, tls)
    }

    /// The settings that options of the command line make: `("window", "8s")` is `--window 8s`. Its source is empty.
    ///
    /// # Errors
    /// What is wrong with them, as the configuration would be told.
    pub fn from_options<'a>(
        options: impl IntoIterator<Item = (&'static str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut diagnostics = Diagnostics::default();
        let mut section = Section::of_options("defaults", KEYS, options, &mut diagnostics);
        check_clips(&mut section, &mut diagnostics);
        diagnostics.finish()?;
        Ok(Self::of(&section, Source::file(""), None, TlsVerify::Full(None)))
    }

    fn of(section: &Section, source: Source, login: Option<Login>, tls: TlsVerify) -> Self {
        Self {
            name: section.optional("name").map(Into::into),
            source,
            view: None,
            enabled: section.bool("enabled"),
            login,
            pipeline: section.optional("pipeline").map(Into::into),
            transport: section.choice("transport", &TRANSPORTS),
            tls,
            window: section.duration("window"),
            stride: section.duration("stride"),
            frames: section.number("frames") as usize,
            min_frames: section.number("min_frames") as usize,
            prompt_spec: prompt_spec(section),
            sampling: section.choice("sampling", &SAMPLINGS),
            clock: section.choice("clock", &CLOCKS),
            look_back: section.duration("look_back"),
            priority: section.number("priority"),
        }
    }
}

fn prompt_spec(section: &Section) -> PromptSpec {
    let gate = GateConfig {
        threshold: section.number("change_threshold") as u8,
        heartbeat: section.duration("heartbeat"),
    };
    PromptSpec {
        prompt: section.text("prompt").trim().into(),
        max_tokens: section.number("max_tokens") as usize,
        describe: section.bool("describe"),
        questions: Vec::new(),
        alerts: BTreeMap::new(),
        gate: Some(gate).filter(|gate| gate.threshold > 0),
    }
}

/// Checks what clips are and what is asked about them, and derives what is not set of that.
fn check_clips(section: &mut Section, diagnostics: &mut Diagnostics) {
    derive_window(section);
    check_window(section, diagnostics);
    if let Err(why) = check_prompt(section.text("prompt")) {
        diagnostics.error(&section.entry("prompt").location, why);
    }
}

/// Unset, `stride` and `min_frames` follow `window` and `frames`, so that one key suffices to change a
/// window.
fn derive_window(section: &mut Section) {
    if !section.is_set("stride") {
        section.derive("stride", Value::Duration(section.duration("window")));
    }
    if !section.is_set("min_frames") {
        let least = section.number("min_frames").min(section.number("frames"));
        section.derive("min_frames", Value::Int(least));
    }
}

fn check_window(section: &Section, diagnostics: &mut Diagnostics) {
    let (window, stride) = (section.duration("window"), section.duration("stride"));
    if window > stride.saturating_mul(MAX_OVERLAP) {
        let why = format!(
            "{} is too short for window = {}: more than {MAX_OVERLAP} windows would overlap; at least {} \
             would do",
            units::format_duration(stride),
            units::format_duration(window),
            units::format_duration(window / MAX_OVERLAP),
        );
        diagnostics.error(&section.entry("stride").location, why);
    }
    let (frames, min_frames) = (section.number("frames"), section.number("min_frames"));
    if min_frames > frames {
        let why = format!("{min_frames} is more than frames = {frames}: no clip would ever be described");
        diagnostics.error(&section.entry("min_frames").location, why);
    }
}

/// The source that `uri` names, and the login from the URI or from `username` and `password_file`. An
/// invalid URI gives an empty file path, so that further errors are found.
fn source_and_login(section: &Section, diagnostics: &mut Diagnostics) -> (Source, Option<Login>) {
    let location = &section.entry("uri").location;
    let nothing = || ParsedSource { source: Source::file(""), login: None };
    let parsed =
        if section.is_set("uri") { section.text("uri").parse::<ParsedSource>() } else { Ok(nothing()) };
    let ParsedSource { source, login: in_uri } = parsed.unwrap_or_else(|e| {
        diagnostics.error(location, e.to_string());
        nothing()
    });
    if let Origin::File(path) = source.origin() {
        match path.to_str() {
            Some(path) if path.starts_with("/dev/video") => {
                diagnostics.error(location, format!("{path:?} is a device: write v4l2://{path}"));
            }
            Some(path) if path.starts_with("~/") => {
                diagnostics.error(location, format!("{path:?}: ~ is the shell's: write the whole path"));
            }
            _ => {}
        }
    }
    if in_uri.is_some() {
        diagnostics.warning(location, "holds credentials: better write them with username and password_file");
        if section.optional("username").is_some() {
            diagnostics.error(location, "holds credentials, and username is set too: keep one of them");
        }
    }
    (source, in_uri.or_else(|| login::read(section, diagnostics)))
}

/// Checks that people can read `name`.
fn check_name(section: &Section, diagnostics: &mut Diagnostics) {
    let name = section.text("name");
    let why = if name.chars().count() > MAX_NAME {
        format!("is longer than {MAX_NAME} characters")
    } else if name.contains(char::is_control) || name.trim() != name {
        "holds a control character, or begins or ends with a space".into()
    } else {
        return;
    };
    diagnostics
        .error(&section.entry("name").location, format!("{why}: write a name such as \"Front porch\""));
}

/// Checks that `pipeline` names a shipped pipeline, or one in the folder for the user's own.
fn check_pipeline(section: &Section, folder: &Path, diagnostics: &mut Diagnostics) {
    let Some(name) = section.optional("pipeline") else { return };
    let location = &section.entry("pipeline").location;
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if name.len() > 64 || !name.bytes().all(allowed) {
        let why =
            "cannot name a pipeline: write the file's name without folder and ending; a-z, 0-9, '_' and '-'";
        diagnostics.error(location, format!("{name:?} {why}"));
    } else if !shipped_pipelines().contains_key(name) {
        let own = folder.join(PIPELINES_DIR).join(format!("{name}.txt"));
        if !own.is_file() {
            let shipped = shipped_pipelines().into_keys().collect::<Vec<_>>().join(", ");
            let why = format!("is none of {shipped}, and there is no file {}", own.display());
            diagnostics.error(location, format!("{name:?} {why}"));
        }
    }
}
