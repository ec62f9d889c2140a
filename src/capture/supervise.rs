//! Plays a source until it ends: after a fault of a live source, again and again.

use std::{
    ops::ControlFlow,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    camera_config::CameraConfig,
    clip_assembler::{ClipAssembler, Totals},
    error::CaptureError,
    init::init,
    inspect::lock,
    preflight::preflight,
    rtsp_relay::RtspRelay,
    run_once::{RunEnd, RunResult, run_once},
    survey::Survey,
};
use crate::{
    camera::{CameraState, CameraStatus},
    clip::{Clip, Windower},
    retry::{Backoff, BackoffConfig, Jitter},
};

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
/// The pause after a login that was refused, or answered by closing the connection. Some cameras lock an account for half an hour after a few wrong
/// passwords.
const REFUSED: Duration = Duration::from_secs(300);

/// How often the log repeats why a camera stays away.
const REMINDER: Duration = Duration::from_secs(3600);

/// What came of a source that has ended or was cancelled.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Frames that a window wanted.
    pub frames: u64,
    /// Clips that were handed to the sink.
    pub clips: u64,
    /// Windows that were discarded because they had too few frames.
    pub too_few: u64,
    /// How far the stream got.
    pub duration: Duration,
    /// Something that the user should know about a file that could be played.
    pub warning: Option<String>,
}

/// Plays a source and hands its clips to `sink`, until the end of a file or until `cancel`.
///
/// The sink is called on a streaming thread. For a file it may block, which holds the file up, but it must
/// return once `cancel` is cancelled: the pipeline cannot stop before. For a live source it must not
/// block. Windows that are open when `cancel` is cancelled are discarded.
///
/// # Errors
/// If the source fails and is not opened again: a source that is not live, a fault that only a change on
/// this machine can mend, or a configuration without `retry`.
pub async fn run(
    config: CameraConfig,
    sink: impl FnMut(Clip) + Send + 'static,
    status: watch::Sender<CameraStatus>,
    cancel: CancellationToken,
) -> Result<Summary, CaptureError> {
    init()?;
    let windower = Windower::new(config.window.clone(), config.prompt_spec.clone())?;
    let windower = windower.within(config.range).seen_through(config.view.clone());
    let assembler = Arc::new(Mutex::new(ClipAssembler::new(windower, config.look_back.clone(), sink)));
    let backoff = Backoff::new(BACKOFF);
    let relay = RtspRelay::start(&config).await?;
    Supervisor { config, relay, assembler, status: Arc::new(status), cancel, backoff, told: None }.run().await
}

/// One camera, from its start to its end.
struct Supervisor {
    config: CameraConfig,
    relay: Option<RtspRelay>,
    assembler: Arc<Mutex<ClipAssembler>>,
    status: Arc<watch::Sender<CameraStatus>>,
    cancel: CancellationToken,
    backoff: Backoff,
    /// The fault that was logged last, and when.
    told: Option<(String, Instant)>,
}

impl Supervisor {
    async fn run(mut self) -> Result<Summary, CaptureError> {
        loop {
            self.reset_status();
            let RunResult { end, uptime, hanging } = self.open_and_run().await;
            let fault = match end {
                Ok(RunEnd::Cancelled { position }) => return Ok(self.summary(position, None).await),
                Ok(RunEnd::EndOfStream { position, warning }) if self.config.source.may_end() => {
                    self.close_windows(ClipAssembler::finish).await;
                    self.report(CameraState::Offline, "the stream is over");
                    return Ok(self.summary(position, warning).await);
                }
                Ok(RunEnd::RangeOver { position }) => {
                    self.report(CameraState::Offline, "the part that is described is over");
                    return Ok(self.summary(position, None).await);
                }
                Ok(RunEnd::EndOfStream { .. }) => CaptureError::Ended(self.config.source.to_string()),
                Err(error) => error,
            };
            self.close_windows(ClipAssembler::interrupt).await;
            let state = match fault {
                CaptureError::Unauthorised(_) => CameraState::Unauthorised,
                _ => CameraState::Offline,
            };
            let why = fault.in_one_line();
            self.report(state, &why);
            let may_retry = self.config.retry || self.relay.as_ref().is_some_and(RtspRelay::take_lesson);
            if !may_retry || !self.config.source.is_live() || fault.is_final() {
                return Err(fault);
            }
            let pause = match fault {
                CaptureError::Unauthorised(_) | CaptureError::HungUp { on_login: true, .. } => {
                    BACKOFF.jitter.apply(REFUSED)
                }
                _ => pause_after(&mut self.backoff, uptime),
            };
            if !uptime.is_zero() {
                self.told = None;
            }
            // The caller logs a final fault.
            self.log_fault(&why, pause);
            if self.wait_to_retry(pause, hanging).await.is_break() {
                return Ok(self.summary(Duration::ZERO, None).await);
            }
            self.status.send_modify(|s| s.reconnects += 1);
        }
    }

