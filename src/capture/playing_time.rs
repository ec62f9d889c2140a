//! How long a file plays, by what it states and by what its streams hold.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use gstreamer as gst;
use gstreamer::prelude::*;

use super::inspect::running_time;

/// The demuxers of containers that state when the last frame ends, whatever time the first one has.
const STATE_END: [&str; 2] = ["flvdemux", "matroskademux"];

/// How long the file plays whose frames arrive at `sink`, by what it states. `None`: it is not known (yet).
pub(super) fn stated_length(sink: &gst::Element) -> Option<Duration> {
    let stated = sink.query_duration::<gst::ClockTime>()?;
    let start = segment(sink)?.start()?;
    let states_end = |it: &gst::Element| it.factory().is_some_and(|f| STATE_END.contains(&f.name().as_str()));
    let pipeline = sink.parent().and_downcast::<gst::Bin>()?;
    let subtracts = pipeline.iterate_recurse().into_iter().flatten().any(|it| states_end(&it));
    // GStreamer's own muxers state a length here, too.
    let length = if subtracts && start < stated { stated - start } else { stated };
    Some(length.into())
}

/// How long the frames alone play, if the file states that: MP4 does.
pub(super) fn stated_length_of_frames(sink: &gst::Element) -> Option<Duration> {
    let segment = segment(sink)?;
    segment.stop()?.checked_sub(segment.start()?).map(Duration::from)
}

/// The segment of the frames that arrive at `sink`.
fn segment(sink: &gst::Element) -> Option<gst::FormattedSegment<gst::ClockTime>> {
    let event = sink.static_pad("sink")?.sticky_event::<gst::event::Segment>(0)?;
    event.segment().downcast_ref::<gst::ClockTime>().cloned()
}

/// How far the streams of a pipeline have come, also those that are not decoded.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<Reached>);

/// Running times, in nanoseconds.
#[derive(Default)]
struct Reached {
    latest: AtomicU64,
    /// From the time before the latest one to the latest.
    interval: AtomicU64,
}

impl Reached {
    fn note(&self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let before = self.latest.fetch_max(time, Ordering::Relaxed);
        if time > before {
            self.interval.store(time - before, Ordering::Relaxed);
        }
    }
}

impl Progress {
    /// Watches a pipeline that does not run yet.
    pub fn of(pipeline: &gst::Pipeline) -> Self {
        let progress = Self::default();
        let watched = progress.clone();
        let watch = move |element: &gst::Element| {
            if element.factory().is_some_and(|factory| factory.klass().contains("Demuxer")) {
                watched.watch(element);
            }
        };
        pipeline.iterate_recurse().into_iter().flatten().for_each(|element| watch(&element));
        pipeline.connect_deep_element_added(move |_, _, element| watch(element));
        progress
    }

    /// When the latest frame of any stream ends, if it is shown for as long as the one before it.
    pub fn end(&self) -> Duration {
        let Reached { latest, interval } = &*self.0;
        let [latest, interval] =
            [latest, interval].map(|it| Duration::from_nanos(it.load(Ordering::Relaxed)));
        latest + interval
    }

    /// Watches the streams of a demuxer.
    fn watch(&self, demuxer: &gst::Element) {
        let progress = self.clone();
        demuxer.connect_pad_added(move |_, pad| {
            let reached = progress.0.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                if let Some(time) = info.buffer().and_then(|buffer| running_time(pad, buffer)) {
                    reached.note(time);
                }
                gst::PadProbeReturn::Ok
            });
        });
    }
}
