//! `camscribe demo`: everything at work without camera, broker or download. A synthetic camera shows moving
//! shapes, the built-in model describes them, an embedded broker on loopback delivers the events, and a
//! subscriber prints them, each beside what was really drawn.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    time::Duration,
};

use anyhow::Context;
use clap::Args;

use super::runtime::runtime;
use crate::{
    app,
    config::{self, Config, FrameSampling, Origin, ParsedSource, Source, test_source::TestSource, units},
    event::Event,
    logging,
    prompt_spec::PromptSpec,
    publish::mqtt::{embedded_broker::EmbeddedBroker, subscribe},
    shutdown,
};

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Port of the embedded broker on loopback; 0 picks a free one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub port: u16,
    /// Stop after this time [default: run until Ctrl-C]
    #[arg(long = "for", value_name = "DURATION", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
}

/// The length of a scene and of a clip. They begin together, so that each clip shows one scene.
const SCENE: Duration = Duration::from_secs(4);
const CAMERA: &str = "shapes";
const PREFIX: &str = "camscribe";

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
    let config = config(broker.port(), source)?;
    let model = config.model.clone();
    let describer = tokio::task::spawn_blocking(move || app::load_model(&model)).await??;

    writeln!(
        io::stdout(),
        "A synthetic camera shows moving shapes; a model describes every {} seconds of it.\n\
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

/// The demo's configuration.
fn config(port: u16, source: Source) -> anyhow::Result<Config> {
    let camera = config::CameraSettings {
        window: SCENE,
        stride: SCENE,
        prompt_spec: PromptSpec::new(config::default_prompt(crate::hub::BUILTIN), 48),
        sampling: FrameSampling::Rate,
        ..config::CameraSettings::new(source)
    };
    Ok(Config {
        node: config::NodeSettings { id: "demo".into(), state_dir: None },
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
            commands: false,
            ..config::MqttSettings::default()
        },
        outbox: config::OutboxSettings { on_disk: false, max_bytes: 16 << 20, snapshot_bytes: 16 << 20 },
        http: config::HttpSettings { listen: None, ..config::HttpSettings::default() },
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
    } else if topic.ends_with("/latest") {
        // The same event as on …/description, retained by the broker.
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
