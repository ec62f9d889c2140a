//! Wiring: cameras push clips into the queue, the model's thread takes them out and fills the
//! outbox, the publisher empties it. Stopping goes the same way, stage by stage, so that what was
//! described is delivered.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use chrono::Utc;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    board::Board,
    cameras::{Cameras, Site, plans},
    former::Former,
    life::{Life, Stage},
    model::{Bench, Model, Warm},
    reload::InForce,
};
use crate::{
    camera::CameraId,
    config::{self, Config},
    describe::{
        Describer,
        smolvlm::{Options, SmolVlm},
    },
    http, hub,
    metrics::{Metrics, Readings},
    publish::{
        BrokerAddress, Settings, TlsFiles,
        command::Command,
        outbox::{InUse, Limits, Outbox, Place},
    },
    queue::{CLIPS_PER_CAMERA, ClipQueue},
};

mod board;
mod cameras;
mod former;
pub mod life;
mod model;
mod orders;
mod reload;
mod state;

pub use cameras::{camera_config, overflow};
pub use reload::Reload;

/// So many commands may wait; more at a time are refused.
const COMMANDS: usize = 16;
/// How long delivery may go on after everything else has ended.
const DRAIN: Duration = Duration::from_secs(10);

/// Finds the model and loads it.
///
/// # Errors
/// When it is not there, is damaged, or the device cannot be used.
pub fn load_model(model: &config::Model) -> anyhow::Result<SmolVlm> {
    let found = hub::resolve(&model.id, &model.revision)?;
    let options = Options {
        device: model.device,
        dtype: model.dtype,
        kernels: model.kernels,
        id: found.id,
        revision: found.revision,
        ..Options::default()
    };
    SmolVlm::load(&found.path, options).with_context(|| format!("model {:?} cannot be used", model.id))
}

/// Watches the cameras of `config` and publishes what the model that `load` gives says, until
/// `stop` or until every source has ended. Reads the configuration again when `reload` asks for it.
///
/// # Errors
/// When publishing cannot start, the model does not work, or no source could be read.
pub async fn run(
    config: Config,
    load: impl FnOnce(&config::Model) -> anyhow::Result<Box<dyn Describer>> + Send + 'static,
    mut reload: Option<Reload>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (orderers, mut orders) = mpsc::channel(COMMANDS);
    let mut in_force = InForce::new(config, orderers);
    let config = in_force.config();
    let prepared = in_force.prepare()?;
    let plans = plans(config)?;
    let (metrics, life) = (Arc::new(Metrics::new()), Arc::new(Life::default()));
    let outbox = Arc::new(open_outbox(config)?);
    let queue = Arc::new(ClipQueue::new(CLIPS_PER_CAMERA));
    let former = Former::read(config.node.state_dir.as_deref());
    let board = Arc::new(Board::new(Arc::clone(&metrics), Arc::clone(&outbox), former));
    let bench = Bench { queue, outbox: Arc::clone(&outbox), metrics, life };
    let Bench { queue, metrics, life, .. } = bench.clone();

    // Ends with this function, whichever way it ends.
    let mut services = JoinSet::new();
    if let Some(address) = config.http.listen {
        services.spawn(http::serve(http::bind(address).await?, pages(&bench, &board)));
    }
    services.spawn(Arc::clone(&life).reassure());

    life.enter(Stage::Loading);
    let mut model = Model::start(load, config, bench)?;
    let warm = tokio::select! {
        warm = &mut model.warm => warm,
        () = stop.cancelled() => {
            // Loading cannot be interrupted; nothing is lost by leaving it to the end of the process.
            life.enter(Stage::Stopping);
            return Ok(());
        }
    };
    let Ok(Warm { info, gpu, frame_edge }) = warm else {
        model.ended.await.context("the model's thread ended by a fault")??;
        bail!("the model's thread ended before its work began");
    };
    board.open(prepared, info, gpu, config.cameras.keys());
    let site = Site { queue: Arc::clone(&queue), board: Arc::clone(&board), metrics, edge: frame_edge };
    for (id, _) in config.cameras.iter().filter(|(_, camera)| !camera.enabled) {
        board.disable(id);
    }
    in_force.tell_settings(&site);
    let mut cameras = Cameras::new(site.clone(), stop.child_token());
    plans.into_values().for_each(|plan| cameras.start(plan));
    life.enter(Stage::Watching(cameras.count()));

    let failure = loop {
        tokio::select! {
            () = cameras.run_out(in_force.may_grow()) => break None,
            () = stop.cancelled() => break None,
            result = &mut model.ended => break result.ok().and_then(Result::err),
            file = Reload::asked(&mut reload) => {
                life.enter(Stage::Reloading);
                in_force.reload(file, &mut cameras, &site).await;
                life.enter(Stage::Watching(cameras.count()));
            }
            Some(command) = orders.recv() => {
                in_force.obey(command, &mut cameras, &site).await;
                life.enter(Stage::Watching(cameras.count()));
            }
        }
    };
    life.enter(Stage::Stopping);
    cameras.end().await;
    // Whatever has become of the model, what was described is delivered.
    let finished = model.finish(&queue).await;
    match board.close(DRAIN).await {
        0 => tracing::info!("every description was delivered"),
        left => match outbox.status().place {
            Place::Disk => {
                tracing::warn!("{left} descriptions wait on disk: they are delivered after the next start")
            }
            Place::Memory { .. } => {
                tracing::error!("{left} descriptions are lost: the broker did not take them in time")
            }
        },
    }
    finished?;
    match failure {
        Some(error) => Err(error),
        None if cameras.all_failed() && !stop.is_cancelled() => {
            bail!("no camera could be read; the lines above say why")
        }
        None => Ok(()),
    }
}

