//! Single pictures of a whole file, by number: what `describe --sampling reference` needs to choose
//! frames as the reference implementation does. The file is decoded twice: to count, and to pick.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{
    CameraConfig, CaptureError,
    error::{Report, explain, missing_plugin},
    pipeline::{Built, build},
    preflight::preflight,
    stamp::Stamper,
    tap::{LET_GO, decoded_side, lock, pixels},
};
use crate::{config::Source, frame::Frame};

/// What a whole file holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoInfo {
    /// Pictures that can be decoded.
    pub frames: usize,
    /// Pictures per second, on average.
    pub fps: f64,
    /// `frames / fps`, seconds.
    pub duration: f64,
}

/// Decodes a file and returns the pictures whose numbers `choose` gives: ascending, counted from 0;
/// numbers beyond the end are ignored. A frame's PTS is its number divided by the average rate.
/// Blocks until that is done.
pub fn read_frames_at(
    config: &CameraConfig,
    choose: impl FnOnce(VideoInfo) -> Vec<usize>,
) -> Result<(Vec<Frame>, VideoInfo), CaptureError> {
    gst::init().map_err(CaptureError::Gstreamer)?;
    preflight(&config.source)?;
    let info = count(config)?;
    let wanted = choose(info);
    let stamper = match &config.source {
        Source::File(path) => Stamper::whole_file(path, Duration::from_secs_f64(info.duration)),
        _ => Stamper::now(),
    };
    let picked = Arc::new(Mutex::new(Vec::with_capacity(wanted.len())));
    let (pictures, mut n) = (picked.clone(), 0);
    let numbers = wanted.clone();
    let pick = move |_: &gst::Pad, _| {
        n += 1;
        numbers.binary_search(&(n - 1)).is_ok()
    };
    let keep = move |sample: &gst::SampleRef| {
        let picture = pixels(sample.buffer()?, sample.caps()?)?;
        lock(&pictures).push(picture);
        Some(())
    };
    play(config, pick, keep)?;
    let picked = std::mem::take(&mut *lock(&picked));
    let frame = |(number, (rgb, width, height)): (usize, _)| {
        let pts = Duration::from_secs_f64(number as f64 / info.fps);
        let (captured_at, clock) = stamper.at(pts);
        Frame { camera: config.id.clone(), captured_at, clock, pts, width, height, rgb, original: None }
    };
    Ok((wanted.into_iter().zip(picked).map(frame).collect(), info))
}

#[derive(Default)]
struct Count {
    frames: usize,
    first: Option<gst::ClockTime>,
    last: Option<gst::ClockTime>,
    stated: Option<f64>,
}

fn count(config: &CameraConfig) -> Result<VideoInfo, CaptureError> {
    let counted = Arc::new(Mutex::new(Count::default()));
    let seen = counted.clone();
    let note = move |pad: &gst::Pad, pts: Option<gst::ClockTime>| {
        let mut seen = lock(&seen);
        seen.frames += 1;
        seen.first = seen.first.min(pts).or(pts);
        seen.last = seen.last.max(pts);
        if seen.stated.is_none() {
            let rate =
                pad.current_caps().and_then(|c| c.structure(0)?.get::<gst::Fraction>("framerate").ok());
            seen.stated = rate.map(|r| f64::from(r.numer()) / f64::from(r.denom()));
        }
        false
    };
    play(config, note, |_| Some(()))?;
    let seen = lock(&counted);
    let span = seen.last.zip(seen.first).map_or(0.0, |(last, first)| (last - first).seconds_f64());
    let measured = (seen.frames > 1 && span > 0.0).then(|| (seen.frames - 1) as f64 / span);
    // Containers round times, so the stated rate is the exact one if it is right at all.
    let stated = seen.stated.filter(|s| *s > 0.0 && measured.is_none_or(|m| (s / m - 1.0).abs() < 0.01));
    let fps = stated.or(measured).unwrap_or(1.0);
    match seen.frames {
        0 => Err(CaptureError::NoVideo(config.source.to_string())),
        frames => Ok(VideoInfo { frames, fps, duration: frames as f64 / fps }),
    }
}

/// Plays a file to its end. `wanted` is asked about every decoded picture, in order; those that are go
/// to `keep`.
fn play(
    config: &CameraConfig,
    wanted: impl FnMut(&gst::Pad, Option<gst::ClockTime>) -> bool + Send + 'static,
    mut keep: impl FnMut(&gst::SampleRef) -> Option<()> + Send + 'static,
) -> Result<(), CaptureError> {
    let Built { pipeline, frames, .. } = build(config)?;
    let seen = Arc::new(AtomicUsize::new(0));
    if let Some(pad) = decoded_side(&frames) {
        let seen = seen.clone();
        let wanted = Mutex::new(Box::new(wanted));
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            seen.fetch_add(1, Ordering::Relaxed);
            let pts = info.buffer().and_then(|b| b.pts());
            if (lock(&wanted))(pad, pts) { gst::PadProbeReturn::Ok } else { LET_GO }
        });
    }
    frames.set_drop(false);
    let new_sample = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        keep(&sample).map(|()| gst::FlowSuccess::Ok).ok_or(gst::FlowError::NotNegotiated)
    };
    frames.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    let ended = wait(&pipeline, &seen, config);
    let _ = pipeline.set_state(gst::State::Null);
    ended
}

/// Waits for the end, as long as pictures keep coming.
fn wait(pipeline: &gst::Pipeline, seen: &AtomicUsize, config: &CameraConfig) -> Result<(), CaptureError> {
    let Some(bus) = pipeline.bus() else { return Ok(()) };
    // Failures to start are told on the bus as well.
    let _ = pipeline.set_state(gst::State::Playing);
    let (mut missing, mut before) = (Vec::new(), None);
    let patience = gst::ClockTime::try_from(config.opening).unwrap_or(gst::ClockTime::MAX);
    loop {
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Element];
        let message = bus.timed_pop_filtered(patience, &kinds);
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(e)) => {
                return Err(explain(&config.source, Report::from(e), &missing, Duration::ZERO));
            }
            Some(gst::MessageView::Element(e)) => missing.extend(missing_plugin(e)),
            Some(_) => return Ok(()),
            None => {
                let now = seen.load(Ordering::Relaxed);
                if before.replace(now) == Some(now) {
                    return Err(CaptureError::Stalled {
                        what: config.source.to_string(),
                        after: config.opening,
                    });
                }
            }
        }
    }
}
