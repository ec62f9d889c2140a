//! Single frames of a whole file, by number: `describe --sampling reference` chooses frames as the
//! reference implementation does. The file is decoded twice, to count its frames and to pick some.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{
    bus::{BusError, MissingPlugin},
    camera_config::CameraConfig,
    diagnose::explain,
    error::CaptureError,
    init::init,
    inspect::{DROP_BUFFER, decoded_pad, lock},
    pipeline::{BuiltPipeline, build},
    pixels::Pixels,
    preflight::preflight,
    survey::Survey,
    timestamper::Timestamper,
};
use crate::{
    frame::Frame,
    resize::{FrameScaler, RgbImage},
};

/// How often the bus is left to see whether frames still come, and whether anybody waits for them.
const PAUSE: gst::ClockTime = gst::ClockTime::from_mseconds(200);

/// What a whole file holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VideoInfo {
    /// How many frames can be decoded.
    pub frames: usize,
    /// Frames per second, on average.
    pub fps: f64,
    /// `frames / fps`, seconds.
    pub duration: f64,
}

/// Decodes a file and returns the frames whose numbers `choose` gives. Numbers count from 0 and ascend;
/// numbers beyond the end are ignored. The PTS of a frame is its number divided by the average rate.
/// Blocks until that is done.
///
/// # Errors
/// If the file cannot be played.
pub fn read_frames_at(
    config: &CameraConfig,
    choose: impl FnOnce(VideoInfo) -> Vec<usize>,
) -> Result<(Vec<Frame>, VideoInfo), CaptureError> {
    read_frames_within(config, ReadBounds::NONE, choose)
}

/// When the reading of a file is given up.
#[derive(Clone, Copy)]
pub struct ReadBounds<'a> {
    /// The most bytes that the returned frames may have.
    pub most_bytes: usize,
    /// Tells when nobody waits for them any more. It is called several times a second.
    pub is_over: &'a dyn Fn() -> bool,
}

impl ReadBounds<'_> {
    /// It is never given up.
    pub const NONE: ReadBounds<'static> = ReadBounds { most_bytes: usize::MAX, is_over: &|| false };
}

/// As [`read_frames_at`], but within `bounds`. Frames are scaled down as `config` says.
///
/// # Errors
/// If the file cannot be played, or not within the bounds.
pub fn read_frames_within(
    config: &CameraConfig,
    bounds: ReadBounds<'_>,
    choose: impl FnOnce(VideoInfo) -> Vec<usize>,
) -> Result<(Vec<Frame>, VideoInfo), CaptureError> {
    init()?;
    preflight(&config.source)?;
    let survey = Survey::of(&config.source, bounds.is_over)?;
    let info = count(config, &survey, bounds.is_over)?;
    let wanted = choose(info);
    let length = Duration::from_secs_f64(info.duration);
    let timestamper = Timestamper::for_source_of_length(&config.source, &survey, length);
    let picked = Arc::new(Mutex::new(Vec::with_capacity(wanted.len())));
    let (kept, mut n) = (picked.clone(), 0);
    let numbers = wanted.clone();
    let pick = move |_: &gst::Pad, _| {
        n += 1;
        numbers.binary_search(&(n - 1)).is_ok()
    };
    let scaler = config.scaling.map(FrameScaler::new);
    let pixels = Pixels::seen_through(config.view.clone());
    let kept_bytes = Arc::new(AtomicUsize::new(0));
    let bytes = kept_bytes.clone();
    let keep = move |sample: &gst::SampleRef| {
        let (rgb, width, height) = pixels.picture(sample.buffer()?, sample.caps()?).ok()?;
        let small = scaler.as_ref().and_then(|it| it.scale(RgbImage::new(&rgb, width, height).ok()?));
        // The sides of what is smaller fit into u32, too.
        let small = small.map(|small| (small.rgb().into(), small.width() as u32, small.height() as u32));
        let frame = small.unwrap_or((rgb, width, height));
        if bytes.fetch_add(frame.0.len(), Ordering::Relaxed) + frame.0.len() <= bounds.most_bytes {
            lock(&kept).push(frame);
        }
        Some(())
    };
    let is_too_large = || kept_bytes.load(Ordering::Relaxed) > bounds.most_bytes;
    let played = play(config, &survey, &|| is_too_large() || (bounds.is_over)(), (pick, keep));
    if is_too_large() {
        return Err(CaptureError::TooManyPixels { what: config.source.to_string(), most: bounds.most_bytes });
    }
    played?;
    let picked = std::mem::take(&mut *lock(&picked));
    let frame = |(number, (rgb, width, height)): (usize, _)| {
        let pts = Duration::from_secs_f64(number as f64 / info.fps);
        let (captured_at, clock) = timestamper.utc(pts);
        Frame { camera: config.id.clone(), captured_at, clock, pts, width, height, rgb, original: None }
    };
    Ok((wanted.into_iter().zip(picked).map(frame).collect(), info))
}

