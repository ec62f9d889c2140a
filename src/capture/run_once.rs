//! One run of one pipeline: it is started, watched for errors, end and stall, and stopped.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    bus::{BusError, BusEvent, BusEvents},
    camera_config::CameraConfig,
    clip_assembler::ClipAssembler,
    diagnose::{explain, find_network_cause},
    error::CaptureError,
    pipeline::{BuiltPipeline, build},
    playing_time::{Progress, stated_length, stated_length_of_frames},
    rtsp_relay::RtspRelay,
    stall::StallReason,
    stream_probes::StreamProbes,
    survey::Survey,
};
use crate::{
    camera::{CameraId, CameraStatus},
    memory,
};

/// How a run ended without a fault.
pub(super) enum RunEnd {
    /// The stream is over.
    EndOfStream { position: Duration, warning: Option<String> },
    /// The part of it that is cut into clips is over.
    RangeOver { position: Duration },
    /// The run was cancelled.
    Cancelled { position: Duration },
}

/// What came of a run.
pub(super) struct RunResult {
    pub end: Result<RunEnd, CaptureError>,
    /// For how long frames came.
    pub uptime: Duration,
    /// A task that ends when the pipeline has stopped, if the pipeline did not stop in time.
    pub hanging: Option<JoinHandle<()>>,
}

impl RunResult {
    /// A run that did not get as far as a pipeline.
    pub fn failed(error: CaptureError) -> Self {
        Self { end: Err(error), uptime: Duration::ZERO, hanging: None }
    }
}

/// Why a run has to end.
enum Fault {
    Reported(BusError),
    Stalled(StallReason),
}

/// A file that ends this much before its stated length was cut off.
const CUT_OFF: Duration = Duration::from_secs(2);

/// How often a stream is checked for a stall.
const CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// How long a pipeline may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Plays a source that was surveyed once, from its start to its end, its failure, or `cancel`. `relay`: what a network
/// camera is reached through.
pub(super) async fn run_once(
    config: &CameraConfig,
    survey: &Survey,
    relay: Option<&RtspRelay>,
    assembler: &Arc<Mutex<ClipAssembler>>,
    status: &Arc<watch::Sender<CameraStatus>>,
    cancel: &CancellationToken,
) -> RunResult {
    if let Some(relay) = relay {
        relay.begin();
    }
    let BuiltPipeline { pipeline, source, frames } = match build(config, survey, relay.map(RtspRelay::url)) {
        Ok(built) => built,
        Err(error) => return RunResult::failed(error),
    };
    let probes = Arc::new(StreamProbes::new(config, survey, assembler.clone(), status.clone()));
    probes.attach(&pipeline, &source, &frames);
    drop(source);
    let progress = Progress::of(&pipeline);
    let mut events = BusEvents::subscribe(&pipeline, &config.id, &probes);
    let starting = pipeline.clone();
    // A failure to start is reported on the bus as well. A driver in which this call hangs gives no frames.
    let started = tokio::task::spawn_blocking(move || {
        let _ = starting.set_state(gst::State::Playing);
    });
    let frames = frames.upcast();
    let mut run = Run { config, survey, frames, probes: &probes, status, progress, length: None };
    let ended = run.watch(cancel, &mut events).await;
    drop(run);
    probes.close();
    let hanging = stop(&config.id, pipeline, started).await;
    // A decoder may have held a lot.
    drop(tokio::task::spawn_blocking(memory::trim));
    let (position, uptime) = (probes.position(), probes.uptime());
    let what = config.source.to_string();
    let failure = relay.and_then(RtspRelay::take_failure);
    let fault = match ended {
        Ok(RunEnd::EndOfStream { .. }) if failure.is_some() => CaptureError::Ended(what),
        Ok(end) => return RunResult { end: Ok(end), uptime, hanging },
        Err(Fault::Stalled(StallReason::Silent { after })) => {
            match (probes.missing_parameter_sets(), probes.codec_without_pictures()) {
                (Some(missing), _) => CaptureError::NoParameterSets { what, missing },
                (None, Some(codec)) => CaptureError::NoPictures { what, codec },
                (None, None) => CaptureError::Stalled { what, after },
            }
        }
        Err(Fault::Stalled(StallReason::Undecodable { after, swallowed })) => {
            status.send_modify(|s| s.decode_errors += u64::from(swallowed));
            CaptureError::Undecodable { what, after }
        }
        Err(Fault::Reported(error)) => explain(&config.source, error, &events.missing_plugins(), position),
    };
    // What the probes found is final: what else fails then is no reason to try again.
    let error = match (probes.take_fault(), failure) {
        (Some(found), _) => found,
        (None, Some(failure)) => failure,
        (None, None) => find_network_cause(&config.source, fault).await,
    };
    RunResult { end: Err(error), uptime, hanging }
}

