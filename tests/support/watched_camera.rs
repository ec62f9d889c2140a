//! A camera under supervision, of which a test reads the status and the clips.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use camscribe::{
    camera::CameraStatus,
    capture::{self, CameraConfig, CaptureError, Summary},
    clip::Clip,
};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long a test waits for anything before it fails.
const TIMEOUT: Duration = Duration::from_secs(90);

/// A supervised camera. A test reads its status and its clips.
pub struct WatchedCamera {
    pub status: watch::Receiver<CameraStatus>,
    clips: Arc<Mutex<Vec<Clip>>>,
    cancel: CancellationToken,
    task: JoinHandle<Result<Summary, CaptureError>>,
}

impl WatchedCamera {
    pub fn start(config: CameraConfig) -> Self {
        let (sender, status) = watch::channel(CameraStatus::default());
        let (clips, cancel) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let collected = clips.clone();
        let sink = move |clip| collected.lock().unwrap().push(clip);
        let task = tokio::spawn(capture::run(config, sink, sender, cancel.clone()));
        Self { status, clips, cancel, task }
    }

    /// Waits until `wanted` holds for the camera's status. `what` names it in the panic.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&CameraStatus) -> bool) -> CameraStatus {
        let found = timeout(TIMEOUT, self.status.wait_for(|s| wanted(s))).await.map(|s| s.unwrap().clone());
        found.unwrap_or_else(|_| panic!("never {what}: {:?}", self.status.borrow()))
    }

    /// Waits for `count` more clips.
    pub async fn more_clips(&self, count: usize) {
        let wanted = self.clips.lock().unwrap().len() + count;
        let enough = async {
            while self.clips.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(TIMEOUT, enough).await.unwrap_or_else(|_| panic!("no clips: {:?}", self.status.borrow()));
    }

    /// Stops the camera and returns all of its clips.
    pub async fn stop(self) -> Vec<Clip> {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
        std::mem::take(&mut *self.clips.lock().unwrap())
    }
}
