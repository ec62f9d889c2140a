//! The cameras that are being watched: each a task of its own that can be started and stopped
//! while the others go on.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

use super::board::Board;
use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    capture::{self, CameraConfig, CaptureError},
    clip::{Clip, WindowConfig},
    config::{self, Config, Source},
    metrics::{Metrics, Reason},
    prompt_spec::{GateConfig, PromptSpec},
    queue::{ClipQueue, Overflow},
};

/// A live camera that gives no picture within this time is started again.
const OPENING: Duration = Duration::from_secs(10);

/// What capture needs to know about a camera.
pub fn camera_config(id: &CameraId, camera: &config::Camera, pipelines: &Path) -> CameraConfig {
    CameraConfig {
        id: id.clone(),
        source: camera.source.clone(),
        login: camera.login.clone(),
        transport: camera.transport,
        pipeline: camera.pipeline.clone(),
        pipelines_dir: Some(pipelines.to_owned()),
        edge: None,
        sampling: camera.sampling,
        window: WindowConfig {
            window: camera.window,
            stride: camera.stride,
            frames: camera.frames,
            min_frames: camera.min_frames,
        },
        prompt_spec: prompt_spec(camera),
        opening: OPENING,
        retry: true,
    }
}

/// What is asked about a camera's clips.
fn prompt_spec(camera: &config::Camera) -> Arc<PromptSpec> {
    Arc::new(PromptSpec {
        prompt: camera.prompt.clone(),
        max_tokens: camera.max_tokens,
        gate: Some(GateConfig { threshold: camera.change_threshold, heartbeat: camera.heartbeat })
            .filter(|gate| gate.threshold > 0),
    })
}

/// What becomes of a source's clips that the model is too slow for: what is recorded can wait.
pub fn overflow(source: &Source) -> Overflow {
    if source.is_live() { Overflow::DropOldest } else { Overflow::Block }
}

/// A camera that can be started.
#[derive(Clone, Debug)]
pub struct Plan {
    config: CameraConfig,
    overflow: Overflow,
    priority: u64,
}

/// Plans of all cameras that are switched on.
///
/// # Errors
/// When one of them can never be watched.
pub fn plans(config: &Config) -> anyhow::Result<BTreeMap<CameraId, Plan>> {
    let plan = |(id, camera): (&CameraId, &config::Camera)| {
        let overflow = overflow(&camera.source);
        let config = camera_config(id, camera, &config.pipelines);
        config.window.validate().with_context(|| format!("camera {id} cannot be watched"))?;
        Ok((id.clone(), Plan { config, overflow, priority: camera.priority }))
    };
    config.cameras.iter().filter(|(_, camera)| camera.enabled).map(plan).collect()
}

/// What every camera works with.
#[derive(Clone)]
pub struct Site {
    /// Where clips go.
    pub queue: Arc<ClipQueue>,
    /// Who is told how it does.
    pub board: Arc<Board>,
    /// Where its clips are counted.
    pub metrics: Arc<Metrics>,
    /// The longest side of a frame that the model looks at.
    pub edge: Option<usize>,
}

struct Running {
    task: Id,
    stop: CancellationToken,
    prompt_spec: watch::Sender<Arc<PromptSpec>>,
}

/// The cameras that are being watched.
pub struct Cameras {
    site: Site,
    stop: CancellationToken,
    tasks: JoinSet<Result<(), CaptureError>>,
    running: BTreeMap<CameraId, Running>,
    /// Those that ended by themselves, and whether that was a failure.
    ended: BTreeMap<CameraId, bool>,
}

impl Cameras {
    /// None yet; cancelling `stop` stops them all.
    pub fn new(site: Site, stop: CancellationToken) -> Self {
        Self { site, stop, tasks: JoinSet::new(), running: BTreeMap::new(), ended: BTreeMap::new() }
    }

    /// How many are being watched.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// Starts one.
    pub fn start(&mut self, Plan { config, overflow, priority }: Plan) {
        self.site.queue.join(&config.id, priority);
        let config = CameraConfig { edge: self.site.edge, ..config };
        let (id, stop) = (config.id.clone(), self.stop.child_token());
        let (prompt_spec, asked) = watch::channel(Arc::clone(&config.prompt_spec));
        let watching = watch_camera(config, asked, overflow, self.site.clone(), stop.clone());
        let task = self.tasks.spawn(watching).id();
        self.ended.remove(&id);
        self.running.insert(id, Running { task, stop, prompt_spec });
    }

