//! `camscribe check --probe`: tests whether the model, the broker and the cameras of the configuration work. All
//! are tested at the same time, and each gets a line as soon as its result is known.

use std::{
    env, fs,
    io::{self, Write},
    net::SocketAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{self, Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use rustix::{
    fs::{Access, FsWord, PROC_SUPER_MAGIC, access, statfs},
    io::Errno,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use super::runtime::runtime;
use crate::{
    app,
    capture::{self, CameraConfig, CameraFacts, CaptureError},
    config::{self, Config},
    describe, hub, image_file, logging,
    look_back::LookBack,
    ownership::user,
    publish::{self, mqtt, outbox},
};

/// How long a camera may take until its first frame.
const FIRST_FRAME_LIMIT: Duration = Duration::from_secs(15);
/// For how long the picture of a camera is kept, which comes before the camera is closed.
const PICTURE_LIMIT: Duration = Duration::from_secs(300);
/// How long another program at the HTTP address may take to answer.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// The most that is read of its answer, bytes.
const MAX_METRICS: u64 = 1 << 20;
/// What camscribe keeps in its state directory.
const STATE_FILES: [&str; 10] = [
    "lock",
    "outbox.db",
    "outbox.db-wal",
    "outbox.db-shm",
    "history.db",
    "history.db-wal",
    "history.db-shm",
    "orders.json",
    "retained.json",
    "views.json",
];
/// What a state directory needs at least to be of use, bytes.
const LEAST_ROOM: u64 = 1 << 20;
/// The file systems of /proc and /sys, whose folders only look as if they could be written to (statfs(2)).
const KERNEL_FILE_SYSTEMS: [FsWord; 2] = [PROC_SUPER_MAGIC, 0x6265_6572];
/// Cameras that are tested at the same time: each decodes with threads of its own.
const CAMERAS_AT_ONCE: usize = 8;

/// The result of testing one thing.
struct ProbeResult {
    /// What was tested.
    subject: String,
    /// A fact, or what is wrong and what to do about it.
    outcome: Result<String, String>,
}

/// Tests everything that `config` names and prints a line for each on standard output. Writes the pictures of the cameras
/// into the folder `preview`, if there is one.
///
/// # Errors
/// When a test fails, or the folder cannot be made.
pub fn run(config: &Config, preview: Option<&Path>) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    if let Some(folder) = preview {
        prepare(folder)?;
    }
    let runtime = runtime()?;
    let result = runtime.block_on(probe(config, preview));
    // A pipeline that does not stop must not delay the exit.
    runtime.shutdown_background();
    result
}

/// Makes the folder for pictures, unless nobody would find it.
fn prepare(folder: &Path) -> anyhow::Result<()> {
    // systemd sets it for what it runs (systemd.exec(5)).
    if env::var_os("INVOCATION_ID").is_some() && is_hidden_from_services(&path::absolute(folder)?) {
        bail!(
            "the sandbox of the service hides {}: name a folder below its state directory with --preview, such as \
             /var/lib/camscribe/preview",
            folder.display()
        );
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.with_context(|| format!("the folder {} cannot be made", folder.display()))
}

async fn probe(config: &Config, preview: Option<&Path>) -> anyhow::Result<()> {
    let mut probes = JoinSet::new();
    let model = config.model.clone();
    probes.spawn_blocking(move || probe_model(&model));
    probes.spawn(probe_broker(app::publish_settings(config, None)));
    if let Some(address) = config.http.listen {
        probes.spawn(probe_http(address, config.http.clone(), config.node.state_dir.clone()));
    }
    if let Some(folder) = config.node.state_dir.clone() {
        probes.spawn_blocking(move || probe_state_dir(&folder));
    }
    let permits = Arc::new(Semaphore::new(CAMERAS_AT_ONCE));
    for (id, camera) in app::enabled(config) {
        let settings = app::camera_config(id, camera, &config.pipelines);
        let permits = Arc::clone(&permits);
        let picture = preview.map(|folder| folder.join(format!("{id}.jpg")));
        probes.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            probe_camera(settings, picture).await
        });
    }
    let (all, mut failed) = (probes.len(), 0);
    while let Some(result) = probes.join_next().await {
        let ProbeResult { subject, outcome } = result?;
        let (word, text) = match outcome {
            Ok(text) => ("ok", text),
            Err(text) => {
                failed += 1;
                ("failed", text)
            }
        };
        writeln!(io::stdout(), "{word:8}{subject}: {text}")?;
    }
    match failed {
        0 => Ok(()),
        _ => bail!("{failed} of {all} tests failed: the lines above say what to fix"),
    }
}

/// Finds the model and reads all of its files except the weights.
fn probe_model(model: &config::ModelSettings) -> ProbeResult {
    let found = || -> anyhow::Result<String> {
        let hub::ModelDir { path, .. } = hub::resolve(&model.id, &model.revision)?;
        let target = describe::probe(&path, model.device, model.dtype)?;
        Ok(format!("it is in {} and runs on {target}", path.display()))
    };
    ProbeResult { subject: format!("model {}", model.id), outcome: found().map_err(|e| format!("{e:#}")) }
}

async fn probe_broker(settings: publish::Settings) -> ProbeResult {
    let outcome = mqtt::probe(&settings).await;
    ProbeResult {
        subject: format!("broker {}", settings.broker),
        outcome: outcome
            .map(|()| "accepts our login (permission to publish was not tested)".into())
            .map_err(|e| e.to_string()),
    }
}

/// Listens for a moment, unless a camscribe does already.
async fn probe_http(
    address: SocketAddr,
    http: config::HttpSettings,
    state_dir: Option<PathBuf>,
) -> ProbeResult {
    let runs = async || {
        // Its certificate need not be for a name that is known here, and no token goes to whoever listens there.
        if http.tls.is_some() || http.token.is_some() {
            state_dir.is_some_and(|folder| outbox::is_in_use(&folder))
        } else {
            is_camscribe(address).await
        }
    };
    let outcome = match TcpListener::bind(address).await {
        Ok(_) => Ok("is free".into()),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && runs().await => {
            Ok("is in use by a camscribe that runs".into())
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Err("another program listens there: end it, or set http.listen".into())
        }
        Err(error) => Err(format!("cannot be listened on: {error}: set http.listen")),
    };
    ProbeResult { subject: format!("HTTP address {address}"), outcome }
}

/// Whether a camscribe answers at this address.
async fn is_camscribe(address: SocketAddr) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        stream.take(MAX_METRICS).read_to_end(&mut answer).await?;
        Ok::<_, io::Error>(String::from_utf8_lossy(&answer).contains("camscribe_build_info"))
    };
    timeout(HTTP_LIMIT, ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Whether the state directory can be written to, or made. Nothing is written.
fn probe_state_dir(folder: &Path) -> ProbeResult {
    let subject = format!("state directory {}", folder.display());
    ProbeResult { subject, outcome: can_be_state_dir(folder).map(Into::into) }
}

/// Whether a folder can be written to, or made, in words.
///
/// # Errors
/// Why not.
fn can_be_state_dir(folder: &Path) -> Result<&'static str, String> {
    let path = path::absolute(folder).map_err(|error| error.to_string())?;
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(&path);
    if !existing.is_dir() {
        return Err(format!("{} is not a folder: set node.state_dir to another", existing.display()));
    }
    let refused = |path: &Path, error: Errno| {
        let advice = match error {
            Errno::ROFS => format!(
                "the disk is mounted read-only, or the sandbox of the service does so: set ReadWritePaths={} with \
                 systemctl edit camscribe",
                folder.display()
            ),
            _ => format!("give it to the user {}", user()),
        };
        format!("{} cannot be written to: {}: {advice}", path.display(), io::Error::from(error))
    };
    let file_system = statfs(existing).map_err(|error| refused(existing, error))?;
    if KERNEL_FILE_SYSTEMS.contains(&file_system.f_type) {
        return Err(format!(
            "{} holds no files of programs: set node.state_dir to another folder",
            existing.display()
        ));
    }
    access(existing, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| refused(existing, error))?;
    // What another user has left in it, such as root.
    let files = STATE_FILES.map(|name| path.join(name));
    for file in files.iter().filter(|file| file.is_file()) {
        access(file, Access::WRITE_OK).map_err(|error| refused(file, error))?;
    }
    let free = file_system.f_bavail.saturating_mul(file_system.f_bsize as u64);
    // Some file systems state no size.
    if file_system.f_blocks > 0 && free < LEAST_ROOM {
        return Err(format!("the disk of {} has {free} bytes left: make room", existing.display()));
    }
    if outbox::is_in_use(&path) {
        return Ok("is used by a camscribe that runs");
    }
    Ok(if existing == path { "can be written to" } else { "will be made" })
}

