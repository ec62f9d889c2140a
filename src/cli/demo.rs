//! `camscribe demo`: everything at work without camera, broker or download. A synthetic camera shows moving
//! shapes, the built-in model describes them, an embedded broker on loopback delivers the events, a
//! subscriber prints them, each beside what was really drawn, and the page shows them.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::runtime::runtime;
use crate::{
    alert::AlertRule,
    app,
    config::{self, Config, FrameSampling, Origin, ParsedSource, Source, test_source::TestSource, units},
    decision::Decision,
    event::Event,
    logging,
    prompt_spec::{NamedQuestion, PromptSpec},
    publish::mqtt::{embedded_broker::EmbeddedBroker, subscribe},
    shutdown,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port of the embedded broker on loopback; 0 picks a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port: u16,
    /// Port of the page on loopback; 0 picks a free one [default: 9180, or a free one where that is taken]
    #[arg(long, value_name = "N")]
    pub http_port: Option<u16>,
    /// Stop after this time [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
}

/// The length of a scene and of a clip. They begin together, so that each clip shows one scene.
const SCENE: Duration = Duration::from_secs(4);
const CAMERA: &str = "shapes";
const PREFIX: &str = "camscribe";
/// The page's port, if it is free.
const HTTP_PORT: u16 = 9180;
/// What is asked beside the description, and raises an alert.
const QUESTION: (&str, &str) = ("red_circle", "Is there a red circle?");

/// Runs until a signal stops it.
///
/// # Errors
/// When the port is in use; otherwise as [`app::run`].
pub fn run(args: DemoArgs) -> anyhow::Result<()> {
    logging::init("warn", logging::Format::Auto);
    let runtime = runtime()?;
    let result = runtime.block_on(demonstrate(args));
    // A thread that hangs must not delay the exit.
    runtime.shutdown_background();
    result
}

async fn demonstrate(args: DemoArgs) -> anyhow::Result<()> {
    let cancel = shutdown::on_signal()?.token;
    let broker = EmbeddedBroker::start(args.port).await.with_context(|| {
        format!("cannot listen on 127.0.0.1:{} for the broker: choose another --port", args.port)
    })?;
    let ParsedSource { source, .. } = format!("test://shapes?period={}s", SCENE.as_secs()).parse()?;
    let Origin::Synthetic(truth) = source.origin().clone() else {
        unreachable!("test:// is a synthetic source")
    };
    let state = StateDir::make().context("cannot make a folder for the history")?;
    let page = page_address(args.http_port)?;
    let config = config(broker.port(), page, &state.0, source)?;
    let model = config.model.clone();
    let describer = tokio::task::spawn_blocking(move || app::load_model(&model)).await??;

    writeln!(
        io::stdout(),
        "A synthetic camera shows moving shapes; a model describes every {} seconds of it.\n\
         See it in a browser: http://{page}/\n\
         See it from another terminal: mosquitto_sub -V 5 -p {} -v -t '{PREFIX}/#'\n\
         Ctrl-C ends it.\n",
        SCENE.as_secs(),
        broker.port()
    )?;
    let (port, filter) = (broker.port(), format!("{PREFIX}/#"));
    let closed = cancel.clone();
    let subscriber = tokio::spawn(async move {
        let print = |topic: &str, payload: &[u8]| {
            // Nobody reads any more.
            if print(topic, payload, &truth).is_err() {
                closed.cancel();
            }
        };
        let Err(error) = subscribe(port, &filter, print).await;
        logging::tell(format_args!("error: {error}"));
    });
    if let Some(duration) = args.duration {
        let cancel = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(duration).await;
            cancel.cancel();
        });
    }
    let result = app::run(config, move |_| Ok(describer), None, cancel).await;
    subscriber.abort();
    result
}

/// A folder that is removed in the end.
struct StateDir(PathBuf);

impl StateDir {
    fn make() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("camscribe-demo-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path).map(|()| Self(path))
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Nothing can be done about it, and little is in it.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the page is: at its usual port, or at a free one.
fn page_address(port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|it| it.local_addr());
    match port {
        Some(port) => free(port).with_context(|| {
            format!("cannot listen on 127.0.0.1:{port} for the page: choose another --http-port")
        }),
        None => Ok(free(HTTP_PORT).or_else(|_| free(0))?),
    }
}

/// The demo's configuration.
fn config(port: u16, page: SocketAddr, state: &Path, source: Source) -> anyhow::Result<Config> {
    let (name, ask) = QUESTION;
    let question = NamedQuestion {
        name: name.into(),
        decision: Decision::Predicate { instructions: ask.into() },
        calibration: None,
    };
    let alert = AlertRule {
        question: name.into(),
        answer: "yes".into(),
        on: 0.8,
        off: 0.5,
        of: 1,
        last: 1,
        min_confidence: 0.0,
        min_duration: Duration::ZERO,
        cool_down: Duration::ZERO,
        device_class: None,
    };
    let camera = config::CameraSettings {
        window: SCENE,
        stride: SCENE,
        prompt_spec: PromptSpec {
            questions: vec![question],
            alerts: BTreeMap::from([(name.into(), alert)]),
            ..PromptSpec::new(config::default_prompt(crate::hub::BUILTIN), 48)
        },
        sampling: FrameSampling::Rate,
        ..config::CameraSettings::new(source)
    };
    Ok(Config {
        node: config::NodeSettings { id: "demo".into(), state_dir: Some(state.into()) },
        model: config::ModelSettings {
            id: crate::hub::BUILTIN.into(),
            revision: String::new(),
            max_batch: 1,
            linger: Duration::ZERO,
            ..config::ModelSettings::default()
        },
        mqtt: config::MqttSettings {
            host: "127.0.0.1".into(),
            port,
            version: config::MqttVersion::V5,
            topic_prefix: PREFIX.into(),
            discovery_prefix: None,
            ..config::MqttSettings::default()
        },
        outbox: config::OutboxSettings { on_disk: false, max_bytes: 16 << 20, snapshot_bytes: 16 << 20 },
        history: config::HistorySettings {
            max_bytes: 256 << 20,
            frames: config::KeptFrames::All,
            ..config::HistorySettings::default()
        },
        http: config::HttpSettings { listen: Some(page), ..config::HttpSettings::default() },
        log: config::LogSettings::default(),
        cameras: BTreeMap::from([(CAMERA.parse()?, camera)]),
        pipelines: PathBuf::new(),
    })
}

/// Prints a message as a subscriber receives it, and a description beside what was drawn.
fn print(topic: &str, payload: &[u8], truth: &TestSource) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if topic.ends_with("/snapshot") {
        writeln!(out, "{topic}  (a JPEG of {} bytes)", payload.len())
    } else if ["/latest", "/alerts"].iter().any(|end| topic.ends_with(end)) || is_finding(topic) {
        // The same event as on …/description, retained by the broker, and parts of it.
        Ok(())
    } else if topic.ends_with("/description")
        && let Ok(event) = serde_json::from_slice::<Event>(payload)
    {
        writeln!(out, "{topic}\n  described: {}", event.description)?;
        let start = event.clip.frames.first().map_or(0.0, |f| f.pts_s - f.offset_s);
        match truth.truth(Duration::from_secs_f64(start.max(0.0)), SCENE) {
            Some(drawn) => writeln!(out, "  drawn:     {drawn}"),
            None => Ok(()),
        }
    } else {
        writeln!(out, "{topic}  {}", String::from_utf8_lossy(payload))
    }
}

/// Whether this is the topic of an answer or an alert.
fn is_finding(topic: &str) -> bool {
    topic.contains("/answer/") || topic.contains("/alert/")
}
