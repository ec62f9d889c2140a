//! From cameras to clips: the only place that imports GStreamer. A [`CameraConfig`] comes in, clips
//! go to the sink that the caller gives, and a [`CameraStatus`] says how it is going.
//!
//! Decoding and windowing happen on GStreamer's own threads; [`run`] only supervises.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use gstreamer as gst;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    camera::{CameraId, CameraState, CameraStatus},
    clip::{Clip, WindowConfig, Windower},
    config::{Login, Sampling, Source, Transport},
    prompt_spec::PromptSpec,
    resize::FrameScaling,
    retry::{Backoff, BackoffConfig, Jitter},
};

mod error;
mod library;
mod pipeline;
mod preflight;
mod probe;
mod reference;
pub mod sampler;
mod scene;
mod stamp;
mod supervise;
mod tap;
mod vigil;

pub use error::CaptureError;
pub use library::PipelineError;
use preflight::preflight;
pub use probe::{CameraFacts, probe};
pub use reference::{VideoInfo, read_frames_at};
use supervise::Run;
use tap::{Intake, lock};

/// Some cameras refuse a second connection within a second of the last one. Pauses grow beyond that by up
/// to a quarter, so that cameras behind one switch do not all come back at the same moment.
const BACKOFF: BackoffConfig = BackoffConfig {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
    jitter: Jitter { min: 1.0, max: 1.25 },
};
/// A camera that has run for this long is healthy: the next pause is short again. A camera that connects
/// and fails sooner than this waits longer each time.
const STEADY: Duration = Duration::from_secs(60);
/// The pause after a refused login. Some cameras lock an account for half an hour after a few wrong
/// passwords.
const REFUSED: Duration = Duration::from_secs(300);

/// One camera, file or synthetic picture, and what is wanted of it.
#[derive(Clone, Debug)]
pub struct CameraConfig {
    /// Its name.
    pub id: CameraId,
    /// Where its pictures come from.
    pub source: Source,
    /// How RTP travels.
    pub transport: Transport,
    /// As whom, if the camera asks.
    pub login: Option<Login>,
    /// Name of the pipeline to use; by the kind of source if none is given.
    pub pipeline: Option<String>,
    /// Folder with the user's own pipelines, `NAME.txt`.
    pub pipelines_dir: Option<PathBuf>,
    /// How frames are scaled down early. None: they stay as they are.
    pub scaling: Option<FrameScaling>,
    /// How frames are thinned.
    pub sampling: Sampling,
    /// How frames are cut into clips.
    pub window: WindowConfig,
    /// What to ask about each clip.
    pub prompt_spec: Arc<PromptSpec>,
    /// A source that gives no picture for so long after it was opened has failed. Later on, a live
    /// source's own pace says what is too long.
    pub opening: Duration,
    /// Whether a live source that fails is tried again, for ever.
    pub retry: bool,
}

/// What came of a source that ended, or was ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Frames that were looked at; those that no window wanted are not among them.
    pub frames: u64,
    /// Clips that were handed on.
    pub clips: u64,
    /// Windows given up because they had too few frames.
    pub too_few: u64,
    /// How far the stream got.
    pub duration: Duration,
    /// Something that the user should know about a file that could be played.
    pub warning: Option<String>,
}

