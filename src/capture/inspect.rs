//! Questions about GStreamer's elements, pads, caps and buffers.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

/// What a pad probe returns to drop data. Not `Drop`: the bindings have freed the data by then, and
/// GStreamer before 1.24.8 complains that there is nothing left to free.
pub(super) const DROP_BUFFER: gst::PadProbeReturn = gst::PadProbeReturn::Handled;

/// Takes a lock even if another thread has panicked while it held it. What the locks of this module guard
/// is whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether an element decodes video or images.
pub(super) fn is_video_decoder(element: &gst::Element) -> bool {
    let Some(factory) = element.factory() else { return false };
    let class = factory.klass();
    class.contains("Decoder") && (class.contains("Video") || class.contains("Image"))
}

/// A buffer's time since the start of the stream.
pub(super) fn running_time(pad: &gst::Pad, buffer: &gst::BufferRef) -> Option<Duration> {
    let event = pad.sticky_event::<gst::event::Segment>(0)?;
    let segment = event.segment().downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(buffer.pts()?).map(Duration::from)
}

/// A sample's time since the start of the stream.
pub(super) fn sample_running_time(sample: &gst::SampleRef) -> Option<Duration> {
    let segment = sample.segment()?.downcast_ref::<gst::ClockTime>()?;
    segment.to_running_time(sample.buffer()?.pts()?).map(Duration::from)
}

/// Whether an element holds frames up until their time has come.
fn paces(element: &gst::Element) -> bool {
    element.has_property_with_type("sync", bool::static_type()) && element.property("sync")
}

/// The pad through which decoded frames leave for `frames`: downstream of decoder, source and every element
/// that paces them, upstream of every element that only converts. (A frame that is dropped before it is paced
/// would come and go at once, and the source would seem silent until the next one that is wanted.)
pub(super) fn decoded_pad(frames: &gst_app::AppSink) -> Option<gst::Pad> {
    let mut pad = frames.static_pad("sink")?;
    loop {
        let Some(element) = pad.peer().and_then(|peer| peer.parent_element()) else { return Some(pad) };
        let ends_the_walk = is_video_decoder(&element) || paces(&element) || element.is::<gst::Bin>();
        match &element.sink_pads()[..] {
            [only] if !ends_the_walk => pad = only.clone(),
            _ => return Some(pad),
        }
    }
}

/// Width and height of a frame once its pixels are made square.
pub(super) fn square_size(caps: &gst::CapsRef) -> Option<(u32, u32)> {
    let s = caps.structure(0)?;
    let side = |name: &str| s.get::<i32>(name).ok().and_then(|v| u32::try_from(v).ok());
    let (width, height) = (side("width")?, side("height")?);
    let par = s
        .get::<gst::Fraction>("pixel-aspect-ratio")
        .map_or(1.0, |p| f64::from(p.numer()) / f64::from(p.denom()));
    Some(((f64::from(width) * par).round() as u32, height))
}

/// Frames per second. `None`: the stream does not state it.
pub(super) fn frame_rate(caps: &gst::CapsRef) -> Option<f64> {
    let rate = caps.structure(0)?.get::<gst::Fraction>("framerate").ok()?;
    (rate.numer() > 0).then(|| f64::from(rate.numer()) / f64::from(rate.denom()))
}
