//! Wiring: cameras push clips into the queue, the model's thread takes them out and fills the
//! outbox, the publisher empties it. Stopping goes the same way, stage by stage, so that what was
//! described is delivered.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    capture::{self, CameraConfig, CameraStatus, CaptureError, Credentials, SourceError, State},
    clip::{Question, WindowConfig},
    config::{self, Config, Source},
    describe::{
        DescribeError, Describer,
        smolvlm::{
            Options, SmolVlm,
            device::{DeviceChoice, DtypeChoice},
        },
        worker::{self, Batching, Outcome},
    },
    event::{EventKind, ModelInfo},
    frame::{CameraId, Frame},
    gate::GateConfig,
    hub,
    publish::{
        BrokerAddress, CameraInfo, CameraState, Info, Login, Publisher, Settings, TlsFiles,
        outbox::{Message, Outbox},
    },
    queue::{ClipQueue, Overflow},
};

/// Clips of one camera that wait for the model: one to be taken next, one behind it. More would
/// only make descriptions older.
const CLIPS_PER_CAMERA: NonZeroUsize = NonZeroUsize::new(2).unwrap();
/// How long delivery may go on after everything else has ended.
const DRAIN: Duration = Duration::from_secs(10);
/// JPEG quality of snapshots: artefacts are invisible, and half the bytes of 95.
const SNAPSHOT_QUALITY: u8 = 85;
/// A live camera that gives no picture within this time is started again.
const OPENING: Duration = Duration::from_secs(10);

/// Finds the model and loads it.
///
/// # Errors
/// When it is not there, is damaged, or the device cannot be used.
pub fn load_model(model: &config::Model) -> anyhow::Result<SmolVlm> {
    let found = hub::resolve(&model.id, &model.revision)?;
    let options = Options {
        device: match model.device {
            config::Device::Auto => DeviceChoice::Auto,
            config::Device::Cpu => DeviceChoice::Cpu,
            config::Device::Cuda(n) => DeviceChoice::Cuda(n),
        },
        dtype: match model.dtype {
            config::Dtype::Auto => DtypeChoice::Auto,
            config::Dtype::F32 => DtypeChoice::F32,
            config::Dtype::Bf16 => DtypeChoice::Bf16,
            config::Dtype::F16 => DtypeChoice::F16,
        },
        id: found.id,
        revision: found.revision,
        ..Options::default()
    };
    SmolVlm::load(&found.path, options).with_context(|| format!("model {:?} cannot be used", model.id))
}

/// What capture needs to know about a camera.
///
/// # Errors
/// When the source is of a known kind, but what it asks for cannot be.
pub fn camera_config(
    id: &CameraId,
    camera: &config::Camera,
    pipelines: &Path,
) -> Result<CameraConfig, SourceError> {
    Ok(CameraConfig {
        id: id.clone(),
        source: capture::Source::parse(&camera.source.to_string())?,
        credentials: camera.login.as_ref().map(|login| Credentials {
            username: login.username.clone(),
            password: login.password.expose().to_owned(),
        }),
        transport: match camera.transport {
            config::Transport::Tcp => capture::Transport::Tcp,
            config::Transport::Udp => capture::Transport::Udp,
            config::Transport::Auto => capture::Transport::Auto,
        },
        pipeline: camera.pipeline.clone(),
        pipelines_dir: Some(pipelines.to_owned()),
        sampling: match camera.sampling {
            config::Sampling::Auto => capture::Sampling::Auto,
            config::Sampling::Rate => capture::Sampling::Rate,
            config::Sampling::Keyframes => capture::Sampling::Keyframes,
        },
        window: WindowConfig {
            window: camera.window,
            stride: camera.stride,
            frames: camera.frames,
            min_frames: camera.min_frames,
        },
        question: Arc::new(Question {
            prompt: camera.prompt.clone(),
            max_tokens: camera.max_tokens,
            gate: Some(GateConfig { threshold: camera.change_threshold, heartbeat: camera.heartbeat })
                .filter(|gate| gate.threshold > 0),
        }),
        opening: OPENING,
        retry: true,
    })
}