    /// Runs the source once, unless the file system tells that this cannot work.
    async fn open_and_run(&self) -> RunResult {
        let (source, cancel) = (self.config.source.clone(), self.cancel.clone());
        let look = move || {
            preflight(&source)?;
            Survey::of(&source, || cancel.is_cancelled())
        };
        // A file system may take its time.
        let looked = tokio::select! {
            looked = tokio::task::spawn_blocking(look) => looked,
            () = self.cancel.cancelled() => {
                let end = Ok(RunEnd::Cancelled { position: Duration::ZERO });
                return RunResult { end, uptime: Duration::ZERO, hanging: None };
            }
        };
        match looked.unwrap_or_else(|_| Ok(Survey::default())) {
            Ok(survey) => {
                let relay = self.relay.as_ref();
                run_once(&self.config, &survey, relay, &self.assembler, &self.status, &self.cancel).await
            }
            Err(error) => RunResult::failed(error),
        }
    }

    /// Waits for `pause`, and until a pipeline that did not stop in time has stopped: its driver would not
    /// start again either, and every attempt would cost threads. Breaks if the camera is cancelled.
    async fn wait_to_retry(&self, pause: Duration, hanging: Option<JoinHandle<()>>) -> ControlFlow<()> {
        let waiting = async {
            tokio::time::sleep(pause).await;
            if let Some(hanging) = hanging {
                let _ = hanging.await;
            }
        };
        tokio::select! {
            () = self.cancel.cancelled() => ControlFlow::Break(()),
            () = waiting => ControlFlow::Continue(()),
        }
    }

    /// The source is opened: what was known of the last run is no longer true, but counts go on. A camera that was
    /// lost counts as lost until frames arrive: its state does not change with every attempt.
    fn reset_status(&self) {
        self.status.send_modify(|s| {
            *s = CameraStatus {
                state: s.state,
                why: std::mem::take(&mut s.why),
                frames: s.frames,
                reconnects: s.reconnects,
                decode_errors: s.decode_errors,
                too_few: s.too_few,
                ..CameraStatus::default()
            }
        });
    }

    /// Logs why a run has ended: a camera that stays away is told once, and then now and then.
    fn log_fault(&mut self, why: &str, pause: Duration) {
        let camera = &self.config.id;
        let told = self.told.as_ref();
        if told.is_some_and(|(before, at)| before == why && at.elapsed() < REMINDER) {
            tracing::debug!(%camera, "{why}; trying again in {:.0} s", pause.as_secs_f32());
            return;
        }
        tracing::warn!(%camera, "{why}; trying again in {:.0} s, and further on", pause.as_secs_f32());
        self.told = Some((why.into(), Instant::now()));
    }

    fn report(&self, state: CameraState, why: &str) {
        self.status.send_modify(|s| (s.state, s.why) = (state, why.into()));
    }

    /// Closes the open windows. The sink may block, so this runs on a thread of its own.
    async fn close_windows(&self, close: fn(&mut ClipAssembler)) {
        let assembler = self.assembler.clone();
        let closing = tokio::task::spawn_blocking(move || close(&mut lock(&assembler)));
        if let Err(panic) = closing.await {
            tracing::error!(camera = %self.config.id, "a clip could not be handed over: {panic}");
        }
    }

    /// What came of the camera. A sink that blocks holds the lock, so this runs on a thread of its own.
    async fn summary(&self, duration: Duration, warning: Option<String>) -> Summary {
        let assembler = self.assembler.clone();
        let totals = tokio::task::spawn_blocking(move || lock(&assembler).totals()).await;
        let Totals { frames, clips, too_few } = totals.unwrap_or_else(|panic| {
            tracing::error!(camera = %self.config.id, "the summary is not available: {panic}");
            Totals::default()
        });
        Summary { frames, clips, too_few, duration, warning }
    }
}

/// The pause after a failure of a source that gave frames for `uptime`.
fn pause_after(backoff: &mut Backoff, uptime: Duration) -> Duration {
    if uptime >= STEADY {
        backoff.reset();
    }
    backoff.next_pause()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_that_flaps_waits_longer_until_it_has_run_for_a_while() {
        let jitter = Jitter { min: 1.0, max: 1.0 };
        let mut backoff = Backoff::new(BackoffConfig { jitter, ..BACKOFF });
        for (uptime, pauses) in [(3, &[1, 2, 4, 8, 16][..]), (59, &[32]), (60, &[1, 1, 1]), (3, &[2, 4])] {
            for pause in pauses {
                assert_eq!(pause_after(&mut backoff, Duration::from_secs(uptime)).as_secs(), *pause);
            }
        }
    }
}
