//! From checked values to the types of [`Config`](super::Config): what a value means, and whether
//! the values of a section go together.

use std::{
    env,
    path::{Path, PathBuf},
};

use super::{
    Camera, Http, Login, MAX_OVERLAP, Model, PIPELINES, PIPELINES_DIR, ParsedSource, Sampling, Secret,
    Source, Transport,
    mistake::Report,
    secret, units,
    value::{Section, Value},
};
use crate::{
    device::{DeviceChoice, DtypeChoice, UnknownChoice},
    hub,
};

/// The longest prompt, in bytes: more would leave little of a small model's context to pictures.
const MAX_PROMPT_BYTES: usize = 4000;

/// What the model or its reference takes for a mark of turns and pictures. We send it as letters, which
/// no model was trained on.
const SPECIAL: [&str; 10] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<end_of_utterance>",
    "<image>",
    "<video>",
    "<fake_token_around_image>",
    "<global-img>",
    "<row_",
    "<|reserved_special_token",
];

/// The name of this machine with `-` for what one level of a topic cannot hold.
pub fn default_node_id() -> String {
    let host = gethostname::gethostname();
    let host: String = host.to_string_lossy().chars().take(64).collect();
    let id = host.replace(|c| !may_stand_in_node_id(c), "-");
    if id.is_empty() { "camscribe".into() } else { id }
}

/// Home Assistant takes no more than these in the topics of its discovery.
fn may_stand_in_node_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// The configured name, else [`default_node_id`].
pub fn node_id(section: &Section, report: &mut Report) -> String {
    let Some(id) = section.optional("id") else { return default_node_id() };
    if id.len() > 64 || !id.chars().all(may_stand_in_node_id) {
        let why = "cannot be a level of a topic: use 1 to 64 of A-Z, a-z, 0-9, '_' and '-'";
        report.mistake(&section.entry("id").place, format!("{id:?} {why}"));
    }
    id.into()
}

/// Where state is kept when nobody says otherwise.
const STATE_DIR: &str = "/var/lib/camscribe";

/// The configured directory, taken from `folder` if it is relative; else the first that systemd made
/// for the service, else [`STATE_DIR`].
pub fn state_dir(section: &Section, folder: &Path) -> PathBuf {
    if let Some(path) = section.optional("state_dir") {
        return folder.join(path);
    }
    let given = env::var_os("STATE_DIRECTORY");
    let first = given.as_deref().and_then(|all| env::split_paths(all).next());
    first.filter(|path| !path.as_os_str().is_empty()).unwrap_or_else(|| STATE_DIR.into())
}

/// Builds [`Model`]; a directory that begins with `.` is taken from `folder`.
pub fn model(section: &Section, folder: &Path, report: &mut Report) -> Model {
    let written = section.text("id");
    let id =
        if written.starts_with('.') { folder.join(written).display().to_string() } else { written.into() };
    if let Err(e) = hub::check_id(&id) {
        report.mistake(&section.entry("id").place, e.to_string());
    }
    let revision = section.text("revision");
    if let Err(e) = hub::check_revision(revision) {
        report.mistake(&section.entry("revision").place, e.to_string());
    }
    let device = section.text("device").parse().unwrap_or_else(|why: UnknownChoice| {
        report.mistake(&section.entry("device").place, why.to_string());
        DeviceChoice::Auto
    });
    // The table of keys lets no other word through.
    let dtype: DtypeChoice = section.text("dtype").parse().unwrap_or_default();
    if let Err(e) = dtype.check(device) {
        report.mistake(&section.entry("dtype").place, e.to_string());
    }
    Model {
        id,
        revision: revision.into(),
        device,
        dtype,
        kernels: section.text("kernels").parse().unwrap_or_default(),
        max_batch: section.number("max_batch") as usize,
        linger: section.duration("linger"),
    }
}

/// Builds [`Http`].
pub fn http(section: &Section, report: &mut Report) -> Http {
    let listen = section.optional("listen").and_then(|text| {
        let why = "write an IP address and a port, such as 127.0.0.1:9180, or \"\" for none";
        let mistake = |_| report.mistake(&section.entry("listen").place, format!("{text:?}: {why}"));
        text.parse().map_err(mistake).ok()
    });
    Http { listen }
}

