//! One life of one pipeline: started, watched for errors, end and silence, and stopped for good.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    CameraConfig, CaptureError,
    error::{Report, diagnose, explain, missing_plugin},
    pipeline::{Built, build},
    sampler::Rhythm,
    stamp::Stamper,
    tap::{Intake, Tap, is_video_decoder, lock},
    vigil::Trouble,
};
use crate::{
    camera::{CameraId, CameraStatus},
    config::Source,
};

/// How a run ended, other than by a fault.
pub(super) enum End {
    /// There is no more.
    Over { position: Duration, warning: Option<String> },
    /// We were asked to stop.
    Cancelled { position: Duration },
}

/// What came of a run.
pub(super) struct Run {
    pub outcome: Result<End, CaptureError>,
    /// How long pictures came.
    pub up: Duration,
    /// Ends when the pipeline does, if it did not in time.
    pub hanging: Option<JoinHandle<()>>,
}

impl Run {
    /// One that did not get as far as a pipeline.
    pub fn failed(error: CaptureError) -> Self {
        Self { outcome: Err(error), up: Duration::ZERO, hanging: None }
    }
}

/// What the bus told.
enum News {
    Over,
    Failed(Report),
}

/// Why a run has to end.
enum Fault {
    Reported(Report),
    Noticed(Trouble),
}

/// A file that ends so much before its stated length was cut off.
const CUT_OFF: Duration = Duration::from_secs(2);

/// How long a pipeline may take to stop.
const STOPPING: Duration = Duration::from_secs(5);

/// Plays a source once, from its start to its end.
pub(super) async fn run_once(
    config: &CameraConfig,
    intake: &Arc<Mutex<Intake>>,
    status: &Arc<watch::Sender<CameraStatus>>,
    cancel: &CancellationToken,
) -> Run {
    let Built { pipeline, source, frames } = match build(config) {
        Ok(built) => built,
        Err(error) => return Run::failed(error),
    };
    let stamper = match &config.source {
        Source::File(path) => Stamper::file(path),
        source if source.is_live() => Stamper::live(),
        _ => Stamper::now(),
    };
    let rhythm = Rhythm::new(config.sampling, config.window.interval());
    let tap = Arc::new(Tap::new(config, intake.clone(), status.clone(), stamper, rhythm));
    tap.attach(&pipeline, &source, &frames);
    drop((source, frames));
    let missing = Arc::new(Mutex::new(Vec::new()));
    let mut news = listen(&pipeline, &tap, &missing);
    let started = pipeline.clone();
    // Failures to start are told on the bus as well, and a driver in which it hangs gives no pictures.
    let starting = tokio::task::spawn_blocking(move || {
        let _ = started.set_state(gst::State::Playing);
    });
    let result = watch(config, &pipeline, &tap, status, cancel, &mut news).await;
    tap.close();
    let hanging = stop(&config.id, pipeline, starting).await;
    let (what, position, up) = (config.source.to_string(), tap.position(), tap.up());
    let fault = match result {
        Ok(end) => return Run { outcome: Ok(end), up, hanging },
        Err(Fault::Noticed(Trouble::Silent(after))) => CaptureError::Stalled { what, after },
        Err(Fault::Noticed(Trouble::Damaged(after, pieces))) => {
            status.send_modify(|s| s.decode_errors += u64::from(pieces));
            CaptureError::Undecodable { what, after }
        }
        Err(Fault::Reported(report)) => explain(&config.source, report, &lock(&missing), position),
    };
    let error = diagnose(&config.source, tap.take_fault().unwrap_or(fault)).await;
    Run { outcome: Err(error), up, hanging }
}

/// Waits for the end, a fault or the request to stop.
async fn watch(
    config: &CameraConfig,
    pipeline: &gst::Pipeline,
    tap: &Tap,
    status: &watch::Sender<CameraStatus>,
    cancel: &CancellationToken,
    news: &mut mpsc::Receiver<News>,
) -> Result<End, Fault> {
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    let mut length = None;
    loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(End::Cancelled { position: tap.position() }),
            heard = news.recv() => match heard {
                Some(News::Failed(report)) => return Err(Fault::Reported(report)),
                Some(News::Over) | None => {
                    length = learn_length(config, pipeline, status, length);
                    let position = tap.position();
                    return Ok(End::Over { position, warning: cut_off(position, length) });
                }
            },
            _ = tick.tick() => {
                if let Some(trouble) = tap.trouble() {
                    return Err(Fault::Noticed(trouble));
                }
                length = learn_length(config, pipeline, status, length);
            }
        }
    }
}

/// The length that a file states, once it is known.
fn learn_length(
    config: &CameraConfig,
    pipeline: &gst::Pipeline,
    status: &watch::Sender<CameraStatus>,
    known: Option<Duration>,
) -> Option<Duration> {
    if known.is_some() || config.source.is_live() {
        return known;
    }
    let length = pipeline.query_duration::<gst::ClockTime>().map(Duration::from);
    status.send_if_modified(|s| std::mem::replace(&mut s.duration, length) != length);
    length
}

fn cut_off(position: Duration, length: Option<Duration>) -> Option<String> {
    let length = length.filter(|length| *length > position + CUT_OFF)?;
    let (said, found) = (length.as_secs_f32(), position.as_secs_f32());
    Some(format!(
        "the file says that it lasts {said:.1} s, but its pictures end at {found:.1} s: it may be cut off"
    ))
}

/// Forwards what matters from the bus; nothing piles up there.
fn listen(
    pipeline: &gst::Pipeline,
    tap: &Arc<Tap>,
    missing: &Arc<Mutex<Vec<String>>>,
) -> mpsc::Receiver<News> {
    let (tell, news) = mpsc::channel(8);
    let Some(bus) = pipeline.bus() else { return news };
    let (missing, tap) = (missing.clone(), tap.clone());
    bus.set_sync_handler(move |_, message| {
        match message.view() {
            gst::MessageView::Eos(_) => {
                // Full only if errors wait there, and the first of them ends the run.
                let _ = tell.try_send(News::Over);
            }
            gst::MessageView::Error(e) => {
                let _ = tell.try_send(News::Failed(Report::from(e)));
            }
            gst::MessageView::Warning(w) => {
                tracing::debug!(camera = %tap.camera, "GStreamer warns: {}", w.error().message());
                if w.src().and_then(|s| s.downcast_ref::<gst::Element>()).is_some_and(is_video_decoder) {
                    tap.decode_error();
                }
            }
            gst::MessageView::Element(e) => {
                lock(&missing).extend(missing_plugin(e));
            }
            _ => {}
        }
        gst::BusSyncReply::Drop
    });
    news
}

/// Stops a pipeline. Its threads are waited for, which takes as long as the sink or a driver holds one
/// of them: what still goes on after a while is given back.
async fn stop(
    camera: &CameraId,
    pipeline: gst::Pipeline,
    starting: JoinHandle<()>,
) -> Option<JoinHandle<()>> {
    let mut stopping = tokio::spawn(async move {
        // Not before it has begun to play: it would go on playing then.
        let _ = starting.await;
        let _ = tokio::task::spawn_blocking(move || pipeline.set_state(gst::State::Null)).await;
    });
    if tokio::time::timeout(STOPPING, &mut stopping).await.is_ok() {
        return None;
    }
    tracing::warn!(%camera, "its pipeline does not stop: it is left to itself");
    Some(stopping)
}
