//! What GStreamer's RTSP client needs beyond its properties.

use std::sync::OnceLock;

use gstreamer as gst;
use gstreamer::prelude::*;

/// Makes an `rtspsrc` ask for the first video stream only, and pass on the camera's clock. Other elements
/// stay as they are.
pub(super) fn configure(element: &gst::Element) {
    if element.factory().is_none_or(|factory| factory.name() != "rtspsrc") {
        return;
    }
    // The streams are offered again when rtspsrc falls back from UDP to TCP: the choice stays.
    let chosen = OnceLock::new();
    element.connect("select-stream", false, move |values| {
        let number = values.get(1).and_then(|v| v.get::<u32>().ok());
        let caps = values.get(2).and_then(|v| v.get::<gst::Caps>().ok());
        let media = caps.and_then(|c| c.structure(0)?.get::<String>("media").ok());
        let is_video = media.as_deref() == Some("video");
        Some((is_video && *chosen.get_or_init(|| number) == number).to_value())
    });
    element.connect("new-manager", false, |values| {
        let manager = values.get(1).and_then(|v| v.get::<gst::Element>().ok());
        if let Some(manager) = manager.filter(|m| m.has_property("add-reference-timestamp-meta")) {
            manager.set_property("add-reference-timestamp-meta", true);
        }
        None
    });
}