/// A pipeline that plays.
struct Run<'a> {
    config: &'a CameraConfig,
    survey: &'a Survey,
    /// The element that frames arrive at.
    frames: gst::Element,
    probes: &'a StreamProbes,
    status: &'a watch::Sender<CameraStatus>,
    progress: Progress,
    /// How long a file plays, once it is known.
    length: Option<Duration>,
}

impl Run<'_> {
    /// Waits for the end, a fault or `cancel`.
    async fn watch(&mut self, cancel: &CancellationToken, events: &mut BusEvents) -> Result<RunEnd, Fault> {
        let mut tick = tokio::time::interval(CHECK_INTERVAL);
        loop {
            tokio::select! {
                biased;
                () = cancel.cancelled() => return Ok(RunEnd::Cancelled { position: self.probes.position() }),
                event = events.next() => match event {
                    BusEvent::Error(error) => return Err(Fault::Reported(error)),
                    BusEvent::EndOfStream => {
                        self.query_length();
                        let position = self.probes.position();
                        let warning = self.broken().or_else(|| self.cut_off(position));
                        let warning = warning.or_else(|| self.probes.colour_warning());
                        return Ok(RunEnd::EndOfStream { position, warning });
                    }
                },
                _ = tick.tick() => {
                    if self.probes.is_over() {
                        return Ok(RunEnd::RangeOver { position: self.probes.position() });
                    }
                    if let Some(reason) = self.probes.stalled() {
                        return Err(Fault::Stalled(reason));
                    }
                    self.query_length();
                }
            }
        }
    }

    /// A warning, if a part of a file cannot be read.
    fn broken(&self) -> Option<String> {
        let at = self.survey.broken_at?;
        Some(format!("the file is damaged at byte {at}: nothing behind it could be described"))
    }

    /// A warning, if all streams of a file end well before the length that it states.
    fn cut_off(&self, position: Duration) -> Option<String> {
        // What the survey has found is not what the file states.
        let stated = self.length.filter(|_| self.survey.length.is_none())?;
        let length = stated_length_of_frames(&self.frames).unwrap_or(stated);
        let position = position.max(self.progress.end());
        if length <= position + CUT_OFF {
            return None;
        }
        let (stated, found) = (length.as_secs_f32(), position.as_secs_f32());
        Some(format!(
            "the file states a length of {stated:.1} s, but it ends at {found:.1} s: it may be cut off"
        ))
    }

    /// Asks a file for its length, unless that is known.
    fn query_length(&mut self) {
        if self.length.is_some() || self.config.source.is_live() {
            return;
        }
        self.length = self.survey.length.or_else(|| stated_length(&self.frames));
        self.status.send_if_modified(|s| std::mem::replace(&mut s.duration, self.length) != self.length);
    }
}

/// Stops a pipeline, and waits for its threads. The sink or a driver may hold one of them: after
/// [`STOP_TIMEOUT`] the task that still waits is returned.
async fn stop(camera: &CameraId, pipeline: gst::Pipeline, started: JoinHandle<()>) -> Option<JoinHandle<()>> {
    let mut stopping = tokio::spawn(async move {
        // A pipeline that is stopped before it has begun to play would go on to play.
        let _ = started.await;
        let _ = tokio::task::spawn_blocking(move || pipeline.set_state(gst::State::Null)).await;
    });
    if tokio::time::timeout(STOP_TIMEOUT, &mut stopping).await.is_ok() {
        return None;
    }
    tracing::warn!(%camera, "the pipeline does not stop within {} s: no longer waiting", STOP_TIMEOUT.as_secs());
    Some(stopping)
}
