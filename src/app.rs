//! Wiring: cameras push clips into the queue, the model's thread takes them out and fills the
//! outbox, the publisher empties it. Stopping goes the same way, stage by stage, so that what was
//! described is delivered.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use chrono::Utc;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use self::{
    active_config::ActiveConfig,
    cameras::{CameraDeps, Cameras, camera_specs},
    model::{Bench, Model, Warm},
    retained_topics::RetainedTopics,
    status_reporter::StatusReporter,
};
use crate::{
    config::{self, Config},
    describe::{self, Describer, LoadOptions},
    http, hub,
    lifecycle::{Lifecycle, Phase},
    metrics::{Metrics, Readings},
    publish::outbox::{InUse, Limits, Outbox, Storage},
    queue::{CLIPS_PER_CAMERA, ClipQueue},
};

mod active_config;
mod cameras;
mod config_change;
mod model;
mod overrides;
mod reload;
mod retained_topics;
mod settings;
mod state_file;
mod status_reporter;

pub use reload::Reload;
pub use settings::{camera_config, enabled, overflow, publish_settings};

/// So many commands may wait; more at a time are refused.
const COMMANDS: usize = 16;
/// How long delivery may go on after everything else has ended.
const DRAIN: Duration = Duration::from_secs(10);

/// Finds the model and loads it.
///
/// # Errors
/// When it is not there, is damaged, or the device cannot be used.
pub fn load_model(model: &config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> {
    let found = hub::resolve(&model.id, &model.revision)?;
    let options = LoadOptions {
        device: model.device,
        dtype: model.dtype,
        kernels: model.kernels,
        id: found.id,
        revision: found.revision,
    };
    describe::load(&found.path, options).with_context(|| format!("model {:?} cannot be used", model.id))
}

/// Watches the cameras of `config` and publishes what the model that `load` gives says, until
/// `stop` or until every source has ended. Reads the configuration again when `reload` asks for it.
///
/// # Errors
/// When publishing cannot start, the model does not work, or no source could be read.
pub async fn run(
    config: Config,
    load: impl FnOnce(&config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> + Send + 'static,
    mut reload: Option<Reload>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (command_sender, mut commands) = mpsc::channel(COMMANDS);
    let mut active = ActiveConfig::new(config, command_sender);
    let config = active.config();
    let prepared = active.prepare()?;
    let specs = camera_specs(config)?;
    let (metrics, lifecycle) = (Arc::new(Metrics::new()), Arc::new(Lifecycle::default()));
    let outbox = Arc::new(open_outbox(config)?);
    let queue = Arc::new(ClipQueue::new(CLIPS_PER_CAMERA));
    let topics = RetainedTopics::read(config.node.state_dir.as_deref());
    let reporter = Arc::new(StatusReporter::new(Arc::clone(&metrics), Arc::clone(&outbox), topics));
    let bench = Bench { queue, outbox: Arc::clone(&outbox), metrics, lifecycle };
    let Bench { queue, metrics, lifecycle, .. } = bench.clone();

    // Ends with this function, whichever way it ends.
    let mut services = JoinSet::new();
    if let Some(address) = config.http.listen {
        services.spawn(http::serve(http::bind(address).await?, status_source(&bench, &reporter)));
    }
    services.spawn(Arc::clone(&lifecycle).watchdog());

    lifecycle.enter(Phase::Loading);
    let mut model = Model::start(load, config, bench)?;
    let warm = tokio::select! {
        warm = &mut model.warm => warm,
        () = stop.cancelled() => {
            // Loading cannot be interrupted; nothing is lost by leaving it to the end of the process.
            lifecycle.enter(Phase::Stopping);
            return Ok(());
        }
    };
    let Ok(Warm { info, gpu, frame_scaling }) = warm else {
        model.ended.await.context("the model's thread ended by a fault")??;
        bail!("the model's thread ended before its work began");
    };
    reporter.open(prepared, info, gpu, config.cameras.keys());
    let deps =
        CameraDeps { queue: Arc::clone(&queue), reporter: Arc::clone(&reporter), metrics, frame_scaling };
    for (id, _) in config.cameras.iter().filter(|(_, camera)| !camera.enabled) {
        reporter.disable(id);
    }
    active.publish_camera_settings(&deps);
    let mut cameras = Cameras::new(deps.clone(), stop.child_token());
    specs.into_values().for_each(|spec| cameras.start(spec));
    lifecycle.enter(Phase::Watching(cameras.count()));

    let failure = loop {
        tokio::select! {
            () = cameras.wait_all_ended(active.more_may_start()) => break None,
            () = stop.cancelled() => break None,
            result = &mut model.ended => break result.ok().and_then(Result::err),
            file = Reload::requested(&mut reload) => {
                lifecycle.enter(Phase::Reloading);
                active.reload(file, &mut cameras, &deps).await;
                lifecycle.enter(Phase::Watching(cameras.count()));
            }
            Some(command) = commands.recv() => {
                active.apply_command(command, &mut cameras, &deps).await;
                lifecycle.enter(Phase::Watching(cameras.count()));
            }
        }
    };
    lifecycle.enter(Phase::Stopping);
    cameras.stop_all().await;
    // Whatever has become of the model, what was described is delivered.
    let finished = model.finish(&queue).await;
    match reporter.close(DRAIN).await {
        0 => tracing::info!("every description was delivered"),
        left => match outbox.status().storage {
            Storage::Disk => {
                tracing::warn!("{left} descriptions wait on disk: they are delivered after the next start")
            }
            Storage::Memory { .. } => {
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
    let config::OutboxSettings { max_bytes, snapshot_bytes } = config.outbox;
    let limits = Limits { events: max_bytes, snapshots: snapshot_bytes };
    match &config.node.state_dir {
        Some(folder) => Outbox::open(folder, limits),
        None => Ok(Outbox::in_memory(limits)),
    }
}

/// What the HTTP server answers.
fn status_source(bench: &Bench, reporter: &Arc<StatusReporter>) -> http::StatusSource {
    let Bench { queue, outbox, metrics, lifecycle } = bench.clone();
    let (reporter, healthy) = (Arc::clone(reporter), Arc::clone(&lifecycle));
    http::StatusSource {
        metrics: Box::new(move || metrics.page(&readings(&queue, &outbox, &reporter))),
        health: Box::new(move || healthy.health()),
        ready: Box::new(move || lifecycle.ready()),
    }
}

/// The metrics that other modules know.
fn readings(queue: &ClipQueue, outbox: &Outbox, reporter: &StatusReporter) -> Readings {
    let waiting = outbox.status();
    Readings {
        cameras: reporter.readings(),
        queue: queue.len(),
        queue_age: queue.age(),
        overload: queue.dropped(),
        outbox: waiting.rows,
        outbox_bytes: waiting.bytes,
        outbox_age: waiting
            .oldest
            .map_or(Duration::ZERO, |made| (Utc::now() - made).to_std().unwrap_or_default()),
        outbox_on_disk: waiting.storage == Storage::Disk,
        outbox_dropped_snapshots: waiting.dropped_snapshots,
        outbox_dropped: waiting.dropped,
        outbox_dead_lettered: waiting.dead_lettered,
        broker_connected: reporter.connected(),
    }
}