/// Opens a camera for a moment, and writes a `picture` of it.
async fn probe_camera(settings: CameraConfig, picture: Option<PathBuf>) -> ProbeResult {
    let subject = format!("camera {}", settings.id);
    // One of an earlier run would be taken for what is seen now.
    if let Some(old) = &picture
        && let Err(error) = fs::remove_file(old)
        && error.kind() != io::ErrorKind::NotFound
    {
        let outcome = Err(format!("{} cannot be removed: {error}", old.display()));
        return ProbeResult { subject, outcome };
    }
    let newest = Arc::new(LookBack::of_newest(PICTURE_LIMIT));
    let settings = CameraConfig { look_back: picture.is_some().then(|| Arc::clone(&newest)), ..settings };
    let outcome = capture::probe(settings, FIRST_FRAME_LIMIT).await.map(facts_text).map_err(with_advice);
    let (Ok(facts), Some(picture)) = (&outcome, picture) else { return ProbeResult { subject, outcome } };
    let written = format!("{facts}; its picture is in {}", picture.display());
    let writing = tokio::task::spawn_blocking(move || write_picture(&newest, &picture)).await;
    let outcome = writing.unwrap_or_else(|panic| Err(panic.to_string())).map(|()| written);
    ProbeResult { subject, outcome }
}

