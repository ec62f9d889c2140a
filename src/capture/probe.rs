//! A short look at a camera: its source is opened as usual, and closed again after its first frames.

use std::time::Duration;

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{camera_config::CameraConfig, error::CaptureError, supervise::run};
use crate::{
    camera::CameraStatus,
    config::{ClockChoice, Origin},
};

/// How long to wait after the first frame for the second keyframe, and for the clock of a network camera. Many
/// cameras send a keyframe every one to four seconds, and a sender report every five.
const FACTS_TIMEOUT: Duration = Duration::from_secs(7);
/// How long between looks for a frame that is kept.
const KEPT_INTERVAL: Duration = Duration::from_millis(10);

/// What the stream of a camera is like.
#[derive(Clone, Debug, PartialEq)]
pub struct CameraFacts {
    /// Width and height of the frames, in pixels.
    pub size: (u32, u32),
    /// GStreamer's name of the video decoder. `None` for raw video.
    pub decoder: Option<String>,
    /// Frames per second, if the stream states it.
    pub frame_rate: Option<f64>,
    /// How frames would be sampled, and how often keyframes come. `None` if they are too rare to tell.
    pub sampling: Option<String>,
    /// Something that the user should know, such as a clock that is wrong.
    pub warning: Option<String>,
}

/// Opens a source, waits at most `limit` for its first frame, and closes the source. The frames are discarded, but for
/// those that the configuration's look-back keeps: there is one then.
///
/// # Errors
/// If no frame arrives.
pub async fn probe(config: CameraConfig, limit: Duration) -> Result<CameraFacts, CaptureError> {
    let what = config.source.to_string();
    let has_clock =
        config.clock != ClockChoice::Arrival && matches!(config.source.origin(), Origin::Network(_));
    let look_back = config.look_back.clone();
    let (sender, status) = watch::channel(CameraStatus::default());
    let mut watched = status.clone();
    let first_frames = async {
        let first = timeout(limit, watched.wait_for(|s| s.size.is_some())).await;
        let has_decoder = first.is_ok_and(|found| found.is_ok_and(|s| s.decoder.is_some()));
        if has_decoder {
            let known = |s: &CameraStatus| s.sampling.is_some() && (s.clock_known || !has_clock);
            let _ = timeout(FACTS_TIMEOUT, watched.wait_for(known)).await;
        }
        // The status tells of a frame before it is kept.
        let kept = async {
            while look_back.as_ref().is_some_and(|frames| frames.age().is_none()) {
                sleep(KEPT_INTERVAL).await;
            }
        };
        let _ = timeout(limit, kept).await;
    };
    let cancel = CancellationToken::new();
    let running = run(CameraConfig { retry: false, ..config }, drop, sender, cancel.clone());
    tokio::pin!(running);
    // What came of a source that ended by itself.
    let summary = tokio::select! {
        ended = &mut running => Some(ended?),
        () = first_frames => {
            cancel.cancel();
            running.await?;
            None
        }
    };
    let CameraStatus { size, decoder, frame_rate, sampling, why, .. } = status.borrow().clone();
    let ended = summary.is_some();
    let warning = summary.map_or(Some(why), |summary| summary.warning).filter(|why| !why.is_empty());
    match size {
        Some(size) => Ok(CameraFacts { size, decoder, frame_rate, sampling, warning }),
        None if ended => Err(CaptureError::NoVideo(what)),
        None => Err(CaptureError::Stalled { what, after: limit }),
    }
}
