//! A look at a camera: its pipeline is opened as ever, and closed again once a picture has come. A
//! [`CameraConfig`] goes in, what the stream is like comes out.

use std::time::Duration;

use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{CameraConfig, CaptureError, run};
use crate::camera::CameraStatus;

/// How long to wait, once there is a picture, for the second keyframe: many cameras send one every
/// one to four seconds.
const RHYTHM: Duration = Duration::from_secs(5);

/// What a camera gives.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraFacts {
    /// Width and height of its pictures.
    pub size: (u32, u32),
    /// GStreamer's name of the video decoder; none for raw pictures.
    pub decoder: Option<String>,
    /// Pictures per second, where the stream says so.
    pub frame_rate: Option<f64>,
    /// How frames would be thinned and how often keyframes come; none if they are too rare to tell.
    pub sampling: Option<String>,
}

/// Opens a source, waits at most `patience` for its first picture, and closes it. What is seen is
/// thrown away.
///
/// # Errors
/// Why there is no picture.
pub async fn probe(config: CameraConfig, patience: Duration) -> Result<CameraFacts, CaptureError> {
    let what = config.source.to_string();
    let (status, told) = watch::channel(CameraStatus::default());
    let mut seen = told.clone();
    let look = async {
        let first = timeout(patience, seen.wait_for(|s| s.size.is_some())).await;
        let has_decoder = first.is_ok_and(|told| told.is_ok_and(|s| s.decoder.is_some()));
        if has_decoder {
            let _ = timeout(RHYTHM, seen.wait_for(|s| s.sampling.is_some())).await;
        }
    };
    let cancel = CancellationToken::new();
    let running = run(CameraConfig { retry: false, ..config }, drop, status, cancel.clone());
    tokio::pin!(running);
    let over = tokio::select! {
        ended = &mut running => ended.map(|_| true)?,
        () = look => {
            cancel.cancel();
            running.await.map(|_| false)?
        }
    };
    let CameraStatus { size, decoder, frame_rate, sampling, .. } = told.borrow().clone();
    match size {
        Some(size) => Ok(CameraFacts { size, decoder, frame_rate, sampling }),
        None if over => Err(CaptureError::NoVideo(what)),
        None => Err(CaptureError::Stalled { what, after: patience }),
    }
}