/// Watches the cameras of `config` and publishes what `describer` says, until `cancel` or until
/// every source has ended.
///
/// # Errors
/// When publishing cannot start, the device fails, or no source could be read.
pub async fn run(
    config: Config,
    describer: Box<dyn Describer>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let model = describer.model();
    let outbox = Arc::new(Outbox::new(usize::try_from(config.outbox.max_bytes).unwrap_or(usize::MAX)));
    let publisher = Arc::new(Publisher::start(publish_settings(&config), Arc::clone(&outbox))?);
    let board = Arc::new(Board::new(model, &config, Arc::clone(&publisher)));
    let queue = Arc::new(ClipQueue::new(CLIPS_PER_CAMERA));

    let cameras_cancel = cancel.child_token();
    let (worker, mut described) = start_worker(describer, &config, Arc::clone(&queue), outbox)?;
    let mut cameras = start_cameras(&config, &queue, &board, &cameras_cancel)?;

    let mut failure = None;
    let mut failed = 0;
    let started = cameras.len();
    loop {
        tokio::select! {
            ended = cameras.join_next() => match ended {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(_))) => failed += 1,
                Some(Err(fault)) => { tracing::error!("a camera's task ended by a fault: {fault}"); failed += 1; }
                None => break,
            },
            result = &mut described => {
                failure = result.ok().and_then(Result::err);
                cameras_cancel.cancel();
                break;
            }
        }
    }
    while cameras.join_next().await.is_some() {}
    queue.close();
    if let Err(fault) = tokio::task::spawn_blocking(move || worker.join()).await? {
        bail!("the model's thread ended by a fault: {fault:?}");
    }
    drop(board);
    let publisher = Arc::into_inner(publisher).context("the publisher is still in use")?;
    match publisher.shutdown(DRAIN).await {
        0 => tracing::info!("every description was delivered"),
        left => {
            tracing::warn!("{left} descriptions were not delivered: the broker did not take them in time")
        }
    }
    if let Some(error) = failure {
        return Err(anyhow!(error).context("the model stopped"));
    }
    if failed == started && started > 0 && !cancel.is_cancelled() {
        bail!("no camera could be read; the lines above say why");
    }
    Ok(())
}

fn publish_settings(config: &Config) -> Settings {
    let mqtt = &config.mqtt;
    Settings {
        broker: BrokerAddress {
            host: mqtt.host.clone(),
            port: mqtt.port,
            tls: mqtt
                .tls
                .as_ref()
                .map(|tls| TlsFiles { ca: tls.ca_file.clone(), client: tls.client_cert_and_key.clone() }),
        },
        login: mqtt.login.as_ref().map(|login| Login {
            username: login.username.clone(),
            password: login.password.expose().to_owned(),
        }),
        node: config.node.id.clone(),
        topic_prefix: mqtt.topic_prefix.clone(),
        discovery_prefix: mqtt.discovery_prefix.clone().unwrap_or_default(),
        cameras: enabled(config).map(|(id, _)| id.clone()).collect(),
    }
}

fn enabled(config: &Config) -> impl Iterator<Item = (&CameraId, &config::Camera)> {
    config.cameras.iter().filter(|(_, camera)| camera.enabled)
}

type Described = oneshot::Receiver<Result<(), DescribeError>>;

fn start_worker(
    mut describer: Box<dyn Describer>,
    config: &Config,
    queue: Arc<ClipQueue>,
    outbox: Arc<Outbox>,
) -> anyhow::Result<(thread::JoinHandle<()>, Described)> {
    let batching = Batching {
        max_batch: NonZeroUsize::new(config.model.max_batch).context("max_batch is 0")?,
        linger: config.model.linger,
    };
    let node = config.node.id.clone();
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("model".into()).spawn(move || {
        let result =
            worker::run(&mut *describer, &queue, batching, &node, |outcome| deliver(outcome, &outbox));
        // Cameras that block on a full queue must not wait for a model that is gone.
        queue.close();
        let _ = tell.send(result);
    })?;
    Ok((thread, told))
}

/// Puts what was described into the outbox.
fn deliver(Outcome { clip, event }: Outcome, outbox: &Outbox) {
    let camera = &clip.camera;
    let event = match event {
        Ok(event) => event,
        Err(error) => return tracing::warn!(%camera, clip = clip.seq, "a clip was not described: {error}"),
    };
    match event.kind {
        EventKind::Description => {
            tracing::info!(%camera, clip = clip.seq, ms = event.timing_ms.total, "{}", event.description);
        }
        EventKind::Unchanged => tracing::debug!(%camera, clip = clip.seq, "unchanged"),
    }
    if event.dropped.clips > 0 {
        tracing::warn!(%camera, "{} older clips were dropped: the model is slower than the cameras", event.dropped.clips);
    }
    // Of what was not described nobody needs a picture: the last one still shows it.
    let middle = clip.frames.get(clip.frames.len() / 2).filter(|_| event.kind == EventKind::Description);
    let snapshot = middle.and_then(|frame| {
        jpeg(frame).inspect_err(|error| tracing::warn!(%camera, "no snapshot: {error}")).ok()
    });
    match Message::new(&event, snapshot) {
        Ok(message) => outbox.append(message),
        Err(error) => tracing::error!(%camera, "an event cannot be written as JSON: {error}"),
    }
}

