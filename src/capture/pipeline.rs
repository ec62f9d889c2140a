//! Builds the pipeline of a source.
//!
//! The gst-launch text is parsed as it stands. Address, credentials, device and size are then set as
//! properties of its named elements, so that an address can never add elements.

use gstreamer as gst;
use gstreamer_app::{
    self as gst_app,
    gst_base::{BaseTransform, prelude::*},
};
use gstreamer_video::VideoOrientationMethod;

use super::{
    autoplug,
    camera_config::CameraConfig,
    colorimetry,
    diagnose::package_of_element,
    error::CaptureError,
    init::init,
    inspect::decoded_pad,
    pipeline_files::{self, PipelineError},
    pixels, rtspsrc,
    survey::Survey,
    test_source,
};
use crate::config::{Origin, Property, PropertyValue, Transport};

/// What a pipeline lacks whose source has no name.
const NO_SOURCE: &str = "no element is named source: add name=source to the one that opens the source";
/// What a pipeline lacks whose end camscribe does not find.
const NO_FRAMES: &str =
    "no appsink is named frames, where camscribe takes the frames: end it with ! appsink name=frames";

/// A pipeline and the two elements of it that camscribe works with.
pub(super) struct BuiltPipeline {
    pub pipeline: gst::Pipeline,
    /// The element that opens the source.
    pub source: gst::Element,
    /// The element that decoded frames arrive at, as [`pixels::caps`] says.
    pub frames: gst_app::AppSink,
}

/// Builds the pipeline of a camera whose source was surveyed. `location` is what the element `source` opens, if that is
/// not the source itself.
///
/// # Errors
/// If the pipeline file cannot be used, or cannot play this source.
pub(super) fn build(
    config: &CameraConfig,
    survey: &Survey,
    location: Option<&str>,
) -> Result<BuiltPipeline, CaptureError> {
    let BuiltPipeline { pipeline, source, frames } = load(config, location)?;
    autoplug::restrict(&pipeline, &survey.unwanted);
    if let Some(patch) = &survey.patch {
        patch.clone().apply(&source);
    }
    pass_upright_frames(&pipeline);
    frames.set_caps(Some(&pixels::caps()));
    if let Some(pad) = decoded_pad(&frames) {
        colorimetry::complete_caps_at(&pad);
    }
    frames.set_sync(false);
    frames.set_max_buffers(1);
    frames.set_drop(config.source.is_live());
    frames.set_enable_last_sample(false);
    Ok(BuiltPipeline { pipeline, source, frames })
}

/// Lets each `videoflip` that waits for a tag pass frames on as they are until there is one, which it then obeys.
/// That of GStreamer 1.22 copies them instead.
fn pass_upright_frames(pipeline: &gst::Pipeline) {
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        if element.factory().is_none_or(|factory| factory.name() != "videoflip") {
            continue;
        }
        let by_tag =
            element.property::<VideoOrientationMethod>("video-direction") == VideoOrientationMethod::Auto;
        if let Some(flip) = element.downcast_ref::<BaseTransform>().filter(|_| by_tag) {
            flip.set_passthrough(true);
        }
    }
}

/// Checks the pipeline of a camera if it is a file of the user's own. Opens nothing.
///
/// # Errors
/// If GStreamer cannot be started, or the file cannot be used.
pub fn check_pipeline(config: &CameraConfig) -> Result<(), CaptureError> {
    if pipeline_files::is_own(name(config), config.pipelines_dir.as_deref()) {
        init()?;
        load(config, None)?;
    }
    Ok(())
}

/// The name of a camera's pipeline.
fn name(config: &CameraConfig) -> &str {
    config.pipeline.as_deref().unwrap_or(config.source.default_pipeline())
}

/// Builds the pipeline of a camera from its text.
fn load(config: &CameraConfig, location: Option<&str>) -> Result<BuiltPipeline, PipelineError> {
    let (name, folder) = (name(config), config.pipelines_dir.as_deref());
    let text = pipeline_files::text(name, folder)?;
    let title = pipeline_files::title(name, folder);
    let pipeline = parse(&title, &text)?;
    let lacks = |lack| PipelineError::Lacks { pipeline: title.clone(), lack };
    let source = pipeline.by_name("source").ok_or_else(|| lacks(NO_SOURCE))?;
    let frames = pipeline.by_name("frames").and_then(|e| e.downcast::<gst_app::AppSink>().ok());
    let frames = frames.ok_or_else(|| lacks(NO_FRAMES))?;
    if !configure_source(&pipeline, &source, config) || !set_location(&source, location) {
        let element = source.factory().map_or_else(String::new, |f| f.name().to_string());
        let what = config.source.to_string();
        return Err(PipelineError::WrongSource { pipeline: title, element, what });
    }
    Ok(BuiltPipeline { pipeline, source, frames })
}

/// Parses the text of the pipeline that messages call `title`.
fn parse(title: &str, text: &str) -> Result<gst::Pipeline, PipelineError> {
    let syntax = |why: String| PipelineError::Syntax { pipeline: title.into(), why };
    let mut context = gst::ParseContext::new();
    let parsed = gst::parse::launch_full(text, Some(&mut context), gst::ParseFlags::FATAL_ERRORS);
    match (parsed, context.missing_elements().into_iter().next()) {
        (_, Some(element)) => {
            let package = package_of_element(&element);
            Err(PipelineError::NoElement { pipeline: title.into(), element, package })
        }
        (Err(error), None) => Err(syntax(error.message().to_owned())),
        (Ok(element), None) => element
            .downcast()
            .map_err(|_| syntax("it is a single element, not a chain from source to frames".into())),
    }
}

/// Sets what the source has to play. Returns false if `element` cannot play this source.
fn configure_source(pipeline: &gst::Pipeline, element: &gst::Element, config: &CameraConfig) -> bool {
    let properties = config.source.properties(&config.stream_options());
    if !properties.iter().all(|property| set_property(element, property)) {
        return false;
    }
    rtspsrc::configure(element, config.transport == Transport::Udp);
    match config.source.origin() {
        Origin::Synthetic(test) => test_source::configure(pipeline, element, test),
        _ => true,
    }
}

/// Replaces what the source opens. Returns false if `element` cannot open anything.
fn set_location(element: &gst::Element, location: Option<&str>) -> bool {
    location.is_none_or(|location| {
        let property = Property { name: "location", value: PropertyValue::Text(location.into()) };
        set_property(element, &property)
    })
}

/// Sets a property. Returns false if the element has no such property.
fn set_property(element: &gst::Element, Property { name, value }: &Property) -> bool {
    let is_text = element.has_property_with_type(name, gst::glib::Type::STRING);
    match value {
        PropertyValue::Text(text) if is_text => element.set_property(name, text),
        PropertyValue::Serialized(text) if element.has_property(name) => {
            element.set_property_from_str(name, text);
        }
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_frames_that_wait_for_a_tag_are_passed_on_as_they_are() {
        init().unwrap();
        let text = "fakesrc ! videoflip name=auto video-direction=auto ! videoflip name=fixed video-direction=90r \
                    ! fakesink";
        let pipeline = parse("a test", text).unwrap();
        pass_upright_frames(&pipeline);
        let flip = |name| pipeline.by_name(name).unwrap().downcast::<BaseTransform>().unwrap();
        assert!(flip("auto").is_passthrough());
        assert!(!flip("fixed").is_passthrough());
    }
}
