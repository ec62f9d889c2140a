//! Feeds a pipeline with synthetic frames: GStreamer's test patterns, or shapes that are drawn here.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use crate::config::test_source::{Script, TestContent, TestSource};

/// Sets what `source` has to show. Returns false if the pipeline cannot show it.
pub(super) fn configure(pipeline: &gst::Pipeline, source: &gst::Element, test: &TestSource) -> bool {
    match &test.content {
        TestContent::Pattern(pattern) => configure_pattern(pipeline, source, test, pattern),
        TestContent::Shapes(script) => {
            // The element that slows the drawing down to the frame rate. A pipeline may do without.
            if let Some(pace) = pipeline.by_name("pace").filter(|p| p.has_property("sync")) {
                pace.set_property("sync", test.live);
            }
            source.downcast_ref::<gst_app::AppSrc>().map(|appsrc| draw_into(appsrc, test, script)).is_some()
        }
    }
}

fn configure_pattern(
    pipeline: &gst::Pipeline,
    source: &gst::Element,
    test: &TestSource,
    pattern: &str,
) -> bool {
    let Some(size) = pipeline.by_name("size").filter(|s| s.has_property("caps")) else { return false };
    if !source.has_property("pattern") {
        return false;
    }
    size.set_property("caps", caps(test).build());
    source.set_property_from_str("pattern", pattern);
    source.set_property("is-live", test.live);
    if let Some(count) = frame_count(test) {
        source.set_property("num-buffers", i32::try_from(count).unwrap_or(i32::MAX));
    }
    true
}

fn caps(test: &TestSource) -> gst::caps::Builder<gst::caps::NoFeature> {
    gst::Caps::builder("video/x-raw")
        .field("width", test.width.cast_signed())
        .field("height", test.height.cast_signed())
        .field("framerate", gst::Fraction::new(test.fps.cast_signed(), 1))
}

/// How many frames there are. `None`: the stream has no end.
fn frame_count(test: &TestSource) -> Option<u64> {
    let frames = test.duration?.as_nanos() * u128::from(test.fps) / 1_000_000_000;
    u64::try_from(frames).ok()
}

/// Draws a frame whenever `appsrc` needs one.
fn draw_into(appsrc: &gst_app::AppSrc, test: &TestSource, script: &Script) {
    let (width, height, fps, count) = (test.width, test.height, u64::from(test.fps), frame_count(test));
    let script = script.clone();
    // GStreamer pads rows to four bytes.
    let caps = caps(test).field("format", "RGB").build();
    let row = width as usize * 3;
    let stride = row.next_multiple_of(4);
    appsrc.set_caps(Some(&caps));
    appsrc.set_format(gst::Format::Time);
    appsrc.set_max_bytes((stride * height as usize) as u64);
    let mut tight = vec![0; row * height as usize];
    let mut n = 0;
    let need_data = move |appsrc: &gst_app::AppSrc, _| {
        if count.is_some_and(|count| n >= count) {
            let _ = appsrc.end_of_stream();
            return;
        }
        let time = |n: u64| gst::ClockTime::from_nseconds(n.saturating_mul(1_000_000_000) / fps);
        script.draw(time(n).into(), width, height, &mut tight);
        let mut padded = vec![0; stride * height as usize];
        for (to, from) in padded.chunks_exact_mut(stride).zip(tight.chunks_exact(row)) {
            to[..row].copy_from_slice(from);
        }
        let mut buffer = gst::Buffer::from_mut_slice(padded);
        if let Some(b) = buffer.get_mut() {
            b.set_pts(time(n));
            b.set_duration(time(n + 1) - time(n));
        }
        n += 1;
        // appsrc refuses a buffer only while the pipeline stops.
        let _ = appsrc.push_buffer(buffer);
    };
    appsrc.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need_data).build());
}