/// What was counted while a file was played.
#[derive(Default)]
struct Count {
    frames: usize,
    first: Option<gst::ClockTime>,
    last: Option<gst::ClockTime>,
    stated: Option<f64>,
}

/// Decodes the whole file once to count its frames.
fn count(
    config: &CameraConfig,
    survey: &Survey,
    is_over: &dyn Fn() -> bool,
) -> Result<VideoInfo, CaptureError> {
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
    play(config, survey, is_over, (note, |_: &gst::SampleRef| Some(())))?;
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

/// Plays a file to its end, or until `is_over`. `wanted` is called with every decoded frame, in order; `keep` gets the frames
/// for which it returns true.
fn play(
    config: &CameraConfig,
    survey: &Survey,
    is_over: &dyn Fn() -> bool,
    (wanted, mut keep): (
        impl FnMut(&gst::Pad, Option<gst::ClockTime>) -> bool + Send + 'static,
        impl FnMut(&gst::SampleRef) -> Option<()> + Send + 'static,
    ),
) -> Result<(), CaptureError> {
    let BuiltPipeline { pipeline, frames, .. } = build(config, survey, None)?;
    let seen = Arc::new(AtomicUsize::new(0));
    if let Some(pad) = decoded_pad(&frames) {
        let seen = seen.clone();
        let wanted = Mutex::new(Box::new(wanted));
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            seen.fetch_add(1, Ordering::Relaxed);
            let pts = info.buffer().and_then(|b| b.pts());
            if (lock(&wanted))(pad, pts) { gst::PadProbeReturn::Ok } else { DROP_BUFFER }
        });
    }
    frames.set_drop(false);
    let new_sample = move |sink: &gst_app::AppSink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        keep(&sample).map(|()| gst::FlowSuccess::Ok).ok_or(gst::FlowError::NotNegotiated)
    };
    frames.set_callbacks(gst_app::AppSinkCallbacks::builder().new_sample(new_sample).build());
    let ended = wait(&pipeline, &seen, config, is_over);
    let _ = pipeline.set_state(gst::State::Null);
    ended
}

/// Waits for the end of the stream, as long as frames keep coming, or until `is_over`.
fn wait(
    pipeline: &gst::Pipeline,
    seen: &AtomicUsize,
    config: &CameraConfig,
    is_over: &dyn Fn() -> bool,
) -> Result<(), CaptureError> {
    let Some(bus) = pipeline.bus() else { return Ok(()) };
    // A failure to start is reported on the bus as well.
    let _ = pipeline.set_state(gst::State::Playing);
    let (mut missing, mut before, mut since) = (Vec::new(), 0, Instant::now());
    let what = || config.source.to_string();
    loop {
        if is_over() {
            return Err(CaptureError::TooLong(what()));
        }
        let kinds = [gst::MessageType::Eos, gst::MessageType::Error, gst::MessageType::Element];
        let message = bus.timed_pop_filtered(PAUSE, &kinds);
        match message.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Error(e)) => {
                return Err(explain(&config.source, BusError::from(e), &missing, Duration::ZERO));
            }
            Some(gst::MessageView::Element(e)) => missing.extend(MissingPlugin::of_message(e)),
            Some(_) => return Ok(()),
            None => {}
        }
        let now = seen.load(Ordering::Relaxed);
        if now != before {
            (before, since) = (now, Instant::now());
        }
        if since.elapsed() >= config.connect_timeout {
            return Err(CaptureError::Stalled { what: what(), after: config.connect_timeout });
        }
    }
}