/// # Errors
/// When another process uses the state directory.
fn open_outbox(config: &Config) -> Result<Outbox, InUse> {
    let config::Outbox { max_bytes, snapshot_bytes } = config.outbox;
    let limits = Limits { events: max_bytes, snapshots: snapshot_bytes };
    match &config.node.state_dir {
        Some(folder) => Outbox::open(folder, limits),
        None => Ok(Outbox::in_memory(limits)),
    }
}

/// What publishing needs to know. `commands`: who obeys them, if the configuration lets them be heard.
pub fn publish_settings(config: &Config, commands: Option<&mpsc::Sender<Command>>) -> Settings {
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
        version: mqtt.version,
        login: mqtt.login.clone(),
        node: config.node.id.clone(),
        topic_prefix: mqtt.topic_prefix.clone(),
        discovery_prefix: mqtt.discovery_prefix.clone().unwrap_or_default(),
        cameras: config.cameras.keys().cloned().collect(),
        commands: commands.filter(|_| mqtt.commands).cloned(),
    }
}

/// The cameras that are watched.
pub fn enabled(config: &Config) -> impl Iterator<Item = (&CameraId, &config::Camera)> {
    config.cameras.iter().filter(|(_, camera)| camera.enabled)
}

/// Who answers over HTTP.
fn pages(bench: &Bench, board: &Arc<Board>) -> http::Pages {
    let Bench { queue, outbox, metrics, life } = bench.clone();
    let (board, healthy) = (Arc::clone(board), Arc::clone(&life));
    http::Pages {
        metrics: Box::new(move || metrics.page(&readings(&queue, &outbox, &board))),
        health: Box::new(move || healthy.health()),
        ready: Box::new(move || life.ready()),
    }
}

/// What stands on the page of metrics and is known elsewhere.
fn readings(queue: &ClipQueue, outbox: &Outbox, board: &Board) -> Readings {
    let waiting = outbox.status();
    Readings {
        cameras: board.readings(),
        queue: queue.len(),
        queue_age: queue.age(),
        overload: queue.dropped(),
        outbox: waiting.rows,
        outbox_bytes: waiting.bytes,
        outbox_age: waiting
            .oldest
            .map_or(Duration::ZERO, |made| (Utc::now() - made).to_std().unwrap_or_default()),
        outbox_on_disk: waiting.place == Place::Disk,
        outbox_dropped_snapshots: waiting.dropped_snapshots,
        outbox_dropped: waiting.dropped,
        outbox_set_aside: waiting.set_aside,
        broker_connected: board.connected(),
    }
}