/// Builds [`Camera`], and puts defaults that follow from other keys into `section`. `has_uri`:
/// somebody wrote one, right or wrong.
pub fn camera(section: &mut Section, has_uri: bool, folder: &Path, report: &mut Report) -> Camera {
    // Unwritten, these two follow their neighbours, so that one key suffices to change a window.
    if !section.is_written("stride") {
        section.derive("stride", Value::Duration(section.duration("window")));
    }
    let frames = section.number("frames");
    if !section.is_written("min_frames") {
        section.derive("min_frames", Value::Int(section.number("min_frames").min(frames)));
    }
    let min_frames = section.number("min_frames");
    let (window, stride) = (section.duration("window"), section.duration("stride"));
    if window > stride.saturating_mul(MAX_OVERLAP) {
        let least = units::show_duration(window / MAX_OVERLAP);
        let why = format!(
            "{} is too short for window = {}: more than {MAX_OVERLAP} windows would overlap; at least {least} \
             would do",
            units::show_duration(stride),
            units::show_duration(window),
        );
        report.mistake(&section.entry("stride").place, why);
    }
    if min_frames > frames {
        let why = format!("{min_frames} is more than frames = {frames}: no clip would ever be described");
        report.mistake(&section.entry("min_frames").place, why);
    }
    let place = &section.entry("uri").place;
    if !has_uri {
        report.mistake(
            place,
            "is missing: every camera needs one, such as uri = \"rtsp://192.0.2.10/stream1\"",
        );
    }
    let parsed =
        if section.is_written("uri") { section.text("uri").parse::<ParsedSource>() } else { Ok(nothing()) };
    let ParsedSource { source, login: in_uri } = parsed.unwrap_or_else(|e| {
        report.mistake(place, e.to_string());
        nothing()
    });
    if let Source::File(path) = &source {
        match path.to_str() {
            Some(path) if path.starts_with("/dev/video") => {
                report.mistake(place, format!("{path:?} is a device: write v4l2://{path}"));
            }
            Some(path) if path.starts_with("~/") => {
                report.mistake(place, format!("{path:?}: ~ is the shell's: write the whole path"));
            }
            _ => {}
        }
    }
    if in_uri.is_some() {
        report.warning(place, "holds credentials: better write them with username and password_file");
        if section.optional("username").is_some() {
            report.mistake(place, "holds credentials, and username is set too: keep one of them");
        }
    }
    let login = in_uri.or_else(|| login(section, report));
    if let Err(why) = check_prompt(section.text("prompt")) {
        report.mistake(&section.entry("prompt").place, why);
    }
    let pipeline = section.optional("pipeline");
    let allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    if let Some(name) = pipeline.filter(|name| name.len() > 64 || !name.bytes().all(allowed)) {
        let why =
            "cannot name a pipeline: write the file's name without folder and ending; a-z, 0-9, '_' and '-'";
        report.mistake(&section.entry("pipeline").place, format!("{name:?} {why}"));
    } else if let Some(name) = pipeline.filter(|name| !PIPELINES.contains(name)) {
        let own = folder.join(PIPELINES_DIR).join(format!("{name}.txt"));
        if !own.is_file() {
            let shipped = PIPELINES.join(", ");
            let why = format!("is none of {shipped}, and there is no file {}", own.display());
            report.mistake(&section.entry("pipeline").place, format!("{name:?} {why}"));
        }
    }
    Camera {
        source: source.relative_to(folder),
        enabled: section.bool("enabled"),
        login,
        pipeline: pipeline.map(Into::into),
        transport: match section.text("transport") {
            "udp" => Transport::Udp,
            "auto" => Transport::Auto,
            _ => Transport::Tcp,
        },
        window,
        stride,
        frames: frames as usize,
        min_frames: min_frames as usize,
        prompt: section.text("prompt").trim().into(),
        max_tokens: section.number("max_tokens") as usize,
        sampling: match section.text("sampling") {
            "rate" => Sampling::Rate,
            "keyframes" => Sampling::Keyframes,
            _ => Sampling::Auto,
        },
        priority: section.number("priority"),
        change_threshold: section.number("change_threshold") as u8,
        heartbeat: section.duration("heartbeat"),
    }
}

/// Stands for a source that could not be read while further mistakes are looked for.
fn nothing() -> ParsedSource {
    ParsedSource { source: Source::File("".into()), login: None }
}

/// `username` and what `password_file` holds: both, or neither.
pub fn login(section: &Section, report: &mut Report) -> Option<Login> {
    let (username, file) = match (section.optional("username"), section.optional("password_file")) {
        (None, None) => return None,
        (Some(username), Some(file)) => (username, file),
        (username, _) => {
            let (has, lacks) = if username.is_some() {
                ("username", "password_file")
            } else {
                ("password_file", "username")
            };
            report.mistake(&section.entry(has).place, format!("needs {lacks} beside it"));
            return None;
        }
    };
    let place = &section.entry("password_file").place;
    match secret::locate(file).and_then(|path| secret::read(&path)) {
        Ok((password, warning)) => {
            if let Some(warning) = warning {
                report.warning(place, warning);
            }
            Some(Login { username: username.into(), password })
        }
        Err(why) => {
            report.mistake(place, why);
            Some(Login { username: username.into(), password: Secret::new("") })
        }
    }
}

/// Whether `prompt` can be asked; if not, what is wrong with it: the rest of a sentence that names it.
pub fn check_prompt(prompt: &str) -> Result<(), String> {
    if prompt.trim().is_empty() {
        return Err("is empty: write what to ask about each clip".into());
    }
    if prompt.len() > MAX_PROMPT_BYTES {
        return Err(format!("is {} bytes long; {MAX_PROMPT_BYTES} are allowed", prompt.len()));
    }
    if prompt.contains(|c: char| c.is_control() && c != '\n') {
        return Err("holds a control character: only line ends are allowed".into());
    }
    match SPECIAL.iter().find(|token| prompt.contains(**token)) {
        Some(token) => Err(format!("holds {token:?}, which means something to the model: remove it")),
        None => Ok(()),
    }
}
