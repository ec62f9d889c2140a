//! The cameras that are being watched. Each is a task of its own, which can be started and stopped while the
//! others continue.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::{
    asks::Askable,
    deps::CameraDeps,
    settings::{camera_config, enabled, overflow},
};
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    capture::{self, CameraConfig, CaptureError},
    clip::Clip,
    config::{self, Config},
    look_back::LookBack,
    metrics::Reason,
    plural::plural,
    prompt_spec::PromptSpec,
    queue::Overflow,
};

/// What is needed to start a camera.
#[derive(Clone, Debug)]
pub struct CameraSpec {
    config: CameraConfig,
    overflow: Overflow,
    priority: u64,
}

/// Returns the specs of all enabled cameras.
///
/// # Errors
/// When the window of one of them is not valid.
pub fn camera_specs(config: &Config) -> anyhow::Result<BTreeMap<CameraId, CameraSpec>> {
    let spec = |(id, camera): (&CameraId, &config::CameraSettings)| {
        let overflow = overflow(&camera.source);
        let look_back = Some(Arc::new(LookBack::new(camera.look_back)));
        let config = CameraConfig { look_back, ..camera_config(id, camera, &config.pipelines) };
        config.window.validate().with_context(|| format!("camera {id} cannot be watched"))?;
        Ok((id.clone(), CameraSpec { config, overflow, priority: camera.priority }))
    };
    enabled(config).map(spec).collect()
}

/// A camera's task.
struct Running {
    task: Id,
    stop: CancellationToken,
    prompt_spec: watch::Sender<Arc<PromptSpec>>,
}

/// The cameras that are being watched.
pub struct Cameras {
    deps: CameraDeps,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), CaptureError>>,
    running: BTreeMap<CameraId, Running>,
    /// The cameras that ended by themselves, and whether that was a failure.
    ended: BTreeMap<CameraId, bool>,
}