    /// Asks something else about the clips of a camera from now on, open windows included.
    pub fn ask(&mut self, id: &CameraId, camera: &config::Camera) {
        if let Some(running) = self.running.get(id) {
            running.prompt_spec.send_replace(prompt_spec(camera));
        }
    }

    /// Stops those that run of `ids`, all at once, and waits for their end. Their open windows are
    /// given up.
    pub async fn stop(&mut self, ids: &[&CameraId]) {
        for id in ids {
            if let Some(running) = self.running.get(*id) {
                running.stop.cancel();
                self.site.queue.leave(id);
            }
        }
        while ids.iter().any(|id| self.running.contains_key(*id)) {
            if self.join().await.is_none() {
                return;
            }
        }
    }

    /// Notes which cameras end, until the last one has ended by itself. For ever, while none is watched or
    /// one `may_come` back.
    pub async fn run_out(&mut self, may_come: bool) {
        // Those that came to their end did while one might still have come back.
        if !may_come && self.running.is_empty() && !self.ended.is_empty() && !self.all_failed() {
            return;
        }
        while self.join().await.is_some() {
            if self.running.is_empty() && !may_come {
                return;
            }
        }
        std::future::pending().await
    }

    /// Stops all of them, and waits for their end.
    pub async fn end(&mut self) {
        self.stop.cancel();
        self.running.keys().for_each(|id| self.site.queue.leave(id));
        while self.join().await.is_some() {}
    }

    /// Those that could not be read, or no longer, and are not tried again by themselves.
    pub fn failed(&self) -> impl Iterator<Item = &CameraId> {
        self.ended.iter().filter(|(_, failed)| **failed).map(|(id, _)| id)
    }

    /// Whether none of those that ended by themselves could be read, and there was one.
    pub fn all_failed(&self) -> bool {
        !self.ended.is_empty() && self.ended.values().all(|failed| *failed)
    }

    async fn join(&mut self) -> Option<()> {
        let (task, failed, fault) = match self.tasks.join_next_with_id().await? {
            Ok((task, result)) => (task, result.is_err(), None),
            Err(fault) => (fault.id(), true, Some(fault)),
        };
        let id = self.running.iter().find(|(_, running)| running.task == task).map(|(id, _)| id.clone());
        let Some((id, running)) = id.and_then(|id| self.running.remove_entry(&id)) else { return Some(()) };
        if let Some(fault) = fault {
            tracing::error!(camera = %id, "its task ended by a fault: {fault}");
            self.site.board.say(&id, CameraState::Offline, Some("ended by a fault of camscribe"));
        }
        if !running.stop.is_cancelled() {
            self.ended.insert(id, failed);
        }
        Some(())
    }
}

/// Runs one camera, telling the board how it does. What is asked may change meanwhile.
async fn watch_camera(
    config: CameraConfig,
    prompt_spec: watch::Receiver<Arc<PromptSpec>>,
    overflow: Overflow,
    Site { queue, board, metrics, .. }: Site,
    cancel: CancellationToken,
) -> Result<(), CaptureError> {
    let id = config.id.clone();
    let (status, mut told) = watch::channel(CameraStatus::default());
    board.watch(&id, told.clone());
    let camera = id.clone();
    let sink = move |clip: Clip| {
        metrics.clip(&camera);
        let clip = Clip { prompt_spec: Arc::clone(&prompt_spec.borrow()), ..clip };
        // It is stopped while it waits for room, or camscribe is: the clip has nowhere to go.
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
            Ok(()) = told.changed() => {
                let status = told.borrow_and_update().clone();
                board.seen(&id, &status);
            }
        }
    };
    match result {
        Ok(summary) => {
            tracing::info!(camera = %id, "ended after {} frames in {} clips", summary.frames, summary.clips);
            if let Some(warning) = summary.warning {
                tracing::warn!(camera = %id, "{warning}");
            }
            let why = if stopped.is_cancelled() { "stopped" } else { "ended" };
            board.say(&id, CameraState::Offline, Some(why));
            Ok(())
        }
        Err(error) => {
            let why = error.in_one_line();
            tracing::error!(camera = %id, "{why}");
            board.say(&id, CameraState::Offline, Some(&why));
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_allows_no_more_overlap_than_the_windower() {
        assert_eq!(u128::from(config::MAX_OVERLAP), WindowConfig::MAX_OVERLAP);
    }
}
