//! The life of the daemon: build its parts, spawn them, report ready, watch, drain.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, bail};
use chrono::Utc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    active_config::ActiveConfig,
    asks::{self, Asks},
    calibrations::warn_of_unfit,
    cameras::{Cameras, camera_specs},
    deps::{CameraDeps, WorkerDeps},
    feed::Feed,
    monitoring::{report_load, status_source},
    page::{Page, camera_source, events_source, live_source, node_source, tell_changes},
    questions::{ClientModel, api_source},
    recording::Recording,
    reload::Reload,
    retained_topics::RetainedTopics,
    settings::camera_profiles,
    status_reporter::StatusReporter,
    views::Views,
    worker::{LoadedModel, ModelWorker},
};
use crate::{
    camera::CameraId,
    config::{self, Config},
    describe::Describer,
    http::{self, Access, ServedModel, ServerTlsError},
    lifecycle::{Lifecycle, Phase},
    metrics::Metrics,
    plural::plural,
    publish::{
        CommandInbox, Inboxes,
        outbox::{InUse, Limits, Outbox, Storage},
    },
    queue::{CLIPS_PER_CAMERA, ClipQueue},
};

/// The time for delivery after everything else has ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// How often the service manager is told how things are, if that has changed.
const SUMMARY_INTERVAL: Duration = Duration::from_secs(5);

/// Watches the cameras of `config` and publishes their descriptions, until `stop` or, where no client may ask
/// the model, until every source has ended. `load` loads the model, on the thread that will own it. `reload` requests that the configuration is
/// read again.
///
/// # Errors
/// When publishing cannot start, the model does not work, or no source could be read.
pub async fn run(
    config: Config,
    load: impl FnOnce(&config::ModelSettings) -> anyhow::Result<Box<dyn Describer>> + Send + 'static,
    reload: Option<Reload>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let inboxes = Inboxes::default();
    let access = access(&config.http)?;
    // The state directory is this process's from here on.
    let parts = Parts::build(&config)?;
    let mut active = ActiveConfig::new(config, inboxes.clone());
    let prepared = active.prepare()?;
    let specs = camera_specs(active.config())?;
    // Before anybody can ask for pictures of before.
    let seen_anew = parts.worker.views.start(active.config());
    parts.worker.recording.hide();
    // The services end when this function returns.
    let _services = parts.spawn_services(active.config(), &inboxes, access.clone()).await?;

    parts.worker.lifecycle.enter(Phase::Loading);
    let mut worker = ModelWorker::start(load, active.config(), parts.worker.clone())?;
    let Some(model) = wait_loaded(&mut worker, &stop).await? else {
        parts.worker.lifecycle.enter(Phase::Stopping);
        return Ok(());
    };
    // A start that fails changes nothing.
    active.forget_removed();
    seen_anew.iter().for_each(|id| parts.reporter.forget_snapshot(id));
    parts.reporter.set_profiles(camera_profiles(active.config()));
    for (id, _) in active.config().cameras.iter().filter(|(_, camera)| !camera.enabled) {
        parts.reporter.disable(id);
    }
    let deps = parts.camera_deps(&model);
    warn_of_unfit(active.config(), &model.info);
    active.publish_camera_settings(&deps);
    let mut cameras = Cameras::new(deps.clone(), stop.child_token());
    specs.into_values().for_each(|spec| cameras.start(spec));
    parts.serve_clients(&model);
    parts.asks.set_model(model.info.clone());
    let configured = active.config().cameras.keys();
    parts.reporter.open(prepared, (model.info, model.gpu), configured, &seen_anew);

    let lifecycle = Arc::clone(&parts.worker.lifecycle);
    let mut main_loop = MainLoop { active, reload, commands: inboxes.commands, deps, lifecycle, access };
    let failure = main_loop.run(&mut cameras, &mut worker, &stop).await;
    let drained = parts.drain(&mut cameras, worker).await;
    // Nothing is received any more.
    main_loop.active.keep(main_loop.commands.take_now());
    drained?;
    match failure {
        Some(error) => Err(error),
        None if cameras.all_failed() && !stop.is_cancelled() => {
            bail!("no camera could be read; the lines above say why")
        }
        None => Ok(()),
    }
}

/// Who may use the HTTP server, if one is configured.
///
/// # Errors
/// When its certificate and key cannot be used.
fn access(http: &config::HttpSettings) -> Result<Option<Arc<Access>>, ServerTlsError> {
    let access = |address| Access::new(address, http.token.clone(), http.tls.clone()).map(Arc::new);
    http.listen.map(access).transpose()
}