fn jpeg(frame: &Frame) -> image::ImageResult<Vec<u8>> {
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, SNAPSHOT_QUALITY).encode(
        &frame.rgb,
        frame.width,
        frame.height,
        ExtendedColorType::Rgb8,
    )?;
    Ok(out)
}

fn start_cameras(
    config: &Config,
    queue: &Arc<ClipQueue>,
    board: &Arc<Board>,
    cancel: &CancellationToken,
) -> anyhow::Result<JoinSet<Result<(), CaptureError>>> {
    let mut cameras = JoinSet::new();
    for (id, camera) in &config.cameras {
        if !camera.enabled {
            board.publisher.camera_status(id, CameraState::Disabled, None);
            continue;
        }
        let overflow = match camera.source {
            Source::File(_) => Overflow::Block,
            Source::Rtsp(_) | Source::V4l2(_) | Source::Test(_) => Overflow::DropOldest,
        };
        let settings = camera_config(id, camera, &config.pipelines)
            .with_context(|| format!("camera {id} cannot be watched"))?;
        queue.prioritise(id, camera.priority);
        let (queue, board, cancel) = (Arc::clone(queue), Arc::clone(board), cancel.clone());
        cameras.spawn(async move { watch_camera(settings, queue, overflow, &board, cancel).await });
    }
    Ok(cameras)
}

/// Runs one camera, telling the board how it does.
async fn watch_camera(
    settings: CameraConfig,
    queue: Arc<ClipQueue>,
    overflow: Overflow,
    board: &Board,
    cancel: CancellationToken,
) -> Result<(), CaptureError> {
    let id = settings.id.clone();
    let (status, mut told) = watch::channel(CameraStatus::default());
    // A closed queue means that the daemon is stopping: the clip has nowhere to go.
    let running = capture::run(settings, move |clip| drop(queue.push(clip, overflow)), status, cancel);
    tokio::pin!(running);
    board.camera(&id, &told.borrow_and_update().clone());
    let result = loop {
        tokio::select! {
            result = &mut running => break result,
            Ok(()) = told.changed() => {
                let status = told.borrow_and_update().clone();
                board.camera(&id, &status);
            }
        }
    };
    match result {
        Ok(summary) => {
            tracing::info!(camera = %id, "ended after {} frames in {} clips", summary.frames, summary.clips);
            if let Some(warning) = summary.warning {
                tracing::warn!(camera = %id, "{warning}");
            }
            board.publisher.camera_status(&id, CameraState::Offline, Some("ended"));
            Ok(())
        }
        Err(error) => {
            tracing::error!(camera = %id, "{error}");
            board.publisher.camera_status(&id, CameraState::Offline, Some(&error.to_string()));
            Err(error)
        }
    }
}

/// What is told about the node and its cameras: retained on the broker.
struct Board {
    publisher: Arc<Publisher>,
    info: Mutex<Info>,
    /// What was last said about each camera; a status also moves with every frame.
    said: Mutex<BTreeMap<CameraId, (State, String)>>,
}

impl Board {
    fn new(model: ModelInfo, config: &Config, publisher: Arc<Publisher>) -> Self {
        let cameras: BTreeMap<_, _> =
            enabled(config).map(|(id, _)| (id.clone(), CameraInfo::default())).collect();
        let info = Info { version: env!("CARGO_PKG_VERSION").into(), model, cameras };
        publisher.info(&info);
        Self { publisher, info: Mutex::new(info), said: Mutex::default() }
    }

    fn camera(&self, id: &CameraId, status: &CameraStatus) {
        let news = (status.state, status.why.clone());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.get(id) != Some(&news) {
            let state = match status.state {
                State::Connecting => CameraState::Connecting,
                State::Online => CameraState::Online,
                State::Offline | State::Unauthorised => CameraState::Offline,
            };
            let why = Some(status.why.as_str()).filter(|why| !why.is_empty());
            self.publisher.camera_status(id, state, why);
            said.insert(id.clone(), news);
        }
        let mut info = self.info.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(camera) = info.cameras.get_mut(id)
            && status.decoder.is_some()
            && camera.decoder != status.decoder
        {
            camera.decoder.clone_from(&status.decoder);
            self.publisher.info(&info);
        }
    }
}