impl Cameras {
    /// No cameras yet. Cancelling `stop` stops them all.
    pub fn new(deps: CameraDeps, stop: CancellationToken) -> Self {
        Self { deps, stop, tasks: JoinSet::new(), running: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// How many cameras are being watched.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Starts a camera. Its status is known when this returns.
    pub fn start(&mut self, CameraSpec { config, overflow, priority }: CameraSpec) {
        self.deps.queue.register(&config.id, priority);
        let config = CameraConfig { scaling: self.deps.frame_scaling, ..config };
        let (id, stop) = (config.id.clone(), self.stop.child_token());
        let (prompt_spec, asked) = watch::channel(Arc::clone(&config.prompt_spec));
        let (status, changes) = watch::channel(CameraStatus::default());
        self.deps.reporter.watch(&id, changes);
        if let Some(frames) = config.look_back.clone() {
            let (window, view) = (config.window.window, config.view.clone());
            self.deps.asks.watch(&id, Askable { frames, view, window, prompt_spec: asked.clone() });
        }
        let watching = watch_camera(config, status, asked, overflow, self.deps.clone(), stop.clone());
        let task = self.tasks.spawn(watching).id();
        self.ended.remove(&id);
        self.running.insert(id, Running { task, stop, prompt_spec });
    }

    /// Changes what is asked about the clips of a camera from now on, including those of open windows.
    pub fn set_prompt_spec(&mut self, id: &CameraId, camera: &config::CameraSettings) {
        if let Some(running) = self.running.get(id) {
            running.prompt_spec.send_replace(Arc::new(camera.prompt_spec.clone()));
        }
    }

    /// Stops those of `ids` that are being watched, all at once, and waits until they have ended. Their open
    /// windows are dropped.
    pub async fn stop(&mut self, ids: &[&CameraId]) {
        for id in ids {
            if let Some(running) = self.running.get(*id) {
                running.stop.cancel();
                self.deps.queue.unregister(id);
            }
        }
        while ids.iter().any(|id| self.running.contains_key(*id)) {
            if self.join().await.is_none() {
                return;
            }
        }
    }

    /// Waits until the last camera has ended by itself. Never returns while no camera was started, or while
    /// `more_may_start`: a command or a reload may start one.
    pub async fn wait_all_ended(&mut self, more_may_start: bool) {
        // They may have ended while more could start, which is no longer so.
        if !more_may_start && self.running.is_empty() && !self.ended.is_empty() && !self.all_failed() {
            return;
        }
        while self.join().await.is_some() {
            if self.running.is_empty() && !more_may_start {
                return;
            }
        }
        std::future::pending().await
    }

    /// Stops all cameras and waits until they have ended.
    pub async fn stop_all(&mut self) {
        self.stop.cancel();
        self.running.keys().for_each(|id| self.deps.queue.unregister(id));
        let watched: Vec<_> = self.running.keys().cloned().collect();
        while self.join().await.is_some() {}
        for id in watched {
            self.deps.reporter.set_state(&id, CameraState::Offline, Some("stopped"));
        }
    }

    /// The cameras that failed for good: they are not retried.
    pub fn failed(&mut self) -> impl Iterator<Item = &CameraId> {
        // A camera may have failed a moment ago.
        while let Some(end) = self.tasks.try_join_next_with_id() {
            self.note_end(end);
        }
        self.ended.iter().filter(|(_, failed)| **failed).map(|(id, _)| id)
    }

    /// Whether cameras ended by themselves and all of them failed.
    pub fn all_failed(&self) -> bool {
        !self.ended.is_empty() && self.ended.values().all(|failed| *failed)
    }

    /// Waits for the next task that ends. None when there are no tasks.
    async fn join(&mut self) -> Option<()> {
        let end = self.tasks.join_next_with_id().await?;
        self.note_end(end);
        Some(())
    }

    /// Takes note of a task that has ended.
    fn note_end(&mut self, end: Result<(Id, Result<(), CaptureError>), JoinError>) {
        let (task, failed, panic) = match end {
            Ok((task, result)) => (task, result.is_err(), None),
            Err(panic) => (panic.id(), true, Some(panic)),
        };
        let id = self.running.iter().find(|(_, running)| running.task == task).map(|(id, _)| id.clone());
        let Some((id, running)) = id.and_then(|id| self.running.remove_entry(&id)) else { return };
        self.deps.asks.forget(&id);
        if let Some(panic) = panic {
            tracing::error!(camera = %id, "the camera's task panicked: {panic}");
            self.deps.reporter.set_state(&id, CameraState::Offline, Some("internal error of camscribe"));
        }
        if !running.stop.is_cancelled() {
            self.ended.insert(id, failed);
        }
    }
}

/// Runs one camera and reports its `status`. `prompt_spec` may change meanwhile.
async fn watch_camera(
    config: CameraConfig,
    status: watch::Sender<CameraStatus>,
    prompt_spec: watch::Receiver<Arc<PromptSpec>>,
    overflow: Overflow,
    CameraDeps { queue, reporter, metrics, .. }: CameraDeps,
    cancel: CancellationToken,
) -> Result<(), CaptureError> {
    let id = config.id.clone();
    let mut changes = status.subscribe();
    let camera = id.clone();
    let sink = move |clip: Clip| {
        metrics.clip(&camera);
        let clip = Clip { prompt_spec: Arc::clone(&prompt_spec.borrow()), ..clip };
        // The queue refuses clips once the camera or camscribe is being stopped.
        if queue.push(clip, overflow).is_err() {
            metrics.dropped(&camera, Reason::Stopped);
        }
    };
    let stopped = cancel.clone();
    let running = capture::run(config, sink, status, cancel);
    tokio::pin!(running);
    let result = loop {
        tokio::select! {
            result = &mut running => break result,
            Ok(()) = changes.changed() => {
                let status = changes.borrow_and_update().clone();
                reporter.update(&id, &status);
            }
        }
    };
    match result {
        Ok(summary) => {
            let (frames, clips) = (plural(summary.frames, "frame"), plural(summary.clips, "clip"));
            tracing::info!(camera = %id, "ended after {frames} in {clips}");
            if let Some(warning) = summary.warning {
                tracing::warn!(camera = %id, "{warning}");
            }
            // Whoever stops a camera says what becomes of it.
            if !stopped.is_cancelled() {
                reporter.set_state(&id, CameraState::Offline, Some("ended"));
            }
            Ok(())
        }
        Err(error) => {
            let why = error.in_one_line();
            tracing::error!(camera = %id, "{why}");
            reporter.set_state(&id, CameraState::Offline, Some(&why));
            Err(error)
        }
    }
}