/// Waits until the model is loaded and warm. None if `stop` comes first. Loading cannot be interrupted: the
/// thread is left alone and ends with the process.
///
/// # Errors
/// When the model cannot be used.
async fn wait_loaded(
    worker: &mut ModelWorker,
    stop: &CancellationToken,
) -> anyhow::Result<Option<LoadedModel>> {
    let loaded = tokio::select! {
        loaded = &mut worker.loaded => loaded,
        () = stop.cancelled() => return Ok(None),
    };
    if let Ok(model) = loaded {
        return Ok(Some(model));
    }
    (&mut worker.ended).await.context("the model's thread panicked")??;
    bail!("the model's thread ended before the model was loaded")
}

/// The parts that live as long as the daemon.
struct Parts {
    worker: WorkerDeps,
    reporter: Arc<StatusReporter>,
    asks: Arc<Asks>,
    /// The model that answers clients, once it is loaded.
    client_model: Arc<OnceLock<ClientModel>>,
}

impl Parts {
    /// Creates the parts. Nothing is started yet.
    ///
    /// # Errors
    /// When another process uses the state directory.
    fn build(config: &Config) -> Result<Self, InUse> {
        let outbox = Arc::new(open_outbox(config)?);
        let metrics = Arc::new(Metrics::new());
        let topics = RetainedTopics::read(config.node.state_dir.as_deref());
        let feed = Arc::<Feed>::default();
        let reporter =
            StatusReporter::new(Arc::clone(&metrics), Arc::clone(&outbox), Arc::clone(&feed), topics);
        let reporter = Arc::new(reporter);
        let queue = Arc::new(ClipQueue::new(CLIPS_PER_CAMERA));
        let lifecycle = Arc::<Lifecycle>::default();
        let views = Arc::new(Views::new(config.node.state_dir.as_deref()));
        let asks = Asks::new(
            Arc::clone(&queue),
            Arc::clone(&reporter),
            Arc::clone(&lifecycle),
            Arc::clone(&metrics),
            Arc::clone(&views),
        );
        let recording = Arc::new(Recording::start(config, &outbox, &views));
        let worker = WorkerDeps { queue, outbox, recording, feed, metrics, lifecycle, views };
        Ok(Self { worker, reporter, asks: Arc::new(asks), client_model: Arc::default() })
    }

    /// Starts the HTTP server, if one is configured, the watchdog, the reports of the node's load, and what tells the
    /// service manager how things are.
    ///
    /// # Errors
    /// When the HTTP server cannot listen.
    async fn spawn_services(
        &self,
        config: &Config,
        inboxes: &Inboxes,
        access: Option<Arc<Access>>,
    ) -> Result<JoinSet<()>, http::BindError> {
        let mut services = JoinSet::new();
        if let Some((address, access)) = config.http.listen.zip(access) {
            let status = status_source(&self.worker, &self.reporter, inboxes);
            let api = config.http.api.then(|| api_source(&self.worker, &self.client_model));
            let metrics = Arc::clone(&self.worker.metrics);
            let page = Page::new(&config.node.id, &self.worker, &self.reporter, &inboxes.commands);
            let cameras = camera_source(&page, &self.asks);
            let (node, events, live) = (node_source(&page), events_source(&page), live_source(&page));
            let server = http::Server { status, node, cameras, events, live, api, access, metrics };
            services.spawn(tell_changes(page));
            let listener = http::bind(address, &server).await?;
            services.spawn(http::serve(listener, server));
        }
        services.spawn(asks::answer_subscribers(Arc::clone(&self.asks), Arc::clone(&inboxes.asks)));
        services.spawn(Arc::clone(&self.worker.lifecycle).watchdog());
        let (lifecycle, reporter) = (Arc::clone(&self.worker.lifecycle), Arc::clone(&self.reporter));
        services.spawn(async move {
            let first = tokio::time::Instant::now() + SUMMARY_INTERVAL;
            let mut ticks = tokio::time::interval_at(first, SUMMARY_INTERVAL);
            loop {
                ticks.tick().await;
                lifecycle.summarise(reporter.summary());
            }
        });
        services.spawn(report_load(self.worker.clone(), Arc::clone(&self.reporter)));
        Ok(services)
    }

