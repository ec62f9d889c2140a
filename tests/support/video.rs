//! Video files that GStreamer encodes in the test.

use std::path::{Path, PathBuf};

use gstreamer as gst;
use gstreamer::prelude::*;

/// Runs a gst-launch description to its end.
pub fn launch(text: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = bus.timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(e)) => panic!("{text}: {} ({:?})", e.error(), e.debug()),
        _ => panic!("{text}: no end after a minute"),
    }
}

/// Writes six seconds of a moving ball, 320x240 at 25 frames per second, through `encoder ! muxer`. Returns the
/// path.
pub fn ball(folder: &Path, name: &str, encode: &str) -> PathBuf {
    let path = folder.join(name);
    launch(&format!(
        "videotestsrc pattern=ball num-buffers=150 ! video/x-raw,format=I420,width=320,height=240,framerate=25/1 \
         ! {encode} ! filesink location={}",
        path.display()
    ));
    path
}

/// Returns the encoder of H.264 with a keyframe every `gop` frames.
pub fn h264(gop: u32) -> String {
    format!("x264enc key-int-max={gop} speed-preset=ultrafast option-string=scenecut=0 ! h264parse")
}
