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

/// Longer than anything takes: a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(90);

pub struct Watching {
    pub status: watch::Receiver<CameraStatus>,
    clips: Arc<Mutex<Vec<Clip>>>,
    cancel: CancellationToken,
    task: JoinHandle<Result<Summary, CaptureError>>,
}

impl Watching {
    pub fn start(config: CameraConfig) -> Self {
        let (told, status) = watch::channel(CameraStatus::default());
        let (clips, cancel) = (Arc::new(Mutex::new(Vec::new())), CancellationToken::new());
        let taken = clips.clone();
        let sink = move |clip| taken.lock().unwrap().push(clip);
        let task = tokio::spawn(capture::run(config, sink, told, cancel.clone()));
        Self { status, clips, cancel, task }
    }

    /// Waits until the camera's status is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&CameraStatus) -> bool) -> CameraStatus {
        let found = timeout(PATIENCE, self.status.wait_for(|s| wanted(s))).await.map(|s| s.unwrap().clone());
        found.unwrap_or_else(|_| panic!("never {what}: {:?}", self.status.borrow()))
    }

    /// Waits until the camera has given so many more clips.
    pub async fn more_clips(&self, count: usize) {
        let wanted = self.clips.lock().unwrap().len() + count;
        let enough = async {
            while self.clips.lock().unwrap().len() < wanted {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, enough).await.unwrap_or_else(|_| panic!("no clips: {:?}", self.status.borrow()));
    }

    /// Stops, and gives all clips.
    pub async fn stop(self) -> Vec<Clip> {
        self.cancel.cancel();
        self.task.await.unwrap().unwrap();
        std::mem::take(&mut *self.clips.lock().unwrap())
    }
}