/// Writes the newest frame as a JPEG file, which only its owner can read.
///
/// # Errors
/// Why it cannot be written.
fn write_picture(newest: &LookBack, file: &Path) -> Result<(), String> {
    let frames = newest.last(PICTURE_LIMIT, 1);
    let frame = frames.first().ok_or("it has shown nothing to write as its picture: try again")?;
    let jpeg = image_file::jpeg(frame).map_err(|error| format!("no picture can be made of it: {error}"))?;
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    opened
        .and_then(|mut file| file.write_all(&jpeg))
        .map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

/// What is known of a camera, as text.
fn facts_text(facts: CameraFacts) -> String {
    let CameraFacts { size: (width, height), decoder, frame_rate, sampling, warning } = facts;
    let mut text = format!("video of {width}x{height}");
    if let Some(rate) = frame_rate {
        text += &format!(", {} frames a second", (rate * 100.0).round() / 100.0);
    }
    if let Some(decoder) = decoder {
        text += &format!(", decoded by {decoder}");
    }
    if let Some(sampling) = sampling {
        text += &format!(", sampled by {sampling}");
    }
    if let Some(warning) = warning {
        text += &format!("; {warning}");
    }
    text
}

/// Whether systemd, which runs this as the service, hides a path from it.
fn is_hidden_from_services(path: &Path) -> bool {
    let hidden = ["/home", "/root", "/run/user", "/tmp", "/var/tmp"];
    env::var_os("STATE_DIRECTORY").is_some() && hidden.iter().any(|folder| path.starts_with(folder))
}

/// The error, its causes, and which setting to check.
fn with_advice(error: CaptureError) -> String {
    use CaptureError as E;
    let advice = match &error {
        E::Unreadable { path, .. } | E::NoFile(path) if is_hidden_from_services(path) => {
            "the sandbox of the service hides /home, /root and /tmp: keep it in another folder"
        }
        E::Unauthorised(_) => "check username and password_file of this camera",
        E::NoFile(_)
        | E::NotMedia(_)
        | E::Refused { .. }
        | E::NoVideo(_)
        | E::NoStream(_)
        | E::NoDevice(_) => "check its uri",
        E::Unreadable { .. } => "give the user that camscribe runs as permission to read it",
        E::Damaged { .. } | E::NoIndex(_) => "record or copy it again",
        E::Busy(_) => "end the other program",
        E::Stalled { .. } => "check its uri, and try another transport",
        E::Ended(_) | E::Undecodable { .. } => "check the camera",
        E::View { .. } => "change its crop, or the size of its pictures",
        E::Other { .. } => "RUST_LOG=debug says more",
        // The texts of these already say what to do.
        E::UnknownHost { .. }
        | E::Unreachable { .. }
        | E::NoDatagrams(_)
        | E::NoTimes(_)
        | E::NoParameterSets { .. }
        | E::NoPictures { .. }
        | E::MissingPlugin { .. }
        | E::TooLarge { .. }
        | E::TooLong(_)
        | E::TooManyPixels { .. }
        | E::UnknownLogin { .. }
        | E::HungUp { .. }
        | E::Tls { .. }
        | E::Pipeline(_)
        | E::Window(_)
        | E::Gstreamer(_) => "",
    };
    let colon = if advice.is_empty() { "" } else { ": " };
    format!("{:#}{colon}{advice}", anyhow::Error::new(error))
}