/// Plays a source and hands its clips to `sink`: until the end of a file, or until `cancel`.
///
/// The sink is called on a streaming thread. For a file it may block, which holds the file up; it
/// must return once `cancel` is given, or the pipeline cannot stop. For a live source it must not
/// block. Windows that are still open when `cancel` comes are given up.
pub async fn run(
    config: CameraConfig,
    sink: impl FnMut(Clip) + Send + 'static,
    status: watch::Sender<CameraStatus>,
    cancel: CancellationToken,
) -> Result<Summary, CaptureError> {
    gst::init().map_err(CaptureError::Gstreamer)?;
    let windower = Windower::new(config.window.clone(), config.prompt_spec.clone())?;
    let intake = Arc::new(Mutex::new(Intake::new(windower, sink)));
    let status = Arc::new(status);
    let mut backoff = Backoff::new(BACKOFF);
    loop {
        status.send_modify(|s| {
            *s = CameraStatus {
                why: std::mem::take(&mut s.why),
                frames: s.frames,
                reconnects: s.reconnects,
                decode_errors: s.decode_errors,
                too_few: s.too_few,
                ..CameraStatus::default()
            }
        });
        let source = config.source.clone();
        // A file system may take its time.
        let looked = tokio::select! {
            looked = tokio::task::spawn_blocking(move || preflight(&source)) => looked,
            () = cancel.cancelled() => return summary(&intake, Duration::ZERO, None).await,
        };
        let Run { outcome, up, hanging } = match looked.unwrap_or(Ok(())) {
            Ok(()) => supervise::run_once(&config, &intake, &status, &cancel).await,
            Err(error) => Run::failed(error),
        };
        let fault = match outcome {
            Ok(supervise::End::Cancelled { position }) => return summary(&intake, position, None).await,
            Ok(supervise::End::Over { position, warning }) if config.source.may_end() => {
                close(&intake, Windower::finish).await;
                status
                    .send_modify(|s| (s.state, s.why) = (CameraState::Offline, "the stream is over".into()));
                return summary(&intake, position, warning).await;
            }
            Ok(supervise::End::Over { .. }) => CaptureError::Ended(config.source.to_string()),
            Err(error) => error,
        };
        close(&intake, Windower::discontinuity).await;
        let state = match fault {
            CaptureError::Unauthorised(_) => CameraState::Unauthorised,
            _ => CameraState::Offline,
        };
        let why = fault.in_one_line();
        status.send_modify(|s| (s.state, s.why) = (state, why.clone()));
        if !config.retry || !config.source.is_live() || fault.is_final() {
            return Err(fault);
        }
        let pause = match state {
            CameraState::Unauthorised => BACKOFF.jitter.apply(REFUSED),
            _ => pause_after(&mut backoff, up),
        };
        // Of a fault that is final the caller tells.
        tracing::warn!(camera = %config.id, "{why}; trying again in {:.0} s", pause.as_secs_f32());
        let rest = async {
            tokio::time::sleep(pause).await;
            // A driver that does not let go will not start again either, and each try would cost threads.
            if let Some(hanging) = hanging {
                let _ = hanging.await;
            }
        };
        tokio::select! {
            () = cancel.cancelled() => return summary(&intake, Duration::ZERO, None).await,
            () = rest => {}
        }
        status.send_modify(|s| s.reconnects += 1);
    }
}

/// The pause before the next attempt after a source delivered frames for `up` and failed.
fn pause_after(backoff: &mut Backoff, up: Duration) -> Duration {
    if up >= STEADY {
        backoff.reset();
    }
    backoff.next_pause()
}

/// Ends the open windows. The sink may block, so this must not happen on a thread of the runtime.
async fn close(intake: &Arc<Mutex<Intake>>, how: fn(&mut Windower) -> Vec<Clip>) {
    let intake = intake.clone();
    let closing = tokio::task::spawn_blocking(move || {
        let mut intake = lock(&intake);
        let clips = how(&mut intake.windower);
        intake.hand_on(clips);
    });
    if let Err(panic) = closing.await {
        tracing::error!("a clip could not be handed on: {panic}");
    }
}

/// What came of it. A sink that blocks holds what is asked here, so this must not happen on a thread
/// of the runtime either.
async fn summary(
    intake: &Arc<Mutex<Intake>>,
    duration: Duration,
    warning: Option<String>,
) -> Result<Summary, CaptureError> {
    let intake = intake.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let intake = lock(&intake);
        (intake.frames, intake.clips, intake.windower.too_few())
    });
    let (frames, clips, too_few) = asking.await.unwrap_or_else(|panic| {
        tracing::error!("what came of a camera is not known: {panic}");
        Default::default()
    });
    Ok(Summary { frames, clips, too_few, duration, warning })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_flaps_waits_longer_until_it_has_run_for_a_while() {
        let jitter = Jitter { min: 1.0, max: 1.0 };
        let mut backoff = Backoff::new(BackoffConfig { jitter, ..BACKOFF });
        for (up, pauses) in [(3, &[1, 2, 4, 8, 16][..]), (59, &[32]), (60, &[1, 1, 1]), (3, &[2, 4])] {
            for pause in pauses {
                assert_eq!(pause_after(&mut backoff, Duration::from_secs(up)).as_secs(), *pause);
            }
        }
    }
}