    /// Lets clients ask the model, which is loaded.
    fn serve_clients(&self, model: &LoadedModel) {
        let served = ServedModel {
            id: model.info.id.clone(),
            loaded_at: Utc::now().timestamp(),
            max_tokens: model.context_length,
            frame_scaling: model.frame_scaling,
        };
        let file_sampler = model.file_sampler.clone();
        // There is one model, and it is loaded once.
        let _ = self.client_model.set(ClientModel { served, file_sampler });
    }

    /// What every camera uses.
    fn camera_deps(&self, model: &LoadedModel) -> CameraDeps {
        CameraDeps {
            queue: Arc::clone(&self.worker.queue),
            reporter: Arc::clone(&self.reporter),
            asks: Arc::clone(&self.asks),
            views: Arc::clone(&self.worker.views),
            recording: Arc::clone(&self.worker.recording),
            metrics: Arc::clone(&self.worker.metrics),
            model: model.info.clone(),
            frame_scaling: model.frame_scaling,
        }
    }

    /// Ends the stages in their order: cameras, model, delivery. What was described is delivered even if the
    /// model has failed.
    ///
    /// # Errors
    /// When the model's thread panicked.
    async fn drain(&self, cameras: &mut Cameras, worker: ModelWorker) -> anyhow::Result<()> {
        let WorkerDeps { queue, outbox, lifecycle, .. } = &self.worker;
        lifecycle.enter(Phase::Stopping);
        cameras.stop_all().await;
        let finished = worker.finish(queue).await;
        let recording = Arc::clone(&self.worker.recording);
        let recorded = tokio::task::spawn_blocking(move || recording.close());
        let (left, all_acked) = self.reporter.close(DRAIN_LIMIT).await;
        if all_acked {
            self.worker.views.keep();
        }
        if let Err(panic) = recorded.await {
            tracing::error!("the history ended by a fault: {panic}");
        }
        match left {
            0 => {
                let status = outbox.status();
                let sum = |counts: &BTreeMap<CameraId, u64>| counts.values().sum::<u64>();
                match (sum(&status.dead_lettered), sum(&status.dropped)) {
                    (0, 0) => tracing::info!("every description was delivered"),
                    (refused, dropped) => tracing::warn!(
                        "nothing is left to deliver; since the start the broker did not take {refused}, and a full \
                         outbox dropped {dropped}"
                    ),
                }
            }
            left => match outbox.status().storage {
                Storage::Disk => {
                    tracing::warn!(
                        "on disk until the next start delivers them: {}",
                        plural(left, "description")
                    )
                }
                Storage::Memory { .. } => {
                    tracing::error!(
                        "lost, since the broker did not accept them in time: {}",
                        plural(left, "description")
                    )
                }
            },
        }
        finished
    }
}

/// The loop while the cameras are being watched, and what it needs.
struct MainLoop {
    active: ActiveConfig,
    reload: Option<Reload>,
    commands: Arc<CommandInbox>,
    deps: CameraDeps,
    lifecycle: Arc<Lifecycle>,
    access: Option<Arc<Access>>,
}

impl MainLoop {
    /// Applies reloads and commands until all cameras have ended, `stop`, or the end of the model's thread.
    /// Returns the error of the model, if that ended it.
    async fn run(
        &mut self,
        cameras: &mut Cameras,
        worker: &mut ModelWorker,
        stop: &CancellationToken,
    ) -> Option<anyhow::Error> {
        let Self { active, reload, commands, deps, lifecycle, access } = self;
        loop {
            lifecycle.enter(Phase::Watching(cameras.count()));
            tokio::select! {
                () = cameras.wait_all_ended(active.more_may_start() || active.config().http.api) => return None,
                () = stop.cancelled() => return None,
                result = &mut worker.ended => return result.ok().and_then(Result::err),
                file = Reload::requested(reload) => {
                    lifecycle.enter(Phase::Reloading);
                    active.reload(file, cameras, deps).await;
                    if let Some(access) = access {
                        access.refresh(active.config().http.token.clone());
                    }
                }
                commands = commands.take() => active.apply_commands(commands, cameras, deps).await,
            }
        }
    }
}

/// Opens the outbox in the state directory, or one in memory without a state directory.
///
/// # Errors
/// When another process uses the state directory.
fn open_outbox(config: &Config) -> Result<Outbox, InUse> {
    let config::OutboxSettings { on_disk, max_bytes, snapshot_bytes } = config.outbox;
    let limits = Limits { events: max_bytes, snapshots: snapshot_bytes };
    match &config.node.state_dir {
        Some(folder) if on_disk => Outbox::open(folder, limits),
        Some(folder) => Outbox::beside(folder, limits),
        None => Ok(Outbox::in_memory(limits)),
    }
}
