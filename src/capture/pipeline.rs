//! From a pipeline description to a pipeline that is ready to run: the text is parsed as it stands,
//! then address, credentials, device and size are set as properties of its named elements, so that
//! an address can never add elements.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::{
    CameraConfig, CaptureError,
    error::package_of_element,
    library::{self, PipelineError},
};
use crate::config::{
    Login, Rtsp, Source, Transport,
    test_source::{TestContent, TestSource},
};

/// A pipeline with its two named ends.
pub(super) struct Built {
    pub pipeline: gst::Pipeline,
    pub source: gst::Element,
    pub frames: gst_app::AppSink,
}

/// Builds the pipeline of a camera.
pub(super) fn build(config: &CameraConfig) -> Result<Built, CaptureError> {
    let name = config.pipeline.as_deref().unwrap_or(default_name(&config.source));
    let text = library::text(name, config.pipelines_dir.as_deref())?;
    let pipeline = parse(name, &text)?;
    let lacks = |wanted, element| PipelineError::Lacks { name: name.into(), wanted, element };
    let source = pipeline.by_name("source").ok_or_else(|| lacks("source", "source"))?;
    let frames = pipeline.by_name("frames").and_then(|e| e.downcast::<gst_app::AppSink>().ok());
    let frames = frames.ok_or_else(|| lacks("appsink for its frames", "frames"))?;
    if !configure(&pipeline, &source, config) {
        let element = source.factory().map_or_else(String::new, |f| f.name().to_string());
        return Err(PipelineError::WrongSource {
            name: name.into(),
            element,
            what: config.source.to_string(),
        }
        .into());
    }
    let square = gst::Fraction::new(1, 1);
    let caps = gst::Caps::builder("video/x-raw").field("format", "RGB").field("pixel-aspect-ratio", square);
    frames.set_caps(Some(&caps.build()));
    frames.set_sync(false);
    frames.set_max_buffers(1);
    frames.set_drop(config.source.is_live());
    frames.set_enable_last_sample(false);
    Ok(Built { pipeline, source, frames })
}

/// The pipeline that plays a source unless the user names another.
fn default_name(source: &Source) -> &'static str {
    match source {
        Source::File(_) => "file",
        Source::Rtsp(_) => "rtsp",
        Source::V4l2(_) => "v4l2",
        Source::Test(TestSource { content: TestContent::Pattern(_), .. }) => "test",
        Source::Test(TestSource { content: TestContent::Shapes(_), .. }) => "shapes",
    }
}

fn parse(name: &str, text: &str) -> Result<gst::Pipeline, PipelineError> {
    let syntax = |why: String| PipelineError::Syntax { name: name.into(), why };
    let mut context = gst::ParseContext::new();
    let parsed = gst::parse::launch_full(text, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
    match (parsed, context.missing_elements().into_iter().next()) {
        (_, Some(element)) => {
            let package = package_of_element(&element);
            Err(PipelineError::NoElement { name: name.into(), element, package })
        }
        (Err(error), None) => Err(syntax(error.message().to_owned())),
        (Ok(element), None) => element
            .downcast()
            .map_err(|_| syntax("it is a single element, not a chain from source to frames".into())),
    }
}

/// Sets what the source has to play. False if it is not an element that can.
fn configure(pipeline: &gst::Pipeline, element: &gst::Element, config: &CameraConfig) -> bool {
    match &config.source {
        Source::File(path) => set_text(element, "location", &path.to_string_lossy()),
        Source::V4l2(device) => set_text(element, "device", &device.to_string_lossy()),
        Source::Rtsp(rtsp) => rtspsrc(element, rtsp, config),
        Source::Test(test) => match &test.content {
            TestContent::Pattern(pattern) => videotestsrc(pipeline, element, test, pattern),
            TestContent::Shapes(_) => {
                if let Some(pace) = pipeline.by_name("pace").filter(|p| p.has_property("sync")) {
                    pace.set_property("sync", test.live);
                }
                element.downcast_ref::<gst_app::AppSrc>().map(|appsrc| draw_into(appsrc, test)).is_some()
            }
        },
    }
}

fn set_text(element: &gst::Element, property: &str, value: &str) -> bool {
    let there = element.has_property_with_type(property, gst::glib::Type::STRING);
    if there {
        element.set_property(property, value);
    }
    there
}

fn rtspsrc(element: &gst::Element, rtsp: &Rtsp, config: &CameraConfig) -> bool {
    if !element.has_property("protocols") || !set_text(element, "location", rtsp.location()) {
        return false;
    }
    if let Some(Login { username, password }) = &config.login {
        element.set_property("user-id", username);
        element.set_property("user-pw", password.expose());
    }
    let protocols = match config.transport {
        Transport::Tcp => "tcp",
        Transport::Udp => "udp",
        Transport::Auto => "tcp+udp-mcast+udp",
    };
    element.set_property_from_str("protocols", protocols);
    // Bounds what a stream that is decoded too slowly piles up. Packets in order are not held back.
    element.set_property("drop-on-latency", true);
    // Datagrams that do not get through must be given up well before the source counts as silent.
    element.set_property("timeout", u64::try_from(config.opening.as_micros() / 3).unwrap_or(u64::MAX));
    // The streams are offered once more where the source goes over from UDP to TCP by itself.
    let chosen = std::sync::OnceLock::new();
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
    true
}

fn videotestsrc(pipeline: &gst::Pipeline, element: &gst::Element, test: &TestSource, pattern: &str) -> bool {
    let Some(size) = pipeline.by_name("size").filter(|s| s.has_property("caps")) else { return false };
    if !element.has_property("pattern") {
        return false;
    }
    size.set_property("caps", caps(test).build());
    element.set_property_from_str("pattern", pattern);
    element.set_property("is-live", test.live);
    if let Some(count) = frame_count(test) {
        element.set_property("num-buffers", i32::try_from(count).unwrap_or(i32::MAX));
    }
    true
}

fn caps(test: &TestSource) -> gst::caps::Builder<gst::caps::NoFeature> {
    gst::Caps::builder("video/x-raw")
        .field("width", test.width.cast_signed())
        .field("height", test.height.cast_signed())
        .field("framerate", gst::Fraction::new(test.fps.cast_signed(), 1))
}

fn frame_count(test: &TestSource) -> Option<u64> {
    let frames = test.duration?.as_nanos() * u128::from(test.fps) / 1_000_000_000;
    u64::try_from(frames).ok()
}

/// Draws a frame whenever one is asked for.
fn draw_into(appsrc: &gst_app::AppSrc, test: &TestSource) {
    let TestContent::Shapes(script) = test.content.clone() else { return };
    let (width, height, fps, count) = (test.width, test.height, u64::from(test.fps), frame_count(test));
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
        // A refusal means that the pipeline is stopping.
        let _ = appsrc.push_buffer(buffer);
    };
    appsrc.set_callbacks(gst_app::AppSrcCallbacks::builder().need_data(need_data).build());
}
